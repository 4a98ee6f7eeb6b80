"""The weighted loss that a split minimises, seen in the problem's order of domains."""

from typing import Protocol

import numpy as np

from raysplit.errors import SplitError, unknown
from raysplit.law import Support
from raysplit.split.problem import Array, Problem


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


class DrawSurface:
    """Each draw of a law on its own: arrays have a first axis of n_draws.

    Raises:
        SplitError: the problem and the law do not have the same domains.
    """

    def __init__(self, law: LawLike, problem: Problem) -> None:
        for name in problem.domains:
            if name not in law.domains:
                raise SplitError(unknown("domain", name, law.domains))
        for name in law.domains:
            if name not in problem.domains:
                raise SplitError(
                    f"the law has a domain {name!r} that the problem leaves out; "
                    f"the problem has {', '.join(problem.domains)}"
                )
        self._law = law
        self._to_law = [problem.domains.index(name) for name in law.domains]
        self._from_law = [law.domains.index(name) for name in problem.domains]
        self.weights = np.asarray(problem.weights)  # (K,)
        self.n_draws = law.n_draws

    def losses(self, n: Array, d: Array, s: Array) -> Array:
        """Loss of each domain, (n_draws, *points, K); n and d are (1 or n_draws, *points), s has a last axis of K."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # no loss where no token was seen
            return self._law.loss(n[..., None], d[..., None], s[..., self._to_law])[..., self._from_law]

    def loss(self, n: Array, d: Array, s: Array) -> Array:
        """Weighted loss, (n_draws, *points)."""
        return self.losses(n, d, s) @ self.weights

    def gain(self, n: Array, d: Array, s: Array) -> Array:
        """What the weighted loss loses by one more token of each domain, (n_draws, *points, K)."""
        return -self.weights * self._law.slope(n[..., None], d[..., None], s[..., self._to_law])[..., self._from_law]


class MeanSurface(DrawSurface):
    """The mean over a law's draws: what a decision that must serve all of them minimises. First axis 1."""

    def __init__(self, law: LawLike, problem: Problem) -> None:
        super().__init__(law, problem)
        self.n_draws = 1

    def losses(self, n: Array, d: Array, s: Array) -> Array:
        return super().losses(n, d, s).mean(axis=0, keepdims=True)

    def gain(self, n: Array, d: Array, s: Array) -> Array:
        return super().gain(n, d, s).mean(axis=0, keepdims=True)
