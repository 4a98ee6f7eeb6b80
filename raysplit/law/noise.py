"""How observations err around a form: by how much, and how much runs of one trunk err together.

The log residual of a run of domain k on the branch point c = (N, seed, D) is taken as

    e = sigma_k (sqrt(x) u_c + sqrt(v - x) u_kc + sqrt(1 - v) u) / sqrt(weight),      all u standard normal,

so two runs of one domain from one branch point correlate by v, those of two domains by x <= v. All branches of a branch
point share its trunk's luck and, where the form is wrong, its misfit; both are in the residuals and so in sigma, v, x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.law.form import Array

_CUT = 2.5
"""Residuals are cut at this many sds, as the fit cuts outliers."""
_GUESS_WITHIN, _GUESS_ROWS = 0.2, 4.0
"""Correlation of two runs of a branch point before any evidence, and as how many rows that guess weighs."""
_MAX_CORRELATION = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The three numbers of the model above."""

    sd: Array
    """sigma, (K,)."""
    within: float
    """v"""
    across: float
    """x"""
    freedom: float
    """Degrees of freedom behind sigma, all domains together."""

    def draw(
        self, cluster: NDArray[np.intp], domain: NDArray[np.intp], weight: Array, n_draws: int, rng: np.random.Generator
    ) -> Array:
        """Errors (n_draws, R) for runs of these branch points (R,), domains (R,) and weights (R,).

        sigma itself is drawn too, from its scaled inverse chi-square, so that few runs give the wide tails of Student.
        """
        n_clusters, n_domains = int(cluster.max()) + 1, len(self.sd)
        shared = rng.standard_normal((n_draws, n_clusters))[:, cluster]
        own = rng.standard_normal((n_draws, n_clusters * n_domains))[:, cluster * n_domains + domain]
        alone = rng.standard_normal((n_draws, cluster.size))
        mix = (
            np.sqrt(self.across) * shared + np.sqrt(self.within - self.across) * own + np.sqrt(1 - self.within) * alone
        )
        spread = np.sqrt(self.freedom / rng.chisquare(self.freedom, (n_draws, 1)))
        return balanced(spread * mix * self.sd[domain] / np.sqrt(weight))


def balanced(draws: Array) -> Array:
    """Draws (B, ...) around zero moved so that their mean is zero, and widened by as much as that took off.

    Where a model is linear, the mean over worlds that were moved so is its best guess, however few worlds there are.
    """
    if len(draws) < 2:
        return draws
    return np.asarray((draws - draws.mean(axis=0)) * np.sqrt(len(draws) / (len(draws) - 1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Residuals:
    """What one domain's fit left, each row times the square root of its weight."""

    residual: Array  # (R,)
    absorb: Array  # (R, P), whose product with its transpose is the hat matrix
    cluster: NDArray[np.intp]  # (R,), branch points numbered over all domains
    sd: float
    """Robust sd of the residuals, already corrected as if they were independent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """G = Z'QZ of one domain, (C, C) for C branch points, which is diag(rows) - B'B with B of only P rows.

    Kept as those two parts, so that a table in which every run has a branch point of its own costs no (C, C) matrix.
    """

    rows: Array  # (C,)
    absorbed: Array  # B, (P, C)
    taken: Array  # diagonal of B'B, (C,)

    @classmethod
    def of(cls, one: Residuals, n_clusters: int) -> "_Shape":
        absorbed: Array = np.zeros((one.absorb.shape[1], n_clusters))
        np.add.at(absorbed.T, one.cluster, one.absorb)
        rows = np.bincount(one.cluster, minlength=n_clusters).astype(float)
        return cls(rows=rows, absorbed=absorbed, taken=(absorbed**2).sum(axis=0))

    @classmethod
    def all_of(cls, shapes: Sequence["_Shape"]) -> "_Shape":
        """The sum of several."""
        return cls(
            rows=np.sum([one.rows for one in shapes], axis=0),
            absorbed=np.concatenate([one.absorbed for one in shapes]),
            taken=np.sum([one.taken for one in shapes], axis=0),
        )

    @property
    def outer(self) -> Array:
        """BB', (P, P)."""
        return self.absorbed @ self.absorbed.T

    @property
    def dot_itself(self) -> float:
        """Sum of the squares of the elements."""
        b = self.absorbed if len(self.absorbed) <= self.rows.size else self.absorbed.T  # BB' and B'B have one norm
        return float(self.rows @ self.rows - 2.0 * self.rows @ self.taken + ((b @ b.T) ** 2).sum())

    @property
    def trace(self) -> float:
        return float(self.rows.sum() - self.taken.sum())


def estimate_noise(domains: Sequence[Residuals]) -> Noise:
    """Variance components by moments, corrected for what the fits absorbed.

    A fit of P parameters absorbs much of the luck of a dozen branch points, so residuals correlate less than errors.
    With Q = I - hat matrix, Z the indicator of branch points and r = Q e the residuals, the expectations of sum r^2 and
    of |Z'r|^2 are known linear functions of the variances alone and shared (Henderson 1953, method 3, in spirit), and
    those of Z_k'r_k . Z_l'r_l of what two domains share.
    """
    n_clusters = 1 + max(int(d.cluster.max()) for d in domains)
    expected, seen = np.zeros((2, 2)), np.zeros(2)
    sums, shapes, rows_free = [], [], []
    for one in domains:
        unit = np.clip(one.residual / one.sd, -_CUT, _CUT)
        hat = one.absorb.T @ one.absorb
        shape = _Shape.of(one, n_clusters)
        alone = unit.size - 2.0 * np.trace(hat) + float((hat**2).sum())
        square = unit.size - 2.0 * shape.taken.sum() + float((hat * shape.outer).sum())
        expected += [[alone, square], [square, shape.dot_itself]]
        total = np.bincount(one.cluster, weights=unit, minlength=n_clusters)
        # What is absorbed in part only, because it is taken to be small, is in the residuals in part: its own variance
        # is known, and QKQ = H - H^2 of it is left.
        left = float(np.trace(hat) - (hat**2).sum()), float(shape.taken.sum() - (hat * shape.outer).sum())
        seen += [float(unit @ unit) - left[0], float(total @ total) - left[1]]
        sums.append(total)
        rows_free.append(alone)
        shapes.append(shape)
    # A little of the prior guess in the same units, for tables whose branch points say next to nothing.
    expected += _GUESS_ROWS * np.eye(2)
    seen += _GUESS_ROWS * np.array([1.0 - _GUESS_WITHIN, _GUESS_WITHIN])
    alone, shared = np.maximum(np.linalg.solve(expected, seen), 0.0)
    if alone + shared <= 0:
        alone = 1.0
    within = min(shared / (alone + shared), _MAX_CORRELATION)
    # Over all pairs of domains: half of what the square of a sum has more than the sum of the squares.
    everyone = np.sum(sums, axis=0)
    together = 0.5 * (float(everyone @ everyone) - sum(float(own @ own) for own in sums))
    possible = 1.0 + 0.5 * (_Shape.all_of(shapes).dot_itself - sum(shape.dot_itself for shape in shapes))
    across = min(max(together / possible / (alone + shared), 0.0), within)
    # Independent pieces of evidence: rows that the fits left free, and branch points that they left free.
    rows_left = expected[0, 0]
    points_left = sum(g.trace**2 / max(g.dot_itself, 1e-12) for g in shapes)
    freedom = 1.0 / ((1.0 - within) ** 2 / rows_left + within**2 / max(points_left, 1.0))
    return Noise(
        sd=shared_sd(np.array([one.sd for one in domains]), np.array(rows_free)) * np.sqrt(alone + shared),
        within=within,
        across=across,
        freedom=max(freedom, 4.0),
    )


def shared_sd(sd: Array, freedom: Array) -> Array:
    """Each domain's sd (K,), drawn towards the mean of all as if that were known from `_GUESS_ROWS` rows.

    A domain of three runs has no residuals to speak of, which does not make it free of noise.
    """
    freedom = np.maximum(freedom, 0.0)
    mean = np.exp(np.average(np.log(sd), weights=freedom + 1e-6))
    return np.asarray(np.sqrt((freedom * sd**2 + _GUESS_ROWS * mean**2) / (freedom + _GUESS_ROWS)))


def repeated_seed_sd(runs: pd.DataFrame) -> tuple[float, int]:
    """Log sd of one observation from runs that differ only in their seed, and its degrees of freedom (0: none)."""
    if "seed" not in runs:
        return float("nan"), 0
    log_loss = np.log(runs["loss"])
    keys = [runs[name] for name in ("n_params", "pretrain_tokens", "specialize_tokens", "domain")]
    grouped = log_loss.groupby(keys)
    freedom = int((grouped.transform("count") > 1).sum() - (grouped.count() > 1).sum())
    if not freedom:
        return float("nan"), 0
    return float(np.sqrt(((log_loss - grouped.transform("mean")) ** 2).sum() / freedom)), freedom
