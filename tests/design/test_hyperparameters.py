"""The rule for the learning rate, on synthetic tables: known optima are found, edges are noticed, odd runs ignored."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from raysplit.design.hyperparameters import Range, RateRule, Tried, find_optimum, fit_rule

RANGE = Range(low=1e-3, high=1e-1)
CURVATURE = 0.02


def best_rate(n_params: float, tokens: float, a: float, b: float) -> float:
    return 1e-2 * (n_params / 30e3) ** a * (tokens / 250e3) ** b


def synthetic(
    n_params: int, tokens: int, best: float, rates: np.ndarray, *, noise: float = 0.0, seed: int = 0
) -> list[Tried]:
    """A synthetic bowl in log lr around ``best``, steeper above it, as real ones are."""
    rng = np.random.default_rng(seed)
    x = np.log(rates / best)
    losses = 3.0 * (1 + CURVATURE * x**2 * np.exp(0.1 * x)) * np.exp(noise * rng.standard_normal(len(x)))
    return [
        Tried(n_params=n_params, pretrain_tokens=tokens, learning_rate=float(rate), loss=float(loss))
        for rate, loss in zip(rates, losses, strict=True)
    ]


def synthetic_rule(a: float, b: float, *, noise: float, sizes: tuple[int, ...] = (14_000, 28_000, 56_000)) -> RateRule:
    optima = []
    for i, n in enumerate(sizes):
        for j, d in enumerate((125_000, 250_000, 500_000)):
            rates = np.geomspace(2e-3, 6e-2, 9)
            tried = synthetic(n, d, best_rate(n, d, a, b), rates, noise=noise, seed=10 * i + j)
            optima.append(find_optimum(tried, Range(low=2e-3, high=6e-2)))
    return fit_rule(optima, prior_exponent=-0.25)


@given(best=st.floats(3e-3, 3e-2), seed=st.integers(0, 10_000))
def test_the_optimum_is_found_within_its_error(best: float, seed: int) -> None:
    found = find_optimum(synthetic(14_000, 125_000, best, np.geomspace(1e-3, 1e-1, 9), noise=0.002, seed=seed), RANGE)
    assert not found.edge
    assert abs(math.log(found.learning_rate / best)) < 4 * found.log_error + 0.1
    assert found.log_error < 0.6
    assert found.loss == pytest.approx(3.0, rel=0.01)
    assert found.doubling_penalty == pytest.approx(CURVATURE * math.log(2) ** 2, rel=0.8)


@pytest.mark.parametrize(("a", "b"), [(-0.25, 0.0), (-0.6, -0.2), (-0.05, 0.25)])
def test_the_exponents_are_recovered(a: float, b: float) -> None:
    rule = synthetic_rule(a, b, noise=0.001)
    assert rule.exponent == pytest.approx(a, abs=0.1)
    assert rule.token_exponent == pytest.approx(b, abs=0.1)
    assert abs(rule.exponent - a) < 3 * rule.exponent_error
    assert abs(rule.token_exponent - b) < 3 * rule.token_exponent_error
    at = (56_000, 500_000)
    assert rule.rate(*at) == pytest.approx(best_rate(*at, a, b), rel=0.15)
    assert {left.n_params for left in rule.left_out} == {14_000, 28_000, 56_000}
    assert all(left.log_error < 0.5 for left in rule.left_out)
    assert all(left.penalty < 0.01 for left in rule.left_out)


@pytest.mark.parametrize("exponent", [-0.25, -0.5])
def test_one_size_leaves_the_exponent_where_it_was(exponent: float) -> None:
    tried = synthetic(14_000, 125_000, 1e-2, np.geomspace(1e-3, 1e-1, 9))
    rule = fit_rule([find_optimum(tried, RANGE)], prior_exponent=exponent)
    assert rule.exponent == pytest.approx(exponent)
    assert rule.token_exponent == pytest.approx(0)
    assert rule.exponent_error > 0.2
    assert rule.left_out == ()


def test_a_rate_is_never_carried_upwards_with_the_size() -> None:
    assert synthetic_rule(0.5, 0.0, noise=0.0).exponent == pytest.approx(0.0, abs=1e-12)


@given(best=st.floats(1e-5, 10.0), n=st.integers(3, 12), seed=st.integers(0, 1000), noise=st.floats(0, 0.1))
def test_an_optimum_outside_or_at_the_end_is_flagged_and_stays_in_the_range(
    best: float, n: int, seed: int, noise: float
) -> None:
    tried = synthetic(14_000, 125_000, best, np.geomspace(RANGE.low, RANGE.high, n), noise=noise, seed=seed)
    found = find_optimum(tried, RANGE)
    assert RANGE.low <= found.learning_rate <= RANGE.high
    if noise < 0.01 and not RANGE.low < best < RANGE.high:
        assert found.edge == ("low" if best <= RANGE.low else "high")
        wider = RANGE.widened(found.edge)
        assert wider.low < RANGE.low or wider.high > RANGE.high
        assert wider.low <= fit_rule([found], prior_exponent=-0.25).rate(14_000, 125_000) <= wider.high


@given(data=st.data())
def test_runs_that_diverged_or_went_astray_do_not_move_the_optimum(data: st.DataObject) -> None:
    tried = synthetic(14_000, 125_000, 1e-2, np.geomspace(1e-3, 1e-1, 9))
    high = data.draw(st.lists(st.sampled_from([math.inf, math.nan, 6.0, 20.0]), min_size=2, max_size=2))
    spoiled = [replace(t, loss=loss) for t, loss in zip(tried[-2:], high, strict=True)]
    found, clean = find_optimum([*tried[:-2], *spoiled], RANGE), find_optimum(tried, RANGE)
    assert found.learning_rate == pytest.approx(clean.learning_rate, rel=0.15)
    assert found.n_lost == sum(not math.isfinite(loss) for loss in high)


def test_one_odd_run_near_the_bottom_moves_it_little() -> None:
    tried = synthetic(14_000, 125_000, 1e-2, np.geomspace(1e-3, 1e-1, 11))
    tried[7] = replace(tried[7], loss=tried[7].loss * 1.04)
    assert find_optimum(tried, RANGE).learning_rate == pytest.approx(1e-2, rel=0.25)


@pytest.mark.parametrize("losses", [[3.0, 3.1], [3.0, math.inf, math.inf], [3.2, 3.3, 3.2]])
def test_too_little_for_a_parabola_gives_the_best_run_and_a_wide_error(losses: list[float]) -> None:
    rates = np.geomspace(5e-3, 2e-2, len(losses))
    tried = [
        Tried(n_params=1, pretrain_tokens=1, learning_rate=float(rate), loss=loss)
        for rate, loss in zip(rates, losses, strict=True)
    ]
    found = find_optimum(tried, RANGE)
    assert found.learning_rate == pytest.approx(5e-3)
    assert found.curvature == 0
    assert found.log_error > 1


def test_nothing_to_go_by_is_refused() -> None:
    with pytest.raises(ValueError, match="finite loss"):
        find_optimum([Tried(n_params=1, pretrain_tokens=1, learning_rate=1e-2, loss=math.inf)], RANGE)
    with pytest.raises(ValueError, match="no optimum"):
        fit_rule([], prior_exponent=-0.25)


@given(low=st.floats(1e-4, 0.4), width=st.floats(1.2, 100), log=st.booleans(), place=st.floats(0, 1))
def test_a_range_is_widened_at_the_end_where_the_value_lies_and_not_beyond_its_limits(
    low: float, width: float, log: bool, place: float
) -> None:
    most = 3 * low * width
    tried = Range(low=low, high=low * width, log=log, least=low / 2, most=most)
    assume(tried.low < tried.high)
    value = low * width**place
    edge = tried.edge(value)
    wider = tried.widened(edge)
    assert tried.least <= wider.low <= tried.low
    assert tried.high <= wider.high <= most
    assert (edge == "") == (wider == tried)
    assert tried.edge(tried.low) == "low"
    assert tried.edge(tried.high) == "high"
    shut = replace(tried, least=tried.low, most=tried.high)
    assert shut.edge(value) == ""
