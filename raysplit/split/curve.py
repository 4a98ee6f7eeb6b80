"""The best loss as a function of the share that goes into pretraining, at one size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.errors import SplitError, unknown
from raysplit.split.problem import Array, Problem
from raysplit.split.search import specialize_best
from raysplit.split.surface import DrawSurface, LawLike, guide_of


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCurve:
    """Weighted loss along one iso-budget line; for each share the domains' tokens are the best ones."""

    n_params: int
    shares: Array
    """(n_shares,) D / T."""
    specialize_tokens: Array
    """(n_shares, K)"""
    draws: Array
    """(n_draws, n_shares) weighted loss, nats per token."""
    level: float
    """Of the interval."""

    @property
    def loss(self) -> Array:
        """(n_shares,) mean over the draws."""
        return self.draws.mean(axis=0)

    @property
    def low(self) -> Array:
        """(n_shares,) lower end of the interval."""
        return np.quantile(self.draws, 0.5 - self.level / 2, axis=0)

    @property
    def high(self) -> Array:
        """(n_shares,) upper end of the interval."""
        return np.quantile(self.draws, 0.5 + self.level / 2, axis=0)


def loss_curve(
    law: LawLike, problem: Problem, *, n_params: int, shares: Sequence[float] | Array, level: float = 0.9
) -> LossCurve:
    """Best weighted loss at each D / T; the law's best guess chooses the domains' tokens.

    Where an expert would be worse than its seed, as after too few tokens to cool down, the seed's loss counts. Shares
    at which data caps leave part of the budget unspent are kept: the tokens are then fewer.

    Raises:
        SplitError: the size is not one of the problem's, a share is not within 0 to 1, or no budget is left at it.
    """
    if n_params not in problem.sizes:
        raise SplitError(unknown("model size", n_params, problem.sizes))
    share = np.asarray(shares, dtype=float)
    if not ((share >= 0) & (share <= 1)).all():
        raise SplitError(f"shares must be within 0 to 1, got {share.min():g} to {share.max():g}")
    *_, tokens = problem.pretrain_range(n_params)
    n, d = np.full((1, share.size), float(n_params)), (share * tokens / problem.n_seeds)[None]
    s = specialize_best(guide_of(law, problem.domains, problem.weights), problem, n, d, np.full_like(d, tokens))
    surface = DrawSurface(law, problem.domains, problem.weights)
    seed = surface.losses(n, np.maximum(d, 1.0), np.zeros_like(s))  # from none at all there is nothing to read
    return LossCurve(
        n_params=n_params,
        shares=share,
        specialize_tokens=s[0],
        draws=np.minimum(surface.losses(n, d, s), seed) @ surface.weights,
        level=level,
    )
