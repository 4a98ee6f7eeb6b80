"""The inner problem: at fixed N and D, share the specialization tokens out among the domains.

    minimise  sum_k w_k L_k(N, D, s_k)   subject to   sum_k s_k = R,  0 <= s_k <= cap_k

Where the losses are convex in s, the optimum gives every domain that gets tokens the same marginal gain
g_k(s) = -w_k dL_k/ds; a domain left at zero gains less, one at its cap gains more (the KKT conditions). The solver is
Newton's method on 1/g, which is nearly linear in s for the power laws at hand: each step replaces 1/g_k by its tangent
and meets the sum exactly, so that the multiplier needs no search of its own. Where that has not settled after some
steps, log g takes the place of 1/g: it is nearly linear in s for losses that saturate exponentially, as repeated data
do. Where a loss is not convex, the answer is compared with the corners that leave a domain out or take one alone.
"""

import numpy as np

from raysplit.split.problem import Array
from raysplit.split.surface import DrawSurface

_RECIPROCAL_STEPS, _LOG_STEPS = 12, 50
_TOLERANCE = 1e-9
"""Largest move of a domain's tokens, as a share of R, at which the iteration has ended."""


def pour(a: Array, b: Array, caps: Array, total: Array) -> Array:
    """Tokens s_k = clip(a_k + b_k m, 0, cap_k) with the level m at which they sum to ``total``.

    Args:
        a, b: (..., K), b positive.
        caps: (..., K), finite, none negative, summing to at least ``total``.
        total: (...), not negative.
    """
    start, stop = -a / b, (caps - a) / b
    events = np.concatenate([start, stop], axis=-1)
    order = np.argsort(events, axis=-1)
    events = np.take_along_axis(events, order, axis=-1)
    rate = np.cumsum(np.take_along_axis(np.concatenate([b, -b], axis=-1), order, axis=-1), axis=-1)
    # Sum of all tokens when the level has reached each event but the first, where it is zero.
    reached = np.cumsum(rate[..., :-1] * np.diff(events, axis=-1), axis=-1)
    last = np.minimum((reached < total[..., None]).sum(axis=-1, keepdims=True), reached.shape[-1] - 1)
    before = np.where(last > 0, np.take_along_axis(reached, np.maximum(last - 1, 0), axis=-1), 0.0)
    speed = np.take_along_axis(rate, last, axis=-1)
    level = np.take_along_axis(events, last, axis=-1)
    level = level + np.where(speed > 0, (total[..., None] - before) / np.where(speed > 0, speed, 1.0), 0.0)
    s = np.clip(a + b * level, 0.0, caps)
    return _meet(s, b * ((s > 0) & (s < caps)), caps, total)


def _meet(s: Array, share: Array, caps: Array, total: Array) -> Array:
    """Spread what rounding left of the sum over the domains in proportion to ``share``."""
    missing = total - s.sum(axis=-1)
    weight = share.sum(axis=-1)
    step = np.where(weight > 0, missing / np.where(weight > 0, weight, 1.0), 0.0)
    return np.clip(s + share * step[..., None], 0.0, caps)


def allocate(
    surface: DrawSurface, n: Array, d: Array, total: Array, caps: Array, *, start: Array | None = None
) -> Array:
    """Best tokens of each domain at each (N, D).

    Args:
        surface: what to minimise.
        n, d, total: (1 or B, *points): N, D and R, the tokens to share out; B is the surface's number of draws.
        caps: (K,) or (1 or B, *points, K), may be infinite; where they sum to less than R, every domain gets its cap.
        start: (B, *points, K), shares to start from; domain weights when left out.

    Returns:
        (B, *points, K) tokens; the sum is R up to rounding, or less where a cap makes that better.
    """
    n_domains = surface.weights.size
    shape = (surface.n_draws, *np.broadcast_shapes(n.shape, d.shape, total.shape)[1:])
    total = np.broadcast_to(np.minimum(total, caps.sum(axis=-1)), shape)
    limits = np.minimum(caps, total[..., None])  # (B, *points, K)
    if n_domains == 1:
        return np.array(limits)
    unit = np.where(total > 0, total, 1.0)[..., None]
    shares = np.broadcast_to(surface.weights if start is None else start, limits.shape)
    s = pour(np.zeros_like(limits), np.maximum(shares, 1e-9), limits, total)
    for step in range(_RECIPROCAL_STEPS + _LOG_STEPS):
        at = np.maximum(s, 1e-9 * unit)  # a power of s below one has no slope at zero
        ahead = 1e-4 * at + 1e-6 * unit
        gain = surface.gain(n, d, at)
        fall = (gain - surface.gain(n, d, at + ahead)) / ahead  # -dg/ds
        top = np.maximum(gain.max(axis=-1, keepdims=True), np.finfo(float).tiny)
        gain = np.maximum(gain / top, 1e-250)  # a domain that gains nothing, or loses, is left with next to nothing
        reach = gain / np.maximum(fall / top, 1e-3 * gain / unit)  # nearly linear or concave: a bounded step
        # The tangent at s solved for s, where m is one over the multiplier: of 1/g, s + reach (g m - 1); of log g,
        # s + reach (log g + log m).
        a, b = (s - reach, reach * gain) if step < _RECIPROCAL_STEPS else (s + reach * np.log(gain), reach)
        moved = pour(a, np.maximum(b, 1e-12 * unit), limits, total)
        change = np.abs(moved - s).max(axis=-1, keepdims=True) / unit
        s = np.where(change < _TOLERANCE, s, moved)
        if change.max() < _TOLERANCE:
            break
    return _best_of_corners(surface, n, d, s, limits, total)


def _best_of_corners(surface: DrawSurface, n: Array, d: Array, s: Array, limits: Array, total: Array) -> Array:
    """Where the loss is not convex from zero on, try leaving domains at the seed, one after another.

    So it is where a marginal gain is larger at s than at zero, and where a law knows that the first tokens after the
    seed's own cooldown harm: a domain is then better left where all its tokens gain less than they would elsewhere.
    """
    near_zero = np.broadcast_to(1e-9 * np.maximum(total, 1e-300)[..., None], s.shape)
    gain = surface.gain(n, d, np.maximum(s, near_zero))
    with np.errstate(invalid="ignore"):  # infinity less infinity, where neither seed nor expert has seen any
        gained = surface.weights * (surface.losses(n, d, np.zeros_like(s)) - surface.losses(n, d, s))
    rising = gain > surface.gain(n, d, near_zero) * (1 + 1e-9)
    doubtful = (rising | (gained < gain * s * (1 - 1e-9))).any(axis=(0, -1))  # (*points)
    if not doubtful.any():
        return s
    n, d = (np.broadcast_to(x, (len(x), *doubtful.shape))[:, doubtful] for x in (n, d))
    best = s.copy()
    best[:, doubtful] = _fewer(surface, n, d, s[:, doubtful], limits[:, doubtful], total[:, doubtful])
    return best


def _fewer(surface: DrawSurface, n: Array, d: Array, s: Array, limits: Array, total: Array) -> Array:
    """Shares in which domains are left out for as long as that helps."""
    others = ~np.eye(s.shape[-1], dtype=bool)  # one more axis before the last: which domain is left out
    best, lowest = s, surface.loss(n, d, s)
    for _ in range(s.shape[-1]):
        # All from the same start, so that the domain is left out whose absence helps most.
        allowed = np.where(others & (best > 0)[..., None, :], limits[..., None, :], 0.0)
        spent = np.minimum(total[..., None], allowed.sum(axis=-1))  # where caps leave tokens unspent, unspent they are
        start = np.broadcast_to(np.maximum(best, 1e-9 * limits + 1e-30)[..., None, :], allowed.shape)
        corners = pour(np.zeros_like(allowed), start, allowed, spent)
        losses = np.nan_to_num(surface.loss(n[..., None], d[..., None], corners), nan=np.inf)
        least = np.argmin(losses, axis=-1)[..., None]
        loss = np.take_along_axis(losses, least, axis=-1)[..., 0]
        better = loss < lowest
        if not better.any():
            break
        corner = np.take_along_axis(corners, least[..., None], axis=-2)[..., 0, :]
        best, lowest = np.where(better[..., None], corner, best), np.where(better, loss, lowest)
    return best
