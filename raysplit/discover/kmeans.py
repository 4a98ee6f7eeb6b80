"""Balanced k-means: Lloyd's algorithm (1982) with an assignment that respects a capacity of every cluster.

Notation
    x_i, w_i    points and their weights, (n, d) and (n,): documents, and their bytes
    c_k, o_k    centres and offsets, (K, d) and (K,)
    C           capacity: the most weight that a cluster may have, balance * sum_i w_i / K

The cheapest assignment under a capacity is a transportation problem. By its dual each point goes where
|x_i - c_k|^2 + o_k is least. The offsets are prices: o_k >= 0, and 0 where a cluster is not full. That is a power
diagram (Aurenhammer, Hoffmann and Aronov 1998, "Minkowski-type theorems and least-squares clustering"). So a balanced
clustering is a rule, which new points can follow as well.
"""

from dataclasses import dataclass

import numpy as np

from raysplit.discover.clusterer import squared_distances

_MOST_ROUNDS = 50
_SAME = 1e-4
"""Rounds end when one lowers the cost by less than this share of it."""
_STEPS_PER_CLUSTER = 200
_LEAST_STEP = 1e-3
"""Least rise of a price, so that two full clusters do not take points from each other for ever."""


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """K centres with the prices that balance them, the heaviest cluster first, and the cluster of each point."""

    centres: np.ndarray
    """(K, d) float64."""
    offsets: np.ndarray
    """(K,) float64."""
    labels: np.ndarray
    """(n,) int64."""
    evenness: float
    """Weight of the heaviest cluster, as a multiple of an equal share."""
    cost: float
    """sum_i w_i |x_i - c_k(i)|^2 / sum_i w_i."""


def balanced_kmeans(
    points: np.ndarray, weights: np.ndarray, *, k: int, balance: float | None, seed: int, restarts: int
) -> Clustering:
    """The cheapest of several clusterings from different seedings (k-means++, Arthur and Vassilvitskii 2007).

    A clustering that meets the capacity is preferred to any that does not. Where equal points, or a single one, weigh
    more than the capacity, no clustering meets it.

    Args:
        points: (n, d), with at least k different rows.
        weights: (n,), positive.
        k: number of clusters.
        balance: the capacity as a multiple of an equal share, at least 1; None for no capacity.
        seed: of the seedings.
        restarts: number of seedings.
    """
    points = points.astype(np.float64)
    weights = weights.astype(np.float64)
    found = [
        _lloyd(points, weights, _seeding(points, weights, k, np.random.default_rng([seed, restart])), balance)
        for restart in range(restarts)
    ]
    limit = balance * (1 + 1e-9) if balance else np.inf
    best = min(found, key=lambda clustering: (max(clustering.evenness, limit), clustering.cost))
    order = np.argsort(-np.bincount(best.labels, weights, k), kind="stable")
    return Clustering(
        centres=best.centres[order],
        offsets=best.offsets[order],
        labels=np.argsort(order)[best.labels],
        evenness=best.evenness,
        cost=best.cost,
    )


def _seeding(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """(k, d) points, each drawn in proportion to its weight times its squared distance to the nearest drawn before."""
    chosen = [int(rng.choice(len(points), p=weights / weights.sum()))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < k:
        nearest = np.minimum(nearest, squared_distances(points, points[chosen[-1:]])[:, 0])
        mass = weights * np.where(nearest > 1e-12, nearest, 0)  # what is left of a point that was chosen is rounding
        chosen.append(int(rng.choice(len(points), p=mass / mass.sum())))
    return points[chosen]


def _lloyd(points: np.ndarray, weights: np.ndarray, centres: np.ndarray, balance: float | None) -> Clustering:
    k, total = len(centres), weights.sum()
    capacity = balance * total / k if balance else np.inf
    last_cost = np.inf
    for _ in range(_MOST_ROUNDS):
        distances = squared_distances(points, centres)
        offsets = capacity_offsets(distances, weights, capacity=capacity)
        labels = np.argmin(distances + offsets, axis=1)
        cost = float(weights @ distances[np.arange(len(points)), labels] / total)
        found = Clustering(
            centres=centres,
            offsets=offsets,
            labels=labels,
            evenness=float(np.bincount(labels, weights, k).max() * k / total),
            cost=cost,
        )
        if cost > last_cost * (1 - _SAME):
            break
        last_cost = cost
        centres = _means(points, weights, distances, labels, k)
    return found


def _means(points: np.ndarray, weights: np.ndarray, distances: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """(k, d) centres of mass; an empty cluster takes the point that is farthest from its own."""
    members = np.zeros((k, len(points)))
    members[labels, np.arange(len(points))] = weights
    mass = members.sum(1)
    centres = members @ points / np.where(mass > 0, mass, 1)[:, None]
    farthest = np.argsort(-distances[np.arange(len(points)), labels], kind="stable")
    for rank, empty in enumerate(np.flatnonzero(mass == 0)):
        centres[empty] = points[farthest[rank]]
    return centres


def capacity_offsets(distances: np.ndarray, weights: np.ndarray, *, capacity: float) -> np.ndarray:
    """(K,) prices: where each point goes to the least distance + price, no cluster holds more than ``capacity``.

    An auction (Bertsekas 1988): the fullest cluster above the capacity raises its price just so far that the points
    which lose least by leaving it leave. Prices only rise, so a cluster whose price is above 0 was full when it rose
    last, and has lost nothing since. So the assignment is the cheapest one, but for about one point in each cluster.
    There may be no such prices: a point is heavier than the capacity, or many points are equal. Then the result is the
    prices that were tried under which the heaviest cluster is lightest.

    Args:
        distances: (n, K) squared distances of the points to the centres.
        weights: (n,).
        capacity: at least an equal share of the weights.
    """
    k = distances.shape[1]
    shifted = distances.copy()
    offsets = np.zeros(k)
    labels = np.argmin(shifted, axis=1)
    loads = np.bincount(labels, weights, k)
    best, least = offsets.copy(), loads.max()
    for _ in range(_STEPS_PER_CLUSTER * k):
        if least <= capacity:
            break
        fullest = int(np.argmax(loads))
        own = np.flatnonzero(labels == fullest)
        price = _leaving_price(shifted[own], weights[own], fullest, excess=loads[fullest] - capacity)
        offsets[fullest] += price
        shifted[:, fullest] += price
        labels[own] = np.argmin(shifted[own], axis=1)
        loads = np.bincount(labels, weights, k)
        if loads.max() < least:
            best, least = offsets.copy(), loads.max()
    return best


def _leaving_price(shifted: np.ndarray, weights: np.ndarray, cluster: int, *, excess: float) -> float:
    """Rise of the price at which points of at least the ``excess`` weight leave; those that lose least leave first."""
    others = np.delete(shifted, cluster, axis=1).min(axis=1)
    losses = others - shifted[:, cluster]
    order = np.argsort(losses, kind="stable")
    last = int(np.searchsorted(np.cumsum(weights[order]), excess))
    return float(losses[order[min(last, len(order) - 1)]]) + _LEAST_STEP
