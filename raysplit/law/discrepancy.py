"""How far a form itself is off: a smooth function of the three logarithms, learnt from what the fit left.

    log loss = log L(theta; N, D, D') + g_k(N, D, D') + noise,      g_k = sum_m c_km phi_m(N, D, D')

The features phi are those of `raysplit.law.basis`, and their coefficients c_km are normal with sd a_k. Between the runs
g is smooth. Before any run is seen, the sd of its smooth part is about a_k everywhere, and so is that of each size.

The amplitudes a_k come from the residuals alone (restricted likelihood: what a fit of P parameters absorbs is taken
out first; Patterson and Thompson 1971), drawn towards the amplitude that all domains share.

Notation
    K   domains          R   runs of a domain          M   features          B   draws          P   parameters
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raysplit.law.basis import N_FEATURES
from raysplit.law.form import Array
from raysplit.law.noise import balanced


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What the fit of one domain left, each row times the root of its weight."""

    residual: Array  # (R,), log y - log L
    features: Array  # (R, M)
    jacobian: Array  # (R, P)
    branch: "BranchPoints"

    def whitened(self, within: float) -> "Left":
        """The same with independent rows of one variance, where those of a branch point correlate by ``within``."""
        return replace(
            self,
            residual=self.branch.whitened(self.residual, within),
            features=self.branch.whitened(self.features, within),
            jacobian=self.branch.whitened(self.jacobian, within),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchPoints:
    """Which rows of a domain share a branch point."""

    order: NDArray[np.intp]  # (R,), rows of one branch point after the other
    first: NDArray[np.intp]  # (C,), where each begins in that order
    own: NDArray[np.intp]  # (R,), the branch point of each row
    size: NDArray[np.intp]  # (C,)

    @classmethod
    def of(cls, cluster: NDArray[np.intp]) -> "BranchPoints":
        """By the number of each row's branch point, (R,)."""
        _, own, size = np.unique(cluster, return_inverse=True, return_counts=True)
        return cls(order=np.argsort(own, kind="stable"), first=np.cumsum(size) - size, own=own, size=size)

    def whitened(self, rows: Array, within: float) -> Array:
        """Rows (R, ...) made independent, where those of a branch point correlate by ``within``.

        The root of the inverse of (1 - v) I + v 11' takes a share of the mean of the m rows off each of them.
        """
        share = 1.0 - np.sqrt((1.0 - within) / (1.0 - within + self.size * within))
        total = np.add.reduceat(rows[self.order], self.first, axis=0)
        less = total * (share / self.size).reshape(-1, *(1,) * (rows.ndim - 1))
        return np.asarray((rows - less[self.own]) / math.sqrt(1.0 - within))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scales:
    """How large misfit and noise are."""

    amplitude: Array
    """a_k, (K,)"""
    noise: Array
    """(K,) log sd of one observation."""
    within: float
    """Correlation of the noise of two runs of one branch point."""


_AMPLITUDES = np.geomspace(3e-4, 3e-2, 21)
_NOISES = np.geomspace(1e-3, 1e-1, 31)
_WITHINS = (0.0, 0.25, 0.5, 0.75, 0.9)
_MOST_ASKED = 16
_USUAL_AMPLITUDE, _USUAL_FACTOR = 8e-3, math.log(2.0)
"""Before any evidence: median and log sd of the amplitude that all domains share (LOG 2026-11-30)."""
_DOMAIN_FACTOR = math.log(1.6)
"""Log sd by which a domain's own amplitude differs from it."""
_SHARED = 0.7
"""Correlation of g between domains: what a form gets wrong it gets wrong alike, in part."""
_FREEDOM = 12.0
"""Degrees of freedom of the t distribution that draws of g follow, since g's amplitude is not known either."""
_CUT = 2.5
"""Residuals are cut at this many sds, as the fit cuts outliers."""


def scales(left: Sequence[Left], *, scale: float = 1.0) -> Scales:
    """Amplitudes (times ``scale``) and noise by restricted likelihood, the likeliest correlation of a few.

    Where there are more than `_MOST_ASKED` domains, so many at even distances tell the correlation for all.
    """

    def at(domains: Sequence[Left], within: float) -> tuple[float, Scales]:
        return _scales_at([one.whitened(within) for one in domains], within, scale)

    asked = np.unique(np.linspace(0, len(left) - 1, min(len(left), _MOST_ASKED)).astype(int))
    found = [at([left[k] for k in asked], within) for within in _WITHINS]
    _, best = max(found, key=lambda one: one[0])
    return best if len(asked) == len(left) else at(left, best.within)[1]


def _scales_at(left: Sequence[Left], within: float, scale: float) -> tuple[float, Scales]:
    """Log evidence of one correlation, and the scales there."""
    tables = np.stack([_likelihood(one, within) for one in left])  # (K, amplitudes, noises)
    of_amplitude = _log_sum(tables)  # (K, own)
    log_a = np.log(_AMPLITUDES)
    usual = -0.5 * ((log_a - math.log(_USUAL_AMPLITUDE)) / _USUAL_FACTOR) ** 2
    # A domain's own amplitude is around the shared one: log sum over the own ones, for each shared one.
    apart = -0.5 * ((log_a[:, None] - log_a) / _DOMAIN_FACTOR) ** 2  # (shared, own)
    apart -= np.log(np.exp(apart).sum(axis=1, keepdims=True))
    by_domain = _log_sum(of_amplitude[:, None, :] + apart)  # (K, shared)
    shared = usual + by_domain.sum(axis=0)
    # What the other domains say of the shared one, then of the own one.
    own = _log_sum((of_amplitude[:, None, :] + apart + (shared - by_domain)[:, :, None]).swapaxes(1, 2))
    likely = np.exp(own - own.max(axis=1, keepdims=True))
    # The mean over what is likely and not the likeliest: where little is known of it, g is not taken for nothing.
    amplitude = scale * np.exp(likely @ log_a / likely.sum(axis=1))
    at = np.abs(_AMPLITUDES - amplitude[:, None]).argmin(axis=1)
    noise = _NOISES[tables[np.arange(len(left)), at].argmax(axis=1)]
    evidence = float(_log_sum(shared[None])[0])
    return evidence, Scales(amplitude=amplitude, noise=noise, within=within)


def _log_sum(x: Array) -> Array:
    """Over the last axis."""
    top = x.max(axis=-1)
    return np.asarray(top + np.log(np.exp(x - top[..., None]).sum(axis=-1)))


def _likelihood(left: Left, within: float) -> Array:
    """Restricted log likelihood of amplitudes (rows) and noises (columns) of whitened rows."""
    q, r = np.linalg.qr(left.jacobian)
    size = np.abs(np.diag(r))
    q = q[:, size > 1e-8 * size.max(initial=1e-300)]
    cut = _CUT * 1.4826 * np.median(np.abs(left.residual))
    residual = np.clip(left.residual, -cut, cut) if cut > 0 else left.residual
    residual = residual - q @ (q.T @ residual)
    features = left.features - q @ (q.T @ left.features)
    freedom = max(len(residual) - q.shape[1], 1)
    values, vectors = np.linalg.eigh(features.T @ features)
    values = np.maximum(values, 0.0)[:, None, None]
    along = (vectors.T @ (features.T @ residual)) ** 2
    a, noise = _AMPLITUDES[:, None] ** 2, _NOISES**2
    spread = noise + a * values  # (M, amplitudes, noises)
    log_det = np.log(spread).sum(axis=0) - len(values) * np.log(noise)
    square = (residual @ residual - a * np.tensordot(along, 1.0 / spread, axes=1)) / noise
    # Whitening changes the units of the rows: the log determinants that make correlations comparable.
    size = left.branch.size
    kept = np.abs(np.diag(r))
    kept = kept[kept > 1e-8 * kept.max(initial=1e-300)]
    scale = 2.0 * np.log(kept).sum() + ((size - 1) * math.log(1 - within) + np.log(1 - within + size * within)).sum()
    return np.asarray(-0.5 * (freedom * np.log(noise) + log_det + square + scale))


def prior_draws(scales: Scales, n_draws: int, rng: np.random.Generator) -> Array:
    """Coefficients (B, K, M) before any run was seen."""
    own = rng.standard_normal((n_draws, len(scales.amplitude), N_FEATURES))
    shared = rng.standard_normal((n_draws, 1, N_FEATURES))
    spread = np.sqrt(_FREEDOM / rng.chisquare(_FREEDOM, (n_draws, 1, 1)))
    unit = math.sqrt(_SHARED) * shared + math.sqrt(1.0 - _SHARED) * own
    return balanced(spread * scales.amplitude[:, None] * unit)


def coefficients(left: Sequence[Left], scales: Scales, targets: Sequence[Array]) -> Array:
    """Mean of the coefficients (B, K, M) given what they should explain.

    Args:
        left: One a domain.
        scales: Amplitudes and noise.
        targets: (B, R) a domain: residuals that g and noise make up, each row times the root of its weight.

    With c_k = a_k (sqrt(rho) z_0 + sqrt(1 - rho) z_k), z standard normal, and Q_k = I + (1 - rho) A_k for the
    information A_k = a_k^2 X'X / sigma_k^2 of a domain's rows X and b_k = a_k X'y / sigma_k^2, the normal equations are

        (I + rho sum_k A_k Q_k^-1) z_0 = sqrt(rho) sum_k Q_k^-1 b_k
        Q_k z_k = sqrt(1 - rho) (b_k - sqrt(rho) A_k z_0),

    so that no system is larger than M, however many domains there are.
    """
    if not len(targets[0]):
        return np.zeros((0, len(left), N_FEATURES))
    eye = np.eye(N_FEATURES)
    system, right = eye.copy(), np.zeros((N_FEATURES, len(targets[0])))
    parts = []
    for one, target, a, noise in zip(left, targets, scales.amplitude, scales.noise, strict=True):
        y = one.branch.whitened(target.T, scales.within)
        keep = _robust(y.mean(axis=1))[:, None]
        x, y = one.branch.whitened(one.features, scales.within) * keep, y * keep
        information, b = (a / noise) ** 2 * x.T @ x, a / noise**2 * x.T @ y  # (M, M), (M, B)
        inverse = np.linalg.inv(eye + (1.0 - _SHARED) * information)
        system += _SHARED * information @ inverse
        right += math.sqrt(_SHARED) * inverse @ b
        parts.append((information, b, inverse, a))
    common = np.linalg.solve(system, right)
    out = [
        a * (math.sqrt(_SHARED) * common + (1.0 - _SHARED) * inverse @ (b - math.sqrt(_SHARED) * information @ common))
        for information, b, inverse, a in parts
    ]
    return np.stack(out).transpose(2, 0, 1)


def _robust(residual: Array) -> Array:
    """Roots of Huber's weights, (R,)."""
    cut = _CUT * 1.4826 * np.median(np.abs(residual))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(np.where(np.abs(residual) > cut, cut / np.abs(residual), 1.0)))


def absorbed(one: Left, jacobian_sd: Array, amplitude: float, noise: float) -> Array:
    """(R, P + M) root of the hat matrix of parameters and g together, for the noise that is left."""
    x = np.concatenate([one.jacobian * jacobian_sd, one.features * amplitude], axis=1) / noise
    values, vectors = np.linalg.eigh(x.T @ x)
    return np.asarray(x @ (vectors / np.sqrt(np.maximum(values, 0.0) + 1.0)))
