"""The weighted loss that a split minimises, seen in the order of domains of whoever asks."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raysplit.errors import SplitError, unknown
from raysplit.law import Support

Array = NDArray[np.float64]


class LawLike(Protocol):
    """What a split needs of a law; `raysplit.law.Law` is one.

    Inputs broadcast to (1 or n_draws, *points, 1 or K) and results are (n_draws, *points, K), K in `domains` order.
    """

    @property
    def domains(self) -> tuple[str, ...]: ...
    @property
    def n_draws(self) -> int: ...
    @property
    def support(self) -> Support: ...
    def loss(self, n_params: Array, pretrain_tokens: Array, specialize_tokens: Array) -> Array: ...
    def slope(self, n_params: Array, pretrain_tokens: Array, specialize_tokens: Array) -> Array: ...


_AT_ONCE = 2**15
"""Losses evaluated at once: their arrays then stay together in the cache of one core, 1 MiB and more."""


class DrawSurface:
    """Each draw of a law on its own: arrays have a first axis of n_draws.

    Args:
        law: over K domains.
        domains: the same ones in the order of the arrays.
        weights: (K,) of their losses.

    Raises:
        SplitError: these and the law's are not the same domains.
    """

    def __init__(self, law: LawLike, domains: Sequence[str], weights: Sequence[float]) -> None:
        for name in domains:
            if name not in law.domains:
                raise SplitError(unknown("domain", name, law.domains))
        for name in law.domains:
            if name not in domains:
                raise SplitError(
                    f"the law has a domain {name!r} that the problem leaves out; the problem has {', '.join(domains)}"
                )
        self._law = law
        in_order = tuple(domains) == law.domains  # as a rule, and then nothing need be copied
        self._to_law = slice(None) if in_order else [domains.index(name) for name in law.domains]
        self._from_law = slice(None) if in_order else [law.domains.index(name) for name in domains]
        self.weights = np.asarray(weights)
        self.n_draws = law.n_draws

    def losses(self, n: Array, d: Array, s: Array) -> Array:
        """Loss of each domain, (n_draws, *points, K); n and d are (1 or n_draws, *points), s has a last axis of K."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # no loss where no token was seen
            return self._in_parts(self._law.loss, n, d, s)

    def loss(self, n: Array, d: Array, s: Array) -> Array:
        """Weighted loss, (n_draws, *points)."""
        return self.losses(n, d, s) @ self.weights

    def gain(self, n: Array, d: Array, s: Array) -> Array:
        """How much one more token of each domain lowers the weighted loss, nats per token, (n_draws, *points, K).

        Where the last axis of n and d has length one, s may have several token counts there; each costs little.
        """
        return -self.weights * self._in_parts(self._law.slope, n, d, s)

    def _in_parts(self, of_law: Callable[[Array, Array, Array], Array], n: Array, d: Array, s: Array) -> Array:
        """What the law says at all points, `_AT_ONCE` losses at a time."""
        points = np.broadcast_shapes(n.shape, d.shape, s.shape[:-1])[1:]
        # What depends on N and D alone is reckoned once for all tokens asked about there, which form an axis before it.
        several = points[-1] if points and n.shape[-1] == d.shape[-1] == 1 else 1
        at = points[:-1] if several > 1 else points
        n, d = (
            np.broadcast_to(x[..., 0] if several > 1 else x, (len(x), *at)).reshape(len(x), 1, -1, 1) for x in (n, d)
        )
        s = np.broadcast_to(s, (len(s), *points, s.shape[-1])).reshape(len(s), n.shape[2], several, s.shape[-1])
        s = s.swapaxes(1, 2)[..., self._to_law]
        step = max(1, _AT_ONCE // (self._law.n_draws * several * s.shape[-1]))
        out = np.empty((self.n_draws, *s.shape[1:]))
        for i in range(0, s.shape[2], step):
            part = (slice(None), slice(None), slice(i, i + step))
            out[part] = self._of_draws(of_law(n[part], d[part], np.ascontiguousarray(s[part])))
        return out[..., self._from_law].swapaxes(1, 2).reshape(self.n_draws, *points, s.shape[-1])

    def _of_draws(self, said: Array) -> Array:
        return said


class MeanSurface(DrawSurface):
    """The mean over a law's draws: what a decision that must serve all of them minimises. First axis 1."""

    def __init__(self, law: LawLike, domains: Sequence[str], weights: Sequence[float]) -> None:
        super().__init__(law, domains, weights)
        self.n_draws = 1

    def _of_draws(self, said: Array) -> Array:
        return said.mean(axis=0, keepdims=True)


def guide_of(law: LawLike, domains: Sequence[str], weights: Sequence[float]) -> DrawSurface:
    """The law's best guess, or the mean where it has none, by which the many points of a search share tokens out.

    The best share-out of a law nearby costs a loss of second order in the distance between the two laws.
    """
    point = getattr(law, "point", None)
    if point is None or law.n_draws == 1:
        return MeanSurface(law, domains, weights)
    return DrawSurface(point, domains, weights)
