"""The course of a sweep, as its journal tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from raysplit.design.evidence import chain, key
from raysplit.design.tree import Trial
from raysplit.journal import Record
from raysplit.live.answers import TrialState
from raysplit.live.ledger import trial_from_dict
from raysplit.split import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    index: int
    why: str
    n_observations: int
    """Known when it began."""
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """A trial that was stopped, or that failed."""

    trial: Trial
    milestone: int
    """After which it was stopped, or on the way to which it failed; tokens."""
    skipped: tuple[int, ...]
    """Milestones that were planned and are not measured; of a trial that was stopped, resumed and stopped again they
    stand with its last ending."""
    why: str
    law_observations: int = 0
    """That the law knew by which it was stopped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastAdvice:
    """The recommendation at one moment of the sweep."""

    n_observations: int
    spent_flops: float
    n_params: int
    pretrain_share: Interval
    loss: float
    expected_regret: float


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    rounds: tuple[Round, ...]
    losses: Mapping[tuple[Trial, int], Mapping[str, float]]
    """`raysplit.design.campaign.key` of a measurement -> loss of every domain, nats per token."""
    stops: tuple[Ending, ...]
    failures: tuple[Ending, ...]
    advices: tuple[PastAdvice, ...]
    finish: str
    """Why the sweep ended; empty while it runs."""
    lane_seconds: float
    """Time the lanes spent on measurements, all lanes together."""
    elapsed_seconds: float
    """From the first record to the last."""

    @property
    def chains(self) -> dict[Trial, tuple[int, ...]]:
        """Every trunk and branch that was tried (`chain`) with its measured milestones, rising."""
        found: dict[Trial, list[int]] = {}
        for each, milestone in self.losses:
            found.setdefault(each, []).append(milestone)
        for ending in (*self.stops, *self.failures):
            found.setdefault(chain(ending.trial), [])
        return {each: tuple(sorted(milestones)) for each, milestones in sorted(found.items())}


def history_of(records: Sequence[Record]) -> History:
    """Read the records of a journal, oldest first; kinds that the report does not tell of are passed over."""
    rounds: list[Round] = []
    losses: dict[tuple[Trial, int], Mapping[str, float]] = {}
    stops: list[Ending] = []
    failures: list[Ending] = []
    advices: list[PastAdvice] = []
    finish, lane_seconds = "", 0.0
    planned: dict[Trial, set[int]] = {}
    for record in records:
        data = record.data
        if record.kind == "round":
            trials = tuple(map(trial_from_dict, data["trials"]))
            for trial in trials:
                planned.setdefault(chain(trial), set()).update(trial.milestones)
            rounds.append(
                Round(index=data["index"], why=data["why"], n_observations=data["n_observations"], trials=trials)
            )
        elif record.kind == "addition":
            trial = trial_from_dict(data["trial"])
            planned.setdefault(chain(trial), set()).update(trial.milestones)
            rounds[-1] = replace(rounds[-1], trials=(*rounds[-1].trials, trial))
        elif record.kind == "measurement":
            losses[key(trial_from_dict(data["trial"]), data["milestone"])] = data["losses"]
            lane_seconds += data["wall_seconds"]
        elif record.kind == "stop":
            trial = trial_from_dict(data["trial"])
            stops.append(
                Ending(
                    trial=trial,
                    milestone=data["milestone"],
                    skipped=tuple(data["skipped"]),
                    why=data["why"],
                    law_observations=data["n_observations"],
                )
            )
        elif record.kind == "failure":
            trial = trial_from_dict(data["trial"])
            wanted = planned.get(chain(trial), set(trial.milestones))
            skipped = tuple(sorted(m for m in wanted if key(trial, m) not in losses))
            failures.append(Ending(trial=trial, milestone=data["milestone"], skipped=skipped, why=data["why"]))
        elif record.kind == "advice":
            advices.append(
                PastAdvice(
                    n_observations=data["n_observations"], spent_flops=data["spent_flops"], n_params=data["n_params"],
                    pretrain_share=Interval(**data["pretrain_share"]), loss=data["loss"],
                    expected_regret=data["expected_regret"],
                )
            )  # fmt: skip
        elif record.kind == "finish":
            finish = data["why"]
    times = [datetime.fromisoformat(record.time) for record in (*records[:1], *records[-1:])]
    return History(
        rounds=tuple(rounds), losses=losses, stops=_never_made_up(stops, losses), failures=tuple(failures),
        advices=tuple(advices), finish=finish, lane_seconds=lane_seconds,
        elapsed_seconds=(times[-1] - times[0]).total_seconds() if times else 0.0,
    )  # fmt: skip


def trial_states(history: History) -> list[TrialState]:
    """How far every trunk and branch that was tried had got at the end."""
    endings = {chain(ending.trial): ending for ending in (*history.stops, *history.failures) if ending.skipped}
    failed = {chain(ending.trial) for ending in history.failures}
    states = []
    for trial, measured in history.chains.items():
        ending = endings.get(trial)
        states.append(
            TrialState(
                name=trial.name, n_params=trial.n_params, seed=trial.seed, domain=trial.domain,
                pretrain_tokens=trial.pretrain_tokens,
                milestones=tuple(sorted({*measured, *(ending.skipped if ending else ())})),
                state="done" if ending is None else "failed" if trial in failed else "stopped",
                why=ending.why if ending else "", losses={m: history.losses[trial, m] for m in measured},
            )
        )  # fmt: skip
    return states


def _never_made_up(stops: Sequence[Ending], losses: Mapping[tuple[Trial, int], object]) -> tuple[Ending, ...]:
    """Stops without the milestones that a later round measured after all, each left with its trial's last stop."""
    last = {chain(ending.trial): i for i, ending in enumerate(stops)}
    return tuple(
        replace(
            ending,
            skipped=tuple(m for m in ending.skipped if key(ending.trial, m) not in losses)
            if last[chain(ending.trial)] == i
            else (),
        )
        for i, ending in enumerate(stops)
    )
