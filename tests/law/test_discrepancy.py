"""By how much a form is off: its smooth function, what the residuals tell of it, and what no pretraining costs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.law import Law, fit_law
from raysplit.law.basis import N_FEATURES, Basis
from raysplit.law.discrepancy import BranchPoints, Left, Scales, coefficients, scales
from raysplit.law.noise import Residuals, estimate_noise
from raysplit.law.scratch import ScratchRuns, fit_scratch
from tests.law.tables import synthetic

BASIS = Basis.of(*(np.array(x) for x in ([14e3, 1e5], [1e5, 4e6], [0.0, 1e6])))


@given(
    n=st.floats(1e2, 1e9),
    d=st.floats(1e3, 1e10),
    s=st.floats(1e2, 1e10),
    seed=st.integers(0, 9),
    unbranched=st.booleans(),
)
def test_g_is_its_features_times_its_coefficients(n: float, d: float, s: float, seed: int, unbranched: bool) -> None:
    own = np.random.default_rng(seed).standard_normal((3, 2, N_FEATURES))
    point = [np.array([x]) for x in (n, d, 0.0 if unbranched else s)]
    features = BASIS.features(*point)
    g, by_tokens = BASIS.evaluate(own, *(x[None, :, None] for x in point), slope=True)
    assert g == pytest.approx(np.einsum("rm,bkm->brk", features, own), rel=1e-9, abs=1e-9)
    assert by_tokens is not None
    assert np.abs(g).max() < 60  # however far out


@given(s=st.floats(1e3, 1e8), seed=st.integers(0, 9))
def test_the_slope_of_g_is_its_derivative(s: float, seed: int) -> None:
    own = np.random.default_rng(seed).standard_normal((2, 3, N_FEATURES))
    n, d = np.array([[[4e4]]]), np.array([[[1e6]]])
    at = [BASIS.evaluate(own, n, d, np.array([[[s * f]]]), slope=True) for f in (1 - 1e-6, 1.0, 1 + 1e-6)]
    difference = (at[2][0] - at[0][0]) / (2e-6 * s)
    assert at[1][1] == pytest.approx(difference, rel=1e-3, abs=1e-6 / s)


def left_of(
    amplitude: float, noise: float, *, within: float = 0.0, seed: int = 0, n_domains: int = 4
) -> tuple[list[Left], np.ndarray]:
    """What fits would leave of a misfit and a noise of known size, and the coefficients behind it (K, M)."""
    rng = np.random.default_rng(seed)
    grid = np.array([(n, d, s) for n in (14e3, 3e4, 6e4, 1e5) for d in (1e5, 5e5, 4e6) for s in (0, 6e4, 2e5, 1e6)])
    features = BASIS.features(*grid.T)
    cluster = np.unique(grid[:, :2], axis=0, return_inverse=True)[1].ravel()
    jacobian = np.column_stack([np.ones(len(grid)), *np.log(grid[:, :2] / 1e5).T])
    own = amplitude * rng.standard_normal((n_domains, N_FEATURES))
    left = []
    for c in own:
        luck = np.sqrt(within) * rng.standard_normal(12)[cluster] + np.sqrt(1 - within) * rng.standard_normal(len(grid))
        left.append(
            Left(
                residual=features @ c + noise * luck,
                features=features,
                jacobian=jacobian,
                branch=BranchPoints.of(cluster),
            )
        )
    return left, own


@pytest.mark.parametrize(("amplitude", "within"), [(0.002, 0.0), (0.01, 0.0), (0.01, 0.75)])
def test_misfit_noise_and_shared_luck_are_told_apart(amplitude: float, within: float) -> None:
    found = [scales(left_of(amplitude, 0.01, within=within, seed=i)[0]) for i in range(4)]
    assert np.mean([np.log(s.amplitude).mean() for s in found]) == pytest.approx(np.log(amplitude), abs=0.6)
    assert np.mean([s.noise.mean() for s in found]) == pytest.approx(0.01, rel=0.3)
    assert np.mean([s.within for s in found]) == pytest.approx(within, abs=0.3)


def test_what_a_misfit_explains_in_part_is_not_taken_for_noise() -> None:
    """Residuals hold what is left of a misfit of known size, which is shrunk; noise is found as large as it is."""
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        domains = []
        for k in range(4):
            x = rng.standard_normal((24, 40))
            values, vectors = np.linalg.eigh(x.T @ x)
            absorb = x @ (vectors / np.sqrt(np.maximum(values, 0.0) + 1.0))
            y = x @ rng.standard_normal(40) + rng.standard_normal(24)  # in units of the noise
            residual = 0.01 * (y - absorb @ (absorb.T @ y))
            domains.append(Residuals(residual=residual, absorb=absorb, cluster=np.arange(24) + 24 * k, sd=0.01))
        found.append(estimate_noise(domains).sd.mean())
    assert np.mean(found) == pytest.approx(0.01, rel=0.15)


def test_many_domains_are_solved_as_one_large_system_would_be() -> None:
    left, _ = left_of(0.01, 0.005)
    known = Scales(amplitude=np.full(4, 0.01), noise=np.full(4, 0.005), within=0.0)
    found = coefficients(left, known, [one.residual[None] for one in left])[0]
    x = np.zeros((4 * len(left[0].residual), 4 * N_FEATURES))
    for k, one in enumerate(left):
        rows, columns = (slice(k * size, (k + 1) * size) for size in (len(one.residual), N_FEATURES))
        x[rows, columns] = one.features
    prior = 0.01**2 * np.kron(0.7 + 0.3 * np.eye(4), np.eye(N_FEATURES))
    y = np.concatenate([one.residual for one in left])
    inverse = np.linalg.inv(x.T @ x / 0.005**2 + np.linalg.inv(prior))
    assert found.ravel() == pytest.approx(inverse @ x.T @ y / 0.005**2, rel=0.2, abs=1e-3)  # but for outliers' weights


def bent(runs: pd.DataFrame) -> pd.DataFrame:
    """Losses that no form has: a wave over log N and log D."""
    wave = np.sin(1.5 * np.log(runs["n_params"] / 3e4)) * np.cos(np.log(runs["pretrain_tokens"] / 1e6))
    return runs.assign(loss=runs["loss"] * np.exp(0.02 * wave))


def test_a_form_that_is_wrong_is_bent_towards_the_runs_and_widened_beyond_them() -> None:
    runs = bent(synthetic("law-8", n_domains=2, noise=0.003))
    law = fit_law(runs, n_draws=48, pooling=1.0)
    forms = replace(law, basis=None)
    point = [runs[name].to_numpy()[None, :, None] for name in ("n_params", "pretrain_tokens", "specialize_tokens")]
    own = [law.domains.index(name) for name in runs["domain"]]
    error = [
        np.abs(np.log(each.point.loss(*point)[0][np.arange(len(runs)), own] / runs["loss"])).mean()
        for each in (law, forms)
    ]
    assert error[0] < 0.6 * error[1]
    n, d, s = np.array([[[36e3], [36e3]]]), np.array([[[1e6], [64e6]]]), np.array([[[2e5], [2e5]]])
    width, of_forms = (np.log(each.loss(n, d, s)).std(axis=0).mean(axis=-1) for each in (law, forms))
    assert width[1] > 3 * width[0]
    assert width[0] < of_forms[0]  # where the runs are, form and misfit together agree with them


def test_draws_and_file_know_the_misfit_and_what_no_pretraining_costs() -> None:
    law = fit_law(with_scratch(synthetic("law-2", n_domains=2, noise=0.005)), n_draws=16, pooling=1.0)
    n, d, s = np.array([[[36e3]]]), np.array([[[0.0]]]), np.array([[[2e5]]])
    again = Law.from_json(law.to_json())
    assert np.array_equal(again.loss(n, d, s), law.loss(n, d, s))
    assert again.from_scratch == law.from_scratch == set(law.domains)


def with_scratch(runs: pd.DataFrame, domains: tuple[str, ...] = ("domain0", "domain1")) -> pd.DataFrame:
    """Runs from scratch added: 20 % worse than after the least pretraining at 1e5 tokens, and inversely as D'."""
    least = runs["pretrain_tokens"].min()
    at = runs[(runs["pretrain_tokens"] == least) & (runs["specialize_tokens"] > 0) & runs["domain"].isin(domains)]
    cost = 0.2 * 1e5 / at["specialize_tokens"]
    return pd.concat([runs, at.assign(pretrain_tokens=0.0, loss=at["loss"] * np.exp(cost))], ignore_index=True)


def test_runs_from_scratch_leave_the_rest_of_the_law_alone() -> None:
    runs = synthetic("law-2", n_domains=2, noise=0.005)
    without, with_them = (fit_law(table, n_draws=8, pooling=1.0) for table in (runs, with_scratch(runs)))
    n, d, s = np.array([[[36e3]]]), np.array([[[1e6]]]), np.array([[[2e5]]])
    assert with_them.point.loss(n, d, s) == pytest.approx(without.point.loss(n, d, s), rel=1e-9)
    assert with_them.support.pretrain_tokens[0] == 0 < without.support.pretrain_tokens[0]
    expected = 0.2 * 1e5 / 2e5
    zero, least = (with_them.point.loss(n, np.full((1, 1, 1), x), s) for x in (0.0, runs["pretrain_tokens"].min()))
    assert np.log(zero / least) == pytest.approx(np.full((1, 1, 2), expected), abs=0.02)
    between = with_them.point.loss(n, np.full((1, 1, 1), 0.5 * runs["pretrain_tokens"].min()), s)
    assert (least < between).all()
    assert (between < zero).all()


def test_a_domain_that_was_never_trained_from_scratch_is_not_said_to_have_been() -> None:
    runs = synthetic("law-2", n_domains=2, noise=0.005)
    law = fit_law(with_scratch(runs, ("domain0",)), n_draws=8, pooling=1.0)
    assert law.from_scratch == {"domain0"}
    assert law.support.pretrain_tokens[0] == runs["pretrain_tokens"].min()
    assert fit_law(runs, n_draws=2, pooling=1.0).from_scratch == set()


@pytest.mark.parametrize(
    ("of_first", "of_second", "known", "least"),
    [
        ([0.0], [0.5e6, 1e6], {"domain0"}, 0.5e6),
        ([0.0], [0.0, 0.5e6], {"domain0", "domain1"}, 0.0),
        ([0.0], [0.0], {"domain0", "domain1"}, 0.0),
    ],
)
def test_a_domain_of_runs_from_scratch_alone_tells_nothing_of_another(
    of_first: list[float], of_second: list[float], known: set[str], least: float
) -> None:
    runs = synthetic("law-2", n_domains=2, pretrain=(0.0, 0.5e6, 1e6), noise=0.005)
    here = {"domain0": of_first, "domain1": of_second}
    kept = [d in here[name] for d, name in zip(runs["pretrain_tokens"], runs["domain"], strict=True)]
    law = fit_law(runs[kept], n_draws=2, pooling=1.0)
    assert law.from_scratch == known
    assert law.support.pretrain_tokens[0] == least
    assert Law.from_json(law.to_json()).from_scratch == known


def test_the_law_at_one_share_keeps_what_no_pretraining_costs() -> None:
    names = {"domain0": "code at 0", "domain1": "code at 0.2"}
    runs = with_scratch(synthetic("law-2", n_domains=2, noise=0.005))
    law = replace(
        fit_law(runs.assign(domain=runs["domain"].map(names)), n_draws=2, pooling=1.0), replay_shares=(0.0, 0.2)
    )
    n, d, s = np.array([[[36e3]]]), np.array([[[0.0]]]), np.array([[[2e5]]])
    at_share = law.at_share(0.2)
    assert np.array_equal(at_share.loss(n, d, s), law.loss(n, d, s)[..., 1:])
    assert np.array_equal(at_share.noise_at(0.0), law.noise_at(0.0)[1:])
    assert at_share.from_scratch == {"code"}


def test_costs_of_no_pretraining_are_found_and_domains_lend_them() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for n_runs in (12, 12, 12, 1, 0):
        n, s = np.exp(rng.uniform(np.log(14e3), np.log(1e5), n_runs)), np.exp(rng.uniform(11, 13.8, n_runs))
        cost = 0.1 * (s / 2e5) ** -1.0 * (n / 4e4) ** 0.1
        runs.append(ScratchRuns(n=n, s=s, cost=np.tile(cost, (33, 1)) + 0.003 * rng.standard_normal((33, n_runs))))
    found = fit_scratch(runs, least_tokens=1e5, rng=rng)
    assert found.known == (True, True, True, True, False)
    at = [np.array(x).reshape(1, 1, 1) for x in (4e4, 0.0, 4e5)]
    penalty = found.penalty(at, draw=True)
    assert penalty is not None
    cost = penalty[0][:, 0]  # (B, K)
    assert cost.mean(axis=0)[:4] == pytest.approx(np.full(4, 0.05), rel=0.2)
    assert cost[:, 4].std() > 2 * cost[:, 0].std()
    assert found.penalty([at[0], np.full((1, 1, 1), 1e5), at[2]], draw=True) is None
