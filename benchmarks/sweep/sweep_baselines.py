"""The methods that `sweep_regret.py` compares raysplit with, each through its own package.

Ray Tune's schedulers and searchers run in the simulated loop of `sweep_tune.py`, Optuna's studies through ask and tell;
both in simulated time on the lanes of `sweep_lanes.py`.

BOHB is no longer among them. Its figures in `results/2026-11-26-sweep` stand as they were measured, with Ray Tune's
`TuneBOHB` on hpbandster 0.7.4 and ConfigSpace 1.2.2, which are of 2018 and no longer kept up.
"""

import heapq
import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, HyperBandScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.variant_generator import generate_variants
from sweep_ladders import Ladder, LadderOf, by_budget, by_depth, by_point
from sweep_lanes import Lanes, Measurement, Point, known_points
from sweep_tune import METRIC, RESOURCE, Controller

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.sweep.replay import Losses

optuna.logging.set_verbosity(optuna.logging.WARNING)
PENDING_OF_RANDOM = 200
"""Trials that Tune queues ahead of its lanes when the searcher does not learn (`_get_max_pending_trials`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A method and what it searches over."""

    method: Callable[..., None]
    """(ladder, lanes, seed) -> None; measures through the lanes."""
    ladder: LadderOf
    cap: float
    """Most FLOPs of one point, as a share of the budget: who has a budget asks for no run that takes all of it."""
    idle_steps: int = 40
    """A method that has measured nothing new for so many steps in a row has nothing left; fewer where it is slow."""

    def __call__(self, spec: ResolvedSpec, losses: Losses, *, seed: int, budget_flops: float) -> list[Measurement]:
        """Measurements in the order of completion; their price in the tree is at most the budget.

        A method that has nothing left begins anew among points that may cost three times as much, its measurements at
        hand, until the budget or the grid is used up: no one leaves most of a budget unused.
        """
        lanes = Lanes(spec, losses, budget_flops=budget_flops, most_idle_steps=self.idle_steps)
        points = known_points(spec, losses)
        cap_flops = self.cap * budget_flops
        with seeded(seed):
            while True:
                self.method(self.ladder(spec, points, cap_flops), lanes, seed)
                if lanes.is_spent or cap_flops >= max(p.flops(spec) for p in points):
                    return lanes.measured()
                seed += 1000
                cap_flops *= 3
                lanes.begin_again()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """NumPy's and Python's global generators, of which ASHA and SciPy draw, seeded for a while.

    And torch on one thread, on which Optuna's GP of few points is four times as fast as on two.
    """
    before = np.random.get_state(), random.getstate(), torch.get_num_threads()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages, about their own dependencies
            yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
        torch.set_num_threads(before[2])


class _Trainer:
    """A ladder on lanes, as `sweep_tune.Controller` sees it."""

    def __init__(self, ladder: Ladder, lanes: Lanes) -> None:
        self._ladder, self._lanes = ladder, lanes
        self.n_lanes = lanes.n_lanes

    def is_over(self, now: float) -> bool:
        return self._lanes.is_over(now)

    def n_rungs(self, config: Mapping[str, Any]) -> int:
        return len(self._points(config))

    def train(self, now: float, config: Mapping[str, Any], rung: int) -> tuple[float, float]:
        return self._lanes.measure(now, self._points(config)[rung])

    def _points(self, config: Mapping[str, Any]) -> tuple[Point, ...]:
        return self._ladder.points([config[name] for name in self._ladder.names])


class _RandomSearcher(Searcher):
    """Tune's own draws from its search space, without end, as its BasicVariantGenerator makes them."""

    def __init__(self, space: dict[str, Any], seed: int) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._space, self._random_state = space, np.random.default_rng(seed)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        _, config = next(iter(generate_variants(self._space, random_state=self._random_state)))
        return config

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None: ...


def fifo(eta: int, n_rungs: int) -> TrialScheduler:
    return FIFOScheduler()


def asha(eta: int, n_rungs: int) -> TrialScheduler:
    return AsyncHyperBandScheduler(
        time_attr=RESOURCE, metric=METRIC, mode="min", grace_period=1, max_t=max(eta ** (n_rungs - 1), 1),
        reduction_factor=eta,
    )  # fmt: skip


def hyperband(eta: int, n_rungs: int) -> TrialScheduler:
    return HyperBandScheduler(
        time_attr=RESOURCE, metric=METRIC, mode="min", max_t=max(eta ** (n_rungs - 1), 1), reduction_factor=eta
    )


def random_draws(space: dict[str, Any], seed: int) -> Searcher:
    return _RandomSearcher(space, seed)


def tpe_sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def gp_sampler(seed: int) -> optuna.samplers.BaseSampler:
    sampler = optuna.samplers.GPSampler(seed=seed)
    sampler._n_local_search = 2  # of 10: what it suggests is taken to the nearest of few points anyway
    return sampler


def tpe(space: dict[str, Any], seed: int) -> Searcher:
    return OptunaSearch(OptunaSearch.convert_search_space(space), metric=METRIC, mode="min", sampler=tpe_sampler(seed))


def in_tune(
    ladder: Ladder,
    lanes: Lanes,
    seed: int,
    *,
    searcher: Callable[[dict[str, Any], int], Searcher],
    scheduler: Callable[[int, int], TrialScheduler],
    eta: int = 3,
) -> None:
    """A searcher and a scheduler of Ray Tune."""
    space = {name: tune.uniform(0.0, 1.0) for name in ladder.names}
    own = searcher(space, seed)
    learns = not isinstance(own, _RandomSearcher)
    Controller(
        searcher=ConcurrencyLimiter(own, max_concurrent=lanes.n_lanes) if learns else own,
        scheduler=scheduler(eta, ladder.n_rungs),
        trainer=_Trainer(ladder, lanes),
        resource=lambda rung: eta**rung,
        max_pending=lanes.n_lanes if learns else PENDING_OF_RANDOM,
    ).run()


def in_optuna(
    ladder: Ladder, lanes: Lanes, seed: int, *, sampler: Callable[[int], optuna.samplers.BaseSampler], eta: int = 3
) -> None:
    """A sampler of Optuna's with its Hyperband pruner, asked and told as `Study.optimize` does with parallel jobs."""
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=max(eta ** (ladder.n_rungs - 1), 1), reduction_factor=eta
    )
    # The pruner sorts trials into brackets by the study's name.
    study = optuna.create_study(study_name=f"seed-{seed}", sampler=sampler(seed), pruner=pruner)
    distributions = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in ladder.names}
    trainer = _Trainer(ladder, lanes)
    numbers = itertools.count()
    running: list[tuple[float, int, optuna.Trial, int, float]] = []
    now = 0.0

    def go_on(trial: optuna.Trial, rung: int) -> None:
        at, loss = trainer.train(now, trial.params, rung)
        heapq.heappush(running, (at, next(numbers), trial, rung, loss))

    while not trainer.is_over(now):
        while len(running) < lanes.n_lanes:
            go_on(study.ask(distributions), 0)
        now, _, trial, rung, loss = heapq.heappop(running)
        trial.report(loss, step=eta**rung)
        if rung + 1 == trainer.n_rungs(trial.params):
            study.tell(trial, loss)
        elif trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            go_on(trial, rung + 1)


def in_order(ladder: Ladder, lanes: Lanes, seed: int, *, shuffled: bool) -> None:
    """The whole grid, cheapest points first or in any order."""
    points = list(ladder.every)
    if shuffled:
        np.random.default_rng(seed).shuffle(points)  # type: ignore[arg-type]
    free = [0.0] * lanes.n_lanes
    for point in points:
        now = heapq.heappop(free)
        if lanes.is_over(now):
            break
        heapq.heappush(free, lanes.measure(now, point)[0])


BASELINES: dict[str, Callable[..., list[Measurement]]] = {
    "grid, cheapest first": Baseline(method=partial(in_order, shuffled=False), ladder=by_point, cap=1.0),
    "grid, random order": Baseline(method=partial(in_order, shuffled=True), ladder=by_point, cap=1.0),
    "random search": Baseline(
        method=partial(in_tune, searcher=random_draws, scheduler=fifo), ladder=by_budget(3.0), cap=0.05
    ),
    "ASHA": Baseline(method=partial(in_tune, searcher=random_draws, scheduler=asha), ladder=by_budget(3.0), cap=0.1),
    "HyperBand": Baseline(
        method=partial(in_tune, searcher=random_draws, scheduler=hyperband), ladder=by_budget(3.0), cap=0.1
    ),
    "ASHA + TPE": Baseline(method=partial(in_tune, searcher=tpe, scheduler=asha), ladder=by_budget(3.0), cap=0.1),
    "TPE + Hyperband pruner": Baseline(
        method=partial(in_optuna, sampler=tpe_sampler, eta=2), ladder=by_depth, cap=0.05
    ),
    "GP + Hyperband pruner": Baseline(
        method=partial(in_optuna, sampler=gp_sampler, eta=2), ladder=by_depth, cap=0.05, idle_steps=12
    ),
}
"""What served each method best of the ladders of `sweep_ladders.py`, caps of 0.05 and 0.1 and, where there are
brackets, reduction factors of 2 and 3: the geometric mean of the regrets (at least 0.05 %) at 3 % and 8 % of the grid
on five draws of the measured surface and five synthetic laws. In %, the one taken and the others tried:
random search 0.23, by point 0.28 to 0.36, by depth 0.30; ASHA 0.18, by depth 0.29 to 0.30, by domain 0.65; HyperBand
0.28 to 0.29, by depth 0.28 to 0.38; BOHB 0.31, by depth 0.29 in twice the time; ASHA + TPE 0.25 to 0.33, by depth 0.42;
TPE with pruner 0.18 to 0.23, by budget 0.28 to 0.43. Ten draws tell no differences below a fifth apart. The GP
goes as TPE.
"""
