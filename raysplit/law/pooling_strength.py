"""How strongly domains are pooled: the strength that predicts held-out branch points best, all their domains held out.

Notation
    P   parameters          R   runs of a domain          F   folds          phi   search coordinates (objective.py)
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raysplit.law.form import Array
from raysplit.law.minimize import minimize_together
from raysplit.law.objective import FitProblem
from raysplit.law.pooling import pool

STRENGTHS = (0.0, 1.0, 3.0, 10.0, 30.0)
"""Strengths tried; 0 leaves every domain alone, 30 makes domains whose prior is a factor of 2 agree to 2 %."""
_N_FOLDS = 8
_MOST_ASKED = 16
"""Most domains asked; where there are more, so many at even distances tell the strength for all."""
_FOLD_ITERATIONS = 20


def choose_strength(
    problems: Sequence[FitProblem], best: Sequence[Array], clusters: Sequence[NDArray[np.intp]], *, forced: bool
) -> float:
    """The strength with the least error on branch points held out, each domain counting the same.

    Args:
        problems: One a domain; of more than `_MOST_ASKED` some stand for all.
        best: Their optima without pooling, (P,) each.
        clusters: The branch point of each run, numbered over all domains.
        forced: Whether some domain has too few runs to stand alone, so that strength 0 is out of the question.
    """
    asked = np.unique(np.linspace(0, len(problems) - 1, min(len(problems), _MOST_ASKED)).astype(int))
    problems, best, clusters = ([x[k] for k in asked] for x in (problems, best, clusters))
    n_folds = min(_N_FOLDS, len(np.unique(np.concatenate(clusters))))
    if len(problems) < 2 or n_folds < 2:
        return STRENGTHS[1] if forced and len(problems) > 1 else 0.0
    held_out = [np.arange(n_folds)[:, None] == cluster % n_folds for cluster in clusters]  # (F, R)
    folds = [
        replace(p, weight=np.where(out, 0.0, p.weight), prior_shift=np.zeros((n_folds, phi.size)))
        for p, phi, out in zip(problems, best, held_out, strict=True)
    ]
    alone = _ends(folds, [np.repeat(phi[None], n_folds, axis=0) for phi in best])
    errors: dict[float, float] = {}
    for strength in STRENGTHS[1:] if forced else STRENGTHS:
        pooled = pool(folds, alone, strength) if strength else folds
        ends = _ends(pooled, alone) if strength else alone
        errors[strength] = float(
            np.mean(
                [
                    _error(p, end, out, whole.weight[0])
                    for p, end, out, whole in zip(pooled, ends, held_out, problems, strict=True)
                    if out.any()
                ]
            )
        )
    return min(errors, key=errors.__getitem__)


def _ends(problems: Sequence[FitProblem], starts: Sequence[Array]) -> list[Array]:
    return [end.phi for end in minimize_together(problems, starts, max_iterations=_FOLD_ITERATIONS, tolerance=1e-6)]


def _error(problem: FitProblem, phi: Array, held_out: NDArray[np.bool_], weight: Array) -> float:
    counted = np.where(held_out, weight, 0.0)
    size = np.where(held_out, np.abs(problem.residuals(phi)), 0.0)
    return float((counted * size).sum() / counted.sum())
