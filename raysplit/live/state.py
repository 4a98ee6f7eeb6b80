"""The state of a sweep as the records of its journal tell it: records in, state out.

The law service, the report and whoever reads a journal go by it, so that a record means the same to all of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from raysplit.design.campaign import Round
from raysplit.design.tree import Trial
from raysplit.design.tree_state import TreeState, chain, is_orphan, key, remaining, tree_state_of
from raysplit.journal import Record, without_collection
from raysplit.live.answers import Ending, TrialState
from raysplit.live.observations import ObservationTable, Reported
from raysplit.live.run_spec import RunSpec
from raysplit.runs import Observation, bits_per_byte
from raysplit.space import GENERAL
from raysplit.split import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class BegunRound:
    """A round of the sweep and what was known when it was made."""

    index: int
    round: Round
    n_observations: int
    known_seq: int
    """Number of the last journal record whose observations the round's law knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastAdvice:
    """The recommendation at one moment of the sweep."""

    n_observations: int
    spent_flops: float
    n_params: int
    pretrain_share: Interval
    loss: float
    expected_regret: float


class SweepState:
    """What was measured, planned, stopped and given up. Not safe for several threads, except `table`."""

    def __init__(self, run: RunSpec) -> None:
        self.run = run
        self.table = ObservationTable()
        self.losses: dict[tuple[Trial, int], Mapping[str, float]] = {}
        """By `raysplit.design.tree_state.key` of a measurement: loss of every domain, in the sweep's unit."""
        self.rounds: list[BegunRound] = []
        self._endings: list[Ending] = []
        self.advices: list[PastAdvice] = []
        self.finish = ""
        """Why the sweep ended; empty while it runs."""
        self.lane_seconds = 0.0
        """Time that the lanes spent on measurements, all lanes together."""
        self.closed: dict[Trial, str] = {}
        """Chains that failed, and why."""
        self.paused: dict[Trial, str] = {}
        """Chains that were stopped in the current round; a later one may go on with them."""
        self.stopped: dict[Trial, str] = {}
        """Chains that were stopped in any round, and not asked for again since."""
        self._asked: dict[Trial, Trial] = {}
        """Chain -> trial with every milestone that a round has asked for."""
        self._times: tuple[str, ...] = ()
        """Times of the first record and of the last, UTC, ISO 8601."""
        self._tree_state: tuple[tuple[int, ...], TreeState] | None = None

    # Reading it.

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Trials of the current round."""
        return self.rounds[-1].round.trials if self.rounds else ()

    @property
    def endings(self) -> tuple[Ending, ...]:
        """Stops and failures in the order in which they came.

        A stop's ``skipped`` leaves out milestones that a later round measured after all. Of several stops of one trial
        only the last has any.
        """
        last = {chain(ending.trial): i for i, ending in enumerate(self._endings) if ending.kind == "stop"}
        return tuple(
            ending
            if ending.kind == "failure"
            else replace(ending, skipped=self._unmeasured(ending) if last[chain(ending.trial)] == i else ())
            for i, ending in enumerate(self._endings)
        )

    @property
    def stops(self) -> tuple[Ending, ...]:
        return tuple(ending for ending in self.endings if ending.kind == "stop")

    @property
    def failures(self) -> tuple[Ending, ...]:
        return tuple(ending for ending in self.endings if ending.kind == "failure")

    @property
    def chains(self) -> dict[Trial, tuple[int, ...]]:
        """Every trunk and branch that was tried (`chain`) with its measured milestones, rising."""
        found: dict[Trial, list[int]] = {chain(ending.trial): [] for ending in self._endings}
        for each, milestone in self.losses:
            found.setdefault(each, []).append(milestone)
        return {each: tuple(sorted(milestones)) for each, milestones in sorted(found.items())}

    @property
    def elapsed_seconds(self) -> float:
        """From the first record to the last."""
        first, last = map(datetime.fromisoformat, self._times or (datetime.min.isoformat(),) * 2)
        return (last - first).total_seconds()

    def tree_state(self) -> TreeState:
        at = (len(self.losses), len(self.closed), len(self.rounds), len(self.paused))
        if self._tree_state is None or self._tree_state[0] != at:
            # A copy, since decisions are made on it while more comes in.
            before = self._tree_state[1] if self._tree_state else None
            losses = dict(self.losses)
            self._tree_state = (at, tree_state_of(self.run.spec, losses, self.closed, self.paused, before=before))
        return self._tree_state[1]

    def asked(self, trial: Trial) -> Trial:
        """The current round's trial of the same chain, with all its milestones."""
        return next((t for t in self.trials if chain(t) == chain(trial)), trial)

    def open_trials(self) -> list[Trial]:
        """Of the current round, those with something left to measure."""
        tree_state = self.tree_state()
        return [trial for trial in self.trials if remaining(trial, tree_state)]

    def orphans(self) -> list[Trial]:
        """Branches of the current round that can never start and are not recorded as failed yet."""
        tree_state = self.tree_state()
        return [trial for trial in self.trials if is_orphan(trial, tree_state) and chain(trial) not in self.closed]

    def states(self, running: frozenset[Trial]) -> list[TrialState]:
        """Every trunk and branch that a round has asked for, with all its milestones; ``running`` holds chains."""
        return [self._state(trial, running) for trial in self._asked.values()]

    def _state(self, trial: Trial, running: frozenset[Trial]) -> TrialState:
        losses = {m: self.losses[key(trial, m)] for m in trial.milestones if key(trial, m) in self.losses}
        at = chain(trial)
        state: Literal["planned", "running", "done", "stopped", "failed"] = "planned"
        if at in self.closed:
            state = "failed"
        elif len(losses) == len(trial.milestones):
            state = "done"
        elif at in self.stopped:
            state = "stopped"
        elif at in running:
            state = "running"
        return TrialState(
            name=trial.name, n_params=trial.n_params, seed=trial.seed, domain=trial.domain,
            pretrain_tokens=trial.pretrain_tokens, milestones=trial.milestones, state=state,
            why=self.closed.get(at) or self.stopped.get(at, ""), losses=losses,
        )  # fmt: skip

    def _unmeasured(self, ending: Ending) -> tuple[int, ...]:
        return tuple(m for m in ending.skipped if key(ending.trial, m) not in self.losses)

    # Bringing it up to date.

    def apply(self, record: Record) -> None:
        """Bring the state up to a record, new or read back; a record of an unknown kind changes nothing."""
        self._times = (*self._times[:1], record.time) if self._times else (record.time, record.time)
        change = getattr(self, f"_on_{record.kind}", None)
        if change is not None:
            change(record, record.data)

    def _on_round(self, record: Record, data: Mapping[str, Any]) -> None:
        self.paused.clear()
        made = Round(
            trials=tuple(Trial.of(t) for t in data["trials"]),
            why=data["why"],
            planned=tuple(Trial.of(t) for t in data["planned"]),
            rate=_number(data["rate"]),
            spare_flops=_number(data["spare_flops"]),
        )
        self.rounds.append(
            BegunRound(
                index=len(self.rounds), round=made, n_observations=data.get("n_observations", len(self.table)),
                known_seq=data.get("known_seq", record.seq),
            )
        )  # fmt: skip
        for trial in made.trials:
            self._ask(trial)

    def _on_addition(self, record: Record, data: Mapping[str, Any]) -> None:
        added, last = Trial.of(data["trial"]), self.rounds[-1]
        larger = replace(
            last.round,
            trials=(*last.round.trials, added),
            planned=(*last.round.planned, added),
            spare_flops=_number(data["spare_flops"]),
        )
        self.rounds[-1] = replace(last, round=larger)
        self._ask(added)

    def _on_measurement(self, record: Record, data: Mapping[str, Any]) -> None:
        trial, milestone = Trial.of(data["trial"]), data["milestone"]
        self.losses[key(trial, milestone)] = data["losses"]
        self.lane_seconds += data["wall_seconds"] or 0.0
        self._know(record.seq, self._read_off(trial, milestone, data), own=True)

    def _on_observation(self, record: Record, data: Mapping[str, Any]) -> None:
        rows = [{name: value for name, value in row.items() if value is not None} for row in data["rows"]]
        self._know(record.seq, [Observation(**row) for row in rows], own=False)

    def _on_stop(self, record: Record, data: Mapping[str, Any]) -> None:
        trial = Trial.of(data["trial"])
        self._ask(trial)
        self.paused[chain(trial)] = self.stopped[chain(trial)] = data["why"]
        self._endings.append(
            Ending(
                time=record.time, kind="stop", trial=trial, milestone=data["milestone"],
                skipped=tuple(data["skipped"]), why=data["why"], law_observations=data["n_observations"],
            )
        )  # fmt: skip

    def _on_failure(self, record: Record, data: Mapping[str, Any]) -> None:
        trial = Trial.of(data["trial"])
        self._ask(trial)
        self.closed[chain(trial)] = data["why"]
        asked = self._asked.get(chain(trial), trial)
        left = tuple(sorted(m for m in asked.milestones if key(trial, m) not in self.losses))
        self._endings.append(
            Ending(
                time=record.time, kind="failure", trial=trial, milestone=data["milestone"], skipped=left,
                why=data["why"],
            )
        )  # fmt: skip

    def _on_advice(self, record: Record, data: Mapping[str, Any]) -> None:
        told = {name: data[name] for name in PastAdvice.__dataclass_fields__}
        self.advices.append(PastAdvice(**{**told, "pretrain_share": Interval(**data["pretrain_share"])}))

    def _on_finish(self, record: Record, data: Mapping[str, Any]) -> None:
        self.finish = data["why"]

    def _ask(self, trial: Trial) -> None:
        before = self._asked.get(chain(trial), trial)
        milestones = tuple(sorted({*before.milestones, *trial.milestones}))
        reach = trial.pretrain_tokens if trial.domain else milestones[-1]
        self._asked[chain(trial)] = replace(trial, milestones=milestones, pretrain_tokens=reach)
        self.stopped.pop(chain(trial), None)

    def _know(self, seq: int, observations: Sequence[Observation], *, own: bool) -> None:
        self.table.add([Reported(seq=seq, observation=observation, own=own) for observation in observations])

    def _read_off(self, trial: Trial, milestone: int, data: Mapping[str, Any]) -> list[Observation]:
        """A trunk's measurement is an observation of every domain, a branch's of its own."""
        pretrain, specialize = trial.point(milestone)
        seconds = math.nan if data["wall_seconds"] is None else data["wall_seconds"]
        spec, losses = self.run.spec, data["losses"]
        domains = spec.domains if trial.is_trunk else (trial.domain,)
        return [
            Observation(
                n_params=trial.n_params,
                pretrain_tokens=pretrain,
                specialize_tokens=specialize,
                domain=domain,
                loss=losses[domain],
                seed=trial.seed,
                trial=trial.name,
                flops=spec.flops_per_token[trial.n_params] * (pretrain + specialize),
                bits_per_byte=bits_per_byte(losses[domain], self.run.bytes_per_token[domain], spec.problem.loss_unit),
                wall_seconds=seconds / len(domains),
                replay_share=0.0 if trial.is_trunk else trial.replay_share or spec.replay_share,
                general_loss=_general_loss(losses, domain, spec.domains) if spec.tree.given else math.nan,
            )
            for domain in domains
        ]


def _general_loss(losses: Mapping[str, float], domain: str, domains: Sequence[str]) -> float:
    """An expert's loss on the general set; without one, the mean over the domains but its own.

    NaN where neither was measured.
    """
    if GENERAL in losses and GENERAL not in domains:
        return losses[GENERAL]
    others = [loss for name, loss in losses.items() if name != domain]
    return math.fsum(others) / len(others) if others else math.nan


def state_of(records: Iterable[Record], run: RunSpec) -> SweepState:
    """The state of a sweep of this specification after these records, oldest first."""
    state = SweepState(run)
    with without_collection():
        for record in records:
            state.apply(record)
    return state


def _number(value: float | None) -> float:
    """A number of the journal, in which null stands for infinity; an older raysplit wrote infinity as Python does."""
    return math.inf if value is None else value
