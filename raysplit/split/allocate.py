"""The inner problem: at fixed N and D, share the specialization tokens out among the domains.

    minimise  sum_k w_k L_k(N, D, s_k)   subject to   sum_k s_k = R,  0 <= s_k <= cap_k

Where the losses are convex in s, the optimum gives every domain that gets tokens the same marginal gain
g_k(s) = -w_k dL_k/ds; a domain left at zero gains less, one at its cap gains more (the KKT conditions). The solver is
Newton's method on 1/g, which is nearly linear in s for the power laws at hand: each step replaces 1/g_k by its tangent
and meets the sum exactly, so that the multiplier needs no search of its own. Where that has not settled after some
steps, log g takes the place of 1/g: it is nearly linear in s for losses that saturate exponentially, as repeated data
do. Where a loss is not convex, the answer is compared with the corners that leave a domain out or take one alone.
"""

import math

import numpy as np

from raysplit.split.surface import Array, DrawSurface

_RECIPROCAL_STEPS, _LOG_STEPS = 12, 50
_NOTHING = 1e-9
"""Nats per token: less is no reason to leave a domain out."""
_TRIED = 9
"""Token counts at which a domain's mean gain is read."""
_LEVELLED = 3
"""So many of the numbers of domains that are tried, those of least loss, are then brought to one marginal gain."""
_STEPS_A_FACTOR = 3.0
"""Numbers of domains that are tried, so many a factor of e: all numbers up to 4."""
_TOLERANCE = 1e-4
"""Largest move of a domain's tokens, as a share of R, at which the iteration has ended; it converges quadratically."""
_FALL = 0.02
"""A move that is this part of the one before shows that it does: the next need not be made if it will be so small."""


def pour(a: Array, b: Array, caps: Array, total: Array) -> Array:
    """Tokens s_k = clip(a_k + b_k m, 0, cap_k) with the level m at which they sum to ``total``.

    Without caps the sum is convex in m, and Newton's method from above drops one after the other those that stay empty
    (Michelot 1986). Where a cap is then exceeded, all events at which a domain starts or stops are put in order.

    Args:
        a, b: (..., K), b positive.
        caps: (..., K), finite, none negative, summing to at least ``total``.
        total: (...), not negative.
    """
    filled = caps > 0
    while True:
        share = np.where(filled, b, 0.0)
        rate = share.sum(axis=-1)
        missing = total - np.where(filled, a, 0.0).sum(axis=-1)
        level = np.where(rate > 0, missing / np.where(rate > 0, rate, 1.0), 0.0)[..., None]
        s = np.where(filled, a + b * level, 0.0)
        still = s > 0
        if (still == filled).all():
            break
        filled = still
    over = (s > caps).any(axis=-1)
    if over.any():
        s[over] = _pour_capped(a[over], b[over], caps[over], np.broadcast_to(total, over.shape)[over])
    return _meet(np.minimum(s, caps), share * (s < caps), caps, total)


def _pour_capped(a: Array, b: Array, caps: Array, total: Array) -> Array:
    """`pour` where caps count."""
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
    return np.clip(a + b * level, 0.0, caps)


def _meet(s: Array, share: Array, caps: Array, total: Array) -> Array:
    """Spread what rounding left of the sum over the domains in proportion to ``share``."""
    missing = total - s.sum(axis=-1)
    weight = share.sum(axis=-1)
    step = np.where(weight > 0, missing / np.where(weight > 0, weight, 1.0), 0.0)
    return np.clip(s + share * step[..., None], 0.0, caps)


def allocate(
    surface: DrawSurface,
    n: Array,
    d: Array,
    total: Array,
    caps: Array,
    *,
    start: Array | None = None,
    keeps_out: bool = False,
    behind: float = math.inf,
) -> Array:
    """Best tokens of each domain at each (N, D).

    Args:
        surface: what to minimise.
        n, d, total: (1 or B, *points): N, D and R, the tokens to share out; B is the surface's number of draws.
        caps: (K,) or (1 or B, *points, K), may be infinite; where they sum to less than R, every domain gets its cap.
        start: (1 or B, *points, K), shares to start from; domain weights when left out.
        keeps_out: Whether a domain without a share in ``start`` gets no tokens; who does is then not asked again.
        behind: Corners are not tried where the loss would still be this share above the lowest along the last axis of
            the points.

    Returns:
        (B, *points, K) tokens; the sum is R up to rounding, or less where a cap makes that better.
    """
    n_domains = surface.weights.size
    shape = (surface.n_draws, *np.broadcast_shapes(n.shape, d.shape, total.shape)[1:])
    total = np.broadcast_to(np.minimum(total, caps.sum(axis=-1)), shape)
    limits = np.minimum(caps, total[..., None])  # (B, *points, K)
    if n_domains == 1:
        return np.array(limits)
    shares = np.broadcast_to(surface.weights if start is None else start, limits.shape)
    if keeps_out:
        limits = np.where(shares > 0, limits, 0.0)
        total = np.minimum(total, limits.sum(axis=-1))
    s = pour(np.zeros_like(limits), np.maximum(shares, 1e-9), limits, total)
    s = _at_one_level(surface, n, d, s, limits, total)
    if keeps_out:
        return s
    return _best_of_corners(surface, n, d, s, limits, total, behind)


def _at_one_level(surface: DrawSurface, n: Array, d: Array, s: Array, limits: Array, total: Array) -> Array:
    """Shares of the total with the same marginal gain, by Newton's method from ``s`` on, (B, *points, K)."""
    points = s.shape[1:-1]
    n, d, total = (np.broadcast_to(x, (len(x), *points)).reshape(len(x), -1) for x in (n, d, total))
    s, limits = (np.array(x).reshape(len(x), -1, x.shape[-1]) for x in (s, np.broadcast_to(limits, s.shape)))
    at = np.arange(s.shape[1])  # the points that have not settled
    last = np.zeros(s.shape[:2])  # move, as a share of the total
    for step in range(_RECIPROCAL_STEPS + _LOG_STEPS):
        here, own_n, own_d, own_total = s[:, at], n[:, at], d[:, at], total[:, at]
        unit = np.where(own_total > 0, own_total, 1.0)[..., None]
        low = np.maximum(here, 1e-9 * unit)  # a power of s below one has no slope at zero
        ahead = 1e-4 * low + 1e-6 * unit
        both = np.stack([low, low + ahead], axis=-2)
        gain, next_gain = np.moveaxis(surface.gain(own_n[..., None], own_d[..., None], both), -2, 0)
        fall = (gain - next_gain) / ahead  # -dg/ds
        top = np.maximum(gain.max(axis=-1, keepdims=True), np.finfo(float).tiny)
        gain = np.maximum(gain / top, 1e-250)  # a domain that gains nothing, or loses, is left with next to nothing
        reach = gain / np.maximum(fall / top, 1e-3 * gain / unit)  # nearly linear or concave: a bounded step
        # The tangent at s solved for s, where m is one over the multiplier: of 1/g, s + reach (g m - 1); of log g,
        # s + reach (log g + log m).
        a, b = (here - reach, reach * gain) if step < _RECIPROCAL_STEPS else (here + reach * np.log(gain), reach)
        moved = pour(a, np.maximum(b, 1e-12 * unit), limits[:, at], own_total)
        change = np.abs(moved - here).max(axis=-1) / unit[..., 0]
        s[:, at] = moved
        fell = (change < _FALL * last) & (moved <= 2.0 * low).all(axis=-1)  # from nothing on tokens grow by factors
        settled = (change < _TOLERANCE) | ((change * change < _TOLERANCE * last) & fell)
        moves = ~settled.all(axis=0)
        at, last = at[moves], change[:, moves]
        if not at.size:
            break
    return s.reshape(len(s), *points, s.shape[-1])


def _best_of_corners(
    surface: DrawSurface, n: Array, d: Array, s: Array, limits: Array, total: Array, behind: float
) -> Array:
    """Where the loss is not convex from zero on, give tokens to some domains only and leave the others at the seed.

    It is not convex where a marginal gain is larger at s than at zero, and where a law knows that the first tokens
    after the seed's own cooldown harm. A domain is then better left out if all its tokens gain less than they would
    elsewhere. By how much, summed over the domains, is the most that leaving some out can gain (weak duality).
    """
    with np.errstate(invalid="ignore"):  # infinity less infinity, where neither seed nor expert has seen any
        seed, own = surface.losses(n, d, np.zeros_like(s)), surface.losses(n, d, s)
        gained = surface.weights * (seed - own)
    free = np.where((s > 0) & (s < limits), s, 0.0)
    gain = np.where(free > 0, surface.gain(n, d, np.where(free > 0, s, np.maximum(total, 1.0)[..., None])), 0.0)
    level = (free * gain).sum(axis=-1, keepdims=True) / np.maximum(free.sum(axis=-1, keepdims=True), 1e-300)
    missed = np.where((s > 0) & (level * s - gained > _NOTHING), level * s - gained, 0.0)
    loss = own @ surface.weights
    least = loss - missed.sum(axis=-1)
    in_question = ~(np.isfinite(loss) & (least > (1.0 + behind) * loss.min(axis=-1, keepdims=True)))
    doubtful = ((missed > 0).any(axis=-1) & in_question).any(axis=0)  # (*points)
    if not doubtful.any():
        return s
    n, d = (np.broadcast_to(x, (len(x), *doubtful.shape))[:, doubtful] for x in (n, d))
    best = s.copy()
    best[:, doubtful] = _some(
        surface, n, d, s[:, doubtful], limits[:, doubtful], total[:, doubtful], seed[:, doubtful], loss[:, doubtful]
    )
    return best


def _some(
    surface: DrawSurface, n: Array, d: Array, s: Array, limits: Array, total: Array, seed: Array, loss: Array
) -> Array:
    """The best of ``s``, the seed, and shares for the domains that gain most a token, (B, points, K).

    At a multiplier m a domain gets tokens if its largest mean gain, max over s of (loss of the seed - loss at s) / s,
    is above m: so those that get some are the first ones in that order, and only their number is to be found. It costs
    as many evaluations as the logarithm of the domains, not as their number.
    """
    n_domains = s.shape[-1]
    tried = total[..., None] * np.geomspace(0.25 / n_domains, 1.0, _TRIED)  # (B, points, tried)
    each = np.minimum(tried[..., None], limits[..., None, :])
    mean_gain = seed[..., None, :] - surface.losses(n[..., None], d[..., None], each)
    mean_gain = surface.weights * mean_gain / np.maximum(each, 1e-300)
    top = np.argmax(mean_gain, axis=-2)[..., None, :]
    most, tokens = (np.take_along_axis(x, top, axis=-2)[..., 0, :] for x in (mean_gain, each))
    rank = np.argsort(np.argsort(-most, axis=-1), axis=-1)
    counts = np.unique(np.round(np.geomspace(1.0, n_domains, 2 + round(_STEPS_A_FACTOR * np.log(n_domains)))))
    allowed = np.where(rank[..., None, :] < counts[:, None], limits[..., None, :], 0.0)  # (B, points, counts, K)
    spent = np.minimum(total[..., None], allowed.sum(axis=-1))  # where caps leave tokens unspent, unspent they are
    corners = pour(np.zeros_like(allowed), np.broadcast_to(tokens[..., None, :], allowed.shape), allowed, spent)
    losses = np.nan_to_num(surface.loss(n[..., None], d[..., None], corners), nan=np.inf)
    likely = np.argsort(losses, axis=-1)[..., :_LEVELLED]
    corners, allowed = (np.take_along_axis(x, likely[..., None], axis=-2) for x in (corners, allowed))
    spent = np.take_along_axis(spent, likely, axis=-1)
    levelled = _at_one_level(surface, n[..., None], d[..., None], corners, allowed, spent)
    others = np.concatenate([corners[..., :1, :], levelled, np.zeros_like(s)[..., None, :], s[..., None, :]], axis=-2)
    of_corner = np.take_along_axis(losses, likely[..., :1], axis=-1)
    of_levelled = surface.loss(n[..., None], d[..., None], levelled)
    of_seed = (seed @ surface.weights)[..., None]
    losses = np.nan_to_num(np.concatenate([of_corner, of_levelled, of_seed, loss[..., None]], axis=-1), nan=np.inf)
    return np.take_along_axis(others, np.argmin(losses, axis=-1)[..., None, None], axis=-2)[..., 0, :]
