"""Domains that borrow from each other: what is nonlinear in a form is drawn towards what the other domains say.

Notation
    K   domains          P   parameters          B   fits          phi   search coordinates (objective.py)
    tau   how far domains may differ, a standard deviation on the search scale: the prior's own over the strength

The prior of domain k on each pooled parameter is the normal around the mean of the *other* domains' own fits, each
counting 1 / (v + tau^2), v being what its runs leave uncertain, and the form's prior counting as one domain more; its
variance is tau^2 plus that of the mean (the normal hierarchical model, its cavity form: no run is used twice). Floors
and amplitudes stay each domain's own. A domain of few runs so takes its exponents from those of many, and one that its
runs determine keeps its own.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raysplit.law.form import Array
from raysplit.law.objective import FitProblem, huber_scale, together

_NO_KNOWLEDGE = 1e100
"""A variance that stands for none."""


def pool(problems: Sequence[FitProblem], own: Sequence[Array], strength: float) -> list[FitProblem]:
    """The same fits with each domain's priors moved to what the others say.

    Args:
        problems: One a domain, each of B fits.
        own: Where those fits end without pooling, (B, P) each.
        strength: Positive.
    """
    means, sds = lent(problems, own, strength)
    out = []
    for problem, mean, sd in zip(problems, means, sds, strict=True):
        pooled, width = is_pooled(problem), np.median(sd, axis=0)
        own_priors = problem.coordinates
        # The fits share one width, and their centres are told as shifts from the first one's.
        coordinates = own_priors.moved(
            lower=own_priors.lower,
            upper=own_priors.upper,
            centre=np.where(pooled, mean[0], own_priors.centre),
            prior_sd=np.where(pooled, width, own_priors.prior_sd),
        )
        shift = np.where(pooled, (mean - mean[0]) / width, 0.0)
        out.append(replace(problem, coordinates=coordinates, prior_shift=problem.prior_shift + shift))
    return out


def is_pooled(problem: FitProblem) -> NDArray[np.bool_]:
    """Which parameters domains lend each other, (P,)."""
    return problem.coordinates.has_prior & ~problem.coordinates.linear


def difference_sd(problem: FitProblem, strength: float) -> Array:
    """tau of the form's own priors, (P,); 1 where a parameter has none."""
    return np.where(is_pooled(problem), problem.coordinates.prior_sd, 1.0) / strength


def lent(problems: Sequence[FitProblem], own: Sequence[Array], strength: float) -> tuple[list[Array], list[Array]]:
    """Mean and standard deviation of each domain's pooled priors, (B, P) each; arguments as in `pool`."""
    pooled, tau = is_pooled(problems[0]), difference_sd(problems[0], strength)
    prior_sd = tau * strength
    value = np.stack(own)  # (K, B, P)
    centre = np.stack([p.coordinates.centre for p in problems])[:, None]  # (K, 1, P)
    known = _variances(problems, own)
    # What the runs alone say: the posterior without the prior's share of its precision, and of its centre.
    precision = np.where(pooled, np.maximum(1.0 / known - prior_sd**-2.0, 0.0), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        said = np.where(precision > 0, (value / known - centre * prior_sd**-2.0) / precision, value)
        counts = np.where(precision > 0, 1.0 / (1.0 / precision + tau**2), 0.0)
    prior_counts = 1.0 / (prior_sd**2 + tau**2)
    total = counts.sum(axis=0) - counts + prior_counts  # of all others, (K, B, P)
    weighed = counts * said
    means = (weighed.sum(axis=0) - weighed + prior_counts * centre) / total
    return list(means), list(np.sqrt(tau**2 + 1.0 / total))


def _variances(problems: Sequence[FitProblem], own: Sequence[Array]) -> Array:
    """Posterior variance of each parameter around phi (B, P) of each domain, (K, B, P)."""
    both, phi = together(problems, [len(each) for each in own]), np.concatenate(own)
    parts = [_variance(both.rows(rows), phi[rows]) for rows in both.in_parts(len(phi))]
    return np.concatenate(parts).reshape(len(problems), -1, phi.shape[1])


def _variance(problem: FitProblem, phi: Array) -> Array:
    """Posterior variance of each parameter around phi, (B, P)."""
    _, _, information = problem.scores(phi)
    information = information / huber_scale(problem.delta, problem.noise)[:, :, None]
    diagonal = np.einsum("bii->bi", information)
    scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-300))
    unit = information * scale[:, :, None] * scale[:, None, :] + 1e-12 * np.eye(phi.shape[1])
    with np.errstate(over="ignore"):  # of a parameter on which a lone run says nothing
        return np.minimum(np.maximum(np.einsum("bii->bi", np.linalg.inv(unit)), 1e-300) * scale**2, _NO_KNOWLEDGE)
