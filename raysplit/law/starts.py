"""Where fits begin: many guesses of the nonlinear parameters, the linear ones solved for, the best scores kept.

This is variable projection (Golub and Pereyra 1973) used only to score: for each guess the floor and the amplitudes are
the non-negative least-squares solution on relative errors, found by trying every set of them that may be zero.
"""

from functools import lru_cache
from itertools import combinations

import numpy as np

from raysplit.law.form import Array
from raysplit.law.objective import FitProblem

_MAX_LINEAR = 4
"""With more linear parameters than this the sets to try are too many; the rest are guessed like the nonlinear ones."""


def scored_starts(
    problem: FitProblem, *, n_guesses: int, n_starts: int, seed: int, alike: Array | None = None
) -> Array:
    """The ``n_starts`` best of ``n_guesses`` guesses, (n_starts, P) search coordinates, best first.

    ``alike`` (n, P) are guesses beside these: where fits of domains of the same kind ended.
    """
    phi = _guesses(problem, n_guesses, seed)
    if alike is not None:
        phi = np.concatenate([np.clip(alike, problem.coordinates.lower, problem.coordinates.upper), phi])
    phi = _solve_linear(problem, phi)
    value = problem.value(phi)
    return phi[np.argsort(value, kind="stable")[:n_starts]]


def _guesses(problem: FitProblem, n_guesses: int, seed: int) -> Array:
    """A scrambled Sobol set over 1.5 standard deviations of each prior, or over the bounds where there is none."""
    c = problem.coordinates
    low, high = np.maximum(c.lower, c.centre - 1.5 * c.prior_sd), np.minimum(c.upper, c.centre + 1.5 * c.prior_sd)
    # Without a prior and without a bound there is only the data's own scale to go by.
    low, high = np.where(np.isfinite(low), low, -10.0), np.where(np.isfinite(high), high, 10.0)
    n_points = 2 ** max(1, round(np.log2(n_guesses)))
    return np.asarray(low + unit_points(len(low), n_points, seed=seed) * (high - low), dtype=float)


@lru_cache(maxsize=8)
def unit_points(n_dimensions: int, n_points: int, *, seed: int) -> Array:
    """A scrambled Sobol set, (n_points, n_dimensions) in [0, 1); ``n_points`` is a power of two."""
    from scipy.stats import qmc  # takes longer to load than all else of the law, which answers before it fits

    return np.asarray(qmc.Sobol(n_dimensions, rng=np.random.default_rng(seed)).random(n_points), dtype=float)


def start_at_priors(problem: FitProblem, known: Array) -> Array:
    """The start (1, P) at the centres of the priors, and at ``known`` (P,) where there is none."""
    c = problem.coordinates
    return _solve_linear(problem, np.where(c.has_prior & ~c.linear, c.centre, known)[None])


def _solve_linear(problem: FitProblem, phi: Array) -> Array:
    """Put the best non-negative linear parameters into each guess; amplitudes that come out zero get a small share."""
    c, log_loss, weight = problem.coordinates, problem.log_loss[0], problem.weight[0]
    linear = np.flatnonzero(c.linear)[:_MAX_LINEAR]
    if not linear.size:
        return phi
    theta = c.to_theta(phi)
    probe = theta.copy()
    probe[:, linear] = 1.0
    loss, columns = problem.form.loss_and_linear(probe[:, None, :], problem.n, problem.d, problem.s)
    columns = np.moveaxis(columns[: linear.size], 0, -1)  # (B, R, Q)
    rest = loss - columns.sum(axis=-1)
    scale = np.sqrt(weight) * np.exp(-log_loss)  # relative errors, weighted
    columns = columns * scale[:, None]
    target = np.sqrt(weight) - rest * scale
    size = np.maximum(np.sqrt((columns**2).sum(axis=1)), 1e-300)  # (B, Q)
    unit = columns / size[:, None, :]
    gram = np.matmul(np.swapaxes(unit, 1, 2), unit)
    moment = np.matmul(np.swapaxes(unit, 1, 2), target[..., None])[..., 0]
    best, best_gain = np.zeros_like(moment), np.full(len(phi), -np.inf)
    for count in range(1, linear.size + 1):
        for subset in map(list, combinations(range(linear.size), count)):
            part = gram[:, subset][:, :, subset] + 1e-10 * np.eye(count)
            solution = np.linalg.solve(part, moment[:, subset][..., None])[..., 0]
            gain = np.einsum("bq,bq->b", solution, moment[:, subset])  # drop of the sum of squares
            take = (solution >= 0).all(axis=1) & (gain > best_gain)
            best[take] = 0.0
            best[np.ix_(take, subset)] = solution[take]
            best_gain[take] = gain[take]
    # A twentieth of the loss: an amplitude of exactly zero has no logarithm, and its exponents no gradient.
    least = 0.05 * np.sqrt(weight.sum()) / size
    amplitude = c.amplitude[linear]
    theta[:, linear] = np.where(amplitude & (best <= 0), least, best / size)
    return np.clip(c.to_phi(theta), c.lower, c.upper)
