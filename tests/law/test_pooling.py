"""Domains that borrow from each other. All tables here are synthetic."""

import numpy as np
import pandas as pd
import pytest

from raysplit.law import FORMS, Law, fit_law
from raysplit.law.fit import fit_sample, sample_of
from raysplit.law.pooling import pool
from raysplit.law.pooling_strength import STRENGTHS, choose_strength
from tests.law.tables import TRUTH, synthetic

NEW = "domain3"


def table_with_a_new_domain(n_runs: int, *, seed: int) -> pd.DataFrame:
    """Three domains of a full grid, and a fourth of a few runs; branch points share luck."""
    full = synthetic("law-8", n_domains=4, noise=0.01, within=0.3, across=0.1, seed=seed)
    new = full[full["domain"] == NEW].sample(n_runs, random_state=seed)
    return pd.concat([full[full["domain"] != NEW], new])


def beyond(law: Law) -> tuple[float, float]:
    """Mean absolute log error and 90 % coverage of the new domain at twice the largest N and D'."""
    truth = synthetic("law-8", n_domains=4, sizes=(222e3,), pretrain=(1e6, 2e6, 4e6), specialize=(0, 0.5e6, 2e6))
    truth = truth[truth["domain"] == NEW]
    said = law.predict(NEW, truth["n_params"], truth["pretrain_tokens"], truth["specialize_tokens"], noise=False)
    exact = truth["loss"].to_numpy()
    return float(np.abs(np.log(said.mean / exact)).mean()), float(((said.low <= exact) & (exact <= said.high)).mean())


@pytest.mark.parametrize("n_runs", [3, 8])
def test_a_new_domain_borrows_and_still_knows_how_little_it_knows(n_runs: int) -> None:
    errors, covered = {0.0: 0.0, None: 0.0}, 0.0
    for seed in range(4):
        runs = table_with_a_new_domain(n_runs, seed=seed)
        for pooling in errors:
            law = fit_law(runs, forms=["law-8"], pooling=pooling, seed=seed)
            error, inside = beyond(law)
            errors[pooling] += error / 4
            covered += inside / 4 if pooling is None else 0.0
    assert errors[None] < 0.75 * errors[0.0]
    assert covered > 0.6


def test_domains_that_differ_are_left_alone() -> None:
    """Twice the exponents: held-out runs show that borrowing would harm, and the others do not suffer from it."""
    same = synthetic("law-2", n_domains=2, noise=0.003, seed=1)
    other = synthetic("law-2", noise=0.0, seed=2).assign(domain="other")
    theta = np.array(TRUTH["law-2"]) * [0.5, 100.0, 2.0, 300.0, 1.5, 5.0, 0.1, 2.0]
    n, d, s = (other[name].to_numpy(dtype=float) for name in ("n_params", "pretrain_tokens", "specialize_tokens"))
    luck = np.exp(np.random.default_rng(3).normal(0, 0.003, len(other)))
    runs = pd.concat([same, other.assign(loss=FORMS["law-2"].loss(theta, n, d, s) * luck)])
    law = fit_law(runs, forms=["law-2"])
    alone = fit_law(runs, forms=["law-2"], pooling=0.0)
    assert law.pooling["law-2"] <= 1.0
    np.testing.assert_allclose(law.noise, alone.noise, rtol=0.1)


def test_one_domain_has_nobody_to_borrow_from() -> None:
    runs = synthetic("law-2", noise=0.01)
    law, alone = (fit_law(runs, forms=["law-2"], pooling=pooling) for pooling in (None, 0.0))
    assert law.pooling == {"law-2": 0.0}
    np.testing.assert_array_equal(law.members[0].draw_theta, alone.members[0].draw_theta)


def test_pooling_moves_priors_towards_the_others_and_only_those() -> None:
    form = FORMS["law-2"]
    domains = [runs for _, runs in synthetic("law-2", n_domains=3, noise=0.01).groupby("domain")]
    fits = [fit_sample(form, sample_of(runs), huber_delta=None) for runs in domains]
    problems = [problem for _, problem in fits]
    own = [problem.coordinates.to_phi(fit.theta)[None] for fit, problem in fits]
    pooled = np.array([p.prior is not None and not p.linear for p in form.parameters])
    for strength in STRENGTHS[1:]:
        moved = pool(problems, own, strength)
        for before, after in zip(problems, moved, strict=True):
            there, here = before.coordinates, after.coordinates
            np.testing.assert_array_equal(there.centre[~pooled], here.centre[~pooled])
            np.testing.assert_array_equal(there.prior_sd[~pooled], here.prior_sd[~pooled])
    # A domain's own fit plays no part in its prior, or its runs would count twice.
    elsewhere = pool(problems, [own[0] + 0.3, *own[1:]], 10.0)
    assert elsewhere[0].coordinates.centre[pooled] == pytest.approx(
        pool(problems, own, 10.0)[0].coordinates.centre[pooled], rel=1e-12
    )
    assert not np.array_equal(elsewhere[1].coordinates.centre, pool(problems, own, 10.0)[1].coordinates.centre)


def test_a_single_branch_point_cannot_choose() -> None:
    fits = [
        fit_sample(FORMS["hoffmann"], sample_of(runs), huber_delta=None)
        for _, runs in synthetic("hoffmann", n_domains=2, sizes=(14e3,), pretrain=(1e6,)).groupby("domain")
    ]
    problems = [problem for _, problem in fits]
    best = [problem.coordinates.to_phi(fit.theta) for fit, problem in fits]
    clusters = [np.zeros(problem.n.size, dtype=np.intp) for problem in problems]
    assert choose_strength(problems, best, clusters, forced=False) == 0.0
    assert choose_strength(problems, best, clusters, forced=True) > 0.0
