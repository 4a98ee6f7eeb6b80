"""The law: shapes, draws, coverage, what it warns of, and its file."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import LawError
from raysplit.law import DEFAULT_FORMS, EXACT, FORMS, FitStatus, Law, Repetition, fit_law
from raysplit.law.fit import SETTLED_STEPS
from raysplit.law.noise import Residuals, estimate_noise, repeated_seed_sd
from raysplit.runs import MAX_ROWS
from tests.law.tables import synthetic, truth

POINT = np.array([36e3, 111e3, 111e3]), np.array([1e6, 2e6, 8e6]), np.array([0.5e6, 1e6, 4e6])


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return synthetic("law-8", n_domains=3, noise=0.01, within=0.3, across=0.1)


@pytest.fixture(scope="module")
def law(runs: pd.DataFrame) -> Law:
    return fit_law(runs, forms=["law-2", "law-8"], n_draws=24, form_weights={"law-2": 1.0, "law-8": 2.0})


@pytest.mark.parametrize(
    ("n", "d", "s", "shape"),
    [
        ((1, 1), (1, 1), (1, 1), (24, 3)),
        ((1, 5, 1), (1, 1, 1), (1, 5, 3), (24, 5, 3)),
        ((24, 2, 4, 1), (1, 2, 4, 1), (24, 1, 1, 3), (24, 2, 4, 3)),
        ((), (5, 1), (1, 5, 3), (24, 5, 3)),
    ],
)
def test_shapes(law: Law, n: tuple[int, ...], d: tuple[int, ...], s: tuple[int, ...], shape: tuple[int, ...]) -> None:
    inputs = np.full(n, 5e4), np.full(d, 1e6), np.full(s, 2e5)
    assert law.loss(*inputs).shape == law.slope(*inputs).shape == shape
    if 24 not in (*n[:1], *d[:1], *s[:1]):
        assert law.point.loss(*inputs).shape == (1, *shape[1:])


@pytest.mark.parametrize("shape", [(), (3,), (7, 3), (1, 2)])
def test_shapes_that_do_not_fit_are_refused(law: Law, shape: tuple[int, ...]) -> None:
    with pytest.raises(LawError, match="24 draws and 3 domains"):
        law.loss(np.full(shape, 5e4), 1e6, 1e5)


def test_each_draw_reads_its_own_row(law: Law) -> None:
    n, d = np.array([[5e4]]), np.geomspace(1e5, 1e7, 24)[:, None]
    together = law.loss(n, d, np.array([[1e5]]))
    for b in (0, 11, 23):
        alone = law.loss(n, d[b : b + 1], np.array([[1e5]]))
        assert np.array_equal(together[b], alone[b])


def test_the_point_is_the_weighted_mean_of_the_best_fits(law: Law) -> None:
    n, d, s = (x[None, :, None] for x in POINT)
    expected = np.zeros((3, 3))
    for form, weight in law.form_weights.items():
        for k, domain in enumerate(law.domains):
            expected[:, k] += weight * FORMS[form].loss(law.fits[form][domain].theta, *POINT)
    forms = replace(law, basis=None)
    assert law.form_weights == pytest.approx({"law-2": 1 / 3, "law-8": 2 / 3})
    assert forms.point.loss(n, d, s)[0] == pytest.approx(expected, rel=1e-12)
    assert forms.loss(n, d, s).mean(axis=0) == pytest.approx(expected, rel=0.02)


def test_slope_is_the_derivative_of_the_loss(law: Law) -> None:
    n, d, s = (x[None, :, None] for x in POINT)
    for either in (law, law.point):
        difference = (either.loss(n, d, 1.0001 * s) - either.loss(n, d, 0.9999 * s)) / (0.0002 * s)
        assert either.slope(n, d, s) == pytest.approx(difference, rel=1e-4)


def test_permuted_rows_and_domains_give_the_same_law(runs: pd.DataFrame, law: Law) -> None:
    shuffled, weights = runs.sample(frac=1.0, random_state=3), {"law-8": 4.0, "law-2": 2.0}
    again = fit_law(shuffled, forms=["law-2", "law-8"], n_draws=24, form_weights=weights)
    assert again.to_json() == law.to_json()


def test_units_change_neither_a_law_nor_its_draws(runs: pd.DataFrame) -> None:
    params, tokens = 10, 1_000
    other = runs.assign(
        n_params=params * runs.n_params,
        pretrain_tokens=tokens * runs.pretrain_tokens,
        specialize_tokens=tokens * runs.specialize_tokens,
    )
    ours, theirs = (fit_law(table, forms=["law-8"], n_draws=16) for table in (runs, other))
    n, d, s = (x[None, :, None] for x in POINT)
    there = params * n, tokens * d, tokens * s
    assert theirs.point.loss(*there) == pytest.approx(ours.point.loss(n, d, s), rel=1e-5)
    # The draws' few steps take another path.
    apart = np.log(theirs.loss(*there) / ours.loss(n, d, s))
    assert np.all(np.sqrt((apart**2).mean(axis=0)) < 0.2 * np.log(ours.loss(n, d, s)).std(axis=0))
    assert theirs.pooling == ours.pooling


@given(n=st.floats(1e3, 1e9), d=st.floats(1e4, 1e12), s=st.floats(1.0, 1e12), factor=st.floats(1.0, 100.0))
def test_more_specialization_never_hurts_in_any_draw(law: Law, n: float, d: float, s: float, factor: float) -> None:
    """As far as the forms go; by how much they are off may rise."""
    forms = replace(law, basis=None)
    here, further = (forms.loss(*(np.full((1, 1), x) for x in (n, d, tokens))) for tokens in (s, factor * s))
    assert (further <= here * (1 + 1e-12)).all()
    assert (forms.slope(*(np.full((1, 1), x) for x in (n, d, s))) <= 0).all()


def test_a_law_survives_its_file(law: Law) -> None:
    n, d, s = (x[None, :, None] for x in POINT)
    read = Law.from_json(law.to_json())
    assert np.array_equal(read.loss(n, d, s), law.loss(n, d, s))
    assert read.to_json() == law.to_json()
    assert Law.from_json(law.point.to_json()).n_draws == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"domains": None}, "not a law"),
        ({"members": [{"form": "law-80"}]}, "did you mean 'law-8'"),
    ],
)
def test_a_file_that_is_no_law_is_refused(law: Law, change: dict[str, object], says: str) -> None:
    with pytest.raises(LawError, match=says):
        Law.from_json(json.dumps({**json.loads(law.to_json()), **change}))
    with pytest.raises(LawError, match="not a law"):
        Law.from_json("[1, 2")
    with pytest.raises(LawError, match="not a law, as `raysplit fit` writes one: it has no 'schema_version'"):
        Law.from_json("{}")


def test_few_steps_draw_what_full_refits_draw(runs: pd.DataFrame) -> None:
    n, d, s = (x[None, :, None] for x in POINT)
    fast, exact = (fit_law(runs, n_draws=24, draw_iterations=i).loss(n, d, s) for i in (10, EXACT))
    apart = np.sqrt((np.log(fast / exact) ** 2).mean(axis=0))
    assert np.all(apart < 0.25 * np.std(np.log(exact), axis=0))


def test_domains_move_together_in_a_draw_where_branch_points_share_luck() -> None:
    runs = synthetic("law-8", n_domains=2, noise=0.02, within=0.9, across=0.9)
    n, d, s = (x[None, :1, None] for x in POINT)
    losses = fit_law(runs, n_draws=64, pooling=0.0).loss(n, d, s)[:, 0]
    apart = fit_law(synthetic("law-8", n_domains=2, noise=0.02), n_draws=64, pooling=0.0).loss(n, d, s)[:, 0]
    assert np.corrcoef(losses[:, 0], losses[:, 1])[0, 1] > 0.4 > abs(np.corrcoef(apart[:, 0], apart[:, 1])[0, 1])


def test_resampled_branch_points_and_perturbed_runs_agree_on_the_uncertainty() -> None:
    """Where branch points are many; and both know that the runs of one share its luck."""
    n, d, s = (x[None, :, None] for x in POINT)
    width = {}
    for draw in ("perturb", "bootstrap"):
        for within in (0.0, 0.8):
            sizes, pretrain = (14e3, 24e3, 36e3, 64e3, 111e3), (0.25e6, 0.5e6, 1e6, 2e6, 4e6, 8e6)
            runs = synthetic("hoffmann", sizes=sizes, pretrain=pretrain, noise=0.01, within=within, seed=2)
            law = fit_law(runs, forms=["hoffmann"], draw=draw, n_draws=200, misfit_scale=0.0)
            width[draw, within] = float(np.log(law.loss(n, d, s)).std(axis=0).mean())
    for within in (0.0, 0.8):
        assert width["bootstrap", within] == pytest.approx(width["perturb", within], rel=0.4)
    for draw in ("perturb", "bootstrap"):
        assert width[draw, 0.8] > 1.3 * width[draw, 0.0]


def test_intervals_cover_about_as_often_as_they_say() -> None:
    """90 % intervals of law and measurement, inside the runs and at four times their tokens, with shared noise."""
    inside = np.zeros(2)
    for seed in range(30):
        fitted = fit_law(synthetic("law-8", noise=0.01, within=0.3, seed=seed), seed=seed)
        expected = FORMS["law-8"].loss(truth("law-8", 1)[0], *POINT)
        measured = expected * np.exp(0.01 * np.random.default_rng(seed).standard_normal(3))
        for j, (y, noise) in enumerate(((expected, False), (measured, True))):
            p = fitted.predict("domain0", *POINT, noise=noise)
            inside[j] += np.mean((p.low < y) & (y < p.high)) / 30
    assert (inside > 0.78).all()
    assert (inside < 0.99).all()


def test_prediction_level_and_noise_widen_the_interval(law: Law) -> None:
    wide, narrow, without = (
        law.predict("domain1", *POINT, level=level, noise=noise)
        for level, noise in ((0.95, True), (0.5, True), (0.95, False))
    )
    for other in (narrow, without):
        assert (wide.low < other.low).all()
        assert (other.high < wide.high).all()
    assert (narrow.low < narrow.mean).all()
    assert (narrow.mean < narrow.high).all()
    assert law.predict("domain1", 5e4, 1e6, 1e5).mean.shape == ()


@pytest.mark.parametrize(("domain", "level"), [("domain9", 0.9), ("domain1", 1.0), ("domain1", 0.0)])
def test_predictions_that_make_no_sense_are_refused(law: Law, domain: str, level: float) -> None:
    with pytest.raises(LawError):
        law.predict(domain, 5e4, 1e6, 1e5, level=level)


def test_ten_runs_give_a_law_that_knows_how_little_it_knows(runs: pd.DataFrame) -> None:
    one = runs[runs.domain == "domain0"]
    few = one.sample(8, random_state=0)
    small, full = fit_law(few), fit_law(one)
    assert tuple(small.form_weights) == ("law-2+cooldown",)  # the other has more parameters still
    assert all(fits["domain0"].status is FitStatus.TOO_FEW_RUNS for fits in small.fits.values())
    assert "fewer distinct runs" in small.warnings()[0]
    width = [
        float(np.log(p.high / p.low)[2]) for p in (x.predict("domain0", *POINT, noise=False) for x in (small, full))
    ]
    assert width[1] < width[0] < 1.5
    assert np.isfinite(small.loss(*(x[None, :, None] for x in POINT))).all()


@pytest.mark.parametrize("n_runs", [1, 2, 4])
def test_a_handful_of_runs_does_not_break_the_fit(runs: pd.DataFrame, n_runs: int) -> None:
    law = fit_law(runs[runs.domain == "domain0"].head(n_runs), n_draws=8)
    losses = law.loss(*(x[None, :, None] for x in POINT))
    assert np.isfinite(losses).all()
    assert (losses > 0).all()


def test_extrapolation_is_measured_and_warned_of(law: Law) -> None:
    factor = law.extrapolation([7e3, 36e3, 1.11e6], [1e6, 2e6, 20e6], 0.0)
    assert factor["n_params"] == pytest.approx([2, 1, 10])
    assert factor["pretrain_tokens"] == pytest.approx([1, 1, 10])
    assert factor["specialize_tokens"] == 1
    warnings = "\n".join(law.warnings(1.11e6, 0.0, 2e6))
    assert "n_params by a factor of 10: the runs span 14k to 111k; a run at 351k would help most" in warnings
    assert "extrapolates pretrain_tokens where none was measured" in warnings
    assert "specialize_tokens" not in warnings


@given(st.permutations(["loss", "domain", "n_params"]))
def test_a_missing_column_is_named(names: list[str]) -> None:
    with pytest.raises(LawError, match=names[0]):
        fit_law(synthetic("law-2").drop(columns=names[0]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"forms": ("law-80",)}, "did you mean 'law-8'"),
        ({"forms": ()}, "no form"),
        ({"n_draws": 0}, "at least one draw"),
        ({"draw": "bootstarp"}, "did you mean 'bootstrap'"),
        ({"repetition": Repetition(unique_specialize_tokens={"domain9": 1e6})}, "repetition: unknown domain 'domain9'"),
        ({"form_weights": {"law-9": 1.0}}, "form_weights: unknown form 'law-9'"),
        ({"form_weights": {"law-8+cooldown": -1.0}}, "must not be negative"),
        ({"form_weights": {"law-8+cooldown": 0.0}}, "at least one must be positive"),
    ],
)
def test_wrong_options_are_named(runs: pd.DataFrame, options: dict[str, object], says: str) -> None:
    with pytest.raises(LawError, match=says):
        fit_law(runs, **options)  # type: ignore[arg-type]


def test_the_residuals_choose_the_form_that_made_them() -> None:
    for form, other in (DEFAULT_FORMS, DEFAULT_FORMS[::-1]):
        # Law 2 is law 8 with m = 0, so it can only win by its fewer parameters.
        weights = [fit_law(synthetic(form, noise=0.01, seed=i), n_draws=2).form_weights for i in range(6)]
        assert np.mean([w[form] for w in weights]) > np.mean([w[other] for w in weights])


def test_noise_is_told_from_shared_luck() -> None:
    """Errors of known size and correlation through a projection: both come back, though the projection hides some."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(40), 5)
    shared = rng.standard_normal((40, 1))
    design = np.linalg.qr(np.column_stack([np.ones(200), rng.standard_normal((40, 9))[cluster]]))[0]
    found = []
    for _ in range(2):
        own = rng.standard_normal((40, 1))
        errors = (
            0.02 * (np.sqrt(0.2) * shared + np.sqrt(0.3) * own + np.sqrt(0.5) * rng.standard_normal((40, 5))).ravel()
        )
        residual = errors - design @ (design.T @ errors)
        found.append(Residuals(residual=residual, absorb=design, cluster=cluster, sd=float(residual.std())))
    noise = estimate_noise(found)
    assert noise.within == pytest.approx(0.5, abs=0.12)
    assert noise.across == pytest.approx(0.2, abs=0.12)
    assert noise.sd.mean() == pytest.approx(0.02, rel=0.15)
    drawn = noise.draw(np.tile(cluster, 2), np.repeat([0, 1], 200), np.full(400, 4.0), 400, rng)
    assert drawn.std() == pytest.approx(0.5 * noise.sd.mean(), rel=0.1)
    assert np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(noise.within, abs=0.15)
    assert np.corrcoef(drawn[:, 0], drawn[:, 200])[0, 1] == pytest.approx(noise.across, abs=0.15)


def test_noise_of_a_long_table_in_which_no_two_runs_share_a_branch_point() -> None:
    """As many rows as a table may have; a matrix over their branch points would take gigabytes."""
    rng = np.random.default_rng(0)
    errors, design = 0.02 * rng.standard_normal(MAX_ROWS), np.linalg.qr(rng.standard_normal((MAX_ROWS, 9)))[0]
    residual = errors - design @ (design.T @ errors)
    rows = Residuals(residual=residual, absorb=design, cluster=np.arange(MAX_ROWS), sd=float(residual.std()))
    assert estimate_noise([rows]).sd == pytest.approx(0.02, rel=0.03)


def test_repeated_seeds_tell_the_seed_noise() -> None:
    once = synthetic("law-2", noise=0.01)
    thrice = pd.concat([synthetic("law-2", noise=0.01, seed=i).assign(seed=i) for i in range(3)])
    sd, freedom = repeated_seed_sd(thrice)
    assert sd == pytest.approx(0.01, rel=0.2)
    assert freedom == 2 * len(once)
    assert repeated_seed_sd(once)[1] == 0
    assert fit_law(once, n_draws=1).seed_noise is None


def test_a_law_that_knows_the_unique_tokens_counts_fresh_ones() -> None:
    """Runs of up to 16 epochs of one domain: their tokens are worth less, in the fit and in the answers."""
    worth = Repetition(unique_specialize_tokens={"domain0": 0.0625e6}, worth=4.0)
    runs = synthetic("law-2", n_domains=2, noise=0.003)
    theta = truth("law-2", 2)
    n, d, s = (runs[c].to_numpy(dtype=float) for c in ("n_params", "pretrain_tokens", "specialize_tokens"))
    fresh = worth.counted(runs)["specialize_tokens"].to_numpy()
    assert (fresh <= s).all()
    assert (fresh[runs["domain"] == "domain1"] == s[runs["domain"] == "domain1"]).all()
    own = runs["domain"].str[-1].astype(int).to_numpy()
    luck = runs["loss"] / FORMS["law-2"].loss(theta[own], n, d, s)
    runs = runs.assign(loss=FORMS["law-2"].loss(theta[own], n, d, fresh) * luck)
    law = fit_law(runs, forms=["law-2"], repetition=worth)
    point = tuple(np.array([[[x]]]) for x in (36e3, 1e6, 2e6))
    at = np.array([36e3]), np.array([1e6])
    expected = [float(FORMS["law-2"].loss(theta[k], *at, np.array([x]))[0]) for k, x in enumerate((3.125e5, 2e6))]
    np.testing.assert_allclose(law.point.loss(*point)[0, 0], expected, rtol=0.005)
    step = np.array([[[1.0]]])
    slope = law.loss(point[0], point[1], point[2] + step) - law.loss(point[0], point[1], point[2] - step)
    np.testing.assert_allclose(law.slope(*point), slope / 2, rtol=1e-2, atol=1e-13)
    again = Law.from_json(law.to_json())
    np.testing.assert_array_equal(again.loss(*point), law.loss(*point))


def test_repeated_tokens_count_as_the_steps_that_they_were() -> None:
    runs = synthetic("law-2", noise=0.003)
    worth = Repetition(unique_pretrain_tokens=0.1e6, unique_specialize_tokens={"domain0": 0.05e6}, worth=4.0)
    step_tokens = 1e4
    steps = (runs["pretrain_tokens"] + runs["specialize_tokens"]) / step_tokens
    assert (steps < SETTLED_STEPS).any()
    counted = worth.counted(runs).assign(weight=np.minimum(1.0, steps / SETTLED_STEPS))
    fit = partial(fit_law, forms=["law-2"], n_draws=1, draw_iterations=0, misfit_scale=0.0)
    found, expected = fit(runs, repetition=worth, step_tokens=step_tokens), fit(counted)
    theta, as_counted = (law.fits["law-2"]["domain0"].theta for law in (found, expected))
    np.testing.assert_allclose(theta, as_counted, rtol=1e-6)


def test_an_unlimited_number_of_tokens_is_none() -> None:
    assert Repetition(unique_specialize_tokens={"a": math.inf, "b": 1e6}) == Repetition(
        unique_specialize_tokens={"b": 1e6}
    )


def test_repetition_refuses_what_is_not_positive() -> None:
    with pytest.raises(LawError, match=r"repetition: worth = 0\.0 must be positive"):
        Repetition(worth=0.0)
    with pytest.raises(LawError, match=r"repetition: unique_specialize_tokens: a = -1\.0 must be positive"):
        Repetition(unique_specialize_tokens={"a": -1.0})
