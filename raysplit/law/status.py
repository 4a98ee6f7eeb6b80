"""One form fitted to one domain, how that fit ended, and what a table of runs cannot support."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from raysplit.law.form import Array, Form
from raysplit.law.objective import FitProblem, Sample
from raysplit.quantities import format_count


class FitStatus(Enum):
    """How a fit ended; the value is what it means. Every fit has one, the gravest that applies, in this order."""

    TOO_FEW_RUNS = "fewer distinct runs than parameters and one: the priors decide what the runs do not"
    ONE_MODEL_SIZE = "all runs have one model size: how the loss changes with N is the prior's guess"
    ONE_SPECIALIZATION = "all runs have one D': how the loss changes with D' is the prior's guess"
    RATIO_DEGENERATE = "runs keep one ratio of tokens: two parameters cannot be told apart"
    NOT_CONVERGED = "the steps ran out before the optimum was reached"
    STARTS_DISAGREE = "too few starts reached the best optimum to trust that there is none better"
    AT_BOUND = "a parameter ended at its bound: read predictions, not parameters"
    CONVERGED = "several starts reached one optimum inside the bounds"

    @property
    def supported(self) -> bool:
        """Whether the runs themselves determine the form; otherwise its priors do in part."""
        return self not in _UNSUPPORTED


_UNSUPPORTED = (
    FitStatus.TOO_FEW_RUNS, FitStatus.ONE_MODEL_SIZE, FitStatus.ONE_SPECIALIZATION, FitStatus.RATIO_DEGENERATE,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One form fitted to one domain."""

    form: str
    theta: Array  # (P,)
    objective: float
    """Sum of weighted Huber losses of the log residuals, without the priors."""
    status: FitStatus
    message: str
    """The status as a sentence about this fit: which parameter, which run would help."""
    n_runs: int
    log_residual_sd: float
    """Robust sd of log L - log y, corrected for the parameters that were fitted; misfit is part of it."""
    effective_parameters: float
    """How many parameters the runs determined; the priors did the rest."""
    starts_agreeing: float
    """Share of the polished starts that reached the best optimum."""
    huber_delta: float

    def parameters(self, form: Form) -> Mapping[str, float]:
        return {p.name: float(v) for p, v in zip(form.parameters, self.theta, strict=True)}


Fitted = Sequence[tuple[Fit, FitProblem]]
"""One form's fit to each domain, with the problem it solves."""

_SAME_RATIO = 1.1
"""Ratios that differ by less than this factor are one ratio."""


def diagnose_design(sample: Sample, *, n_parameters: int, specializes: bool) -> tuple[FitStatus, str] | None:
    """What the runs themselves cannot support, with the run that would help most; None where nothing is amiss.

    Args:
        sample: The runs.
        n_parameters: How many the form has.
        specializes: Whether the form tells specialization from pretraining at all.
    """
    n, d, s = sample.n, sample.d, sample.s
    points = len(np.unique(np.stack([n, d, s]), axis=1).T)
    if points <= n_parameters:
        return FitStatus.TOO_FEW_RUNS, (
            f"{points} distinct runs for {n_parameters} parameters; {n_parameters + 1 - points} more would do"
        )
    if np.unique(n).size == 1:
        return FitStatus.ONE_MODEL_SIZE, (
            f"every run has N = {format_count(n[0])}; add one at N = {format_count(4 * n[0])} or "
            f"{format_count(n[0] / 4)}, D = {format_count(np.median(d))}"
        )
    if specializes and np.unique(s).size == 1:
        wanted = 4 * s[0] if s[0] > 0 else np.median(d) / 4
        return FitStatus.ONE_SPECIALIZATION, (
            f"every run has D' = {format_count(s[0])}; add one at D' = {format_count(wanted)}, "
            f"N = {format_count(np.median(n))}, D = {format_count(np.median(d))}"
        )
    both = d > 0
    if both.any() and _one_ratio(d[both] / n[both]) and np.unique(n[both]).size > 1:
        return FitStatus.RATIO_DEGENERATE, (
            f"every run has D/N = {np.median(d[both] / n[both]):.3g}; add one at N = {format_count(n.min())}, "
            f"D = {format_count(d.max())}"
        )
    branched = both & (s > 0)
    if specializes and branched.all() and _one_ratio(s / d) and np.unique(d).size > 1:
        return FitStatus.RATIO_DEGENERATE, (
            f"every run has D'/D = {np.median(s / d):.3g}; add one at N = {format_count(np.median(n))}, "
            f"D = {format_count(d.max())}, D' = {format_count(s.min())}"
        )
    return None


def _one_ratio(ratio: np.ndarray) -> bool:
    return bool(ratio.max() < _SAME_RATIO * ratio.min())
