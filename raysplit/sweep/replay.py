"""Replay: the sweep's own searcher and scheduler against losses that are known already, without training.

A user with a table of runs gets an answer from it; tests and benchmarks run whole sweeps in seconds. Lanes work in
simulated time that passes as the FLOPs of each step are trained.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from raysplit.design.evidence import Evidence, price
from raysplit.design.setup import Setup
from raysplit.design.tree import Tree, Trial
from raysplit.errors import TableError
from raysplit.live.ledger import trial_from_dict
from raysplit.space import DesignName
from raysplit.split import Problem
from raysplit.split.price import RULE
from raysplit.sweep.law_client import LawClient
from raysplit.sweep.tune import LawScheduler, LawSearcher, result_of

Losses = Callable[[Trial, int], Mapping[str, float] | None]
"""Held-out loss of every domain at a trial's milestone; None where it is not known."""


@dataclass(slots=True)
class _ReplayTrial:
    """The part of Tune's trial that the scheduler looks at."""

    trial_id: str
    config: dict[str, Any]
    milestones: tuple[int, ...] = ()
    n_done: int = 0
    result: dict[str, Any] = field(default_factory=dict)


class PlayedTo(LawClient, Protocol):
    """What a replay is played to; `LawService` is one."""

    setup: Setup

    def evidence(self) -> Evidence: ...
    def record(
        self, trial: Trial, milestone: int, *, losses: Mapping[str, float], tokens: int, wall_seconds: float
    ) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """How a replay went."""

    finished: str
    """Why it ended."""
    busy_share: float
    """Of the lanes' simulated time until the end."""


def replay(service: PlayedTo, losses: Losses) -> Replayed:
    """Run a whole sweep against known losses.

    The searcher and scheduler are those that Ray Tune drives; ties in simulated time go to the earlier trial.
    """
    setup = service.setup
    searcher, scheduler = LawSearcher(service), LawScheduler(service)
    running: list[tuple[float, int, _ReplayTrial]] = []
    numbers = itertools.count()
    nodes = service.evidence().nodes.copy()
    now = busy = 0.0

    def start_step(at: float, trial: _ReplayTrial) -> None:
        nonlocal busy
        asked = trial_from_dict(trial.config)
        milestone = asked.milestones[trial.n_done]
        flops = price(setup, asked, [milestone], nodes)
        nodes.update(s.end for s in setup.tree.segments(asked, milestone, nodes) if not s.cooldown)
        busy += flops
        heapq.heappush(running, (at + flops, next(numbers), trial))

    while not searcher.finished:
        while len(running) < setup.lanes:
            name = f"t{next(numbers)}"
            config = searcher.suggest(name)
            if not isinstance(config, dict):
                break
            start_step(now, _ReplayTrial(name, config, tuple(config["milestones"])))
        if not running:
            break
        now, _, trial = heapq.heappop(running)
        asked = trial_from_dict(trial.config)
        milestone = asked.milestones[trial.n_done]
        trial.n_done += 1
        known = losses(asked, milestone)
        if known is None:
            trial.result = result_of(asked, milestone, {"failed": "its loss is not known to the replay"})
        else:
            measured = {"losses": dict(known), "tokens": 0}
            service.record(asked, milestone, losses=known, tokens=0, wall_seconds=0.0)
            trial.result = result_of(asked, milestone, measured)
        if trial.result["done"] or scheduler.on_trial_result(None, trial, trial.result) == "STOP":
            scheduler.on_trial_complete(None, trial, trial.result)
            searcher.on_trial_complete(trial.trial_id, trial.result)
        else:
            start_step(now, trial)
    if not searcher.finished:
        raise AssertionError("nothing runs, nothing is handed out, and the sweep has not ended")
    return Replayed(finished=searcher.finished, busy_share=busy / (setup.lanes * now) if now else 0.0)


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


def setup_of_table(
    runs: pd.DataFrame,
    *,
    budget_flops: float,
    cooldown_fraction: float = 0.25,
    sweep_budget_flops: float = np.inf,
    policy: Literal["adaptive", "grid"] = "adaptive",
    design: DesignName = "value",
    lanes: int = 1,
    regret_tolerance: float = 0.002,
) -> Setup:
    """The set-up of a sweep over the grid that a table holds, FLOPs reckoned as 6N a token.

    Raises:
        TableError: the table has no pretraining-only points, or no specialized ones.
    """
    domains = tuple(sorted(runs["domain"].unique()))
    pretrain = tuple(int(d) for d in sorted(runs.loc[runs["pretrain_tokens"] > 0, "pretrain_tokens"].unique()))
    specialize = tuple(int(s) for s in sorted(runs.loc[runs["specialize_tokens"] > 0, "specialize_tokens"].unique()))
    if not pretrain or not specialize or not (runs["specialize_tokens"] == 0).any():
        raise TableError("a replay needs points with specialize_tokens = 0 and points with specialize_tokens > 0")
    if not (runs["seed"] == 0).any():
        raise TableError(f"a replay needs its grid under seed 0; the table's lowest seed is {runs['seed'].min()}")
    flops = {int(n): 6.0 * n for n in sorted(runs["n_params"].unique())}

    def cooldown_start(tokens: int) -> int:
        return tokens - max(1, round(cooldown_fraction * tokens))

    repeats: dict[Trial, set[int]] = {}
    again = runs[runs["seed"] != 0]
    columns = (again[name].tolist() for name in ("n_params", "seed", "domain", "pretrain_tokens", "specialize_tokens"))
    for n_params, seed, domain, d, s in zip(*columns, strict=True):
        at = Trial(
            n_params=n_params, seed=seed, domain=domain if s else "", pretrain_tokens=d if s else 0, milestones=()
        )
        repeats.setdefault(at, set()).add(s or d)
    return Setup(
        problem=Problem(budget_flops=budget_flops, sizes=flops, domains=domains, price=RULE),
        flops_per_token=flops,
        domains=domains,
        tree=Tree(cooldown_start=cooldown_start, pretrain_grid=pretrain),
        specialize_grid=specialize,
        scratch=bool((runs["pretrain_tokens"] == 0).any()),
        policy=policy,
        design=design,
        budget_flops=sweep_budget_flops,
        regret_tolerance=regret_tolerance,
        repeats=tuple(_with_milestones(at, sorted(repeats[at])) for at in sorted(repeats) if _has_root(at, repeats)),
        lanes=lanes,
        step_tokens=1,
        seed=0,
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
