"""Replay: the sweep's own searcher and scheduler against losses that are known already, without training.

A user with a table of runs gets an answer from it; tests and benchmarks run whole sweeps in seconds. Lanes work in
simulated time that passes as the FLOPs of each step are trained.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.design.tree_state import TreeState, price
from raysplit.errors import LaneError, TableError
from raysplit.lanes.law_client import LawClient
from raysplit.space import CooldownStart, DesignName
from raysplit.split.price import RULE
from raysplit.sweep.backend import Backend, Recorder
from raysplit.sweep.grid_spec import spec_of_grid
from raysplit.sweep.tune import LawScheduler, LawSearcher, Trials, result_of

Losses = Callable[[Trial, int], Mapping[str, float] | None]
"""Held-out loss of every domain at a trial's milestone; None where it is not known."""


class KnownLosses:
    """A `raysplit.sweep.backend.Backend` that looks losses up: at once, and each as often as asked."""

    def __init__(self, losses: Losses, law: Recorder) -> None:
        self._losses, self._law, self._closed = losses, law, False

    def submit(self, task: Task) -> Future[Outcome]:
        told: Future[Outcome] = Future()
        if self._closed:
            told.set_exception(LaneError("the known losses are closed"))
            return told
        known = self._losses(task.trial, task.milestone)
        outcome: Outcome = Failed(why="its loss is not known to the replay")
        if known is not None:
            outcome = Measured(losses=dict(known), tokens=0, wall_seconds=0.0)
        self._law.record(task.trial, task.milestone, outcome)
        told.set_result(outcome)
        return told

    def n_blocked(self) -> int:
        return 0

    def close(self) -> None:
        self._closed = True


@dataclass(slots=True)
class TuneTrial:
    """The part of Tune's trial that the scheduler looks at."""

    trial_id: str
    config: dict[str, Any]
    asked: Trial
    n_done: int = 0

    @property
    def milestone(self) -> int:
        """The milestone that its next step trains to."""
        return self.asked.milestones[self.n_done]


class PlayedTo(LawClient, Protocol):
    """The law that decides a replay; `LawService` is one."""

    spec: ResolvedSpec

    def tree_state(self) -> TreeState: ...


class PlayedTune:
    """Ray Tune's part: the searcher and the scheduler that it drives, and the checkpoints that their trials leave."""

    def __init__(self, law: PlayedTo, *, n_blocked: Callable[[], int] = lambda: 0) -> None:
        """Of a law; ``n_blocked`` as `Trials` has it."""
        trials = Trials(law, lanes=law.spec.lanes, n_blocked=n_blocked)
        self._searcher, self._scheduler, self._spec = LawSearcher(trials), LawScheduler(trials), law.spec
        self._nodes = law.tree_state().nodes.copy()
        self._n_trials = 0

    @property
    def finished(self) -> str:
        """Why the search has ended; empty while it goes on."""
        return self._searcher.finished

    def begun(self) -> Iterator[TuneTrial]:
        """Every trial that can begin now."""
        while isinstance(config := self._searcher.suggest(name := f"t{self._n_trials}"), dict):
            self._n_trials += 1
            yield TuneTrial(name, config, Trial.of(config))

    def step_flops(self, trial: TuneTrial) -> float:
        """FLOPs of a trial's next step; the checkpoints that it leaves are there from now on."""
        flops = price(self._spec, trial.asked, [trial.milestone], self._nodes)
        segments = self._spec.tree.segments(trial.asked, trial.milestone, self._nodes)
        self._nodes.update(segment.end for segment in segments if not segment.cooldown)
        return flops

    def goes_on(self, trial: TuneTrial, outcome: Outcome) -> bool:
        """Whether a trial has another step after this outcome, which is recorded already."""
        result = result_of(trial.asked, trial.milestone, outcome)
        trial.n_done += 1
        if not result["done"] and self._scheduler.on_trial_result(None, trial, result) != LawScheduler.STOP:
            return True
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result)
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """How a replay went."""

    finished: str
    """Why it ended."""
    busy_share: float
    """Share of the lanes' simulated time, until the end, in which they trained."""


def replay(service: PlayedTo, losses: Losses) -> Replayed:
    """Run a whole sweep against known losses."""
    return drive(service, KnownLosses(losses, service))


def drive(service: PlayedTo, backend: Backend) -> Replayed:
    """Run a whole sweep in simulated time; the law decides as under Ray Tune, and a backend carries out the tasks.

    The searcher and scheduler are those that Ray Tune drives. Of steps that end at one moment, the one that began first
    ends first.

    Raises:
        LaneError, RunError: as a backend's futures raise them.
    """
    played, lanes = PlayedTune(service, n_blocked=backend.n_blocked), service.spec.lanes
    running: list[tuple[float, int, TuneTrial]] = []
    numbers = itertools.count()
    now = busy = 0.0

    def start_step(trial: TuneTrial) -> None:
        nonlocal busy
        flops = played.step_flops(trial)
        busy += flops
        heapq.heappush(running, (now + flops, next(numbers), trial))

    while not played.finished:
        for trial in played.begun():
            start_step(trial)
        if not running:
            break
        now, _, trial = heapq.heappop(running)
        if played.goes_on(trial, backend.submit(Task(trial=trial.asked, milestone=trial.milestone)).result()):
            start_step(trial)
    if not played.finished:
        raise AssertionError("nothing runs, nothing is handed out, and the sweep has not ended")
    return Replayed(finished=played.finished, busy_share=busy / (lanes * now) if now else 0.0)


def table_losses(runs: pd.DataFrame, domains: tuple[str, ...]) -> Losses:
    """Losses from a checked table of runs (`raysplit.runs.check_runs`)."""
    columns = ["n_params", "pretrain_tokens", "specialize_tokens", "seed", "domain"]
    known = {tuple(row[:-1]): row[-1] for row in runs[[*columns, "loss"]].itertuples(index=False)}

    def look_up(trial: Trial, milestone: int) -> Mapping[str, float] | None:
        pretrain, specialize = trial.point(milestone)
        wanted = domains if trial.is_trunk else (trial.domain,)
        keys = {name: (trial.n_params, pretrain, specialize, trial.seed, name) for name in wanted}
        return {name: float(known[at]) for name, at in keys.items()} if set(keys.values()) <= known.keys() else None

    return look_up


def known_law_losses(
    law: Callable[[str, float, float, float], float], domains: tuple[str, ...], *, noise: float, seed: int
) -> Losses:
    """Losses of a known (synthetic) law L(domain, N, D, D') with log-normal noise, the same for the same run."""

    def draw(trial: Trial, milestone: int) -> Mapping[str, float]:
        pretrain, specialize = trial.point(milestone)
        out = {}
        for k, name in enumerate(domains if trial.is_trunk else (trial.domain,)):
            rng = np.random.default_rng(
                [seed, trial.seed, trial.n_params, pretrain, specialize, domains.index(name), k]
            )
            out[name] = law(name, trial.n_params, pretrain, specialize) * float(np.exp(noise * rng.standard_normal()))
        return out

    return draw


def spec_of_table(
    runs: pd.DataFrame,
    *,
    budget_flops: float,
    cooldown_fraction: float = 0.25,
    sweep_budget_flops: float = np.inf,
    policy: Literal["adaptive", "grid"] = "adaptive",
    design: DesignName = "value",
    lanes: int = 1,
    regret_tolerance: float = 0.002,
) -> ResolvedSpec:
    """The spec of a sweep over the grid that a table holds, at 6N FLOPs a token (Kaplan 2001.08361, section 2.1).

    Raises:
        TableError: the table has no pretraining-only points, no specialized ones, or no run under seed 0.
        SpaceError: a number is impossible, as `spec_of_grid` says.
    """
    domains = tuple(sorted(runs["domain"].unique()))
    pretrain = [int(d) for d in sorted(runs.loc[runs["pretrain_tokens"] > 0, "pretrain_tokens"].unique())]
    specialize = [int(s) for s in sorted(runs.loc[runs["specialize_tokens"] > 0, "specialize_tokens"].unique())]
    if not pretrain or not specialize or not (runs["specialize_tokens"] == 0).any():
        raise TableError("a replay needs points with specialize_tokens = 0 and points with specialize_tokens > 0")
    if not (runs["seed"] == 0).any():
        raise TableError(f"a replay needs its grid under seed 0; the table's lowest seed is {runs['seed'].min()}")
    repeats: dict[Trial, set[int]] = {}
    again = runs[runs["seed"] != 0]
    columns = (again[name].tolist() for name in ("n_params", "seed", "domain", "pretrain_tokens", "specialize_tokens"))
    for n_params, seed, domain, d, s in zip(*columns, strict=True):
        at = Trial(
            n_params=n_params, seed=seed, domain=domain if s else "", pretrain_tokens=d if s else 0, milestones=()
        )
        repeats.setdefault(at, set()).add(s or d)
    asked = spec_of_grid(
        flops_per_token=sorted(int(n) for n in runs["n_params"].unique()),
        pretrain_tokens=([0] if (runs["pretrain_tokens"] == 0).any() else []) + pretrain,
        specialize_tokens=specialize,
        domains=domains,
        target_flops=budget_flops,
        budget_flops=sweep_budget_flops,
        regret_tolerance=regret_tolerance,
        policy=policy,
        design=design,
        lanes=lanes,
    )
    return replace(
        asked,
        problem=replace(asked.problem, price=RULE),
        tree=replace(asked.tree, cooldown_start=CooldownStart(fraction=cooldown_fraction, least_steps=1)),
        repeats=tuple(_with_milestones(at, sorted(repeats[at])) for at in sorted(repeats) if _has_root(at, repeats)),
    )


def _has_root(at: Trial, repeats: Mapping[Trial, set[int]]) -> bool:
    """Whether the table has a trunk of the trial's own seed that reaches the trial's root."""
    trunk = replace(at, domain="", pretrain_tokens=0)
    return max(repeats.get(trunk, {-1})) >= at.pretrain_tokens


def _with_milestones(at: Trial, milestones: list[int]) -> Trial:
    reach = at.pretrain_tokens if at.domain else milestones[-1]
    return Trial(
        n_params=at.n_params, seed=at.seed, domain=at.domain, pretrain_tokens=reach, milestones=tuple(milestones)
    )
