"""raysplit for a Ray Tune trainable of one's own: a searcher, a scheduler and a stopper around one journal.

    plan = TunePlan(setup_of_grid(...), "runs/mine")
    tune.Tuner(
        train,
        tune_config=tune.TuneConfig(search_alg=plan.searcher(), scheduler=plan.scheduler(), num_samples=-1),
        run_config=tune.RunConfig(stop=plan.stopper()),
    ).fit()
    print(plan.finished, plan.advise().split)

What ``train`` is told and has to report is in `raysplit.sweep.reports`. The journal is the whole memory: searcher and
scheduler come back from `Tuner.restore`, or made anew on the same folder in another experiment, as if nothing had
happened.
"""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raysplit.design.evidence import remaining
from raysplit.design.setup import Setup
from raysplit.design.tree import Trial
from raysplit.errors import RunError
from raysplit.journal import Journal
from raysplit.live.service import LawService
from raysplit.split import Advice
from raysplit.sweep.folder import difference, write_text
from raysplit.sweep.reports import config_of, points_reported, read_report, trial_of
from raysplit.sweep.room import Room


@dataclass(slots=True)
class _Open:
    """What all components of a search in this process share."""

    service: LawService
    running: dict[str, Trial] = field(default_factory=dict)
    """Tune's trial id -> what it was asked for."""


_OPEN: dict[Path, _Open] = {}
"""By folder. Tune copies and pickles its components, but a journal is written by one."""


class TunePlan:
    """A search for the best split of a budget, of which Tune holds the components and a folder the memory."""

    def __init__(
        self,
        setup: Setup,
        folder: Path | str,
        *,
        bytes_per_token: Mapping[str, float] | None = None,
        patience_seconds: float = 600.0,
    ) -> None:
        """Begin a search in a folder, or take up the one that is there.

        Args:
            setup: from `raysplit.sweep.grid_setup.setup_of_grid`, or `raysplit.design.setup.setup_of` for a space.
            folder: for the journal; on storage that a driver reaches after a restart too.
            bytes_per_token: of each domain's held-out text, to have bits per byte beside nats per token.
            patience_seconds: a trial that asks for more than any node has is given up after so long, in which an
                autoscaler may add one.

        Raises:
            RunError: the folder cannot be written, or holds another search.
        """
        self.setup, self.folder, self.patience_seconds = setup, Path(folder).absolute(), patience_seconds
        self.bytes_per_token = {name: (bytes_per_token or {}).get(name, math.nan) for name in setup.domains}
        _check_folder(self.folder, setup)
        self._open()

    def searcher(self) -> "PlanSearcher":
        """Hands out the trials that are worth most for their price."""
        return PlanSearcher(self)

    def scheduler(self) -> "PlanScheduler":
        """Stores what trials report, and stops those whose rest cannot change the decision for its price."""
        return PlanScheduler(self)

    def stopper(self) -> "PlanStopper":
        """Ends the experiment when the search has ended; `finished` says why."""
        return PlanStopper(self)

    @property
    def finished(self) -> str:
        """Why the search has ended: certain enough, budget spent, nothing left worth its cost; empty while it runs."""
        return self.service.status().finished

    def advise(self) -> Advice:
        """The best split of the target, as far as is known now.

        Raises:
            LawError: there are too few measurements for a law.
        """
        return self.service.advise().advice

    @property
    def service(self) -> LawService:
        """The law: observations, predictions, status."""
        return self._open().service

    @property
    def running(self) -> dict[str, Trial]:
        return self._open().running

    def left_of(self, trial: Trial) -> tuple[int, ...]:
        """Milestones of a trial that are still wanted."""
        return remaining(trial, self.service.evidence())

    def close(self) -> None:
        """Close the journal; the search can be taken up again."""
        if (here := _OPEN.pop(self.folder, None)) is not None:
            here.service.close()
            here.service.journal.close()  # type: ignore[union-attr]

    def __enter__(self) -> "TunePlan":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> _Open:
        if self.folder not in _OPEN:
            journal = Journal(self.folder / "journal")
            _OPEN[self.folder] = _Open(LawService(self.setup, journal, bytes_per_token=self.bytes_per_token))
        return _OPEN[self.folder]


class PlanSearcher(Searcher):
    """Made by `TunePlan.searcher`. At most `Setup.lanes` trials run at once, without Tune's own limit."""

    def __init__(self, plan: TunePlan) -> None:
        super().__init__()
        self._plan = plan

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Tune calls this at the start. Constants of its ``param_space`` reach the trainable; nothing is sampled.

        Left alone, Tune would let one trial wait at a time, and one that waits for eight GPUs would keep seven idle.
        """
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(self._plan.setup.lanes))
        return False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial's config; None while every open trial waits for another; FINISHED at the end."""
        running = self._plan.running
        if len(running) >= self._plan.setup.lanes:
            return None
        claim = self._plan.service.claim(running.values())
        if claim.finished:
            finished: str = Searcher.FINISHED
            return finished
        if claim.trial is None:
            return None
        running[trial_id] = claim.trial
        return config_of(claim.trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """What it measured is in the journal already."""
        self._plan.running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing but the journal is needed to go on; what is running is written down to be looked at."""
        running = {trial_id: trial.name for trial_id, trial in self._plan.running.items()}
        Path(checkpoint_path).write_text(json.dumps({"folder": str(self._plan.folder), "running": running}))

    def restore(self, checkpoint_path: str) -> None:
        """Go on with what the journal knows by now; Tune adds again what it takes up of what was running."""
        self._plan.running.clear()


class PlanScheduler(TrialScheduler):
    """Made by `TunePlan.scheduler`.

    A mistake of the trainable's (a report without its loss, an exception before anything was ever measured) ends the
    experiment as a `RunError` and leaves no trace, so that the mended one goes on in the same folder. Later on, a trial
    that fails is stored as failed and not tried again.
    """

    def __init__(self, plan: TunePlan) -> None:
        super().__init__()
        self._plan = plan
        self._room = Room(patience_seconds=plan.patience_seconds)
        self._needless: list[Any] = []
        """Restored trials that the journal knows to have ended."""
        self._stopped: set[str] = set()
        """Trials that were told to stop. Tune ends one only later, when the next round may want more of its chain."""
        self._mistake: RunError | None = None
        """Raised where Tune lets it through to who called `fit`."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one that Tune restores."""
        _end_by_plan(tune_controller.search_alg)
        asked = trial_of(trial.config)
        if trial.is_finished():
            return
        if self._plan.left_of(asked):
            self._plan.running[trial.trial_id] = asked
        else:
            self._needless.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Store the measurement, if it is one, then judge."""
        asked = trial_of(trial.config)
        try:
            milestone = self._store(asked, result)
        except RunError as error:
            self._mistake = error
            return TrialScheduler.STOP
        if milestone is None or self._plan.service.judge(asked, milestone).go_on:
            return TrialScheduler.CONTINUE
        self._stopped.add(trial.trial_id)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A last result comes here only, where it is done or somebody else has stopped the trial."""
        if trial.trial_id in self._stopped:
            return self._stopped.remove(trial.trial_id)
        asked = trial_of(trial.config)
        try:
            self._store(asked, result)
        except RunError as error:
            self._mistake = error
        if self._mistake is None and (left := self._plan.left_of(asked)):
            pretrain, specialize = asked.point(left[0])
            self._failed(
                asked,
                f"ended without a loss at pretrain_tokens = {pretrain}, specialize_tokens = {specialize}; "
                f"its last report was at {points_reported(result)}",
            )

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """An exception of the trainable's, or its worker died; Tune has set the status where it tries again."""
        if trial.status != "ERROR":
            self._failed(trial_of(trial.config), _last_words(trial))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """None: Tune starts its trials in the order in which they were handed out, as far as there is room for them."""
        if self._mistake is not None:
            raise self._mistake
        while self._needless:
            tune_controller.stop_trial(self._needless.pop())
        for trial, why in self._room.given_up(tune_controller.get_live_trials()):
            self._plan.service.record_failure(trial_of(trial.config), trial.config["milestones"][0], why)
            tune_controller.stop_trial(trial)
        return None

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...

    def debug_string(self) -> str:
        status = self._plan.service.status()
        return (
            f"raysplit: round {status.round}, {status.n_observations} observations, {status.n_stopped} trials stopped, "
            f"{status.n_failed} failed"
        )

    def _store(self, asked: Trial, result: Mapping[str, Any]) -> int | None:
        report = read_report(asked, result, self._plan.setup.domains)
        if report is None:
            return None
        before = max((m for m in asked.milestones if m < report.milestone), default=0)
        self._plan.service.record(
            asked,
            report.milestone,
            losses=report.losses,
            tokens=report.milestone - before,
            wall_seconds=float(result.get("time_this_iter_s", math.nan)),
        )
        return report.milestone

    def _failed(self, asked: Trial, why: str) -> None:
        service = self._plan.service
        if service.evidence().losses:
            service.record_failure(asked, (*self._plan.left_of(asked), *asked.milestones)[0], why)
        else:
            self._mistake = RunError(f"{asked.name}: {why}; nothing was measured yet, and nothing is stored of this")


class PlanStopper(tune.Stopper):
    """Made by `TunePlan.stopper`."""

    def __init__(self, plan: TunePlan) -> None:
        self._plan = plan

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._plan.finished)


def _end_by_plan(search_alg: Any) -> None:
    """Keep Tune from ending the search after a single trial.

    One is Tune's ``num_samples`` by default, and what it begins again with where a kill has torn the snapshot that it
    restores: it copies snapshots in place.
    """
    if search_alg.total_samples == 1:
        search_alg.set_state({**search_alg.get_state(), "total_samples": sys.maxsize})


def _last_words(trial: Any) -> str:
    """The last line of the traceback that Tune has written down."""
    lines = Path(trial.error_file).read_text().split("\n") if trial.error_file else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "failed without a word")


def _check_folder(folder: Path, setup: Setup) -> None:
    """Write down what is searched for, and refuse a folder where it is something else."""
    question = folder / "plan.json"
    here = _question(setup)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not question.exists():
            return write_text(question, json.dumps(here, indent=1))
        there = json.loads(question.read_text())
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{question}: is no plan: {error}") from error
    if changed := difference(there, here):
        raise RunError(f"{folder}: holds another search ({changed} here); give another folder, or delete this one")


def _question(setup: Setup) -> dict[str, Any]:
    """The set-up as JSON reads it back, without what may change from start to start."""
    may_change = ("lanes", "fills_idle_lanes", "tree")
    kept = {name: getattr(setup, name) for name in setup.__dataclass_fields__ if name not in may_change}
    tree = {
        "pretrain_grid": setup.tree.pretrain_grid,
        "shares_trunks": setup.tree.shares_trunks,
        "cooldown_start": [setup.tree.cooldown_start(n) for n in (*setup.tree.pretrain_grid, *setup.specialize_grid)],
    }
    plain = {**kept, "problem": asdict(setup.problem), "repeats": [asdict(t) for t in setup.repeats], "tree": tree}
    read_back: dict[str, Any] = json.loads(json.dumps(plain))
    return read_back
