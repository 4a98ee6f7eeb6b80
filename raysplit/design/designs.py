"""How a sweep ranks what it could run: by what it is worth to the decision, or by one of the classic designs.

The classic designs are here for comparison, and for users who want the law itself rather than one decision.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raysplit.design.value import Array, Belief, Index
from raysplit.space import DesignName

_SCREEN = 128
"""Most candidates that are scored exactly: those of the highest rate by a cheaper score."""
_CHUNK = 512


class Design(Protocol):
    """Picks one candidate after the other; what it has picked counts as on its way."""

    def best(self, allowed: NDArray[np.bool_], prices: Array) -> tuple[int, float]:
        """Index of the best candidate that is allowed, and its score per FLOP."""

    def expect(self, index: int) -> None:
        """Count a candidate's observations as on their way."""


class _ByBelief:
    """Ranks by a score of the belief, which changes with what is on its way."""

    def __init__(self, belief: Belief, groups: Index, score: Callable[[Belief, Index], Array]) -> None:
        self._belief, self._groups, self._score = belief, groups, score

    def best(self, allowed: NDArray[np.bool_], prices: Array) -> tuple[int, float]:
        index = np.flatnonzero(allowed)
        if index.size > _SCREEN:
            cheap = drop_of_spread(self._belief, self._groups[index]) / prices[index]
            index = np.sort(index[np.argsort(-cheap, kind="stable")[:_SCREEN]])
        rate = self._score(self._belief, _trimmed(self._groups[index])) / prices[index]
        at = int(np.argmax(rate))
        return int(index[at]), float(rate[at])

    def expect(self, index: int) -> None:
        own = self._groups[index]
        self._belief = self._belief.expecting([int(i) for i in own[own >= 0]])


class _ByPrice:
    """Picks the cheapest, or with ``rng`` any; needs no belief."""

    def __init__(self, rng: np.random.Generator | None) -> None:
        self._rng = rng

    def best(self, allowed: NDArray[np.bool_], prices: Array) -> tuple[int, float]:
        index = np.flatnonzero(allowed)
        at = int(np.argmin(prices[index])) if self._rng is None else int(self._rng.integers(index.size))
        return int(index[at]), 1.0

    def expect(self, index: int) -> None: ...


def drop_of_spread(belief: Belief, groups: Index) -> Array:
    """Drop of the mean variance of the regrets, (M,): a cheap stand-in for the value, from single observations.

    Of one regret w and one observation a, both less their means over B draws and s the noise, it is the normal's
    cov(a, w)^2 / (var(a) + s^2) = (a^T w)^2 / (B (a^T a + B s^2)).
    """
    n_draws = len(belief.foreseen)
    apart = belief.foreseen - belief.foreseen.mean(axis=0)
    wanted = belief.regret - belief.regret.mean(axis=0)
    told = n_draws * ((apart**2).sum(axis=0) + n_draws * belief.noise**2)
    drop = ((apart.T @ wanted) ** 2).mean(axis=1) / told
    return np.where(groups >= 0, drop[groups], 0.0).sum(axis=1)


def _trimmed(groups: Index) -> Index:
    """Groups without the columns that none of them uses."""
    return groups[:, (groups >= 0).any(axis=0)]


def _in_chunks(score: Callable[[Belief, Index], Array]) -> Callable[[Belief, Index], Array]:
    def scored(belief: Belief, groups: Index) -> Array:
        return np.concatenate([score(belief, groups[i : i + _CHUNK]) for i in range(0, len(groups), _CHUNK)])

    return scored


def _value(belief: Belief, groups: Index) -> Array:
    return belief.values(groups)


@_in_chunks
def _target_variance(belief: Belief, groups: Index) -> Array:
    """V-optimal: drop of the variance of the losses that are wanted, summed."""
    return (belief.told(groups, belief.target) ** 2).sum(axis=(1, 2))


@_in_chunks
def _target_error(belief: Belief, groups: Index) -> Array:
    """MSPE-like: drop of the mean squared error as the logarithm of what is left of it, point by point."""
    drop = (belief.told(groups, belief.target) ** 2).sum(axis=1)  # (M, Q)
    left = belief.target.var(axis=0)
    return -np.log(np.maximum(1.0 - drop / np.maximum(left, 1e-300), 1e-12)).mean(axis=1)


@_in_chunks
def _information(belief: Belief, groups: Index) -> Array:
    """D-optimal: the information on the law."""
    return belief.information(groups)


DESIGNS: Mapping[DesignName, Callable[[Belief, Index, np.random.Generator], Design]] = {
    "value": lambda belief, groups, rng: _ByBelief(belief, groups, _value),
    "v-optimal": lambda belief, groups, rng: _ByBelief(belief, groups, _target_variance),
    "mspe": lambda belief, groups, rng: _ByBelief(belief, groups, _target_error),
    "d-optimal": lambda belief, groups, rng: _ByBelief(belief, groups, _information),
    "cheapest": lambda belief, groups, rng: _ByPrice(None),
    "random": lambda belief, groups, rng: _ByPrice(rng),
}
