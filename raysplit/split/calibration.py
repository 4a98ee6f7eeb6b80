"""How sure may a law be? Its intervals, checked on runs that it had not seen, and its misfit widened where needed.

The law's draws know the noise, what the runs leave open, and by how much the forms are off where the runs are; how far
off they are beyond, the runs held out tell. So the law is fitted as it would have been before the larger budgets were
run, and before the largest N, and asked for those. Where its intervals cover fewer than they say, the amplitude of the
forms' misfit (`raysplit.law.discrepancy`) is multiplied by the factor by which they were too narrow (the score of split
conformal prediction, Vovk et al. 2005), and never lessened. Every number is then drawn from the one law that results.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from raysplit.errors import LawError
from raysplit.law import Calibration, Law
from raysplit.split.cases import held_out
from raysplit.split.problem import Array, Problem

_LEVEL = 0.9
_LEAST_LOSSES = 10
"""Fewer held-out losses tell no coverage: none of them need lie outside."""
_ENOUGH_SIZES = 3
"""Two sizes do not tell a floor from an exponent; that a law of two misses a third says little of a law of three."""


def calibrate(runs: pd.DataFrame, problem: Problem, fit: Callable[[pd.DataFrame], Law]) -> Calibration | None:
    """Coverage and the factor from the runs held out of ``fit``; None where too few are left to fit or to ask.

    Args:
        runs: a checked table (`raysplit.runs.check_runs`).
        problem: tells the domains and the accounting, by which budgets are held out.
        fit: makes the law from fewer runs, draws included.
    """
    found = []
    for trained, _ in held_out(runs, problem):
        rest = runs[~trained & (runs["pretrain_tokens"] > 0)]
        if rest["n_params"].max() > (sizes := runs.loc[trained, "n_params"]).max() and sizes.nunique() < _ENOUGH_SIZES:
            continue
        try:
            found.append(interval_scores(fit(runs[trained]), rest))
        except LawError:
            continue
    scores = np.concatenate(found) if found else np.empty(0)
    if scores.size < _LEAST_LOSSES:
        return None
    stretch = float(np.quantile(scores, _LEVEL))
    return Calibration(
        level=_LEVEL, coverage=float((scores <= 1.0).mean()), n_losses=scores.size, stretch=max(stretch, 1.0)
    )


def interval_scores(law: Law, rows: pd.DataFrame) -> Array:
    """Absolute log error of each row over the interval's half-width on its side; above 1 the loss lies outside.

    Rows come domain by domain; those of a domain that the law does not have are left out.
    """
    out = []
    for domain, own in rows.groupby("domain"):
        if domain not in law.domains:
            continue
        said = law.predict(
            str(domain), *(own[c] for c in ("n_params", "pretrain_tokens", "specialize_tokens")), level=_LEVEL
        )
        error = np.log(own["loss"].to_numpy() / said.mean)
        side = np.where(error > 0, np.log(said.high / said.mean), np.log(said.mean / said.low))
        out.append(np.abs(error) / side)
    return np.concatenate(out) if out else np.empty(0)
