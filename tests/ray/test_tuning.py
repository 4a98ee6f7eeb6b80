"""Hyperparameters tuned on real lanes: the trials measure what the sweep does, and leave the lanes as they were."""

from dataclasses import asdict
from pathlib import Path

import optuna
import pytest

from raysplit.design.tree import Trial
from raysplit.space import parse_space
from raysplit.sweep.folder import open_run
from raysplit.sweep.pool import Pool
from raysplit.sweep.tuning import tune
from tests.ray.sweeps import losses, tiny_space


def test_a_trial_at_the_space_s_own_values_measures_what_the_sweep_does(
    ray_address: str, uninterrupted: Path, home: Path, tmp_path: Path
) -> None:
    raw = tiny_space(home / "texts")
    raw["tuning"] = {"sizes": ["14k"], "n_trials": 4, "learning_rate": [3e-3, 3e-2], "replay_share": [0, 0.4]}
    raw["tuning"]["pretrain_tokens"] = raw["sweep"]["pretrain_tokens"]
    space = parse_space(raw, origin="test")
    n_params = space.shape(14_000, 300).n_params_non_embedding
    folder = open_run(tmp_path / "run", space)
    storage = optuna.storages.InMemoryStorage()
    pool = Pool(space, run_folder=folder.path, corpus_folder=uninterrupted / "corpus", law=None)
    try:
        pool.wait_until_ready()
        tuned = tune(space, folder, storage=storage, vocab_size=300, train_all=pool.run_all, check=pool.check)
        trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=8192, milestones=(8192,))
        [after] = pool.run_all([{"kind": "measure", "trial": asdict(trunk), "milestone": 8192}])
    finally:
        pool.close()
    swept = losses(uninterrupted)
    own = space.training.learning_rate.peak(n_params, space.horizon_tokens)
    for tokens in space.pretrain_grid:
        [tried] = [t.loss for t in tuned.tried if (t.pretrain_tokens, t.learning_rate) == (tokens, own)]
        at_once = swept[n_params, 0, "", 0, tokens]
        assert tried == pytest.approx(sum(at_once.values()) / len(at_once), rel=1e-12)
    assert after["losses"] == swept[n_params, 0, "", 0, 8192], "a lane turns back to the space's own"
    assert {study.name for study in tuned.studies} == {f"rate-n{n_params}", "branch"}
    assert not folder.tuning.exists()
