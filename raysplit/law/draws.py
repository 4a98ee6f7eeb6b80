"""Draws from what the runs leave open: worlds of perturbed or resampled runs, each refitted from the best fit.

`perturbed` worlds move the runs around the fit by noise (noise.py: runs of one branch point move together) and misfit
(discrepancy.py), and the centres of the priors by one of their standard deviations; for a linear model with normal
noise that samples the posterior exactly. `bootstrapped` worlds draw branch points, with all their runs in all domains,
with replacement.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raysplit.law.form import Array
from raysplit.law.minimize import minimize_together
from raysplit.law.noise import balanced
from raysplit.law.objective import FitProblem
from raysplit.law.pooling import difference_sd, is_pooled, lent
from raysplit.law.status import Fitted


@dataclass(frozen=True, kw_only=True, slots=True)
class Worlds:
    """The runs of one domain in B worlds."""

    errors: Array | None
    """(B, R), log losses around the fit; None leaves the losses as they were measured."""
    counts: Array
    """(B or 1, R), how often each run is there."""

    @property
    def n_draws(self) -> int:
        """B"""
        return len(self.counts if self.errors is None else self.errors)

    def of(self, problem: FitProblem, best: Array) -> FitProblem:
        """A domain's problem in these worlds; best (1, P) is its optimum."""
        if self.errors is None:
            return replace(problem, weight=problem.weight * self.counts)
        # Around the fit, and with the priors centred on it, so that no perturbation gives the fit back.
        target = problem.residuals(best) + problem.log_loss + self.errors
        return replace(problem, log_loss=target, prior_shift=problem.prior_z(best))


def perturbed(errors: Sequence[Array]) -> list[Worlds]:
    """Worlds in which the runs of each domain erred otherwise, (n_draws, R) log losses each."""
    return [Worlds(errors=own, counts=np.ones((1, own.shape[1]))) for own in errors]


def bootstrapped(clusters: Sequence[NDArray[np.intp]], n_draws: int, rng: np.random.Generator) -> list[Worlds]:
    """Worlds of branch points drawn with replacement; ``clusters`` numbers each domain's runs by branch point."""
    n_clusters = 1 + max(int(own.max()) for own in clusters)
    drawn = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_draws).astype(float)
    return [Worlds(errors=None, counts=drawn[:, own]) for own in clusters]


def refitted(
    alone: Fitted,
    pooled: Fitted,
    worlds: Sequence[Worlds],
    strength: float,
    *,
    iterations: int,
    rng: np.random.Generator,
) -> list[Array]:
    """Parameters (n_draws, P) of each domain in each world.

    Where domains are pooled the draws are made twice, as the fits are: what a domain borrows in a draw is what the
    others say in that draw, so that all of them are wrong together where they are.

    Args:
        alone: Fits without pooling.
        pooled: The fits to draw around; the same ones where ``strength`` is 0.
        worlds: One set a domain.
        strength: Of the pooling.
        iterations: Steps of each refit.
        rng: Of the priors.
    """
    shape = (worlds[0].n_draws, len(alone[0][0].theta))
    shifts = [balanced(rng.standard_normal(shape)) for _ in alone]
    phi = _refit(alone, worlds, shifts, iterations)
    if strength:
        own = [problem.coordinates.to_phi(fit.theta) for fit, problem in alone]
        problems = [problem for _, problem in alone]
        means, _ = lent(problems, [np.vstack([best, moved]) for best, moved in zip(own, phi, strict=True)], strength)
        tau, lends = difference_sd(problems[0], strength), is_pooled(problems[0])
        shifts = []
        for (_, problem), mean in zip(pooled, means, strict=True):
            shift = balanced(rng.standard_normal(shape))
            borrowed = (mean[1:] - mean[0] + tau * shift) / problem.coordinates.prior_sd
            shifts.append(np.where(lends, borrowed, shift))
        phi = _refit(pooled, worlds, shifts, iterations)
    return [problem.coordinates.to_theta(found) for (_, problem), found in zip(alone, phi, strict=True)]


def _refit(fitted: Fitted, worlds: Sequence[Worlds], shifts: Sequence[Array], iterations: int) -> list[Array]:
    """Search coordinates (n_draws, P) of each domain refitted in each world, priors moved by so many of their sds."""
    problems, starts = [], []
    for (fit, problem), world, shift in zip(fitted, worlds, shifts, strict=True):
        best = problem.coordinates.to_phi(fit.theta)[None]
        there = world.of(problem, best)
        problems.append(replace(there, prior_shift=there.prior_shift + shift))
        starts.append(np.repeat(best, len(shift), axis=0))
    return [end.phi for end in minimize_together(problems, starts, max_iterations=iterations, tolerance=1e-6)]
