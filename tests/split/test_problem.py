"""Accounting, constraints and the errors that name them."""

import math
import re
from typing import Any

import numpy as np
import pytest

from raysplit.errors import SplitError
from raysplit.split import Base, Problem, Split, baselines, fixed_share
from raysplit.split.problem import breaks_cap
from tests.split.strategies import SIZES

GIVEN = {14_000: Base(pretrain_tokens=1e6)}


def problem(**changes: Any) -> Problem:
    return Problem(**{"budget_flops": 1e12, "sizes": SIZES, "domains": ("code", "law"), **changes})


def test_a_shared_seed_is_paid_once_and_each_expert_once() -> None:
    split = Split(n_params=14_000, pretrain_tokens=1e6, specialize_tokens={"code": 2e5, "law": 3e5})
    assert split.flops(problem()) == SIZES[14_000] * 1.5e6
    assert split.flops(problem(accounting="per-expert")) == SIZES[14_000] * 1.3e6
    assert split.pretrain_share == pytest.approx(1 / 1.5)


def test_independent_seeds_are_paid_once_an_expert() -> None:
    split = Split(n_params=14_000, pretrain_tokens=1e6, specialize_tokens={"code": 2e5, "law": 3e5})
    asked = problem(seeds="independent")
    assert split.flops(asked) == SIZES[14_000] * 2.5e6
    assert asked.pretrain_share(split) == pytest.approx(2 / 2.5)
    alone = problem(seeds="independent", accounting="per-expert")
    assert split.flops(alone) == split.flops(problem(accounting="per-expert"))
    rules = baselines(asked, n_params=14_000)
    assert rules == baselines(problem(), n_params=14_000)  # a rule of thumb has one seed


def test_inference_costs_a_third_of_training_and_an_existing_seed_nothing() -> None:
    split = Split(n_params=14_000, pretrain_tokens=1e6, specialize_tokens={"code": 2e5, "law": 3e5})
    assert split.flops(problem(inference_tokens=3e6)) == pytest.approx(SIZES[14_000] * 2.5e6)
    assert split.flops(problem(bases=GIVEN)) == pytest.approx(SIZES[14_000] * 5e5)


def test_weights_are_normalised_and_equal_when_left_out() -> None:
    assert problem(weights=[3, 1]).weights == (0.75, 0.25)
    assert problem().weights == (0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budget_flops": 0.0}, "budget_flops must be positive"),
        ({"budget_flops": math.nan}, "budget_flops must be positive"),
        ({"budget_flops": math.inf}, "must be finite"),
        ({"sizes": {}}, "sizes must be positive"),
        ({"sizes": {14_000: -1.0}}, "sizes: 14000"),
        ({"domains": ("code", "code")}, "domains must be distinct"),
        ({"weights": [1.0]}, "weights: 1 for 2 domains"),
        ({"weights": [1.0, 0.0]}, "weights: law"),
        ({"accounting": "per-exprt"}, "did you mean 'per-expert'"),
        ({"seeds": "independant"}, "did you mean 'independent'"),
        ({"seeds": "independent", "bases": {14_000: Base()}}, "independent experts have nothing in common"),
        ({"max_specialize_tokens": {"cod": 1.0}}, "max_specialize_tokens: unknown domain 'cod'"),
        ({"max_specialize_tokens": {"code": -1.0}}, "must not be negative"),
        ({"available_tokens": {"code": 1e6}}, "available_tokens: code: mixture"),
        ({"mixture": {"code": 0.7, "law": 0.7}}, "mixture: the shares sum to 1.4"),
        ({"bases": {15_000: Base()}}, "bases: unknown model size '15000'"),
        ({"bases": GIVEN, "max_pretrain_tokens": 1e5}, "bases: 1000000.0 tokens"),
        ({"max_epochs": 0.0}, "max_epochs must be positive"),
        ({"max_epochs": math.nan}, "max_epochs must be positive"),
        ({"max_general_loss": math.nan}, "max_general_loss must be positive"),
        ({"max_general_rise": 0.0}, "max_general_rise must be positive"),
        ({"inference_tokens": -1.0}, "inference_tokens must not be negative"),
    ],
)
def test_an_impossible_problem_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SplitError, match=re.escape(named)):
        problem(**changes)


def test_a_budget_that_inference_eats_is_refused_by_name() -> None:
    with pytest.raises(SplitError, match=r"budget_flops: 1\.00e12 FLOPs buys no training token at N = 14k"):
        problem(inference_tokens=1e12).pretrain_range(14_000)


def test_a_budget_below_a_token_is_refused_by_name() -> None:
    with pytest.raises(SplitError, match=r"budget_flops: 1\.00e2 FLOPs buys no training token at N = 14k$"):
        problem(budget_flops=100.0).pretrain_range(14_000)


def test_a_base_without_domain_data_is_refused_by_name() -> None:
    stuck = problem(bases=GIVEN, max_specialize_tokens={"code": 0, "law": 0})
    with pytest.raises(SplitError, match="max_specialize_tokens: no domain may be specialized"):
        stuck.pretrain_range(14_000)
    seen = {"code": 2e5, "law": 5e5}  # by the seed already
    used_up = problem(bases=GIVEN, available_tokens=seen, mixture={"code": 0.5, "law": 0.5})
    with pytest.raises(SplitError, match=r"^available_tokens: no domain may be specialized"):
        used_up.pretrain_range(14_000)


def test_no_text_at_all_is_refused_by_name() -> None:
    nothing = problem(available_tokens={"code": 0, "law": 0}, mixture={"code": 0.5, "law": 0.5})
    with pytest.raises(SplitError, match=r"^available_tokens, max_specialize_tokens: the caps leave no token"):
        nothing.pretrain_range(14_000)


def test_data_caps_tell_from_which_pretraining_on_the_budget_can_be_spent() -> None:
    capped = problem(
        budget_flops=2e12,
        available_tokens={"code": 2e6, "law": 8e6},
        mixture={"code": 0.25, "law": 0.75},
        max_specialize_tokens={"law": 4e6},
    )
    low, high, total = capped.pretrain_range(14_000)
    assert high == pytest.approx(8e6)  # code: 2e6 / .25
    assert total == pytest.approx(10e6)  # all that there is of both, less than the budget buys
    assert low == 0.0
    least = capped.least_spending_all(low, high, total)
    assert least == pytest.approx(4e6 / 0.75)  # with less pretraining, law's cap would bind
    assert capped.spendable_tokens(0.99 * least) < total
    for d in np.linspace(least, high, 5):
        assert capped.spendable_tokens(d) >= total * (1 - 1e-9)


def test_baselines_cost_the_budget_and_leave_out_what_the_caps_forbid() -> None:
    named = baselines(problem(weights=[3, 1]), n_params=14_000)
    assert list(named) == ["pretraining only", "80/20", "50/50", "from scratch"]
    assert named["80/20"].specialize_tokens["code"] == pytest.approx(3 * named["80/20"].specialize_tokens["law"])
    for split in named.values():
        assert split.flops(problem()) == pytest.approx(1e12)
    capped = baselines(problem(max_specialize_tokens={"code": 1e6}), n_params=14_000)
    assert list(capped) == ["pretraining only", "80/20"]


def test_from_a_base_the_rules_are_none_equal_and_one_pass_where_it_is_paid() -> None:
    shares = {"code": 0.0, "law": 0.0}
    given = problem(bases=GIVEN, available_tokens={"code": 1e6, "law": 1.5e6}, mixture=shares)
    named = baselines(given, n_params=14_000)
    assert list(named) == ["no training", "one pass"]  # equal tokens are more than there are of one domain
    assert named["no training"].flops(given) == 0
    assert named["one pass"].specialize_tokens == {"code": 1e6, "law": 1.5e6}
    equal = baselines(problem(bases=GIVEN), n_params=14_000)["equal tokens"]
    assert equal.specialize_tokens["code"] == equal.specialize_tokens["law"]
    assert equal.flops(given) == pytest.approx(1e12)


def test_an_expert_alone_gets_the_whole_rest_of_its_budget() -> None:
    split = fixed_share(problem(accounting="per-expert"), n_params=14_000, share=0.8)
    assert split.flops(problem(accounting="per-expert")) == pytest.approx(1e12)
    assert split.specialize_tokens["code"] == split.specialize_tokens["law"]


def test_an_unknown_size_names_the_known_ones() -> None:
    with pytest.raises(SplitError, match=r"unknown model size '1'\. Known: 14000, 36000, 110000"):
        fixed_share(problem(), n_params=1, share=0.5)


def test_text_is_as_many_tokens_as_each_base_cuts_it_into() -> None:
    bases = {
        14_000: Base(name="coarse", available_tokens={"code": 3e5, "law": 1e5}),
        36_000: Base(name="fine", available_tokens={"code": 6e5, "law": 3e5}),
    }
    asked = problem(bases=bases, max_epochs=2.0)
    sizes = np.array([[36_000.0, 14_000.0]])
    caps = asked.specialize_caps(np.ones_like(sizes), sizes)
    np.testing.assert_array_equal(caps, [[[6e5, 3e5], [3e5, 1e5]]])
    for n_params, base in bases.items():
        once = baselines(asked, n_params=n_params)["one pass"].specialize_tokens
        assert once == {name: tokens / 2 for name, tokens in base.available_tokens.items()}
        _, _, spent = asked.pretrain_range(n_params)
        assert spent == 1 + sum(base.available_tokens.values())
    too_many = Split(n_params=36_000, pretrain_tokens=1, specialize_tokens={"code": 3e5, "law": 4e5})
    assert breaks_cap(asked, too_many)
