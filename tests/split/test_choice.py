"""Forms are chosen by the splits they pick, not by how well they fit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from raysplit.errors import LawError
from raysplit.law import Law
from raysplit.law.form import Array
from raysplit.split import Problem, choose_forms
from raysplit.split.measured import MeasuredGrid, comparable, largest_budget, measured_surface
from tests.split.doubles import known_law, known_theta, law_of, measured_table
from tests.split.strategies import SIZES

TRUTH = known_law(n_domains=3)
PROBLEM = Problem(budget_flops=1e12, sizes=SIZES, domains=TRUTH.domains)


class Off(Law):
    """Picks as the truth does, with every loss 40 % too high."""

    def loss(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
        return super().loss(n_params, pretrain_tokens, specialize_tokens) * 1.4


class PicksPretraining(Law):
    """Right about every loss to a fifth or so, but too kind to pretraining."""

    def loss(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
        return super().loss(n_params, pretrain_tokens, specialize_tokens) * (np.asarray(pretrain_tokens) / 2e6) ** -0.15


def fitter(**laws: Law | None) -> Callable[[pd.DataFrame, str], Law]:
    def fit(runs: pd.DataFrame, form: str) -> Law:
        law = laws[form]
        if law is None or len(runs) < 20:
            raise LawError(f"{form} needs more runs than {len(runs)}")
        return law

    return fit


def variant(kind: type[Law]) -> Law:
    return law_of(known_theta(n_domains=3), kind=kind)


def test_the_form_with_the_better_picks_is_kept_though_its_losses_are_worse() -> None:
    laws = fitter(off=variant(Off), corner=variant(PicksPretraining))
    choice = choose_forms(measured_table(TRUTH), PROBLEM, forms=["off", "corner"], fit=laws)
    off, corner = choice.scores
    assert off.regret is not None
    assert corner.regret is not None
    assert corner.worst_regret is not None
    assert off.held_out_error is not None
    assert corner.held_out_error is not None
    assert choice.criterion == "regret"
    assert choice.weights == {"off": 1.0}
    assert off.regret < 0.002 < corner.regret
    assert off.held_out_error > 2 * corner.held_out_error
    assert off.n_cases == corner.n_cases >= 8
    assert corner.worst_regret > corner.regret
    assert "off" in choice.sentence
    assert "not kept: corner" in choice.sentence


def test_forms_that_tie_in_regret_are_told_apart_by_error_and_else_averaged() -> None:
    runs = measured_table(TRUTH, noise=0.01, n_seeds=2)
    laws = fitter(truth=TRUTH, twin=TRUTH, off=variant(Off))
    choice = choose_forms(runs, PROBLEM, forms=["truth", "twin", "off"], fit=laws)
    assert choice.weights == {"truth": 0.5, "twin": 0.5}
    assert choice.scores[0].held_out_error == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.1)
    assert choice.scores[2].held_out_error == pytest.approx(np.log(1.4), rel=0.1)


def test_a_law_that_is_linear_along_a_budget_is_dropped_for_its_corners() -> None:
    choice = choose_forms(measured_table(TRUTH, noise=0.01), PROBLEM, forms=["law-1", "law-2"])
    linear, other = choice.scores
    assert choice.criterion == "regret"
    assert choice.weights == {"law-2": 1.0}
    assert (linear.regret or 0.0) > 5 * (other.regret or 1.0)


def test_a_form_that_cannot_be_fitted_is_noted_and_left_out() -> None:
    choice = choose_forms(
        measured_table(TRUTH), PROBLEM, forms=["truth", "broken"], fit=fitter(truth=TRUTH, broken=None)
    )
    assert choice.weights == {"truth": 1.0}
    assert "broken needs more runs" in choice.scores[1].note


def test_without_comparable_budgets_held_out_error_decides_and_says_so() -> None:
    runs = measured_table(TRUTH, pretrain_tokens=(0.5e6, 2e6))
    choice = choose_forms(runs, PROBLEM, forms=["off", "truth"], fit=fitter(off=variant(Off), truth=TRUTH))
    assert choice.criterion == "held-out error"
    assert choice.weights == {"truth": 1.0}
    assert "no measured budgets" in choice.sentence


def test_a_tiny_table_keeps_the_simplest_form_that_fits_or_says_why_none_does() -> None:
    runs = measured_table(TRUTH, sizes=(14_000,), pretrain_tokens=(1e6,), specialize_tokens=(0, 1e6)).iloc[:1]
    laws = {"truth": TRUTH}
    choice = choose_forms(runs, PROBLEM, forms=["truth"], fit=lambda _, form: laws[form])
    assert choice.criterion == "simplicity"
    assert choice.weights == {"truth": 1.0}
    with pytest.raises(LawError, match=r"no form can be fitted.*truth needs more runs than 1"):
        choose_forms(runs, PROBLEM, forms=["truth"], fit=fitter(truth=TRUTH))


def test_experts_reckoned_alone_are_compared_on_their_own_budget_lines() -> None:
    alone = replace(PROBLEM, accounting="per-expert")
    choice = choose_forms(
        measured_table(TRUTH), alone, forms=["truth", "c"], fit=fitter(truth=TRUTH, c=variant(PicksPretraining))
    )
    assert choice.criterion == "regret"
    assert choice.scores[0].regret == 0.0
    assert (choice.scores[1].regret or 0.0) > 0.0


def test_measured_losses_are_read_exactly_on_the_grid_between_it_in_order_and_never_outside() -> None:
    grid = MeasuredGrid(specialize_tokens=np.array([0.0, 1e5, 2e5]), losses=np.array([3.0, 2.5, 2.3]))
    assert [grid.loss(s) for s in (0.0, 1e5, 2e5)] == pytest.approx([3.0, 2.5, 2.3])
    assert 2.3 < grid.loss(1.5e5) < 2.5
    assert np.isnan(grid.loss(2.1e5))
    without_zero = MeasuredGrid(specialize_tokens=np.array([1e5, 2e5]), losses=np.array([2.5, 2.3]))
    assert np.isnan(without_zero.loss(5e4))


def test_the_largest_comparable_budget_leaves_three_pretraining_lengths_to_choose_from() -> None:
    surface = measured_surface(measured_table(TRUTH), TRUTH.domains)
    grids = surface[14_000]
    top = largest_budget(grids, accounting="shared")
    assert top == 1e6 + 3 * 1e6  # from D = 1 M the most is 3 M; D = 2 M and 4 M can spend less
    assert comparable(grids, top, accounting="shared") == [1_000_000, 2_000_000, 4_000_000]
    assert largest_budget(grids, accounting="per-expert") == 1.25e6
    assert largest_budget({d: grids[d] for d in list(grids)[:2]}, accounting="shared") == 0.0
