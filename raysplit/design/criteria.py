"""What one more observation is expected to tell, by three criteria of experimental design, for any law and any cost.

The posterior is an ensemble: draws of a law, each of which says what it foresees of every candidate observation and of
the points that one wants to know. Nothing else of the law is asked, so its form, its parameters and their bounds do not
matter, nor that they be identified. Candidates, targets and noise are taken as jointly Gaussian with the ensemble's
covariance; then every criterion has a closed form that does not need the outcome. Divide by a cost to rank by what
money buys, and go on from `expecting` to fill a batch.

Notation
    B   draws                    foreseen    (B, M) what each draw foresees of each candidate observation
    M   candidates               target      (B, Q) what each draw says at the target points
    Q   target points            noise       (M,) sd of an observation, positive; inf for one that measures nothing
                                 log_weights (B,) unnormalised log probability of each draw; all alike if not given

``foreseen`` and ``noise`` have one unit (log loss, say) and ``target`` may have another.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROUNDING = 1e-24
"""Variance below this share of the mean square is rounding, not disagreement of the draws."""


def information_gain(foreseen: Array, noise: Array, *, log_weights: Array | None = None) -> Array:
    """Nats that each candidate is expected to tell of the law, (M,).

    0.5 log(1 + var / noise^2), the mutual information of a Gaussian and its noisy reading (Lindley 1956); for a law
    linear in its parameters the greedy step of Bayesian D-optimality (Chaloner and Verdinelli 1995, section 2.2).
    """
    anomalies = _anomalies(foreseen, log_weights)
    return 0.5 * np.log1p((anomalies**2).sum(axis=0) / noise**2)


def variance_drop(
    foreseen: Array,
    noise: Array,
    target: Array,
    *,
    target_weights: Array | None = None,
    log_weights: Array | None = None,
) -> Array:
    """Drop of the mean variance at the target points by each candidate, (M,), in the target's unit squared.

    cov(c, t)^2 / (var(c) + noise(c)^2), averaged over t with ``target_weights`` (Q,) (all alike if not given): what
    conditioning a Gaussian takes off. V- or I-optimality (Chaloner and Verdinelli 1995, section 2.3); for a Gaussian
    process Cohn's ALC (Cohn et al. 1996, equation 8).
    """
    return _drops(_anomalies(foreseen, log_weights), noise, _anomalies(target, log_weights), target_weights)


def relative_drop(
    foreseen: Array,
    noise: Array,
    target: Array,
    *,
    target_noise: float | Array = 0.0,
    target_weights: Array | None = None,
    log_weights: Array | None = None,
) -> Array:
    """The same drop as a share, 0 to 1, of the mean squared error that is left at the target points, (M,).

    What is left is the mean variance there plus ``target_noise`` (a number or (Q,), the target's unit) squared: the
    part that no observation takes away, such as the noise of the target's own runs and what the form cannot express.
    Where there is much of it an ensemble that agrees already is not worth another run. Per unit of cost this is a
    design for the mean squared prediction error, as in 2604.22753, without its linearisation; being a share, it
    compares between stages, forms and units, where `variance_drop` does not.
    """
    there = _anomalies(target, log_weights)
    weights = _shares(target_weights, there.shape[1])
    left = float(((there**2).sum(axis=0) + np.asarray(target_noise) ** 2) @ weights)
    if left == 0.0:
        return np.zeros(np.shape(foreseen)[1])
    drops = _drops(_anomalies(foreseen, log_weights), noise, there, target_weights)
    return np.minimum(drops / left, 1.0)


def expecting(
    foreseen: Array, target: Array, chosen: Sequence[int], noise: Array, *, log_weights: Array | None = None
) -> tuple[Array, Array]:
    """The ensemble once the ``chosen`` candidates (indices into M) are observed, with their outcomes still unknown.

    Every draw moves towards the mean by a rank-one update for each chosen observation, so that covariances become what
    conditioning a Gaussian makes of them, exactly, while means and weights stay: the square-root filter of Potter, one
    observation after the other (Whitaker and Hamill 2002, equations 10 to 13). The order of ``chosen`` does not matter;
    an index that occurs twice stands for two runs.

    Returns:
        ``foreseen`` and ``target``, deflated; the criteria of these are those given the pending observations.
    """
    weights = _shares(None if log_weights is None else np.exp(log_weights - np.max(log_weights)), len(foreseen))
    everything = np.concatenate([foreseen, target], axis=1)
    mean = weights @ everything
    apart = everything - mean
    for index in chosen:
        if not np.isfinite(noise[index]):
            continue
        here = apart[:, index].copy()
        variance, noise_variance = float(weights @ here**2), float(noise[index]) ** 2
        total = variance + noise_variance
        gain = (weights * here) @ apart / total  # (M + Q,)
        apart -= here[:, None] * (gain / (1.0 + np.sqrt(noise_variance / total)))
    deflated = mean + apart
    return deflated[:, : foreseen.shape[1]], deflated[:, foreseen.shape[1] :]


def _shares(weights: Array | None, size: int) -> Array:
    if weights is None:
        return np.full(size, 1.0 / size)
    return weights / weights.sum()


def _anomalies(values: Array, log_weights: Array | None) -> Array:
    """(B, X) deviations from the mean, times the root of the draw's probability: their products sum to covariances."""
    weights = _shares(None if log_weights is None else np.exp(log_weights - np.max(log_weights)), len(values))
    mean = weights @ values
    out = np.sqrt(weights)[:, None] * (values - mean)
    out[:, (out**2).sum(axis=0) <= _ROUNDING * mean**2] = 0.0
    return out


def _drops(here: Array, noise: Array, there: Array, target_weights: Array | None) -> Array:
    """(M,) weighted mean over Q of cov^2 / (var + noise^2)."""
    shares = _shares(target_weights, there.shape[1])
    covariance = here.T @ there  # (M, Q)
    covariance *= covariance
    return (covariance @ shares) / ((here**2).sum(axis=0) + noise**2)
