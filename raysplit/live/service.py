"""What the law actor does, without Ray: keep the journal, decide, and answer (`raysplit.live.law_answers`).

Its whole state is the journal's; opening it again after any crash gives the same service.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from raysplit.design.campaign import Finish, Round, Verdict, enlarged, judge, next_round, opening, whole_grid
from raysplit.design.candidates import believe
from raysplit.design.evidence import Evidence, chain, key, remaining
from raysplit.design.setup import Setup
from raysplit.design.tree import Trial
from raysplit.design.value import Belief
from raysplit.journal import Journal, ReadJournal
from raysplit.live.answers import Accepted, Event, TrialState
from raysplit.live.asking import ShapeOf
from raysplit.live.fitting import Target
from raysplit.live.law_answers import LawAnswers
from raysplit.live.ledger import Ledger
from raysplit.live.observing import as_row, checked, new_to
from raysplit.live.refit import Laws, LawsOnDemand
from raysplit.live.shelf import Shelf
from raysplit.live.table import Table
from raysplit.runs import Observation
from raysplit.split import Advice, advise

MakeLaws = Callable[[Table, Target, Shelf], Laws]


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
    """Of the last fitted law; 0 before there is one."""
    trouble: str = ""
    """What last went wrong behind the answers, such as a law that could not be stored; empty when nothing has."""


class LawService(LawAnswers):
    """The sweep's memory and judgement. Methods may be called from several threads."""

    def __init__(
        self,
        setup: Setup,
        journal: Journal | ReadJournal,
        *,
        bytes_per_token: Mapping[str, float],
        shape_of: ShapeOf | None = None,
        make_laws: MakeLaws = LawsOnDemand,
        shelf: Shelf | None = None,
    ) -> None:
        """Take up the sweep that the journal tells of, or begin one.

        Args:
            setup: the question and the grid.
            journal: open, of this sweep.
            bytes_per_token: of each domain's held-out text, to give bits per byte beside nats per token.
            shape_of: the model family's size nearest to an asked N and its FLOPs per token, for questions about sizes
                that are not the target's.
            make_laws: `LawsOnDemand`, which fits when asked and holds up who asks, or `LawsBehind`, for a live actor.
            shelf: laws fitted before, and where to put new ones; by default in memory.
        """
        self.journal = journal
        self._lock = threading.RLock()
        """Of ledger and journal; held for as long as a record takes to reach the disk, never during a fit."""
        self._deciding = threading.Lock()
        """One decision of the sweep at a time."""
        ledger = Ledger(setup, bytes_per_token=bytes_per_token)
        for record in journal.records:
            ledger.take(record)
        target = Target(problem=setup.problem, step_tokens=setup.step_tokens, seed=setup.seed)
        last_seq = journal.records[-1].seq if journal.records else -1
        laws = make_laws(ledger.table, target, shelf or Shelf(None, last_seq=last_seq))
        super().__init__(setup, ledger, laws, shape_of=shape_of)
        self._running: frozenset[Trial] = frozenset()
        self._round_belief: tuple[int, Belief] | None = None
        self._round_is_full: tuple[int, int] | None = None
        """Round and number of measurements at which nothing more was worth adding to it."""

    @property
    def bytes_per_token(self) -> Mapping[str, float]:
        return self._ledger.bytes_per_token

    def close(self) -> None:
        """End what works behind the answers; the journal stays open."""
        self._laws.close()

    # What the sweep asks.

    def claim(self, running: Collection[Trial] = ()) -> Claim:
        """The next trial of the round that can start; begins the next round when this one has ended.

        A round's law may have to be fitted first, which is waited for; others are answered meanwhile.

        Args:
            running: what the asker is running, and so is not given again. Nobody else keeps count of it, so that
                neither a crash of this service nor one of the asker's leaves a trial claimed for ever.

        Raises:
            RunError: another has taken the journal over, or the disk refused the next round.
        """
        self.journal.check()  # what a lane trains after that would be lost
        taken = frozenset(chain(trial) for trial in running)
        while True:
            with self._lock:
                self._running = taken
                n_begun, ledger = len(self._ledger.begun), self._ledger
                if ledger.finished:
                    return Claim(finished=ledger.finished)
                evidence, open_trials = ledger.evidence(), ledger.open_trials()
                ready = [t for t in open_trials if evidence.can_start(t)]
                trial = next((t for t in ready if chain(t) not in taken), None)
                if open_trials and trial is None and not self._may_add(evidence):
                    return Claim()
                if trial is not None:
                    rest = remaining(trial, evidence)
                    if len(rest) == len(trial.milestones):
                        return self._give(trial)
            if trial is None and open_trials:
                self._add_trial(n_begun, taken)
            elif trial is None:
                self._begin_round(n_begun)
            # A crash may have come between a measurement and its verdict.
            elif self.judge(trial, trial.milestones[-len(rest) - 1]).go_on:
                return self._give(replace(trial, milestones=rest))

    def _give(self, trial: Trial) -> Claim:
        self._running |= {chain(trial)}
        return Claim(trial=trial)

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
            if key(trial, milestone) not in self._ledger.losses:
                data = {
                    "trial": asdict(trial),
                    "milestone": milestone,
                    "losses": dict(losses),
                    "tokens": tokens,
                    "wall_seconds": wall_seconds,
                    "round": len(self._ledger.begun) - 1,
                }
                self._store("measurement", data)
        self._laws.grew()

    def observe(self, observations: Sequence[Observation]) -> Accepted:
        """Add runs measured elsewhere to what the law is fitted to.

        They are on disk when this returns; the same ones again change nothing. They buy no points of the grid, whose
        branches need checkpoints: when the sweep comes to measure such a run itself, its own loss replaces the other.

        Raises:
            TableError: an observation is impossible, of an unknown domain, or contradicts a known one, or there are
                more than `raysplit.live.observing.MAX_BATCH`; nothing was stored.
            RunError: the disk refused; nothing was stored.
        """
        asked = checked(observations, self.setup.domains)
        with self._lock:
            new = new_to(self._ledger.table, asked)
            if new:
                rows = [as_row(observation) for observation in new]
                self._store("observation", {"rows": rows, "round": len(self._ledger.begun) - 1})
            n_known = len(self._ledger.table)
        if new:
            self._laws.grew()
        return Accepted(n_new=len(new), n_repeated=len(observations) - len(new), n_known=n_known)

    def record_failure(self, trial: Trial, milestone: int, why: str) -> None:
        """Store that a trial failed; it is not tried again."""
        with self._lock:
            if chain(trial) not in self._ledger.closed:
                self._store("failure", {"trial": asdict(trial), "milestone": milestone, "why": why})

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        """Whether a trial goes on after a measured milestone; a stop is stored with its reason."""
        with self._deciding:
            belief = self._belief_of_round()
            with self._lock:
                evidence, within = self._ledger.evidence(), self._ledger.begun[-1]
                asked = self._ledger.asked(trial)
            verdict = judge(self.setup, evidence, belief, asked, within.round)
            with self._lock:
                if not verdict.go_on and (skipped := remaining(asked, self._ledger.evidence())):
                    data = {
                        "trial": asdict(asked),
                        "milestone": milestone,
                        "why": verdict.why,
                        "n_observations": len(self._ledger.table.until(within.known_seq)),
                        "skipped": skipped,
                    }
                    self._store("stop", data)
            return verdict

    # What anyone may ask.

    def evidence(self) -> Evidence:
        """What the sweep has measured and paid for."""
        with self._lock:
            return self._ledger.evidence()

    def trials(self) -> list[TrialState]:
        """Every trunk and branch that a round has asked for."""
        with self._lock:
            return self._ledger.states(self._running)

    def events(self, after_seq: int = -1) -> list[Event]:
        """The journal's records beyond one, oldest first."""
        with self._lock:
            records = self.journal.records
            first = bisect_right(records, after_seq, key=lambda record: record.seq)
            return [Event(seq=r.seq, time=r.time, kind=r.kind, data=r.data) for r in records[first:]]

    def status(self) -> Status:
        """Where the sweep stands."""
        latest = self._laws.shelf.latest
        with self._lock:
            ledger = self._ledger
            return Status(
                round=len(ledger.begun),
                n_observations=len(ledger.table),
                n_trials=len(ledger.trials),
                n_trials_left=len(ledger.open_trials()),
                n_stopped=ledger.n_stopped,
                n_failed=len(ledger.closed),
                spent_flops=ledger.evidence().spent_flops,
                budget_flops=self.setup.budget_flops,
                finished=ledger.finished,
                law_version=latest.version if latest else 0,
                trouble=self._laws.trouble(),
            )

    # Inside.

    def _store(self, kind: str, data: Mapping[str, Any]) -> None:
        self._ledger.take(self.journal.append(kind, data))

    def _begin_round(self, n_begun: int) -> None:
        """Make the round after the first ``n_begun``, or end the sweep; nothing when another thread has."""
        with self._deciding:
            with self._lock:
                if len(self._ledger.begun) != n_begun or self._ledger.finished:
                    return
                # Branches whose trunk failed are told of in the journal like every other failure.
                for trial in self._ledger.orphans():
                    self.record_failure(trial, trial.milestones[0], "its trunk failed before reaching it")
                seq, evidence = self._ledger.table.last_seq, self._ledger.evidence()
                n_known = len(self._ledger.table)
            advice, belief, is_grid = None, None, self.setup.policy == "grid"
            decision: Round | Finish
            if n_begun == 0:
                decision = whole_grid(self.setup) if is_grid else opening(self.setup)
            elif not n_known:
                decision = Finish(why=f"nothing could be measured: {next(iter(self._ledger.closed.values()))}")
            else:
                fitted = self._laws.of_round(seq)
                advice = fitted.advice or advise(fitted.law, self.setup.problem)
                if is_grid:
                    decision = Finish(why="every point of the grid is measured")
                else:
                    belief = believe(self.setup, fitted.law)
                    decision = next_round(self.setup, evidence, belief)
            with self._lock:
                if advice is not None:
                    self._log_advice(advice, n_known)
                if isinstance(decision, Finish):
                    self._store("finish", {"why": decision.why})
                    return
                data = {
                    "index": n_begun,
                    "why": decision.why,
                    "n_observations": n_known,
                    "known_seq": seq,
                    "trials": [asdict(trial) for trial in decision.trials],
                    "planned": [asdict(trial) for trial in decision.planned],
                    "rate": decision.rate,
                    "spare_flops": decision.spare_flops,
                }
                self._store("round", data)
                if belief is not None:
                    self._round_belief = (n_begun, belief)

    def _may_add(self, evidence: Evidence) -> bool:
        """Whether an idle lane may get a trial beyond the round; once that was looked for in vain, only after news."""
        return self.setup.fills_idle_lanes and self._round_is_full != (len(self._ledger.begun), len(evidence.losses))

    def _add_trial(self, n_begun: int, taken: Collection[Trial]) -> None:
        """Make the round under way larger by what an idle lane can do; nothing where nothing is worth it."""
        with self._deciding:
            belief = self._belief_of_round()
            with self._lock:
                if len(self._ledger.begun) != n_begun:
                    return
                evidence, within = self._ledger.evidence(), self._ledger.begun[-1].round
            larger = None if belief is None else enlarged(self.setup, evidence, belief, within, taken)
            with self._lock:
                if larger is None:
                    self._round_is_full = (n_begun, len(evidence.losses))
                else:
                    data = {"trial": asdict(larger.trials[-1]), "spare_flops": larger.spare_flops}
                    self._store("addition", data)

    def _log_advice(self, advice: Advice, n_observations: int) -> None:
        self.journal.append(
            "advice",
            {
                "n_observations": n_observations,
                "spent_flops": self._ledger.evidence().spent_flops,
                "n_params": advice.split.n_params,
                "pretrain_tokens": advice.split.pretrain_tokens,
                "specialize_tokens": dict(advice.split.specialize_tokens),
                "loss": advice.loss.mean,
                "pretrain_share": asdict(advice.pretrain_share),
                "expected_regret": advice.expected_regret,
            },
        )

    def _belief_of_round(self) -> Belief | None:
        """What this round's decisions rest on: the law of the observations from before it; None in the first."""
        with self._lock:
            index = len(self._ledger.begun) - 1
        if index <= 0 or self.setup.policy == "grid":
            return None
        if self._round_belief is None or self._round_belief[0] != index:
            law = self._laws.of_round(self._ledger.begun[index].known_seq).law
            self._round_belief = (index, believe(self.setup, law))
        return self._round_belief[1]
