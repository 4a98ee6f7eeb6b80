"""The fit of one form: exactness against published optima, recovery, invariances, and how it says it ended."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysplit.errors import LawError
from raysplit.law import FORMS, Fit, FitStatus, fit_form
from tests.law.tables import TRUTH, chinchilla, synthetic

HOFFMANN = FORMS["hoffmann"]


def test_exact_optimum_of_the_chinchilla_points_from_any_seed(shared_data: Path) -> None:
    runs = chinchilla(shared_data)
    for seed in range(10):
        fit = fit_form(HOFFMANN, runs, prior_strength=0, seed=seed)
        assert fit.objective == pytest.approx(0.0010182740178, rel=1e-10)
        assert fit.theta == pytest.approx([1.817218, 477.83, 0.347311, 2143.42, 0.367172], rel=2e-5)
        assert fit.theta[[0, 2, 4]] == pytest.approx([1.817218, 0.347311, 0.367172], abs=1e-6)
        assert fit.status is FitStatus.CONVERGED


def test_least_absolute_deviations_give_the_published_refit(shared_data: Path) -> None:
    """Besiroglu et al. (2404.10102), table 2: a Huber likelihood whose scale is fitted, in effect this."""
    fit = fit_form(HOFFMANN, chinchilla(shared_data), huber_delta=1e-6, prior_strength=0)
    assert fit.theta == pytest.approx([1.8169, 482.01, 0.3478, 2085.43, 0.3659], rel=1e-3)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_noiseless_runs_give_the_law_back(name: str) -> None:
    runs = synthetic(name, sizes=(14e3, 36e3, 111e3, 303e3))
    fit = fit_form(FORMS[name], runs, prior_strength=0, huber_delta=None)
    n, d, s = np.array([1e6]), np.array([2e7]), np.array([5e6])
    assert FORMS[name].loss(fit.theta, n, d, s) == pytest.approx(
        FORMS[name].loss(np.array(TRUTH[name]), n, d, s), rel=2e-3
    )
    assert fit.log_residual_sd < 1e-3


NOISY = synthetic("law-8", noise=0.01)


@cache
def fit_of_noisy() -> Fit:
    return fit_form(FORMS["law-8"], NOISY)


@settings(max_examples=3)
@given(st.permutations(range(len(NOISY))))
def test_rows_may_come_in_any_order(order: list[int]) -> None:
    fit, shuffled = fit_of_noisy(), fit_form(FORMS["law-8"], NOISY.iloc[order])
    assert shuffled.theta == pytest.approx(fit.theta, rel=1e-4)
    assert shuffled.objective == pytest.approx(fit.objective, rel=1e-10)


@settings(max_examples=4)
@given(log_tokens=st.floats(-6, 6), log_params=st.floats(-3, 3))
@example(log_tokens=-6.0, log_params=0.0)
@example(log_tokens=6.0, log_params=3.0)
def test_units_change_nothing(log_tokens: float, log_params: float) -> None:
    tokens, params = 10**log_tokens, 10**log_params
    other = NOISY.assign(
        n_params=NOISY.n_params * params,
        pretrain_tokens=NOISY.pretrain_tokens * tokens,
        specialize_tokens=NOISY.specialize_tokens * tokens,
    )
    form = FORMS["law-8"]
    theirs, ours = fit_form(form, other), fit_of_noisy()
    point = np.array([1e5 * params]), np.array([8e6 * tokens]), np.array([1e6 * tokens])
    expected = form.loss(ours.theta, np.array([1e5]), np.array([8e6]), np.array([1e6]))
    assert form.loss(theirs.theta, *point) == pytest.approx(expected, rel=1e-6)
    assert theirs.objective == pytest.approx(ours.objective, rel=1e-6)


def test_an_outlier_moves_a_robust_fit_little() -> None:
    runs = synthetic("law-2", noise=0.003)
    spoilt = runs.assign(loss=runs.loss.where(runs.index != 7, 3 * runs.loss))
    form, point = FORMS["law-2"], (np.array([111e3]), np.array([2e6]), np.array([1e6]))
    clean, robust, squares = (
        form.loss(fit_form(form, r, huber_delta=delta).theta, *point)[0]
        for r, delta in ((runs, None), (spoilt, None), (spoilt, np.inf))
    )
    assert abs(robust - clean) < 0.005 * clean < abs(squares - clean)


def test_a_weight_of_two_is_the_run_twice() -> None:
    runs = synthetic("hoffmann", specialize=(0,), noise=0.01)
    twice = pd.concat([runs, runs.iloc[:5]])
    weighted = runs.assign(weight=np.where(runs.index < 5, 2.0, 1.0))
    fits = [fit_form(HOFFMANN, r, prior_strength=0) for r in (twice, weighted)]
    assert fits[0].theta == pytest.approx(fits[1].theta, rel=1e-5)


def test_runs_from_scratch_and_of_few_steps_count_less() -> None:
    runs = synthetic("law-8", pretrain=(0, 0.5e6, 1e6, 2e6))
    form, bad = FORMS["law-8"], runs.pretrain_tokens == 0
    spoilt = runs.assign(loss=runs.loss.where(~bad, 1.1 * runs.loss))
    full = fit_form(form, spoilt.assign(weight=np.where(bad, 10.0, 1.0)), huber_delta=np.inf)
    ruled = fit_form(form, spoilt, huber_delta=np.inf)
    fewer = fit_form(form, spoilt, huber_delta=np.inf, step_tokens=5e4)
    good = [runs[~bad][name].to_numpy(float) for name in ("n_params", "pretrain_tokens", "specialize_tokens")]
    truth = form.loss(np.array(TRUTH["law-8"]), *good)
    errors = [float(np.abs(form.loss(fit.theta, *good) / truth - 1).mean()) for fit in (full, ruled, fewer)]
    assert errors[1] < errors[0]
    assert fewer.objective < ruled.objective


@pytest.mark.parametrize(
    ("status", "form", "runs", "says"),
    [
        (FitStatus.TOO_FEW_RUNS, "law-8", synthetic("law-8", noise=0.01).iloc[::9], "more would do"),
        (FitStatus.ONE_MODEL_SIZE, "law-2", synthetic("law-2", noise=0.01, sizes=(36e3,)), "add one at N = 144k"),
        (
            FitStatus.ONE_SPECIALIZATION,
            "law-2",
            synthetic("law-2", noise=0.01, specialize=(0,)),
            "every run has D' = 0",
        ),
        (FitStatus.CONVERGED, "hoffmann", synthetic("hoffmann", noise=0.01, specialize=(0,)), "polished starts"),
        (FitStatus.CONVERGED, "law-8", synthetic("law-8", noise=0.01), "polished starts"),
    ],
)
def test_a_fit_says_how_it_ended(status: FitStatus, form: str, runs: pd.DataFrame, says: str) -> None:
    fit = fit_form(FORMS[form], runs)
    assert fit.status is status
    assert says in fit.message
    assert np.isfinite(fit.theta).all()


def test_one_ratio_of_tokens_to_parameters_is_named() -> None:
    runs = pd.DataFrame({"n_params": np.geomspace(1e4, 1e6, 12)})
    runs = runs.assign(pretrain_tokens=20 * runs.n_params, specialize_tokens=0.0)
    runs["loss"] = HOFFMANN.loss(
        np.array(TRUTH["hoffmann"]), *(runs[c].to_numpy() for c in ("n_params", "pretrain_tokens", "specialize_tokens"))
    )
    fit = fit_form(HOFFMANN, runs)
    assert fit.status is FitStatus.RATIO_DEGENERATE
    assert "D/N = 20; add one at N = 10k, D = 20M" in fit.message
    assert not fit.status.supported


def test_a_parameter_at_its_bound_is_named() -> None:
    runs = synthetic("hoffmann", specialize=(0,))
    fit = fit_form(HOFFMANN, runs.assign(loss=runs.loss - 1.7), prior_strength=0)  # a floor below zero
    assert fit.status is FitStatus.AT_BOUND
    assert "E = 0" in fit.message


@pytest.mark.parametrize(
    ("column", "value", "says"), [("loss", np.nan, "loss"), ("loss", -1.0, "loss"), ("n_params", 0, "n_params")]
)
def test_values_without_a_logarithm_are_refused(column: str, value: float, says: str) -> None:
    runs = synthetic("hoffmann").astype({column: float})
    runs.loc[3, column] = value
    with pytest.raises(LawError, match=says), np.errstate(all="ignore"):
        fit_form(HOFFMANN, runs)


def test_no_runs_are_refused() -> None:
    with pytest.raises(LawError, match="no runs"):
        fit_form(HOFFMANN, synthetic("hoffmann").iloc[:0])
