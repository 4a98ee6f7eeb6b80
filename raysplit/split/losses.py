"""What a law says that splits lose."""

from collections.abc import Sequence

import numpy as np

from raysplit.split.problem import Array, Problem, Split
from raysplit.split.surface import DrawSurface, LawLike


def losses_of(law: LawLike, splits: Sequence[Split], problem: Problem) -> Array:
    """Weighted loss of each split under each draw, (n_draws, n_splits), nats per token.

    Raises:
        SplitError: the problem and the law do not have the same domains.
    """
    return domain_losses(law, splits, problem) @ np.asarray(problem.weights)


def domain_losses(law: LawLike, splits: Sequence[Split], problem: Problem) -> Array:
    """Loss of each domain's expert, (n_draws, n_splits, K) in the problem's order of domains, nats per token.

    Raises:
        SplitError: as `losses_of`.
    """
    n = np.array([[split.n_params for split in splits]], dtype=float)
    d = np.array([[split.pretrain_tokens for split in splits]])
    s = np.array([[[split.specialize_tokens[name] for name in problem.domains] for split in splits]])
    return DrawSurface(law, problem.domains, problem.weights).losses(n, d, s)
