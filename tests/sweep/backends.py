"""What every backend promises (`raysplit.sweep.backend`), as tests to inherit, and a backend of threads for tests."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import LaneError
from raysplit.journal import read_journal
from raysplit.sweep.backend import Backend, Recorder, run_all
from raysplit.sweep.replay import PlayedTo, drive
from tests.design.doubles import every_point


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A backend that is tried, and all that the tests need to know of it."""

    backend: Backend
    service: PlayedTo
    """The law that it records with; its grid is one trunk with one branch of each domain."""
    journal: Path
    diverging: Task
    """Of another seed than the grid's."""

    @property
    def trunk(self) -> Trial:
        spec = self.service.spec
        [n_params], grid = spec.sizes, spec.pretrain_grid
        return Trial(n_params=n_params, seed=3, domain="", pretrain_tokens=grid[-1], milestones=grid)

    @property
    def branch(self) -> Trial:
        spec = self.service.spec
        return replace(
            self.trunk, domain=spec.domains[0], pretrain_tokens=spec.pretrain_grid[0],
            milestones=spec.specialize_grid,
        )  # fmt: skip

    def recorded(self, trial: Trial) -> list[dict[str, Any]]:
        """What the journal has of a trial."""
        named = [r.data for r in read_journal(self.journal) if r.kind in ("measurement", "failure")]
        return [dict(data) for data in named if Trial(**data["trial"]).name == trial.name]


class BackendPromises:
    """Inherit, and give a fixture ``tried``; its backend may be used by all tests of the class."""

    def test_an_outcome_has_its_losses_and_is_recorded_by_the_time_that_it_is_there(self, tried: Tried) -> None:
        trunk, branch = tried.trunk, tried.branch
        for trial, wanted in ((trunk, set(tried.service.spec.domains)), (branch, {branch.domain})):
            [outcome] = run_all(tried.backend, [Task(trial=trial, milestone=trial.milestones[0])])
            assert isinstance(outcome, Measured)
            assert set(outcome.losses) >= wanted
            assert all(0 < loss < 20 for loss in outcome.losses.values())
            [record] = tried.recorded(trial)
            assert record["milestone"] == trial.milestones[0]
            assert {name: record[name] for name in ("losses", "tokens", "wall_seconds")} == asdict(outcome)

    def test_the_same_task_gives_the_same_losses_and_is_recorded_once(self, tried: Tried) -> None:
        trunk = replace(tried.trunk, seed=4)
        task = Task(trial=trunk, milestone=trunk.milestones[0])
        at_once = run_all(tried.backend, [task, task])
        later = run_all(tried.backend, [task])
        losses = [outcome.losses for outcome in (*at_once, *later) if isinstance(outcome, Measured)]
        assert losses == [losses[0]] * 3
        assert len(tried.recorded(trunk)) == 1

    def test_outcomes_of_tasks_handed_in_together_are_each_of_their_own(self, tried: Tried) -> None:
        trunks = [replace(tried.trunk, seed=seed) for seed in (5, 6, 7)]
        outcomes = run_all(tried.backend, [Task(trial=trunk, milestone=trunk.milestones[0]) for trunk in trunks])
        losses = [outcome.losses for outcome in outcomes if isinstance(outcome, Measured)]
        assert losses == [tried.recorded(trunk)[0]["losses"] for trunk in trunks]
        assert len({min(each.values()) for each in losses}) == 3

    def test_training_that_goes_wrong_is_an_outcome_and_recorded_too(self, tried: Tried) -> None:
        [outcome] = run_all(tried.backend, [tried.diverging])
        assert isinstance(outcome, Failed)
        assert outcome.why
        assert [record["why"] for record in tried.recorded(tried.diverging.trial)] == [outcome.why]

    def test_a_sweep_over_it_measures_every_point_once(self, tried: Tried) -> None:
        assert drive(tried.service, tried.backend).finished == "every point of the grid is measured"
        own = [r.data for r in read_journal(tried.journal) if r.kind == "measurement" and not r.data["trial"]["seed"]]
        trials = [(Trial(**{**data["trial"], "milestones": ()}), data["milestone"]) for data in own]
        measured = [(trial.n_params, trial.domain, *trial.point(milestone)) for trial, milestone in trials]
        assert len(measured) == len(set(measured))
        assert set(measured) == every_point(tried.service.spec)

    def test_once_closed_it_says_so_and_blames_no_trial(self, tried: Tried) -> None:
        """The last test of the class."""
        tried.backend.close()
        trunk = replace(tried.trunk, seed=8)
        with pytest.raises(LaneError):
            tried.backend.submit(Task(trial=trunk, milestone=trunk.milestones[0])).result(timeout=60)
        assert not tried.recorded(trunk)


Losses = Callable[[Trial, int], Mapping[str, float] | None]


class FakeLanes:
    """Lanes without training: threads that look losses up and take their time, so that outcomes come in any order."""

    def __init__(self, losses: Losses, law: Recorder, *, n_lanes: int = 2) -> None:
        self._losses, self._law = losses, law
        self._threads = ThreadPoolExecutor(n_lanes)
        self._under_way: list[tuple[Task, Future[Outcome]]] = []
        self._lock = Lock()
        self.started: list[Task] = []

    def submit(self, task: Task) -> Future[Outcome]:
        with self._lock:
            self._under_way = [(each, future) for each, future in self._under_way if not future.done()]
            for each, future in self._under_way:
                if each == task:
                    return future
            try:
                future = self._threads.submit(self._carry_out, task)
            except RuntimeError:
                future = Future()
                future.set_exception(LaneError("the lanes are closed"))
            self._under_way.append((task, future))
        return future

    def _carry_out(self, task: Task) -> Outcome:
        self.started.append(task)
        time.sleep(0.001 * (hash(task.trial.name) % 5))
        known = self._losses(task.trial, task.milestone)
        outcome: Outcome = Failed(why="diverged")
        if known is not None:
            outcome = Measured(losses=dict(known), tokens=task.milestone, wall_seconds=0.0)
        self._law.record(task.trial, task.milestone, outcome)
        return outcome

    def n_blocked(self) -> int:
        return 0

    def close(self) -> None:
        self._threads.shutdown()
