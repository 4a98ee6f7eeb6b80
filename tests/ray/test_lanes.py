"""Ray's lanes keep the promises of a backend, train with what a study asks for, and share training out."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
import pytest
import ray

from benchmarks.live.live_replay import PlayedLaw
from raysplit.design.resolved_spec import spec_of
from raysplit.design.tasks import Measured, Task
from raysplit.design.tree import Trial
from raysplit.lanes.lanes import Lanes
from raysplit.live.actor import start_law_actor
from raysplit.live.run_spec import RunSpec
from raysplit.space import Space, parse_space
from raysplit.sweep.backend import run_all
from raysplit.tuning.stages import tune
from raysplit.tuning.storage import StudyStore
from tests.ray.sweeps import losses, tiny_space
from tests.sweep.backends import BackendPromises, Tried

VOCAB = 300


@dataclass(frozen=True, kw_only=True)
class Started:
    """A lane of one worker, and the law that it records with."""

    space: Space
    lanes: Lanes
    law: PlayedLaw
    folder: Path


@pytest.fixture(scope="module")
def started(
    ray_address: str, corpus_folder: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("lanes")
    raw = tiny_space(
        home / "texts",
        model={"sizes": ["14k"]},
        sweep={"pretrain_tokens": [8192], "specialize_tokens": [4096]},
    )
    raw["tuning"] = {"n_trials": 4, "learning_rate": [3e-3, 3e-2], "replay_share": [0, 0.4]}
    space = parse_space(raw, origin="test")
    spec = spec_of(space, vocab_size=VOCAB)
    run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 2.0))
    actor = start_law_actor("lanes", run, folder / "journal")
    lanes = Lanes(space, run_folder=folder, corpus_folder=corpus_folder, law=actor)
    try:
        yield Started(space=space, lanes=lanes, law=PlayedLaw(actor, spec), folder=folder)
    finally:
        ray.kill(actor)
        lanes.close()


def test_a_study_s_trial_at_the_space_s_own_values_measures_what_a_sweep_does(
    started: Started, uninterrupted: Path
) -> None:
    space = started.space
    n_params = space.shape(14_000, VOCAB).n_params_non_embedding
    store = StudyStore(storage=optuna.storages.InMemoryStorage(), url="in memory")
    checkpoints = started.folder / "tuning"
    tuned = tune(
        space, store, checkpoints=checkpoints, vocab_size=VOCAB, train_all=partial(run_all, started.lanes)
    )  # fmt: skip
    trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=8192, milestones=(8192,))
    [after] = run_all(started.lanes, [Task(trial=trunk, milestone=8192)])
    own = space.training.learning_rate.peak(n_params, space.horizon_tokens)
    [tried] = [t.loss for t in tuned.tried if (t.pretrain_tokens, t.learning_rate) == (8192, own)]
    at_once = losses(uninterrupted)[n_params, 0, "", 0, 8192]
    assert tried == pytest.approx(sum(at_once.values()) / len(at_once), rel=1e-12)
    assert isinstance(after, Measured)
    assert after.losses == at_once, "a lane turns back to the space's own"
    assert {study.name for study in tuned.studies} == {f"rate-n{n_params}", "branch"}
    assert not checkpoints.exists()


class TestLanes(BackendPromises):
    @pytest.fixture
    def tried(self, started: Started) -> Tried:
        training = started.space.with_training(
            learning_rate={"reference": 1e30, "reference_params": 1, "exponent": 0}
        ).training
        [n_params] = started.law.spec.sizes
        trunk = Trial(n_params=n_params, seed=9, domain="", pretrain_tokens=8192, milestones=(8192,))
        return Tried(
            backend=started.lanes,
            service=started.law,
            journal=started.folder / "journal",
            diverging=Task(trial=trunk, milestone=8192, training=training, checkpoints=str(started.folder / "apart")),
        )


def test_two_workers_train_at_stage_3_what_one_does(
    ray_address: str, uninterrupted: Path, home: Path, tmp_path: Path
) -> None:
    """That they do at stage 1 too, test_environment.py shows by the sweep of a command."""
    space = parse_space(
        tiny_space(home / "texts", training={"zero_stage": 3}, compute={"lanes": 1, "workers_per_lane": 2}),
        origin="test",
    )
    n_params = space.shape(14_000, VOCAB).n_params_non_embedding
    trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=8192, milestones=(8192,))
    branch = Trial(n_params=n_params, seed=0, domain="code", pretrain_tokens=8192, milestones=(4096,))
    alone = losses(uninterrupted)
    lanes = Lanes(space, run_folder=tmp_path, corpus_folder=uninterrupted / "corpus", law=None)
    try:
        for trial, root in ((trunk, 0), (branch, 8192)):
            milestone = trial.milestones[0]
            [shared] = run_all(lanes, [Task(trial=trial, milestone=milestone)])
            assert isinstance(shared, Measured)
            assert shared.losses == pytest.approx(alone[n_params, 0, trial.domain, root, milestone], rel=1e-4)
    finally:
        lanes.close()
