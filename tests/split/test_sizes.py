"""Continuous N, and the problem of a search space."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.errors import SplitError
from raysplit.space import load_space
from raysplit.split import Problem, best_by_size, best_split, losses_of, target_problem, with_best_size
from tests.split.doubles import known_law

QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"


def test_the_best_size_beats_every_rung_of_a_fine_ladder() -> None:
    law = known_law(n_domains=2)
    problem = Problem(budget_flops=1e12, sizes={10_000: 6e4}, domains=law.domains)
    refined = with_best_size(law, problem, flops_per_token=lambda n: 6 * n, low=2_000, high=2_000_000)
    split = best_split(law, refined)
    fine = replace(problem, sizes={n: 6.0 * n for n in range(4_000, 120_000, 500)})
    assert losses_of(law, [split], refined)[0, 0] <= best_by_size(law, fine).loss.min() * (1 + 1e-7)
    assert split.flops(refined) == pytest.approx(1e12)


def test_bounds_out_of_order_are_refused() -> None:
    law = known_law(n_domains=2)
    problem = Problem(budget_flops=1e12, sizes={10_000: 6e4}, domains=law.domains)
    with pytest.raises(SplitError, match="from 5 to 5"):
        with_best_size(law, problem, flops_per_token=lambda n: 6 * n, low=5, high=5)


def test_a_search_space_states_its_problem_with_exact_flops_and_its_data() -> None:
    space = load_space(QUICKSTART)
    problem = target_problem(space, vocab_size=512, domain_tokens=dict.fromkeys(space.domains, 3e6))
    shapes = [space.shape(n, 512) for n in space.model.sizes]
    assert problem.sizes == {shape.n_params_non_embedding: shape.flops_per_token for shape in shapes}
    assert problem.budget_flops == space.target.budget_flops
    assert problem.pretrain_cap == pytest.approx(12e6)  # four domains, a quarter of the mixture each
    assert target_problem(space, vocab_size=512).pretrain_cap == float("inf")
