"""What more observations are expected to tell, for any law and any cost: conditioning an ensemble.

The posterior is an ensemble: draws of a law, each of which says what it foresees of every candidate observation and of
the points that one wants to know. Nothing else of the law is asked, so its form, its parameters and their bounds do not
matter, nor that they be identified. Candidates, targets and noise are taken as jointly Gaussian with the ensemble's
covariance; then what they tell has a closed form that does not need the outcome. Divide by a cost to rank by what money
buys; `expecting` gives the ensemble to rank the next of a batch by.

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
    here, there = _anomalies(foreseen, log_weights), _anomalies(target, log_weights)
    covariance = here.T @ there  # (M, Q)
    covariance *= covariance
    return (covariance @ _shares(target_weights, there.shape[1])) / ((here**2).sum(axis=0) + noise**2)


def expecting(
    foreseen: Array, target: Array, chosen: Sequence[int], noise: Array, *, log_weights: Array | None = None
) -> tuple[Array, Array]:
    """The ensemble once the ``chosen`` candidates (indices into M) are observed, with their outcomes still unknown.

    Every draw moves towards the mean by a rank-one update for each chosen observation, so that covariances become what
    conditioning a Gaussian makes of them, exactly, while means and weights stay: the square-root filter of Potter, one
    observation after the other (Whitaker and Hamill 2002, equations 10 to 13). The order of ``chosen`` does not matter;
    an index that occurs twice stands for two runs.

    Returns:
        ``foreseen`` and ``target``, deflated; what these are expected to tell is what is left to tell.
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
