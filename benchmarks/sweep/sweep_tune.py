"""Ray Tune's loop in simulated time: its own searchers and schedulers, asked as its controller asks them, without Ray.

Follows `TuneController` of Ray 2.60 with `reuse_actors=True`: trials are suggested while fewer than a limit are
pending, the scheduler chooses what runs on a free lane, a report goes to the scheduler and, unless it stops the trial,
to the searcher. `tests/ray/test_simulated_tune.py` compares it with a real run.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

METRIC = "loss"
RESOURCE = "resource"
"""What schedulers take for time: rungs grow by their reduction factor."""


@dataclass(eq=False, slots=True)
class SimulatedTrial:
    """The part of Tune's trial that schedulers look at."""

    trial_id: str
    config: dict[str, Any]
    status: str = TuneTrial.PENDING
    is_saving: bool = False
    n_reports: int = 0
    last_result: dict[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """What trials run on."""

    n_lanes: int

    def is_over(self, now: float) -> bool:
        """Whether to begin nothing more."""

    def n_rungs(self, config: dict[str, Any]) -> int:
        """How often a trial reports."""

    def train(self, now: float, config: dict[str, Any], rung: int) -> tuple[float, float]:
        """When a trial that goes on now reaches a rung, and its loss there."""


class SearchAlgorithm:
    """The searcher as schedulers find it on the controller."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher


class Controller:
    """Runs trials to the end; everything that happened is in the trainer."""

    def __init__(
        self,
        *,
        searcher: Searcher,
        scheduler: TrialScheduler,
        trainer: Trainer,
        resource: Callable[[int], int],
        max_pending: int,
        num_samples: float = math.inf,
    ) -> None:
        self.search_alg = SearchAlgorithm(searcher)
        self._searcher, self._scheduler, self._trainer = searcher, scheduler, trainer
        self._resource, self._max_pending = resource, max_pending
        self._num_samples = num_samples
        self._trials: list[SimulatedTrial] = []
        self._running: list[tuple[float, int, SimulatedTrial, float | None]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        self.decisions: list[tuple[str, int, str]] = []
        """(trial, its reports so far, what the scheduler said), in order."""

    def get_trials(self) -> Sequence[SimulatedTrial]:
        """Every trial so far, as schedulers ask for them."""
        return self._trials

    def run(self) -> None:
        """Until the trainer has had enough, or nothing is left to run."""
        finished = False
        while not self._trainer.is_over(self._now):
            while not finished and self._count(TuneTrial.PENDING) < self._max_pending:
                if len(self._trials) >= self._num_samples:
                    break
                name = f"t{len(self._trials):05d}"
                config = self._searcher.suggest(name)
                if not isinstance(config, dict):
                    finished = config == Searcher.FINISHED
                    break
                self._trials.append(SimulatedTrial(name, config))
                self._scheduler.on_trial_add(self, self._trials[-1])
            chosen = None
            if len(self._running) < self._trainer.n_lanes:
                chosen = self._scheduler.choose_trial_to_run(self)
                if chosen is None:
                    chosen = next((t for t in self._trials if t.status == TuneTrial.PENDING), None)
            if chosen is not None:
                chosen.status = TuneTrial.RUNNING
                self._go_on(chosen)
            elif self._running:
                self._now, _, trial, loss = heapq.heappop(self._running)
                self._report(trial, loss)
            else:
                break

    def stop_trial(self, trial: SimulatedTrial) -> None:
        """As `TuneController.stop_trial`; schedulers call it for trials that are paused."""
        if trial.status in (TuneTrial.PENDING, TuneTrial.PAUSED):
            self._scheduler.on_trial_remove(self, trial)
            self._searcher.on_trial_complete(trial.trial_id)
        elif trial.status == TuneTrial.RUNNING:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
            self._searcher.on_trial_complete(trial.trial_id, result=trial.last_result)
        trial.status = TuneTrial.TERMINATED

    def _count(self, status: str) -> int:
        return sum(t.status == status for t in self._trials)

    def _go_on(self, trial: SimulatedTrial) -> None:
        """Start the next stretch, or, behind the last rung, the end that a function trainable reports."""
        at, loss = self._now, None
        if trial.n_reports < self._trainer.n_rungs(trial.config):
            at, loss = self._trainer.train(self._now, trial.config, trial.n_reports)
        heapq.heappush(self._running, (at, next(self._numbers), trial, loss))

    def _report(self, trial: SimulatedTrial, loss: float | None) -> None:
        if loss is None:
            trial.last_result["done"] = True
            self.stop_trial(trial)
            return
        result = {
            METRIC: loss,
            RESOURCE: self._resource(trial.n_reports),
            "training_iteration": trial.n_reports + 1,
            "trial_id": trial.trial_id,
            "config": trial.config,
            "done": False,
        }
        trial.n_reports += 1
        decision = self._scheduler.on_trial_result(self, trial, result)
        self.decisions.append((trial.trial_id, trial.n_reports, decision))
        if decision == TrialScheduler.STOP:
            result["done"] = True
        else:
            self._searcher.on_trial_result(trial.trial_id, result)
        trial.last_result = result
        if decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif decision == TrialScheduler.PAUSE:
            trial.status = TuneTrial.PAUSED
        elif decision == TrialScheduler.CONTINUE:
            self._go_on(trial)
