"""What observations are worth for the decision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raysplit.design.designs import drop_of_spread
from raysplit.design.value import Array, Belief, Index, belief_of
from raysplit.split import Problem
from tests.split.doubles import known_law

NOISE = 0.5


@st.composite
def beliefs(draw: st.DrawFn, *, most_columns: int = 4) -> Belief:
    """Some draws, what their best splits lose under each other, and observations within two units of zero."""
    n_draws, n_columns = draw(st.integers(2, 8)), draw(st.integers(1, most_columns))
    regret = draw(arrays(float, (n_draws, n_draws), elements=st.floats(0, 0.2)))
    np.fill_diagonal(regret, 0.0)
    foreseen = draw(arrays(float, (n_draws, n_columns), elements=st.floats(-2, 2)))
    return belief_in(regret, foreseen)


def belief_in(regret: Array, foreseen: Array, noise: float = NOISE) -> Belief:
    return Belief(regret=regret, target=regret, foreseen=foreseen, noise=np.full(foreseen.shape[1], noise))


def singles(belief: Belief) -> Index:
    """(X, 1) each observation as a group of its own."""
    return np.arange(belief.foreseen.shape[1])[:, None]


@given(beliefs())
def test_a_value_is_between_nothing_and_the_whole_regret(belief: Belief) -> None:
    for held in (belief, belief.expecting([0])):
        values = held.values(singles(held))
        assert values.shape == (held.foreseen.shape[1],)
        assert (values >= 0).all()
        assert (values <= held.expected_regret + 1e-12).all()


@given(beliefs())
def test_an_observation_on_which_all_draws_agree_is_worth_nothing(belief: Belief) -> None:
    agreed = belief_in(belief.regret, np.full((len(belief.regret), 1), 3.7))
    assert agreed.values(singles(agreed)) == pytest.approx(0.0, abs=1e-9)


@given(beliefs())
def test_the_drop_of_spread_is_that_of_the_conditional_variance(belief: Belief) -> None:
    n_regrets = belief.regret.shape[1]
    drops = drop_of_spread(belief, singles(belief))
    for drop, foreseen, noise in zip(drops, belief.foreseen.T, belief.noise, strict=True):
        joint = np.cov(belief.regret.T, foreseen, bias=True)
        joint[-1, -1] += noise**2
        left = joint[:-1, :-1] - np.outer(joint[:-1, -1], joint[-1, :-1]) / joint[-1, -1]
        assert drop == pytest.approx((np.trace(joint[:-1, :-1]) - np.trace(left)) / n_regrets, abs=1e-12)


def test_only_what_tells_decisions_apart_is_worth_anything() -> None:
    # Draws 0 and 1 want one split, draws 2 and 3 another.
    regret = np.kron(np.array([[0.0, 0.1], [0.06, 0.0]]), np.ones((2, 2)))
    foreseen = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # the first between them, the second within
    belief = belief_in(regret, foreseen, noise=0.01)
    assert belief.expected_regret == pytest.approx(0.03)
    between, within = belief.values(singles(belief))
    assert 0.5 * 0.03 < between <= 0.03
    assert within == pytest.approx(0.0, abs=1e-12)


@given(st.floats(0.05, 20), st.floats(0.01, 0.2))
def test_a_second_copy_on_its_way_is_worth_less(difference: float, at_stake: float) -> None:
    regret = np.array([[0.0, at_stake], [at_stake, 0.0]])
    belief = belief_in(regret, np.array([[0.0], [difference]]), noise=1.0)
    first = belief.values(singles(belief))[0]
    second = belief.expecting([0]).values(singles(belief))[0]
    assert 0 <= second < first


@given(beliefs())
def test_what_is_on_its_way_takes_no_more_spread_than_there_is(belief: Belief) -> None:
    after = belief.expecting(list(range(belief.foreseen.shape[1])))
    for before_, after_ in ((belief.foreseen, after.foreseen), (belief.regret, after.regret)):
        assert (after_.var(axis=0) <= before_.var(axis=0) + 1e-12).all()
        np.testing.assert_allclose(after_.mean(axis=0), before_.mean(axis=0), atol=1e-9)


@given(beliefs())
def test_a_group_tells_at_least_as_much_as_its_best_member_up_to_their_shared_error(belief: Belief) -> None:
    columns = belief.foreseen.shape[1]
    together = belief.information(np.arange(columns)[None])[0]
    single = belief.information(singles(belief))
    assert together <= single.sum() + 1e-9
    if columns == 1:
        assert together == pytest.approx(single[0])


@given(st.data())
def test_neither_the_order_of_draws_nor_of_observations_matters(data: st.DataObject) -> None:
    belief = data.draw(beliefs())
    order = np.array(data.draw(st.permutations(range(len(belief.regret)))))
    shuffled = belief_in(belief.regret[order], belief.foreseen[order])
    groups = singles(belief)
    np.testing.assert_allclose(shuffled.values(groups), belief.values(groups), atol=1e-9)
    np.testing.assert_allclose(belief.values(groups[::-1]), belief.values(groups)[::-1], atol=1e-15)


@given(beliefs())
def test_an_index_of_minus_one_stands_for_no_observation(belief: Belief) -> None:
    padded = np.concatenate([singles(belief), np.full((belief.foreseen.shape[1], 2), -1)], axis=1)
    np.testing.assert_allclose(belief.information(padded), belief.information(singles(belief)), atol=1e-12)


def test_many_groups_are_worth_what_each_is_alone(rng: np.random.Generator) -> None:
    belief = belief_in(rng.uniform(0, 0.1, (6, 6)) * (1 - np.eye(6)), rng.normal(size=(6, 600)))
    groups = singles(belief)
    values = belief.values(groups)
    for i in (0, 255, 256, 599):
        assert values[i] == pytest.approx(belief.values(groups[i : i + 1])[0], rel=1e-12)
    assert belief.values(groups[:0]).shape == (0,)


def test_what_is_seen_moves_the_mean_towards_it_and_the_order_does_not_matter(rng: np.random.Generator) -> None:
    foreseen = rng.normal(size=(40, 2))
    regret = np.abs(foreseen[:, :1] - np.array([[-1.0, 0.0, 1.0]]))  # the better split depends on the first
    belief = belief_in(regret, foreseen, noise=0.1)
    after = belief.seen([0], [1.0])
    assert after.foreseen[:, 0].mean() == pytest.approx(1.0, abs=0.1)
    assert after.regret.mean(axis=0).argmin() == 2
    there, back = belief.seen([0], [1.0]).seen([1], [0.5]), belief.seen([1], [0.5]).seen([0], [1.0])
    np.testing.assert_allclose(there.regret.mean(axis=0), back.regret.mean(axis=0), atol=1e-9)


def test_an_observation_that_is_not_made_tells_nothing(rng: np.random.Generator) -> None:
    belief = Belief(
        regret=rng.uniform(0, 0.1, (5, 5)),
        target=rng.normal(size=(5, 5)),
        foreseen=rng.normal(size=(5, 1)),
        noise=np.array([np.inf]),
    )
    assert belief.values(singles(belief))[0] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(belief.seen([0], [5.0]).regret, belief.regret)


def test_the_belief_of_a_law_holds_no_regret_where_there_is_no_doubt() -> None:
    problem = Problem(budget_flops=6 * 36e3 * 4e6, sizes={36_000: 6 * 36e3}, domains=("domain-0", "domain-1"))
    point = (np.array([36e3]), np.array([1e6]), np.array([5e5]))
    certain = belief_of(known_law(n_domains=2, n_draws=1), problem, *point)
    assert certain.expected_regret == pytest.approx(0.0, abs=1e-9)
    doubtful = belief_of(known_law(n_domains=2, n_draws=8, jitter=0.2), problem, *point)
    assert doubtful.regret.shape == (8, 8)
    # A draw's own best split is found to within rounding.
    assert np.diag(doubtful.regret) == pytest.approx(0.0, abs=1e-6)
    assert 0 < doubtful.expected_regret <= doubtful.regret.max()


def test_each_draw_foresees_its_own_loss() -> None:
    law = known_law(n_domains=3, n_draws=4)
    problem = Problem(budget_flops=1e12, sizes={36_000: 6 * 36e3}, domains=law.domains)
    n, d, s = np.array([14e3, 36e3]), np.array([1e6, 2e6]), np.array([0.0, 5e5])
    foreseen = belief_of(law, problem, n, d, s).foreseen
    assert foreseen.shape == (4, 6)
    np.testing.assert_allclose(np.exp(foreseen[:, 3:]), law.loss([[36e3]], [[2e6]], [[5e5]]))
