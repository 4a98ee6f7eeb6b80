"""raysplit for a Ray Tune trainable of one's own: a searcher, a scheduler and a stopper around one journal.

    plan = TunePlan(spec_of_grid(...), "runs/mine")
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

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tasks import Failed, Measured
from raysplit.design.tree import Trial
from raysplit.design.tree_state import remaining
from raysplit.errors import RunError
from raysplit.journal import Journal
from raysplit.live.run_spec import RunSpec, recorded_spec
from raysplit.live.service import LawService
from raysplit.run_folder.folder import difference
from raysplit.split import Advice
from raysplit.sweep.capacity import Capacity
from raysplit.sweep.reports import config_of, points_reported, read_report
from raysplit.sweep.run_spec import recorded
from raysplit.sweep.tune import LawScheduler, LawSearcher, Trials

_OPEN: dict[Path, tuple[LawService, dict[str, Trial]]] = {}
"""Folder -> the law, and what runs by Tune's trial id. Tune copies and pickles its components, and a journal has one
writer."""


class TunePlan(Trials):
    """A search for the best split of a budget, of which Tune holds the components and a folder the memory.

    A mistake of the trainable's (a report without its loss, an exception before anything was ever measured) ends the
    experiment as a `RunError` and leaves no trace, so that the mended one goes on in the same folder. Later on, a trial
    that fails is recorded as failed and not tried again.
    """

    def __init__(
        self,
        spec: ResolvedSpec,
        folder: Path | str,
        *,
        bytes_per_token: Mapping[str, float] | None = None,
        patience_seconds: float = 600.0,
    ) -> None:
        """Begin a search in a folder, or take up the one that is there.

        Args:
            spec: from `raysplit.sweep.grid_spec.spec_of_grid`, or `raysplit.design.resolved_spec.spec_of` for a space.
            folder: for the journal; on storage that a driver reaches after a restart too.
            bytes_per_token: of each domain's held-out text, to have bits per byte beside nats per token.
            patience_seconds: a trial that asks for more than any node has is given up after so long, in which an
                autoscaler may add one.

        Raises:
            RunError: the folder cannot be written, or holds another search.
        """
        self.spec, self.lanes, self.folder = spec, spec.lanes, Path(folder).absolute()
        self.patience_seconds = patience_seconds
        per_token = {name: (bytes_per_token or {}).get(name, math.nan) for name in spec.domains}
        self.run = RunSpec(spec=spec, bytes_per_token=per_token)
        self._capacity = Capacity(patience_seconds=patience_seconds)
        _check_journal(self.journal, self.run)
        self._open()

    def searcher(self) -> LawSearcher:
        """Hands out the trials that are worth most for their price."""
        return LawSearcher(self)

    def scheduler(self) -> LawScheduler:
        """Records what trials report, and stops those whose rest cannot change the decision for its price."""
        return LawScheduler(self)

    def stopper(self) -> "PlanStopper":
        """Ends the experiment when the search has ended; `finished` says why."""
        return PlanStopper(self)

    @property
    def finished(self) -> str:
        """Why the search has ended: certain enough, budget spent, nothing left worth its cost; empty while it runs."""
        return self.law.status().finished

    def advise(self) -> Advice:
        """The best split of the target, as far as is known now.

        Raises:
            LawError: there are too few measurements for a law.
        """
        return self.law.advise().advice

    @property
    def law(self) -> LawService:
        """Answers any question: observations, predictions, status."""
        return self._open()[0]

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def close(self) -> None:
        """Close the journal; the search can be taken up again."""
        if (here := _OPEN.pop(self.folder, None)) is not None:
            here[0].close()
            here[0].journal.close()  # type: ignore[union-attr]

    def __enter__(self) -> "TunePlan":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> tuple[LawService, dict[str, Trial]]:
        if self.folder not in _OPEN:
            _OPEN[self.folder] = LawService(self.run, Journal(self.journal)), {}
        return _OPEN[self.folder]

    # What searcher and scheduler ask.

    @property
    def running(self) -> dict[str, Trial]:
        return self._open()[1]

    def may_start(self) -> bool:
        return len(self.running) < self.lanes

    def config_of(self, trial: Trial) -> dict[str, Any]:
        return config_of(trial)

    def is_open(self, trial: Trial) -> bool:
        return bool(self._left_of(trial))

    def measured(self, trial: Trial, result: Mapping[str, Any]) -> int | None:
        report = read_report(trial, result, self.spec.domains)
        if report is None:
            return None
        milestone, losses = report
        before = max((m for m in trial.milestones if m < milestone), default=0)
        seconds = float(result.get("time_this_iter_s", math.nan))
        self.law.record(trial, milestone, Measured(losses=losses, tokens=milestone - before, wall_seconds=seconds))
        return milestone

    def ended(self, trial: Trial, result: Mapping[str, Any]) -> None:
        self.measured(trial, result)
        if left := self._left_of(trial):
            pretrain, specialize = trial.point(left[0])
            self.died(
                trial,
                f"ended without a loss at pretrain_tokens = {pretrain}, specialize_tokens = {specialize}; "
                f"its last report was at {points_reported(result)}",
            )

    def died(self, trial: Trial, why: str) -> None:
        if not self.law.tree_state().losses:
            raise RunError(f"{trial.name}: {why}; nothing was measured yet, and nothing is stored of this")
        self.law.record(trial, (*self._left_of(trial), *trial.milestones)[0], Failed(why=why))

    def given_up(self, tune_trials: Iterable[Any]) -> Iterator[Any]:
        for trial, why in self._capacity.given_up(tune_trials):
            self.law.record(Trial.of(trial.config), trial.config["milestones"][0], Failed(why=why))
            yield trial

    def _left_of(self, trial: Trial) -> tuple[int, ...]:
        return remaining(trial, self.law.tree_state())


class PlanStopper(tune.Stopper):
    """Ends the experiment when the search has ended; made by `TunePlan.stopper`."""

    def __init__(self, plan: TunePlan) -> None:
        self._plan = plan

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._plan.finished)


def _check_journal(journal: Path, run: RunSpec) -> None:
    """Refuse a journal of another search, before it is taken over from its writer.

    Raises:
        RunError: the journal holds another search.
    """
    there = recorded_spec(recorded(journal))
    if there is not None and (changed := difference(_question(there), _question(run.to_data()))):
        raise RunError(
            f"{journal.parent}: holds another search ({changed} here); give another folder, or delete this one"
        )


def _question(run: Mapping[str, Any]) -> dict[str, Any]:
    """A specification without the fields that may change from start to start."""
    return {name: value for name, value in run["spec"].items() if name not in ("lanes", "fills_idle_lanes")}
