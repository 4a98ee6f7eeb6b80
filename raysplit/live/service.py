"""What the law actor does, without Ray: keep the journal, fit the law, decide, answer.

Its whole state is the journal's; opening it again after any crash gives the same service.
"""

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pandas as pd

from raysplit.design.campaign import Finish, Round, Verdict, judge, next_round, opening, whole_grid
from raysplit.design.evidence import Evidence, chain, evidence_of, is_orphan, key, remaining
from raysplit.design.setup import Setup
from raysplit.design.tree import Trial
from raysplit.errors import LawError, TableError, unknown
from raysplit.law import Law
from raysplit.live.answers import (
    Accepted,
    Curve,
    Event,
    GoOn,
    LawStamp,
    LiveAdvice,
    LivePrediction,
    Question,
    TrialState,
)
from raysplit.live.asking import ShapeOf, check_domains, curve_of, problem_of, whether_to_go_on
from raysplit.live.journal import Journal, ReadJournal, Record
from raysplit.runs import KEY, Observation, check_runs, to_frame
from raysplit.split import Choice, advise, fit_for_decision


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a free lane is told: run this trial, wait for others, or the sweep has ended."""

    trial: Trial | None = None
    finished: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """The sweep at a glance."""

    round: int
    n_observations: int
    n_trials: int
    """Trials of the current round."""
    n_trials_left: int
    n_stopped: int
    n_failed: int
    spent_flops: float
    budget_flops: float
    finished: str
    """Why the sweep has ended; empty while it runs."""
    law_version: int
    """Observations that the last fitted law knows; 0 before there is one."""


class LawService:
    """The sweep's memory and judgement. Methods may be called from several threads."""

    def __init__(
        self,
        setup: Setup,
        journal: Journal | ReadJournal,
        *,
        bytes_per_token: Mapping[str, float],
        shape_of: ShapeOf | None = None,
    ) -> None:
        """Take up the sweep that the journal tells of, or begin one.

        Args:
            setup: the question and the grid.
            journal: open, of this sweep.
            bytes_per_token: of each domain's held-out text, to give bits per byte beside nats per token.
            shape_of: the model family's size nearest to an asked N and its FLOPs per token, for questions about sizes
                that are not the target's.
        """
        self.shape_of = shape_of
        self.setup, self.journal, self.bytes_per_token = setup, journal, dict(bytes_per_token)
        self._lock = threading.RLock()
        self._losses: dict[tuple[Trial, int], dict[str, float]] = {}
        self._rounds: list[Round] = []
        self._closed: dict[Trial, str] = {}
        self._paused: dict[Trial, str] = {}
        """Stopped in the current round; a later one may go on with them."""
        self._stopped: dict[Trial, str] = {}
        """Stopped in any round, and not asked for again since."""
        self._n_stopped = 0
        self._observations: dict[tuple[object, ...], tuple[Observation, int]] = {}
        """By `raysplit.runs.KEY`, with the index of the round in which it came."""
        self._finished = ""
        self._round_law: tuple[int, Law | None] | None = None
        self._law: tuple[int, Law, Choice, float] | None = None
        self._n_laws = 0
        self._running: frozenset[Trial] = frozenset()
        self._known: tuple[tuple[int, ...], Evidence] | None = None
        for record in journal.records:
            self._take(record)

    # What the sweep asks.

    def claim(self, running: Collection[Trial] = ()) -> Claim:
        """The next trial of the round that can start; begins the next round when this one has ended.

        Args:
            running: what the asker is running, and so is not given again. Nobody else keeps count of it, so that
                neither a crash of this service nor one of the asker's leaves a trial claimed for ever.
        """
        taken = {chain(trial) for trial in running}
        with self._lock:
            self._running = frozenset(taken)
            while not self._finished:
                evidence = self._evidence()
                open_trials = [t for t in self._trials() if remaining(t, evidence)]
                if not open_trials:
                    self._begin_round(evidence)
                    continue
                ready = (t for t in open_trials if t.is_trunk or t.root in evidence.nodes)
                trial = next((t for t in ready if chain(t) not in taken), None)
                if trial is None:
                    return Claim()
                rest = remaining(trial, evidence)
                # A crash may have come between a measurement and its verdict.
                if len(rest) < len(trial.milestones) and not self.judge(trial, trial.milestones[-len(rest) - 1]).go_on:
                    continue
                self._running |= {chain(trial)}
                return Claim(trial=replace(trial, milestones=rest))
            return Claim(finished=self._finished)

    def record(
        self, trial: Trial, milestone: int, *, losses: Mapping[str, float], tokens: int, wall_seconds: float
    ) -> None:
        """Store a measurement; it is on disk when this returns. The same measurement again changes nothing.

        A loss that is no positive number is stored as a failure: no law could be fitted to it.

        Raises:
            RunError: the disk refused; nothing was stored.
        """
        for domain, loss in losses.items():
            if not 0 < loss < math.inf:
                return self.record_failure(trial, milestone, f"held-out loss of {domain} is {loss}")
        with self._lock:
            if key(trial, milestone) not in self._losses:
                data = {
                    "trial": asdict(trial),
                    "milestone": milestone,
                    "losses": dict(losses),
                    "tokens": tokens,
                    "wall_seconds": wall_seconds,
                    "round": len(self._rounds) - 1,
                }
                self._take(self.journal.append("measurement", data))

    def observe(self, observations: Sequence[Observation]) -> Accepted:
        """Add runs measured elsewhere to what the law is fitted to.

        They are on disk when this returns; the same ones again change nothing. They buy no points of the grid, whose
        branches need checkpoints: when the sweep comes to measure such a run itself, its own loss replaces the other.

        Raises:
            TableError: an observation is impossible, of an unknown domain, or contradicts a known one; nothing was
                stored.
            RunError: the disk refused; nothing was stored.
        """
        checked = self._checked(observations)
        new = []
        with self._lock:
            for observation in checked:
                known, _ = self._observations.get(_run_of(observation), (None, 0))
                if known is None:
                    new.append(observation)
                elif known.identity != observation.identity:
                    what = ", ".join(f"{name}={getattr(observation, name)}" for name in KEY)
                    raise TableError(
                        f"observations: loss = {observation.loss:g} of {what}: {known.loss:g} is known of this run; "
                        "give a repeated run another seed"
                    )
            if new:
                rows = [{name: value for name, value in asdict(o).items() if value == value} for o in new]  # no NaN
                self._take(self.journal.append("observation", {"rows": rows, "round": len(self._rounds) - 1}))
            return Accepted(n_new=len(new), n_repeated=len(checked) - len(new), n_known=len(self._observations))

    def record_failure(self, trial: Trial, milestone: int, why: str) -> None:
        """Store that a trial failed; it is not tried again."""
        with self._lock:
            if chain(trial) not in self._closed:
                data = {"trial": asdict(trial), "milestone": milestone, "why": why}
                self._take(self.journal.append("failure", data))

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        """Whether a trial goes on after a measured milestone; a stop is stored with its reason."""
        with self._lock:
            planned = next((t for t in self._trials() if chain(t) == chain(trial)), trial)
            verdict = judge(self.setup, self._evidence(), self._law_of_round(), planned, self._rounds[-1])
            if not verdict.go_on and remaining(planned, self._evidence()):
                data = {
                    "trial": asdict(planned),
                    "milestone": milestone,
                    "why": verdict.why,
                    "law_version": self._n_before_round(),
                    "skipped": remaining(planned, self._evidence()),
                }
                self._take(self.journal.append("stop", data))
            return verdict

    # What anyone may ask.

    def evidence(self) -> Evidence:
        """What the sweep has measured and paid for."""
        with self._lock:
            return self._evidence()

    def observations(self) -> pd.DataFrame:
        """Every observation so far, as `raysplit.runs.to_frame` lays it out."""
        with self._lock:
            return to_frame([observation for observation, _ in self._observations.values()])

    def law(self, version: int | None = None) -> Law:
        """The latest law, or an old one.

        Raises:
            LawError: there are too few observations for any form, or no such version.
        """
        return self._fitted(version)[0]

    def choice(self) -> Choice:
        """How the forms of `law` were chosen."""
        return self._fitted(None)[1]

    def stamp(self) -> LawStamp | None:
        """Which law is the latest; None before there is one."""
        try:
            return self._fitted(None)[2]
        except LawError:
            return None

    def laws(self) -> list[LawStamp]:
        """The laws that can be asked for, newest last."""
        stamp = self.stamp()
        return [stamp] if stamp else []

    def predict(
        self,
        domain: str,
        *,
        n_params: float,
        pretrain_tokens: float,
        specialize_tokens: float,
        level: float = 0.9,
        version: int | None = None,
    ) -> LivePrediction:
        """Expected loss at a point, with an interval for one new measurement.

        Raises:
            LawError: there is no law yet, or the domain is unknown.
        """
        law, _, stamp = self._fitted(version)
        prediction = law.predict(domain, n_params, pretrain_tokens, specialize_tokens, level=level)
        return LivePrediction(prediction=prediction, law=stamp)

    def advise(self, question: Question | None = None, *, version: int | None = None) -> LiveAdvice:
        """The best split of the target, or of another question.

        Raises:
            LawError: there is no law yet.
            SplitError: no split satisfies the question.
        """
        problem = problem_of(self.setup.problem, question or Question(), shape_of=self.shape_of)
        law, _, stamp = self._fitted(version)
        check_domains(law, problem.domains)
        return LiveAdvice(advice=advise(law, problem), law=stamp)

    def curve(
        self, question: Question | None = None, *, n_params: int | None = None, version: int | None = None
    ) -> Curve:
        """The best loss against D / T at one size, by default the advised one.

        Raises:
            LawError: there is no law yet.
            SplitError: the size is not among those of the question.
        """
        problem = problem_of(self.setup.problem, question or Question(), shape_of=self.shape_of)
        law, _, stamp = self._fitted(version)
        check_domains(law, problem.domains)
        return curve_of(law, problem, self.observations(), n_params=n_params, stamp=stamp)

    def should_go_on(self, observation: Observation) -> GoOn:
        """Whether a run that raysplit did not start is worth its next tokens; nothing is stored.

        Raises:
            TableError: the observation is impossible, or of an unknown domain.
        """
        self._checked([observation])
        try:
            live = self.advise()
        except LawError as error:
            return GoOn(go_on=True, why=f"no law yet: {error}")
        return whether_to_go_on(
            self.law(),
            observation,
            expected_regret=live.advice.expected_regret,
            regret_tolerance=self.setup.regret_tolerance,
            stamp=live.law,
        )

    def trials(self) -> list[TrialState]:
        """Every trunk and branch that a round has asked for, with all that was asked of it."""
        with self._lock:
            evidence = self._evidence()
            asked: dict[Trial, Trial] = {}
            for trial in (trial for within in self._rounds for trial in within.trials):
                before = asked.get(chain(trial), trial)
                milestones = tuple(sorted({*before.milestones, *trial.milestones}))
                furthest = max(before.pretrain_tokens, trial.pretrain_tokens)  # of a trunk
                asked[chain(trial)] = replace(trial, milestones=milestones, pretrain_tokens=furthest)
            return [self._state_of(trial, evidence) for trial in asked.values()]

    def events(self, after_seq: int = -1) -> list[Event]:
        """The journal's records beyond one, oldest first."""
        with self._lock:
            records = self.journal.records
            first = bisect_right(records, after_seq, key=lambda record: record.seq)
            return [Event(seq=r.seq, time=r.time, kind=r.kind, data=r.data) for r in records[first:]]

    def status(self) -> Status:
        """Where the sweep stands."""
        with self._lock:
            evidence = self._evidence()
            trials = self._trials()
            return Status(
                round=len(self._rounds),
                n_observations=len(self._observations),
                n_trials=len(trials),
                n_trials_left=sum(bool(remaining(t, evidence)) for t in trials),
                n_stopped=self._n_stopped,
                n_failed=len(self._closed),
                spent_flops=evidence.spent_flops,
                budget_flops=self.setup.budget_flops,
                finished=self._finished,
                law_version=self._law[0] if self._law else 0,
            )

    # Inside.

    def _fitted(self, version: int | None) -> tuple[Law, Choice, LawStamp]:
        with self._lock:
            frame = self.observations()
            if self._law is None or self._law[0] != len(frame):
                if frame.empty:
                    raise LawError(self._finished or "no observations yet; the law needs the opening round")
                law, choice = self._fit(frame)
                self._law = (len(frame), law, choice, time.time())
                self._n_laws += 1
            n_observations, law, choice, fitted_at = self._law
            if version not in (None, self._n_laws):
                raise LawError(unknown("version of the law", version, [self._n_laws]))
            stamp = LawStamp(
                version=self._n_laws,
                n_observations=n_observations,
                n_known=len(frame),
                fitted_at=datetime.fromtimestamp(fitted_at, UTC).isoformat(timespec="milliseconds"),
                age_seconds=max(0.0, time.time() - fitted_at),
                forms=tuple(law.form_weights),
            )
            return law, choice, stamp

    def _checked(self, observations: Sequence[Observation]) -> list[Observation]:
        frame = check_runs(to_frame(list(observations)), origin="observations")
        for domain in frame["domain"].unique():
            if domain not in self.setup.domains:
                raise TableError(f"observations: {unknown('domain', domain, self.setup.domains)}")
        return [Observation(**{str(k): v for k, v in row.items()}) for row in frame.to_dict("records")]

    def _state_of(self, trial: Trial, evidence: Evidence) -> TrialState:
        losses = {m: evidence.losses[key(trial, m)] for m in trial.milestones if key(trial, m) in evidence.losses}
        at = chain(trial)
        state: Literal["planned", "running", "done", "stopped", "failed"] = "planned"
        if at in self._closed:
            state = "failed"
        elif len(losses) == len(trial.milestones):
            state = "done"
        elif at in self._stopped:
            state = "stopped"
        elif at in self._running:
            state = "running"
        return TrialState(
            name=trial.name,
            n_params=trial.n_params,
            seed=trial.seed,
            domain=trial.domain,
            pretrain_tokens=trial.pretrain_tokens,
            milestones=trial.milestones,
            state=state,
            why=self._closed.get(at) or self._stopped.get(at, ""),
            losses=losses,
        )

    def _evidence(self) -> Evidence:
        state = (len(self._losses), len(self._closed), len(self._rounds), len(self._paused))
        if self._known is None or self._known[0] != state:
            self._known = (state, evidence_of(self.setup, self._losses, self._closed, self._paused))
        return self._known[1]

    def _trials(self) -> tuple[Trial, ...]:
        """Of the current round."""
        return self._rounds[-1].trials if self._rounds else ()

    def _begin_round(self, evidence: Evidence) -> None:
        # Branches whose trunk failed are told of in the journal like every other failure.
        for trial in self._trials():
            if is_orphan(trial, evidence) and chain(trial) not in self._closed:
                self.record_failure(trial, trial.milestones[0], "its trunk failed before reaching it")
        if not self._rounds:
            decision: Round | Finish = whole_grid(self.setup) if self.setup.policy == "grid" else opening(self.setup)
        elif not self._observations:
            decision = Finish(why=f"nothing could be measured: {next(iter(self._closed.values()))}")
        else:
            self._log_advice(law := self._fitted(None)[0])
            if self.setup.policy == "grid":
                decision = Finish(why="every point of the grid is measured")
            else:
                decision = next_round(self.setup, evidence, law)
                self._round_law = (len(self._rounds), law)
        if isinstance(decision, Finish):
            self._take(self.journal.append("finish", {"why": decision.why}))
        else:
            data = {
                "index": len(self._rounds),
                "why": decision.why,
                "n_observations": len(self._observations),
                "trials": [asdict(trial) for trial in decision.trials],
                "planned": [asdict(trial) for trial in decision.planned],
                "rate": decision.rate,
                "spare_flops": decision.spare_flops,
            }
            self._take(self.journal.append("round", data))

    def _log_advice(self, law: Law) -> None:
        advice = advise(law, self.setup.problem)
        self.journal.append(
            "advice",
            {
                "n_observations": len(self._observations),
                "spent_flops": self._evidence().spent_flops,
                "n_params": advice.split.n_params,
                "pretrain_tokens": advice.split.pretrain_tokens,
                "specialize_tokens": dict(advice.split.specialize_tokens),
                "loss": advice.loss.mean,
                "pretrain_share": asdict(advice.pretrain_share),
                "expected_regret": advice.expected_regret,
            },
        )

    def _law_of_round(self) -> Law | None:
        """The law that this round's decisions rest on: of the observations from before it; None in the first."""
        index = len(self._rounds) - 1
        if index <= 0 or self.setup.policy == "grid":
            return None
        if self._round_law is None or self._round_law[0] != index:
            before = [observation for observation, came_in in self._observations.values() if came_in < index]
            self._round_law = (index, self._fit(to_frame(before))[0])
        return self._round_law[1]

    def _fit(self, frame: pd.DataFrame) -> tuple[Law, Choice]:
        return fit_for_decision(frame, self.setup.problem, step_tokens=self.setup.step_tokens, seed=self.setup.seed)

    def _n_before_round(self) -> int:
        return sum(came_in < len(self._rounds) - 1 for _, came_in in self._observations.values())

    def _take(self, record: Record) -> None:
        """Bring the state up to a record, be it new or read back."""
        data = record.data
        if record.kind == "round":
            self._paused.clear()
            self._rounds.append(
                Round(
                    trials=tuple(trial_from_dict(t) for t in data["trials"]),
                    why=data["why"],
                    planned=tuple(trial_from_dict(t) for t in data["planned"]),
                    rate=data["rate"],
                    spare_flops=data["spare_flops"],
                )
            )
            for trial in self._trials():
                self._stopped.pop(chain(trial), None)
        elif record.kind == "finish":
            self._finished = data["why"]
        elif record.kind == "stop":
            stopped = chain(trial_from_dict(data["trial"]))
            self._paused[stopped] = self._stopped[stopped] = data["why"]
            self._n_stopped += 1
        elif record.kind == "failure":
            self._closed[chain(trial_from_dict(data["trial"]))] = data["why"]
        elif record.kind == "measurement":
            trial, milestone = trial_from_dict(data["trial"]), data["milestone"]
            self._losses[key(trial, milestone)] = data["losses"]
            self._know(self._read_off(trial, milestone, data), data["round"])
        elif record.kind == "observation":
            self._know([Observation(**row) for row in data["rows"]], data["round"])

    def _know(self, observations: Sequence[Observation], came_in: int) -> None:
        for observation in observations:
            run = _run_of(observation)
            if run in self._observations:
                self._law = None  # a table of the same length, but not the same
            self._observations[run] = (observation, came_in)

    def _read_off(self, trial: Trial, milestone: int, data: Mapping[str, Any]) -> list[Observation]:
        """A trunk's measurement is an observation of every domain, a branch's of its own."""
        pretrain, specialize = trial.point(milestone)
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
                wall_seconds=data["wall_seconds"] / len(domains),
            )
            for domain in domains
        ]


def _run_of(observation: Observation) -> tuple[object, ...]:
    return tuple(getattr(observation, name) for name in KEY)


def trial_from_dict(data: Mapping[str, Any]) -> Trial:
    """The trial that `dataclasses.asdict` turned into ``data``, also after a trip through JSON or a Tune config."""
    return Trial(**{**data, "milestones": tuple(data["milestones"])})
