"""The baselines of benchmarks/sweep/sweep_regret.py: what each may measure, at what price, and that it ends."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree_state import key, tree_state_of
from raysplit.sweep.replay import Losses, known_law_losses
from tests.design.doubles import every_point, points, spec
from tests.split.doubles import known_law

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "sweep"))
BASELINES = import_module("sweep_baselines").BASELINES

GRID_FLOPS = 1.1e12
"""About what the grid of `tests.design.doubles.spec` takes."""


def known(of: ResolvedSpec, *, seed: int = 0) -> Losses:
    law = known_law(n_domains=len(of.domains))

    def loss(name: str, n: float, d: float, s: float) -> float:
        return float(law.loss([[n]], [[d]], [[s]])[0, of.domains.index(name)])

    return known_law_losses(loss, of.domains, noise=0.01, seed=seed)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("share", [0.2, 2.0])
def test_measures_points_of_the_grid_once_each_within_the_budget(name: str, share: float) -> None:
    of = spec(scratch=True)
    budget = share * GRID_FLOPS
    made = BASELINES[name](of, known(of), seed=1, budget_flops=budget)
    assert len({key(*m) for m in made}) == len(made) > 0
    assert all(milestone in trial.milestones for trial, milestone in made)
    assert set(points(trial for trial, _ in made)) <= every_point(of)
    assert tree_state_of(of, {key(*m): {} for m in made}).spent_flops <= budget


@pytest.mark.parametrize("name", BASELINES)
def test_a_branch_follows_its_trunk(name: str) -> None:
    of = spec(scratch=True)
    made = BASELINES[name](of, known(of), seed=2, budget_flops=0.3 * GRID_FLOPS)
    trunks: set[tuple[int, int]] = set()
    for trial, _ in made:
        at = (trial.n_params, trial.pretrain_tokens)
        if trial.is_trunk:
            trunks.add(at)
        else:
            assert not trial.pretrain_tokens or at in trunks


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_measures_the_same(name: str) -> None:
    of = spec()
    once, again = (BASELINES[name](of, known(of), seed=3, budget_flops=0.2 * GRID_FLOPS) for _ in range(2))
    assert once == again


def test_the_seed_tells_random_methods_apart() -> None:
    of = spec()
    for name in set(BASELINES) - {"grid, cheapest first"}:
        runs = [BASELINES[name](of, known(of), seed=seed, budget_flops=GRID_FLOPS) for seed in range(2)]
        assert len({tuple(run) for run in runs}) > 1, name
