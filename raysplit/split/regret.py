"""What a split would lose if each draw of the law were the truth."""

from collections.abc import Sequence

import numpy as np

from raysplit.split.problem import Array, Problem, Split
from raysplit.split.search import DrawSplits, best_split_per_draw
from raysplit.split.surface import DrawSurface, LawLike


def losses_of(law: LawLike, splits: Sequence[Split], problem: Problem) -> Array:
    """Weighted loss of each split under each draw, (n_draws, n_splits), nats per token.

    Raises:
        SplitError: the problem and the law do not have the same domains.
    """
    return domain_losses(law, splits, problem) @ np.asarray(problem.weights)


def domain_losses(law: LawLike, splits: Sequence[Split], problem: Problem) -> Array:
    """Loss of each domain's expert, (n_draws, n_splits, K) in the problem's order of domains, nats per token."""
    n = np.array([[split.n_params for split in splits]], dtype=float)
    d = np.array([[split.pretrain_tokens for split in splits]])
    s = np.array([[[split.specialize_tokens[name] for name in problem.domains] for split in splits]])
    return DrawSurface(law, problem.domains, problem.weights).losses(n, d, s)


def expected_regret(
    law: LawLike, splits: Sequence[Split], problem: Problem, *, best: DrawSplits | None = None
) -> Array:
    """Mean over the draws of how far each split is above that draw's best one, (n_splits,), as a share of the loss.

    Args:
        law: its draws are the possible truths.
        splits: to be judged.
        problem: what a split may be and what counts.
        best: `best_split_per_draw` of the same law and problem, where it is at hand.

    Raises:
        SplitError: as `best_split_per_draw`.
    """
    lowest = (best_split_per_draw(law, problem) if best is None else best).loss[:, None]
    # A split found by the finer search may beat a draw's best by rounding.
    return np.maximum(losses_of(law, splits, problem) / lowest - 1.0, 0.0).mean(axis=0)
