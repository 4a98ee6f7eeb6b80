"""Model size as a continuous choice."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from raysplit.errors import SplitError
from raysplit.split.problem import Problem
from raysplit.split.search import best_split
from raysplit.split.surface import LawLike

_LADDER, _ZOOM, _ROUNDS = 17, 9, 5


def with_best_size(
    law: LawLike, problem: Problem, *, flops_per_token: Callable[[int], float], low: int, high: int
) -> Problem:
    """The problem with the best size between two bounds among its sizes, and a ladder around it for comparison.

    A logarithmic ladder over the whole range comes first, then four finer ones around the best rung: the first of them
    an eighth as wide, each other a quarter as wide as the last. So the size is found to a part in 4,000 of the range's
    logarithm.

    Args:
        law: decides under the mean of its draws.
        problem: its own sizes are replaced.
        flops_per_token: F(N), the family's own or ``lambda n: 6 * n``.
        low: smallest size allowed, non-embedding parameters.
        high: largest size allowed.

    Raises:
        SplitError: the bounds are not in order, or as `best_split`.
    """
    if not 0 < low < high:
        raise SplitError(f"model sizes from {low} to {high}: the bounds must be positive and rise")

    def ladder(bottom: float, top: float, rungs: int) -> Problem:
        sizes = dict.fromkeys(round(float(n)) for n in np.geomspace(bottom, top, rungs))
        return replace(problem, sizes={n: float(flops_per_token(n)) for n in sizes})

    whole = ladder(low, high, _LADDER)
    rungs, best = list(whole.sizes), 0
    for _ in range(_ROUNDS):
        asked = replace(problem, sizes={n: float(flops_per_token(n)) for n in rungs})
        best = best_split(law, asked, rough=True).n_params
        near = rungs.index(best)
        rungs = list(ladder(rungs[max(near - 1, 0)], rungs[min(near + 1, len(rungs) - 1)], _ZOOM).sizes)
        if best not in rungs:
            rungs = sorted([*rungs, best])
    sizes = sorted({*whole.sizes, best})
    return replace(problem, sizes={n: float(flops_per_token(n)) for n in sizes})
