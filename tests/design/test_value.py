"""What an observation is worth for the decision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raysplit.design.value import Array, Belief, belief_of, distances, foreseen_log_loss
from raysplit.split import Problem
from tests.split.doubles import known_law


@st.composite
def beliefs(draw: st.DrawFn) -> Belief:
    """Some draws, what their best splits lose under each other, and weights within a factor of 400."""
    n_draws = draw(st.integers(1, 8))
    regret = draw(arrays(float, (n_draws, n_draws), elements=st.floats(0, 0.2)))
    np.fill_diagonal(regret, 0.0)
    weights = draw(arrays(float, n_draws, elements=st.floats(-3, 3)))
    return Belief(regret=regret, log_weights=weights, apart=np.zeros((n_draws, n_draws)))


def candidates(draw: st.DrawFn, belief: Belief, *, most: int = 4) -> Array:
    """(M, B, B) of observations that foresee something within two standard deviations of zero."""
    n_points = draw(st.integers(1, most))
    foreseen = draw(arrays(float, (len(belief.regret), n_points, 2), elements=st.floats(-2, 2)))
    return distances(foreseen, np.ones((n_points, 2)))


def one(foreseen: list[float], noise: float) -> Array:
    """(1, B, B) of a single observation of a single domain."""
    return distances(np.array(foreseen)[:, None, None], np.array([[noise]]))


@given(st.data())
def test_a_value_is_between_nothing_and_the_whole_regret(data: st.DataObject) -> None:
    belief = data.draw(beliefs())
    pending = data.draw(st.composite(candidates)(belief))
    apart = data.draw(st.composite(candidates)(belief))
    for held in (belief, belief.expecting(pending.sum(axis=0))):
        values = held.values(apart)
        assert values.shape == (len(apart),)
        assert (values >= 0).all()
        assert (values <= held.expected_regret + 1e-12).all()


@given(beliefs())
def test_an_observation_on_which_all_draws_agree_is_worth_nothing(belief: Belief) -> None:
    agreed = one([3.7] * len(belief.regret), 0.01)
    assert belief.values(agreed) == pytest.approx(0.0, abs=1e-12)


@given(beliefs())
def test_an_observation_that_tells_every_draw_apart_is_worth_the_whole_regret(belief: Belief) -> None:
    telling = one([float(b) for b in range(len(belief.regret))], 0.01)
    assert belief.values(telling)[0] == pytest.approx(belief.expected_regret, abs=1e-9)


def test_telling_decisions_apart_is_enough() -> None:
    # Draws 0 and 1 want one split, draws 2 and 3 another.
    regret = np.kron(np.array([[0.0, 0.1], [0.06, 0.0]]), np.ones((2, 2)))
    belief = Belief(regret=regret, log_weights=np.zeros(4), apart=np.zeros((4, 4)))
    assert belief.expected_regret == pytest.approx(0.03)
    between, within = one([0, 0, 1, 1], 0.01), one([0, 1, 0, 1], 0.01)
    assert belief.values(between) == pytest.approx(0.03)
    assert belief.values(within) == pytest.approx(0.0, abs=1e-12)


@given(st.floats(0.05, 20), st.floats(0.01, 0.2))
def test_a_second_copy_on_its_way_is_worth_less(difference: float, at_stake: float) -> None:
    # With two draws that are alike but for their decision, the value is concave in the number of copies; with more
    # it need not be, since one weak observation may be worth nothing and ten of them much.
    regret = np.array([[0.0, at_stake], [at_stake, 0.0]])
    belief = Belief(regret=regret, log_weights=np.zeros(2), apart=np.zeros((2, 2)))
    copy = one([0.0, difference], 1.0)
    first = belief.values(copy)[0]
    second = belief.expecting(copy[0]).values(copy)[0]
    assert 0 <= second < first


@given(st.data())
def test_after_all_draws_are_told_apart_nothing_more_is_worth_waiting_for(data: st.DataObject) -> None:
    belief = data.draw(beliefs())
    telling = one([float(b) for b in range(len(belief.regret))], 0.01)
    apart = data.draw(st.composite(candidates)(belief))
    assert belief.expecting(telling[0]).values(apart) == pytest.approx(0.0, abs=1e-9)


@given(st.data())
def test_neither_the_order_of_draws_nor_of_observations_matters(data: st.DataObject) -> None:
    belief = data.draw(beliefs())
    apart = data.draw(st.composite(candidates)(belief))
    order = np.array(data.draw(st.permutations(range(len(belief.regret)))))
    shuffled = Belief(
        regret=belief.regret[np.ix_(order, order)], log_weights=belief.log_weights[order], apart=belief.apart
    )
    mixed = shuffled.values(apart[:, order][:, :, order])
    np.testing.assert_allclose(mixed, belief.values(apart), atol=1e-12)
    np.testing.assert_allclose(belief.values(apart[::-1]), belief.values(apart)[::-1], atol=1e-15)


def test_many_candidates_are_worth_what_each_is_alone(rng: np.random.Generator) -> None:
    regret = rng.uniform(0, 0.1, (6, 6)) * (1 - np.eye(6))
    belief = Belief(regret=regret, log_weights=rng.normal(size=6), apart=np.zeros((6, 6)))
    apart = distances(rng.normal(size=(6, 600, 2)), np.full((600, 2), 0.7))
    alone = [belief.values(apart[i : i + 1])[0] for i in (0, 255, 256, 599)]
    np.testing.assert_allclose(belief.values(apart)[[0, 255, 256, 599]], alone, rtol=1e-12)
    assert belief.values(apart[:0]).shape == (0,)


def test_what_is_seen_favours_the_draws_that_foresaw_it() -> None:
    regret = np.array([[0.0, 0.1, 0.1], [0.1, 0.0, 0.1], [0.1, 0.1, 0.0]])
    belief = Belief(regret=regret, log_weights=np.zeros(3), apart=np.zeros((3, 3)))
    foreseen = np.array([1.0, 1.1, 1.2])
    after = belief.seen(foreseen, 1.1, 0.02)
    assert after.probability.argmax() == 1
    assert after.expected_regret < 0.01 * belief.expected_regret
    there = belief.seen(foreseen, 1.1, 0.05).seen(foreseen, 1.15, 0.05)
    back = belief.seen(foreseen, 1.15, 0.05).seen(foreseen, 1.1, 0.05)
    np.testing.assert_allclose(there.probability, back.probability)


def test_a_domain_that_a_point_does_not_measure_tells_nothing(rng: np.random.Generator) -> None:
    foreseen = rng.normal(size=(5, 1, 2))
    noise = np.array([[0.5, np.inf]])
    np.testing.assert_allclose(distances(foreseen, noise), distances(foreseen[..., :1], noise[:, :1]))


def test_the_belief_of_a_law_holds_no_regret_where_there_is_no_doubt() -> None:
    problem = Problem(budget_flops=6 * 36e3 * 4e6, sizes={36_000: 6 * 36e3}, domains=("domain-0", "domain-1"))
    certain = belief_of(known_law(n_domains=2, n_draws=1), problem)
    assert certain.expected_regret == pytest.approx(0.0, abs=1e-9)
    doubtful = belief_of(known_law(n_domains=2, n_draws=8, jitter=0.2), problem)
    assert doubtful.regret.shape == (8, 8)
    # A draw's own best split is found to within rounding.
    assert np.diag(doubtful.regret) == pytest.approx(0.0, abs=1e-6)
    assert 0 < doubtful.expected_regret <= doubtful.regret.max()


def test_each_draw_foresees_its_own_loss() -> None:
    law = known_law(n_domains=3, n_draws=4)
    n, d, s = np.array([14e3, 36e3]), np.array([1e6, 2e6]), np.array([0.0, 5e5])
    foreseen = foreseen_log_loss(law, n, d, s)
    assert foreseen.shape == (4, 2, 3)
    np.testing.assert_allclose(np.exp(foreseen[:, 1]), law.loss([[36e3]], [[2e6]], [[5e5]]))
