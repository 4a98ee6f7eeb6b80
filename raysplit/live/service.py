"""What the law actor does, without Ray: keep the journal, decide, and answer (`raysplit.live.law_answers`).

Its whole state is the journal's; opening it again after any crash gives the same service.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raysplit.design.campaign import Finish, Round, Verdict, enlarged, judge, next_round, opening, whole_grid
from raysplit.design.candidates import believe
from raysplit.design.tasks import Failed, Measured, Outcome
from raysplit.design.tree import Trial
from raysplit.design.tree_state import TreeState, chain, key, remaining
from raysplit.design.value import Belief
from raysplit.errors import RunError
from raysplit.journal import Journal, ReadJournal
from raysplit.live.answers import Accepted, Ending, Event, Status, TrialState
from raysplit.live.fitted import FitTarget
from raysplit.live.fitting import advice_or_none
from raysplit.live.law_answers import LawAnswers
from raysplit.live.law_store import Laws, LawStore
from raysplit.live.laws import LawsOnDemand
from raysplit.live.observations import ObservationTable, as_row, checked, new_to
from raysplit.live.questions import AskEndings, AskEvents, AskStatus, AskTrials, Observe
from raysplit.live.run_spec import KIND, RunSpec, recorded_spec
from raysplit.live.state import state_of
from raysplit.split import Advice

MakeLaws = Callable[[ObservationTable, FitTarget, LawStore], Laws]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a free lane is told: run this trial, wait for others, or the sweep has ended."""

    trial: Trial | None = None
    finished: str = ""


class LawService(LawAnswers):
    """The sweep's memory and judgement. Methods may be called from several threads."""

    def __init__(
        self,
        run: RunSpec | None,
        journal: Journal | ReadJournal,
        *,
        make_laws: MakeLaws = LawsOnDemand,
        laws_in: str | Path | None = None,
        fence: int | None = None,
    ) -> None:
        """Take up the sweep that the journal tells of, or begin one.

        Args:
            run: the question, the grid and how to read a loss, stored if the journal says something else or nothing;
                None goes by the journal.
            journal: open, of this sweep.
            make_laws: `LawsOnDemand`, which fits when asked while the asker waits, or `LawsBehind`, for a live actor.
            laws_in: folder of the laws fitted before (`LawStore`); None begins without and keeps them in memory.
            fence: of the journal's opening (`LawStore`); None where laws are read and not stored.

        Raises:
            RunError: the journal records no specification, and ``run`` is None; or the journal cannot be written.
        """
        self.journal = journal
        self._lock = threading.RLock()
        """Of state and journal; held for as long as a record takes to reach the disk, never during a fit."""
        self._deciding = threading.Lock()
        """One decision of the sweep at a time."""
        run = _stored(run, journal)
        spec, state = run.spec, state_of(journal.records, run)
        target = FitTarget(
            problem=spec.problem, step_tokens=spec.step_tokens, seed=spec.seed, shares=spec.replay_shares
        )
        last_seq = journal.records[-1].seq if journal.records else -1
        store = LawStore(laws_in, last_seq=last_seq, fence=fence)
        super().__init__(state, make_laws(state.table, target, store))
        self._running: frozenset[Trial] = frozenset()
        self._round_belief: tuple[int, Belief] | None = None
        self.waiting = ""
        """Why no trial makes progress, told with this law's status."""
        self.trouble_elsewhere = ""
        """What went wrong in serving this law, told with its status."""
        self._round_is_full: tuple[int, int] | None = None
        """Round and number of measurements at which nothing more was worth adding to it."""

    def close(self) -> None:
        """End what fits behind the answers; the journal stays open."""
        self._laws.close()

    # What the sweep asks.

    def claim(self, running: Collection[Trial] = ()) -> Claim:
        """The next trial of the round that can start; begins the next round when this one has ended.

        The call waits while the round's law is fitted, if it must be; other questions are answered meanwhile.

        Args:
            running: trials that the asker is running, which are not given again. Nobody else keeps count of them, so
                that no crash of this service or of the asker leaves a trial claimed for ever.

        Raises:
            RunError: another has taken the journal over, or the disk refused the next round.
        """
        self.journal.check()  # if another has it, what a lane trains now would be lost
        taken = frozenset(chain(trial) for trial in running)
        while True:
            with self._lock:
                self._running = taken
                n_begun, state = len(self._state.rounds), self._state
                if state.finish:
                    return Claim(finished=state.finish)
                tree_state, open_trials = state.tree_state(), state.open_trials()
                ready = [t for t in open_trials if tree_state.can_start(t)]
                trial = next((t for t in ready if chain(t) not in taken), None)
                if open_trials and trial is None and not self._may_add(tree_state):
                    return Claim()
                if trial is not None:
                    rest = remaining(trial, tree_state)
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

    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None:
        """Store what came of a task; it is on disk when this returns. The same outcome again changes nothing.

        A loss that is not positive and finite is stored as a failure: no law could be fitted to it. A trial that has
        failed is not tried again.

        Raises:
            RunError: the disk refused; nothing was stored.
        """
        if isinstance(outcome, Measured):
            bad = next((name for name, loss in outcome.losses.items() if not 0 < loss < math.inf), None)
            if bad is not None:
                outcome = Failed(why=f"held-out loss of {bad} is {outcome.losses[bad]}")
        about = {"trial": asdict(trial), "milestone": milestone}
        with self._lock:
            if isinstance(outcome, Failed):
                if chain(trial) not in self._state.closed:
                    self._store("failure", {**about, "why": outcome.why})
            elif key(trial, milestone) not in self._state.losses:
                self._store("measurement", {**about, **asdict(outcome), "round": len(self._state.rounds) - 1})
        if isinstance(outcome, Measured):
            self._laws.grew()

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        """Whether a trial goes on after a measured milestone; a stop is stored with its reason."""
        with self._deciding:
            belief = self._belief_of_round()
            with self._lock:
                tree_state, within = self._state.tree_state(), self._state.rounds[-1]
                asked = self._state.asked(trial)
            verdict = judge(self.spec, tree_state, belief, asked, within.round)
            with self._lock:
                if not verdict.go_on and (skipped := remaining(asked, self._state.tree_state())):
                    data = {
                        "trial": asdict(asked),
                        "milestone": milestone,
                        "why": verdict.why,
                        "n_observations": len(self._state.table.until(within.known_seq)),
                        "skipped": skipped,
                    }
                    self._store("stop", data)
            return verdict

    def recorded(self, trial: Trial, milestone: int) -> Outcome | None:
        """What `record` has stored of a task; None where it has stored nothing."""
        at = key(trial, milestone)
        with self._lock:
            if at in self._state.losses:
                return next(
                    Measured(losses=data["losses"], tokens=data["tokens"], wall_seconds=data["wall_seconds"])
                    for data in (r.data for r in reversed(self.journal.records) if r.kind == "measurement")
                    if key(Trial.of(data["trial"]), data["milestone"]) == at
                )
            why = self._state.closed.get(chain(trial))
        return None if why is None else Failed(why=why)

    # What anyone may ask.

    def tree_state(self) -> TreeState:
        """What the sweep has measured and paid for."""
        with self._lock:
            return self._state.tree_state()

    def answer_observe(self, question: Observe) -> Accepted:
        """Add runs measured elsewhere to what the law is fitted to.

        They are on disk when this returns; the same ones again change nothing. They buy no points of the grid, whose
        branches need checkpoints: when the sweep comes to measure such a run itself, its own loss replaces the other.

        Raises:
            TableError: an observation is impossible, of an unknown domain, or contradicts a known one; nothing was
                stored.
            RunError: the disk refused; nothing was stored.
        """
        observations = question.observations
        asked = checked(observations, self.spec.domains, shares=self.spec.replay_shares)
        with self._lock:
            new = new_to(self._state.table, asked)
            if new:
                rows = [as_row(observation) for observation in new]
                self._store("observation", {"rows": rows, "round": len(self._state.rounds) - 1})
            n_known = len(self._state.table)
        if new:
            self._laws.grew()
        return Accepted(n_new=len(new), n_repeated=len(observations) - len(new), n_known=n_known)

    def answer_trials(self, question: AskTrials) -> list[TrialState]:
        with self._lock:
            return self._state.states(self._running)

    def answer_endings(self, question: AskEndings) -> list[Ending]:
        with self._lock:
            return list(self._state.endings)

    def answer_events(self, question: AskEvents) -> list[Event]:
        with self._lock:
            records = self.journal.records
            first = bisect_right(records, question.after, key=lambda record: record.seq)
            found = records[first:]
        wanted = [record for record in found if not question.kind or record.kind in question.kind]
        return [Event(seq=r.seq, time=r.time, kind=r.kind, data=r.data) for r in wanted]

    def answer_status(self, question: AskStatus) -> Status:
        latest = self._laws.store.latest
        with self._lock:
            state = self._state
            return Status(
                round=len(state.rounds),
                n_observations=len(state.table),
                n_trials=len(state.trials),
                n_trials_left=len(state.open_trials()),
                n_stopped=len(state.stops),
                n_failed=len(state.closed),
                spent_flops=state.tree_state().spent_flops,
                budget_flops=self.spec.budget_flops,
                finished=state.finish,
                law_version=latest.version if latest else 0,
                trouble="; ".join(filter(None, (self._laws.trouble(), self.trouble_elsewhere))),
                waiting=self.waiting,
            )

    # Inside.

    def _store(self, kind: str, data: Mapping[str, Any]) -> None:
        self._state.apply(self.journal.append(kind, data))

    def _begin_round(self, n_begun: int) -> None:
        """Make the round after the first ``n_begun``, or end the sweep; do nothing if another thread has."""
        with self._deciding:
            with self._lock:
                if len(self._state.rounds) != n_begun or self._state.finish:
                    return
                # Branches whose trunk failed are told of in the journal like every other failure.
                for trial in self._state.orphans():
                    self.record(trial, trial.milestones[0], Failed(why="its trunk failed before reaching it"))
                seq, tree_state = self._state.table.last_seq, self._state.tree_state()
                n_known = len(self._state.table)
            advice, belief, is_grid = None, None, self.spec.policy == "grid"
            decision: Round | Finish
            if n_begun == 0:
                decision = whole_grid(self.spec) if is_grid else opening(self.spec)
            elif not n_known:
                decision = Finish(why=f"nothing could be measured: {next(iter(self._state.closed.values()))}")
            else:
                fitted = self._laws.of_round(seq)
                advice = fitted.advice or advice_or_none(fitted.law, self.spec.problem)
                if is_grid:
                    decision = Finish(why="every point of the grid is measured")
                else:
                    belief = believe(self.spec, fitted.law)
                    decision = next_round(self.spec, tree_state, belief)
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

    def _may_add(self, tree_state: TreeState) -> bool:
        """Whether an idle lane may get a trial beyond the round; after a vain search only with a new measurement."""
        return self.spec.fills_idle_lanes and self._round_is_full != (len(self._state.rounds), len(tree_state.losses))

    def _add_trial(self, n_begun: int, taken: Collection[Trial]) -> None:
        """Add a trial for an idle lane to the round under way; do nothing if none is worth its cost."""
        with self._deciding:
            belief = self._belief_of_round()
            with self._lock:
                if len(self._state.rounds) != n_begun:
                    return
                tree_state, within = self._state.tree_state(), self._state.rounds[-1].round
            larger = None if belief is None else enlarged(self.spec, tree_state, belief, within, taken)
            with self._lock:
                if larger is None:
                    self._round_is_full = (n_begun, len(tree_state.losses))
                else:
                    data = {"trial": asdict(larger.trials[-1]), "spare_flops": larger.spare_flops}
                    self._store("addition", data)

    def _log_advice(self, advice: Advice, n_observations: int) -> None:
        self._store(
            "advice",
            {
                "n_observations": n_observations,
                "spent_flops": self._state.tree_state().spent_flops,
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
            index = len(self._state.rounds) - 1
        if index <= 0 or self.spec.policy == "grid":
            return None
        if self._round_belief is None or self._round_belief[0] != index:
            law = self._laws.of_round(self._state.rounds[index].known_seq).law
            self._round_belief = (index, believe(self.spec, law))
        return self._round_belief[1]


def _stored(run: RunSpec | None, journal: Journal | ReadJournal) -> RunSpec:
    """The spec of the journal's sweep; ``run`` is stored first if the journal says something else or nothing."""
    data = recorded_spec(journal.records)
    if run is not None and data != run.to_data():
        if isinstance(journal, ReadJournal):
            return run
        data = journal.append(KIND, run.to_data()).data
    if data is None:
        raise RunError("this journal is of an older raysplit and does not say what its sweep rests on")
    return RunSpec.of_data(data)  # read back, so that the last digit of a weight is the same for all who read it
