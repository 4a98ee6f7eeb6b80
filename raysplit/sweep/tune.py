"""raysplit as Ray Tune components: what to try next (`LawSearcher`) and what to stop (`LawScheduler`).

Both only pass questions on to the law, whose journal is the sweep's whole memory: Tune's own snapshots are not needed
to take a sweep up again. They drive the sweep's own trials (`Trials`) as well as a user's trainable
(`raysplit.sweep.tune_plan.TunePlan`).
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raysplit.design.tasks import Failed, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import LaneError, RaysplitError, RunError
from raysplit.lanes.law_client import LawClient
from raysplit.quantities import counted
from raysplit.sweep.backend import Backend

METRIC = "loss"
MILESTONE = "milestone_tokens"


class Trials:
    """The trials of one experiment, as searcher and scheduler share them: here those of a sweep's own lanes.

    The backend records their outcomes. Anything else that ends a trial ends the sweep.
    """

    def __init__(self, law: LawClient, *, lanes: int, n_blocked: Callable[[], int] = lambda: 0) -> None:
        """Trials of a law.

        Args:
            law: the law that decides.
            lanes: how many trials run at once.
            n_blocked: tells how many of them wait for machines of their size, while other machines are free.
        """
        self._law, self.lanes, self._n_blocked = law, lanes, n_blocked
        self._running: dict[str, Trial] = {}

    @property
    def law(self) -> LawClient:
        return self._law

    @property
    def running(self) -> dict[str, Trial]:
        """Tune's trial id -> the trial that it was asked for."""
        return self._running

    def may_start(self) -> bool:
        """Whether one more can be of use: as many run at once as there are lanes, beside those that wait for room."""
        n = len(self.running)
        return n < self.lanes or n < self.lanes + min(self.lanes, self._n_blocked())

    def config_of(self, trial: Trial) -> dict[str, Any]:
        """The config that Tune gives the trainable."""
        return asdict(trial)

    def is_open(self, trial: Trial) -> bool:
        """Whether something is left to measure of a trial that Tune restores."""
        return True

    def measured(self, trial: Trial, result: Mapping[str, Any]) -> int | None:
        """The milestone that a result is about, which is recorded when this returns; None where it is about none."""
        milestone: int = result[MILESTONE]
        return milestone

    def ended(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Hear that a trial has ended by itself, with this as its last result.

        Raises:
            LaneError: machines were at fault.
            RunError: the task could not be carried out as it is set up.
        """
        if why := result.get("lost"):
            raise LaneError(why)
        if why := result.get("wrong"):
            raise RunError(why)

    def died(self, trial: Trial, why: str) -> None:
        """Hear that a trial has ended in an exception, and is not tried again.

        Raises:
            LaneError: always; it ends the sweep, and the trial stays open.
        """
        raise LaneError(f"{trial.name}: the process that waits for its losses has ended: {why}")

    def given_up(self, tune_trials: Iterable[Any]) -> Iterable[Any]:
        """Those of Tune's trials that can never start, each recorded as failed."""
        return ()


class LawSearcher(Searcher):
    """Hands out the trials of the current round, as many at once as there are lanes; Tune needs no limit of its own."""

    def __init__(self, trials: Trials) -> None:
        super().__init__()  # no metric: Tune would ask for it in every report, and a user's trunk reports losses
        self._trials = trials
        self.finished = ""
        """Why the sweep has ended; empty while it runs."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune calls this at the start. Constants of its ``param_space`` reach the trainable; nothing is sampled.

        By default Tune lets one trial wait at a time, so that one that waits for eight GPUs would keep seven idle.
        """
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(2 * self._trials.lanes))
        return False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial's config; None while every open trial waits for another; FINISHED at the end of the sweep."""
        running = self._trials.running
        if not self._trials.may_start():
            return None
        claim = self._trials.law.claim(running.values())
        if claim.finished:
            self.finished = claim.finished
            finished: str = Searcher.FINISHED
            return finished
        if claim.trial is None:
            return None
        running[trial_id] = claim.trial
        return self._trials.config_of(claim.trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Forget that the trial runs; what it measured is in the journal already, however it ended."""
        self._trials.running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Write down what is running, for people to read; only the journal is needed to go on."""
        running = {trial_id: trial.name for trial_id, trial in self._trials.running.items()}
        Path(checkpoint_path).write_text(json.dumps({"running": running}))

    def restore(self, checkpoint_path: str) -> None:
        """Go on with what the journal knows by now; Tune adds again those running trials that it takes up."""
        self._trials.running.clear()


class LawScheduler(TrialScheduler):
    """Stops a trial after a milestone when the law says that its rest cannot change the decision for its price.

    A `RaysplitError` over a trial ends the experiment, and Tune's ``fit`` raises it.
    """

    def __init__(self, trials: Trials) -> None:
        super().__init__()
        self._trials = trials
        self._needless: list[Any] = []
        """Restored trials that have ended by the journal."""
        self._stopped: set[str] = set()
        """Trials that were told to stop. Tune ends one only later, when the next round may want more of its chain."""
        self._error: RaysplitError | None = None
        """Raised in `choose_trial_to_run`, where Tune lets it through."""
        self.n_stopped = 0

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take in a new trial, or one that Tune restores."""
        _end_by_law(tune_controller.search_alg)
        if trial.trial_id in self._trials.running or trial.is_finished():
            return
        asked = Trial.of(trial.config)
        if self._trials.is_open(asked):
            self._trials.running[trial.trial_id] = asked
        else:
            self._needless.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        asked = Trial.of(trial.config)
        try:
            milestone = self._trials.measured(asked, result)
        except RaysplitError as error:
            self._error = error
            return TrialScheduler.STOP
        if milestone is None or self._trials.law.judge(asked, milestone).go_on:
            return TrialScheduler.CONTINUE
        self.n_stopped += 1
        self._stopped.add(trial.trial_id)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Hear a trial's last result: it comes here alone if the trial is done or somebody else has stopped it."""
        if trial.trial_id in self._stopped:
            return self._stopped.remove(trial.trial_id)
        if self._error is None:
            self._keep_error(self._trials.ended, Trial.of(trial.config), result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Hear of an exception of the trainable, or that its worker died; the status says whether Tune tries again."""
        if trial.status != "ERROR":
            self._keep_error(self._trials.died, Trial.of(trial.config), _last_words(trial))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """None: Tune starts its trials in the order in which they were handed out, as far as there is room for them."""
        if self._error is not None:
            raise self._error
        while self._needless:
            tune_controller.stop_trial(self._needless.pop())
        for trial in self._trials.given_up(tune_controller.get_live_trials()):
            tune_controller.stop_trial(trial)
        return None

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...

    def debug_string(self) -> str:
        return f"raysplit: {counted(self.n_stopped, 'trial')} stopped"

    def _keep_error(self, hear: Any, *about: Any) -> None:
        try:
            hear(*about)
        except RaysplitError as error:
            self._error = error


def _end_by_law(search_alg: Any) -> None:
    """Keep Tune from ending the search after a single trial.

    Tune's ``num_samples`` is one by default. It is one again after a kill has torn the snapshot that Tune restores,
    since Tune copies snapshots in place.
    """
    if search_alg.total_samples == 1:
        search_alg.set_state({**search_alg.get_state(), "total_samples": sys.maxsize})


def _last_words(trial: Any) -> str:
    """The last line of the traceback that Tune has written down."""
    lines = Path(trial.error_file).read_text().split("\n") if trial.error_file else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "failed without a word")


class TrialRunner(tune.Trainable):
    """A thin trainable: each step has a backend train the trial to its next milestone."""

    def setup(self, config: dict[str, Any], backend: Backend | None = None) -> None:
        assert backend is not None
        self._backend = backend
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = Trial.of(new_config)
        self._n_done = 0
        return True

    def step(self) -> dict[str, Any]:
        milestone = self._trial.milestones[self._n_done]
        self._n_done += 1
        try:
            outcome = self._backend.submit(Task(trial=self._trial, milestone=milestone)).result()
        except RaysplitError as error:
            how = "lost" if isinstance(error, LaneError) else "wrong"
            return {MILESTONE: milestone, METRIC: float("nan"), how: str(error), "done": True}
        return result_of(self._trial, milestone, outcome)

    # Its state is checkpoints and journal, which need no help from Tune.
    def save_checkpoint(self, checkpoint_dir: str) -> None: ...
    def load_checkpoint(self, checkpoint: Any) -> None: ...


def result_of(trial: Trial, milestone: int, outcome: Outcome) -> dict[str, Any]:
    """The result that Tune, and through it TensorBoard, gets of a task's outcome."""
    pretrain, specialize = trial.point(milestone)
    out = {
        "n_params": trial.n_params,
        "pretrain_tokens": pretrain,
        "specialize_tokens": specialize,
        "domain": trial.domain,
        "seed": trial.seed,
        MILESTONE: milestone,
        "done": isinstance(outcome, Failed) or milestone == trial.milestones[-1],
    }
    if isinstance(outcome, Failed):
        return {**out, "failed": outcome.why, METRIC: float("nan")}
    losses = outcome.losses
    own = losses[trial.domain] if trial.domain else sum(losses.values()) / len(losses)
    return {
        **out,
        METRIC: own,
        "trained_tokens": outcome.tokens,
        **{f"loss_on_{name}": loss for name, loss in losses.items()},
    }
