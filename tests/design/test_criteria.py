"""Conditioning an ensemble, against the Gaussian formulas written out."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raysplit.design.criteria import Array, expecting, variance_drop


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    foreseen: Array
    noise: Array
    target: Array
    log_weights: Array | None

    def drop(self) -> Array:
        return variance_drop(self.foreseen, self.noise, self.target, log_weights=self.log_weights)

    def after(self, chosen: list[int]) -> "Ensemble":
        foreseen, target = expecting(self.foreseen, self.target, chosen, self.noise, log_weights=self.log_weights)
        return replace(self, foreseen=foreseen, target=target)

    def covariance(self) -> Array:
        """(M + Q, M + Q)."""
        everything = np.concatenate([self.foreseen, self.target], axis=1)
        weights = np.exp(self.log_weights) if self.log_weights is not None else None
        return np.atleast_2d(np.cov(everything.T, aweights=weights, ddof=0))


@st.composite
def ensembles(draw: st.DrawFn, *, least_draws: int = 2) -> Ensemble:
    """A few draws within some units of zero; where they differ, they differ by more than rounding."""
    b, m, q = draw(st.integers(least_draws, 7)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    values = st.integers(-3000, 3000).map(lambda x: x / 1000)
    noise = st.one_of(st.floats(0.01, 3.0), st.just(np.inf))
    return Ensemble(
        foreseen=draw(arrays(float, (b, m), elements=values)),
        noise=draw(arrays(float, m, elements=noise)),
        target=draw(arrays(float, (b, q), elements=values)),
        log_weights=draw(st.one_of(st.none(), arrays(float, b, elements=st.floats(-3, 3)))),
    )


@given(ensembles(least_draws=1))
def test_no_observation_is_worth_less_than_nothing_and_none_more_than_all(ensemble: Ensemble) -> None:
    n_candidates = ensemble.foreseen.shape[1]
    left = np.diag(ensemble.covariance())[n_candidates:].mean() if len(ensemble.foreseen) > 1 else 0.0
    drop = ensemble.drop()
    assert drop.shape == (n_candidates,)
    assert (drop >= 0).all()
    assert (drop[np.isinf(ensemble.noise)] == 0).all()
    assert (drop <= left * (1 + 1e-9)).all()


@given(ensembles())
def test_the_drop_is_its_gaussian_formula(ensemble: Ensemble) -> None:
    covariance = ensemble.covariance()
    m = ensemble.foreseen.shape[1]
    drop = ensemble.drop()
    for c, noise in enumerate(ensemble.noise):
        if np.isinf(noise):
            continue
        taken = covariance[c, m:] ** 2 / (covariance[c, c] + noise**2)
        assert drop[c] == pytest.approx(taken.mean(), abs=1e-12)


@given(ensembles(), st.data())
def test_neither_the_order_of_draws_nor_of_candidates_nor_of_targets_matters(
    ensemble: Ensemble, data: st.DataObject
) -> None:
    def order(size: int) -> Array:
        return np.array(data.draw(st.permutations(range(size))))

    b, m, q = (order(n) for n in (*ensemble.foreseen.shape, ensemble.target.shape[1]))
    weights = None if ensemble.log_weights is None else ensemble.log_weights[b]
    shuffled = Ensemble(
        foreseen=ensemble.foreseen[np.ix_(b, m)],
        noise=ensemble.noise[m],
        target=ensemble.target[np.ix_(b, q)],
        log_weights=weights,
    )
    np.testing.assert_allclose(shuffled.drop(), ensemble.drop()[m], rtol=1e-9, atol=1e-12)


@given(ensembles(), st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-5, 5))
def test_only_the_unit_of_the_target_matters(
    ensemble: Ensemble, unit: float, target_unit: float, origin: float
) -> None:
    scaled = replace(
        ensemble,
        foreseen=unit * (ensemble.foreseen + origin),
        noise=unit * ensemble.noise,
        target=target_unit * (ensemble.target - origin),
        log_weights=None if ensemble.log_weights is None else ensemble.log_weights + origin,
    )
    factor = target_unit**2
    np.testing.assert_allclose(scaled.drop(), factor * ensemble.drop(), rtol=1e-6, atol=1e-9 * factor)


@given(ensembles(), st.data())
def test_expecting_gives_the_covariance_of_a_gaussian_given_the_chosen(ensemble: Ensemble, data: st.DataObject) -> None:
    m = ensemble.foreseen.shape[1]
    chosen = data.draw(st.lists(st.integers(0, m - 1), max_size=4))
    after = ensemble.after(chosen)
    measured = [c for c in chosen if np.isfinite(ensemble.noise[c])]
    prior = ensemble.covariance()
    cross = prior[:, measured]
    within = prior[np.ix_(measured, measured)] + np.diag(ensemble.noise[measured] ** 2)
    expected = prior - cross @ np.linalg.solve(within, cross.T)
    np.testing.assert_allclose(after.covariance(), expected, atol=1e-9)
    assert (np.diag(after.covariance()) <= np.diag(prior) + 1e-12).all()
    weights = np.ones(len(ensemble.foreseen)) if ensemble.log_weights is None else np.exp(ensemble.log_weights)
    np.testing.assert_allclose(
        np.average(after.target, axis=0, weights=weights),
        np.average(ensemble.target, axis=0, weights=weights),
        atol=1e-9,
    )


@given(ensembles(), st.data())
def test_a_batch_is_worth_the_same_in_any_order(ensemble: Ensemble, data: st.DataObject) -> None:
    # The chain rule: what the batch tells is what its first tells and what the others tell once that is known.
    m = ensemble.foreseen.shape[1]
    chosen = data.draw(st.lists(st.integers(0, m - 1), min_size=2, max_size=4))

    def total(order: list[int]) -> float:
        return float(sum(ensemble.after(order[:i]).drop()[c] for i, c in enumerate(order)))

    assert total(chosen) == pytest.approx(total(chosen[::-1]), abs=1e-9)


@given(ensembles(), st.data())
def test_a_second_copy_on_its_way_is_worth_less(ensemble: Ensemble, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, ensemble.foreseen.shape[1] - 1))
    assert ensemble.after([c]).drop()[c] <= ensemble.drop()[c] + 1e-12


def test_draws_that_agree_leave_nothing_to_learn() -> None:
    ensemble = Ensemble(
        foreseen=np.full((4, 3), 0.1 + 0.2), noise=np.ones(3), target=np.full((4, 2), 3.3), log_weights=None
    )
    assert (ensemble.drop() == 0).all()
    assert (ensemble.after([0, 1]).drop() == 0).all()


def test_weights_of_targets_and_of_draws(rng: np.random.Generator) -> None:
    foreseen, target, noise = rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), np.full(3, 0.3)
    only_second = variance_drop(foreseen, noise, target, target_weights=np.array([0.0, 2.0]))
    np.testing.assert_allclose(only_second, variance_drop(foreseen, noise, target[:, 1:]))
    twice = np.array([0, 0, 1, 2, 3, 4])
    np.testing.assert_allclose(
        variance_drop(foreseen[twice], noise, target[twice]),
        variance_drop(foreseen, noise, target, log_weights=np.log([2.0, 1, 1, 1, 1])),
    )
