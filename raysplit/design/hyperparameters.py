"""Hyperparameters from cheap runs: the best learning rate at each (N, D), the rule that carries it on, and its price.

Notation
    N, D    non-embedding parameters; tokens of the mixture at which the loss was read
    x       log of the learning rate; x* at the lowest loss
    L(x)    loss; near its lowest value L* it is L* (1 + k (x - x*)^2), so a rate off by a factor f costs k (log f)^2
    lr*     c (N / N0)^a (D / D0)^b, with N0 and D0 in the middle of what was tuned
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, lsq_linear

Array = NDArray[np.float64]
Edge = Literal["", "low", "high"]

_MARGIN = 0.1
"""Share of a range at either end that counts as its edge."""
_WIDEN_FACTOR = 3.0
_NEAR = 0.1
"""Losses further above the lowest than this share are left out of the parabola at the bottom."""
_NOISE = 0.003
"""Least noise of a loss that is believed, as a share: runs differ in the learning rate alone, under one seed."""
_LEAST_ERROR = 0.05
"""Least standard error of log lr* that is believed."""
PRIOR_ERROR = 0.25
"""Standard deviation of the exponents' prior. Two cheap sizes a factor of two apart tell an exponent to about 0.3. Over
a factor of 100 in N that is a factor of four in the rate."""
EXPONENT_BOUNDS, TOKEN_EXPONENT_BOUNDS = (-1.0, 0.0), (-1.0, 1.0)
"""A rate that rises with N is never carried to larger N."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Where a hyperparameter is looked for, and how far that may be widened."""

    low: float
    high: float
    log: bool = True
    least: float = 0.0
    most: float = math.inf

    def end(self, value: float) -> Edge:
        """Which end a value lies at."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        if at <= low + _MARGIN * (high - low):
            return "low"
        return "high" if at >= high - _MARGIN * (high - low) else ""

    def edge(self, value: float) -> Edge:
        """Which end a value lies at; empty where the range cannot be widened there."""
        end = self.end(value)
        shut = {"": True, "low": self.low <= self.least, "high": self.high >= self.most}
        return "" if shut[end] else end

    def widened(self, edge: Edge) -> "Range":
        """The range with one end moved out: three times as far where it is logarithmic, else by its own width."""
        lower, higher = self.low / _WIDEN_FACTOR, self.high * _WIDEN_FACTOR
        if not self.log:
            lower, higher = 2 * self.low - self.high, 2 * self.high - self.low
        if edge == "low":
            return replace(self, low=max(self.least, lower))
        if edge == "high":
            return replace(self, high=min(self.most, higher))
        return self

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One loss of one trial."""

    n_params: int
    pretrain_tokens: int
    learning_rate: float
    loss: float
    """Nats per token; infinite for a run that diverged, or was stopped as hopeless, before it got there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """The best learning rate at one (N, D), and what was seen there."""

    n_params: int
    pretrain_tokens: int
    learning_rate: float
    """Inside the range that was tried."""
    log_error: float
    """Standard error of log lr*."""
    loss: float
    """L*, by the parabola, nats per token."""
    curvature: float
    """k; zero where no parabola could be told."""
    edge: Edge
    """The end of what was tried that the optimum lies at: then it is a bound, not a measurement."""
    low: float
    high: float
    """The range that was tried."""
    n_tried: int
    n_lost: int
    """How many of `n_tried` gave no loss here."""

    @property
    def doubling_penalty(self) -> float:
        """Share of the loss that a rate off by a factor of two costs."""
        return self.curvature * math.log(2) ** 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """What the rule says of a size that it was not fitted to."""

    n_params: int
    log_error: float
    """Root mean square of log (lr by the rule / lr*) over that size's D."""
    penalty: float
    """Share of the loss that this error costs there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateRule:
    """lr*(N, D) = reference (N / reference_params)^exponent (D / reference_tokens)^token_exponent."""

    reference: float
    reference_params: int
    exponent: float
    reference_tokens: int
    token_exponent: float
    log_error: float
    """Standard error of log reference."""
    exponent_error: float
    token_exponent_error: float
    left_out: tuple[LeftOut, ...]
    """For each size, how the rule fitted to the other sizes does there; empty for one size."""

    def rate(self, n_params: float, pretrain_tokens: float) -> float:
        return float(
            self.reference
            * (n_params / self.reference_params) ** self.exponent
            * (pretrain_tokens / self.reference_tokens) ** self.token_exponent
        )


def find_optimum(tried: Sequence[Tried], tried_range: Range) -> Optimum:
    """The lowest point of a parabola in log lr through the losses near the lowest, all at one (N, D).

    Losses far above the lowest and runs that diverged only say where the optimum is not; the rest is fitted by a soft
    L1 loss, since a single odd run must not move it. The standard error is the delta method's, from the residuals or
    from `_NOISE` of the loss, whichever is larger.

    Raises:
        ValueError: nothing was tried, or all of it diverged.
    """
    finite = sorted((t for t in tried if math.isfinite(t.loss)), key=lambda t: t.loss)
    if not finite:
        raise ValueError("no run has a finite loss")
    best = finite[0]
    x_best, span = math.log(best.learning_rate), math.log(tried_range.high / tried_range.low)
    at, error, loss, curvature = x_best, span / 2, best.loss, 0.0
    near = [t for t in finite if t.loss <= best.loss * (1 + _NEAR)]
    if len({t.learning_rate for t in near}) < 3:
        near = finite[:3]
    if len({t.learning_rate for t in near}) >= 3:
        x = np.log([t.learning_rate for t in near]) - x_best
        coefficients, covariance = _parabola(x, np.array([t.loss for t in near]) / best.loss)
        c0, c1, c2 = coefficients
        if c2 > 0:
            gradient = np.array([0.0, -1 / (2 * c2), c1 / (2 * c2**2)])
            error = min(error, math.sqrt(gradient @ covariance @ gradient))
            # Beyond its points the parabola only says in which direction to look.
            step = float(np.clip(-c1 / (2 * c2), x.min(), x.max()))
            at, loss, curvature = x_best + step, best.loss * (c0 + c1 * step + c2 * step**2), c2
    # An end that was never tried is no evidence of what lies before it.
    seen = replace(tried_range, low=min(t.learning_rate for t in tried), high=max(t.learning_rate for t in tried))
    learning_rate = seen.clip(math.exp(at))
    edge = seen.edge(learning_rate) if seen.low < seen.high else ""
    return Optimum(
        n_params=best.n_params, pretrain_tokens=best.pretrain_tokens, learning_rate=learning_rate,
        log_error=max(_LEAST_ERROR, math.log(_WIDEN_FACTOR) if edge else error), loss=float(loss),
        curvature=float(curvature), edge=edge, low=tried_range.low, high=tried_range.high, n_tried=len(tried),
        n_lost=len(tried) - len(finite),
    )  # fmt: skip


def _parabola(x: Array, y: Array) -> tuple[Array, Array]:
    """Coefficients (3,) of y ~ c0 + c1 x + c2 x^2 and their covariance (3, 3); y in units of the lowest loss."""
    design = np.vander(x, 3, increasing=True)
    start = np.linalg.lstsq(design, y, rcond=None)[0]

    def misfit(coefficients: Array) -> Array:
        return np.asarray(design @ coefficients - y)

    fit = least_squares(misfit, start, loss="soft_l1", f_scale=_NOISE)
    residual = misfit(fit.x)
    freedom = len(x) - 3
    variance = max(_NOISE**2, float(residual @ residual) / freedom if freedom > 0 else 0.0)
    return np.asarray(fit.x), np.asarray(variance * np.linalg.pinv(design.T @ design))


def fit_rule(optima: Sequence[Optimum], *, prior_exponent: float) -> RateRule:
    """The power law through the optima, weighted by their standard errors.

    The exponents have a normal prior of sd `PRIOR_ERROR`: that of N around ``prior_exponent``, that of D around zero.
    With many sizes it does not matter, with two it keeps the rule sane, with one it is the rule. Standard errors grow
    with the scatter about the rule where that is more than the optima's own errors explain.

    Raises:
        ValueError: there is no optimum.
    """
    if not optima:
        raise ValueError("no optimum to fit a rule to")
    reference_params = round(math.exp(np.mean([math.log(o.n_params) for o in optima])))
    reference_tokens = round(math.exp(np.mean([math.log(o.pretrain_tokens) for o in optima])))
    theta, covariance = _power_law(optima, reference_params, reference_tokens, prior_exponent)
    errors = np.sqrt(np.diag(covariance))
    sizes = sorted({o.n_params for o in optima})
    return RateRule(
        reference=math.exp(theta[0]), reference_params=reference_params, exponent=float(theta[1]),
        reference_tokens=reference_tokens, token_exponent=float(theta[2]), log_error=float(errors[0]),
        exponent_error=float(errors[1]), token_exponent_error=float(errors[2]),
        left_out=tuple(_left_out(optima, n, prior_exponent) for n in sizes) if len(sizes) > 1 else (),
    )  # fmt: skip


def _power_law(
    optima: Sequence[Optimum], reference_params: int, reference_tokens: int, prior_exponent: float
) -> tuple[Array, Array]:
    """(log c, a, b) and their covariance (3, 3)."""
    errors = np.array([o.log_error for o in optima])
    design = np.array(
        [[1.0, math.log(o.n_params / reference_params), math.log(o.pretrain_tokens / reference_tokens)] for o in optima]
    )
    rates = np.log([o.learning_rate for o in optima])
    prior = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) / PRIOR_ERROR
    rows = np.vstack([design / errors[:, None], prior])
    values = np.concatenate([rates / errors, [prior_exponent / PRIOR_ERROR, 0.0]])
    lows, highs = zip((-np.inf, np.inf), EXPONENT_BOUNDS, TOKEN_EXPONENT_BOUNDS, strict=True)
    theta: Array = np.clip(lsq_linear(rows, values, bounds=(lows, highs)).x, lows, highs)
    misfit = rows @ theta - values
    scatter = max(1.0, float(misfit @ misfit) / max(1, len(optima) - 1))
    return theta, scatter * np.linalg.inv(rows.T @ rows)


def _left_out(optima: Sequence[Optimum], n_params: int, prior_exponent: float) -> LeftOut:
    out = [o for o in optima if o.n_params == n_params]
    n_reference, d_reference = out[0].n_params, out[0].pretrain_tokens
    others = [o for o in optima if o.n_params != n_params]
    (log_reference, _, token_exponent), _ = _power_law(others, n_reference, d_reference, prior_exponent)
    squares = [
        float(log_reference + token_exponent * math.log(o.pretrain_tokens / d_reference) - math.log(o.learning_rate))
        ** 2
        for o in out
    ]
    return LeftOut(
        n_params=n_params,
        log_error=math.sqrt(np.mean(squares)),
        penalty=float(np.mean([o.curvature * square for o, square in zip(out, squares, strict=True)])),
    )
