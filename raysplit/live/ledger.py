"""The state of a sweep as its journal tells it, record by record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from raysplit.design.campaign import Round
from raysplit.design.evidence import Evidence, chain, evidence_of, is_orphan, key, remaining
from raysplit.design.setup import Setup
from raysplit.design.tree import Trial
from raysplit.journal import Record
from raysplit.live.answers import TrialState
from raysplit.live.table import Known, Table
from raysplit.runs import Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """A round and what was known when it was made."""

    round: Round
    known_seq: int
    """Of the last journal record whose observations its law knows."""


class Ledger:
    """What was measured, planned, stopped and given up. Not safe for several threads, but for `table`."""

    def __init__(self, setup: Setup, *, bytes_per_token: Mapping[str, float]) -> None:
        self.setup, self.bytes_per_token = setup, dict(bytes_per_token)
        self.table = Table()
        self.losses: dict[tuple[Trial, int], dict[str, float]] = {}
        self.begun: list[Begun] = []
        self.closed: dict[Trial, str] = {}
        self.paused: dict[Trial, str] = {}
        """Stopped in the current round; a later one may go on with them."""
        self.stopped: dict[Trial, str] = {}
        """Stopped in any round, and not asked for again since."""
        self.n_stopped = 0
        self.finished = ""
        self._evidence: tuple[tuple[int, ...], Evidence] | None = None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Of the current round."""
        return self.begun[-1].round.trials if self.begun else ()

    def evidence(self) -> Evidence:
        state = (len(self.losses), len(self.closed), len(self.begun), len(self.paused))
        if self._evidence is None or self._evidence[0] != state:
            # A copy, since decisions are made on it while more comes in.
            before = self._evidence[1] if self._evidence else None
            losses = dict(self.losses)
            self._evidence = (state, evidence_of(self.setup, losses, self.closed, self.paused, before=before))
        return self._evidence[1]

    def asked(self, trial: Trial) -> Trial:
        """The current round's trial of the same chain, with all its milestones."""
        return next((t for t in self.trials if chain(t) == chain(trial)), trial)

    def open_trials(self) -> list[Trial]:
        """Of the current round, those with something left to measure."""
        evidence = self.evidence()
        return [trial for trial in self.trials if remaining(trial, evidence)]

    def orphans(self) -> list[Trial]:
        """Branches of the current round that can never start, not yet told of."""
        evidence = self.evidence()
        return [trial for trial in self.trials if is_orphan(trial, evidence) and chain(trial) not in self.closed]

    def states(self, running: frozenset[Trial]) -> list[TrialState]:
        """Every trunk and branch that a round has asked for, with all that was asked; ``running`` by `chain`."""
        asked: dict[Trial, Trial] = {}
        for begun in self.begun:
            for trial in begun.round.trials:
                before = asked.get(chain(trial), trial)
                milestones = tuple(sorted({*before.milestones, *trial.milestones}))
                reach = trial.pretrain_tokens if trial.domain else milestones[-1]
                asked[chain(trial)] = replace(trial, milestones=milestones, pretrain_tokens=reach)
        return [self._state(trial, running) for trial in asked.values()]

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
            name=trial.name,
            n_params=trial.n_params,
            seed=trial.seed,
            domain=trial.domain,
            pretrain_tokens=trial.pretrain_tokens,
            milestones=trial.milestones,
            state=state,
            why=self.closed.get(at) or self.stopped.get(at, ""),
            losses=losses,
        )

    def take(self, record: Record) -> None:
        """Bring the state up to a record, be it new or read back."""
        data = record.data
        if record.kind == "round":
            self.paused.clear()
            made = Round(
                trials=tuple(trial_from_dict(t) for t in data["trials"]),
                why=data["why"],
                planned=tuple(trial_from_dict(t) for t in data["planned"]),
                rate=_number(data["rate"]),
                spare_flops=_number(data["spare_flops"]),
            )
            for trial in made.trials:
                self.stopped.pop(chain(trial), None)
            self.begun.append(Begun(round=made, known_seq=data.get("known_seq", record.seq)))
        elif record.kind == "addition":
            added, last = trial_from_dict(data["trial"]), self.begun[-1]
            larger = replace(
                last.round,
                trials=(*last.round.trials, added),
                planned=(*last.round.planned, added),
                spare_flops=_number(data["spare_flops"]),
            )
            self.begun[-1] = replace(last, round=larger)
            self.stopped.pop(chain(added), None)
        elif record.kind == "finish":
            self.finished = data["why"]
        elif record.kind == "stop":
            stopped = chain(trial_from_dict(data["trial"]))
            self.paused[stopped] = self.stopped[stopped] = data["why"]
            self.n_stopped += 1
        elif record.kind == "failure":
            self.closed[chain(trial_from_dict(data["trial"]))] = data["why"]
        elif record.kind == "measurement":
            trial, milestone = trial_from_dict(data["trial"]), data["milestone"]
            self.losses[key(trial, milestone)] = data["losses"]
            self._know(record.seq, self._read_off(trial, milestone, data), own=True)
        elif record.kind == "observation":
            self._know(record.seq, [_observation(row) for row in data["rows"]], own=False)

    def _know(self, seq: int, observations: Sequence[Observation], *, own: bool) -> None:
        self.table.add([Known(seq=seq, observation=observation, own=own) for observation in observations])

    def _read_off(self, trial: Trial, milestone: int, data: Mapping[str, Any]) -> list[Observation]:
        """A trunk's measurement is an observation of every domain, a branch's of its own."""
        pretrain, specialize = trial.point(milestone)
        seconds = math.nan if data["wall_seconds"] is None else data["wall_seconds"]
        domains = self.setup.domains if trial.is_trunk else (trial.domain,)
        return [
            Observation(
                n_params=trial.n_params,
                pretrain_tokens=pretrain,
                specialize_tokens=specialize,
                domain=domain,
                loss=data["losses"][domain],
                seed=trial.seed,
                trial=trial.name,
                flops=self.setup.flops_per_token[trial.n_params] * (pretrain + specialize),
                bits_per_byte=data["losses"][domain] / math.log(2) / self.bytes_per_token[domain],
                wall_seconds=seconds / len(domains),
            )
            for domain in domains
        ]


def trial_from_dict(data: Mapping[str, Any]) -> Trial:
    """The trial that `dataclasses.asdict` turned into ``data``, also after a trip through JSON or a Tune config."""
    return Trial(**{**data, "milestones": tuple(data["milestones"])})


def _number(value: float | None) -> float:
    """A number without a limit is null in the journal, or infinity as Python writes it in one of an older raysplit."""
    return math.inf if value is None else value


def _observation(row: Mapping[str, Any]) -> Observation:
    return Observation(**{name: value for name, value in row.items() if value is not None})
