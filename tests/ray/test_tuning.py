"""Hyperparameters tuned on real lanes: the trials measure what the sweep does, and leave the lanes as they were."""

from functools import partial
from pathlib import Path

import optuna
import pytest

from raysplit.design.tasks import Measured, Task
from raysplit.design.tree import Trial
from raysplit.space import parse_space
from raysplit.sweep.backend import run_all
from raysplit.sweep.folder import open_run
from raysplit.sweep.lanes import Lanes
from raysplit.tuning.stages import tune
from raysplit.tuning.storage import StudyStore
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
    store = StudyStore(storage=optuna.storages.InMemoryStorage(), url="in memory")
    lanes = Lanes(space, run_folder=folder.path, corpus_folder=uninterrupted / "corpus", law=None)
    try:
        lanes.wait_until_ready()
        tuned = tune(space, store, checkpoints=folder.tuning, vocab_size=300, train_all=partial(run_all, lanes))
        trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=8192, milestones=(8192,))
        [after] = run_all(lanes, [Task(trial=trunk, milestone=8192)])
    finally:
        lanes.close()
    swept = losses(uninterrupted)
    own = space.training.learning_rate.peak(n_params, space.horizon_tokens)
    for tokens in space.pretrain_grid:
        [tried] = [t.loss for t in tuned.tried if (t.pretrain_tokens, t.learning_rate) == (tokens, own)]
        at_once = swept[n_params, 0, "", 0, tokens]
        assert tried == pytest.approx(sum(at_once.values()) / len(at_once), rel=1e-12)
    assert isinstance(after, Measured)
    assert after.losses == swept[n_params, 0, "", 0, 8192], "a lane turns back to the space's own"
    assert {study.name for study in tuned.studies} == {f"rate-n{n_params}", "branch"}
    assert not folder.tuning.exists()
