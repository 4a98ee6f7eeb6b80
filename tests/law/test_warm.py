"""Fits that go on from fits: side by side, and after a few new runs."""

import numpy as np
import pytest

from raysplit.law import WarmStart, fit_law
from raysplit.law.fit import fit_domains, sample_of
from raysplit.law.forms import FORMS
from raysplit.law.minimize import minimize, minimize_together
from tests.law.tables import synthetic


def test_fits_side_by_side_end_where_they_end_alone() -> None:
    """Tables of different lengths, so that the shorter one is filled up with rows of no weight."""
    tables = [runs for _, runs in synthetic("law-8", n_domains=2, noise=0.01).groupby("domain")]
    samples = [sample_of(tables[0]), sample_of(tables[1].iloc[:-7])]
    fits = fit_domains(FORMS["law-8"], samples, [None, None], prior_strength=1.0, seed=0)
    starts = [problem.coordinates.to_phi(fit.theta)[None] + 0.05 for fit, problem in fits]
    problems = [problem for _, problem in fits]
    for one, start, end in zip(problems, starts, minimize_together(problems, starts), strict=True):
        alone = minimize(one, start)
        np.testing.assert_allclose(end.phi, alone.phi, rtol=0, atol=1e-9)
        np.testing.assert_allclose(end.value, alone.value, rtol=1e-12)


def test_a_warm_fit_ends_where_a_cold_one_does() -> None:
    runs = synthetic("law-2", n_domains=2, noise=0.01)
    before = fit_law(runs.iloc[:-6], forms=["law-2"], n_draws=8)
    start = before.warm_start()
    warm = fit_law(runs, forms=["law-2"], n_draws=8, start=start)
    cold = fit_law(runs, forms=["law-2"], n_draws=8, pooling=before.pooling["law-2"])
    assert warm.pooling == before.pooling
    for domain in warm.domains:
        one, other = warm.fits["law-2"][domain], cold.fits["law-2"][domain]
        assert one.objective == pytest.approx(other.objective, rel=1e-4)
    point = [np.array(x, dtype=float)[None, None] for x in (50e3, 1e6, 2e5)]
    np.testing.assert_allclose(warm.point.loss(*point), cold.point.loss(*point), rtol=1e-4)


def test_the_same_runs_from_the_same_start_give_the_same_law() -> None:
    runs = synthetic("law-2", n_domains=2, noise=0.01)
    start = fit_law(runs.iloc[:-6], forms=["law-2"], n_draws=8).warm_start()
    one, other = (fit_law(runs, forms=["law-2"], n_draws=8, start=start) for _ in range(2))
    assert one.to_json() == other.to_json()


def test_a_start_without_a_form_or_domain_leaves_it_to_a_cold_fit() -> None:
    runs = synthetic("law-2", n_domains=2, noise=0.01)
    empty = WarmStart(theta={}, pooling={})
    assert fit_law(runs, forms=["law-2"], n_draws=4, start=empty).to_json() == (
        fit_law(runs, forms=["law-2"], n_draws=4).to_json()
    )
