"""What a fit minimises, for many fits of one form at once.

    F(phi) = sum_i w_i rho(log L(theta(phi)) - log y_i) + kappa / 2 sum_j z_j(phi)^2

rho is Huber's loss of threshold delta; z are the priors in standard deviations; kappa turns them into the units of rho
(a likelihood of noise sd sigma is F / kappa to second order, see `huber_scale`).

Notation
    B   fits side by side (starts or draws)      R   runs          P   parameters
    phi (B, P)  search coordinates: the parameters of a form, on a logarithmic scale where it says so
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from raysplit.law.form import PRETRAIN_TOKENS, SPECIALIZE_TOKENS, Array, Form

_AT_ONCE = 2**14
"""Residuals: with their derivatives they then stay in the cache of one core, and memory does not grow with the fits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The runs of one domain as arrays of length R: N, D, D', log loss and weight."""

    n: Array
    d: Array
    s: Array
    log_loss: Array
    weight: Array

    @property
    def middle(self) -> Array:
        """Geometric means of N, of the positive D and of the positive D' (3,); D and D' stand in for each other."""
        positive_d, positive_s = self.d[self.d > 0], self.s[self.s > 0]
        return np.array(
            [
                _geometric_mean(self.n),
                _geometric_mean(positive_d if positive_d.size else positive_s),
                _geometric_mean(positive_s if positive_s.size else positive_d),
            ]
        )


def _geometric_mean(x: Array) -> float:
    return float(np.exp(np.mean(np.log(x))))


class Coordinates:
    """The search coordinates of a form for one table: where each parameter may go, and where its prior puts it.

    Bounds and priors are (P,), or (B, P) where B fits of several tables go side by side.
    """

    def __init__(self, form: Form, sample: Sample) -> None:
        parameters = form.parameters
        _, middle_d, middle_s = sample.middle
        scale = {PRETRAIN_TOKENS: middle_d, SPECIALIZE_TOKENS: middle_s}
        unit = np.array([scale.get(p.unit, 1.0) for p in parameters])
        self.log = np.array([p.log for p in parameters])
        self.linear = np.array([p.linear for p in parameters])
        self.lower = self.to_phi(unit * [p.lower for p in parameters])
        self.upper = self.to_phi(unit * [p.upper for p in parameters])
        self.amplitude = self.log & self.linear
        self.has_prior = np.array([p.prior is not None for p in parameters])
        centre = np.array([p.prior[0] if p.prior else 1.0 for p in parameters])
        mean_loss = math.exp(np.average(sample.log_loss, weights=sample.weight))
        self.centre = self.to_phi(np.where(self.amplitude, centre * mean_loss, centre * unit))
        self.prior_sd = np.array([p.prior[1] if p.prior else math.inf for p in parameters])

    def to_phi(self, theta: Array) -> Array:
        return np.where(self.log, np.log(np.where(self.log, theta, 1.0)), theta)

    def to_theta(self, phi: Array) -> Array:
        return np.where(self.log, np.exp(np.where(self.log, phi, 0.0)), phi)

    def jacobian(self, theta: Array) -> Array:
        """Derivative of theta by phi, (..., P)."""
        return np.where(self.log, theta, 1.0)

    def moved(self, *, lower: Array, upper: Array, centre: Array, prior_sd: Array) -> "Coordinates":
        """The same coordinates with other bounds and priors."""
        out = copy.copy(self)
        out.lower, out.upper, out.centre, out.prior_sd = lower, upper, centre, prior_sd
        return out

    def rows(self, index: NDArray[np.intp]) -> "Coordinates":
        """The coordinates of some of the fits."""
        if self.lower.ndim == 1:
            return self
        own = {name: getattr(self, name)[index] for name in ("lower", "upper", "centre", "prior_sd")}
        return self.moved(**own)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitProblem:
    """B fits of one form; the fields with a leading axis hold B rows, or one row for all."""

    form: Form
    coordinates: Coordinates
    middle: Array  # (B or 1, 3), geometric means of N, D and D'
    n: Array  # (B or 1, R)
    d: Array  # (B or 1, R)
    s: Array  # (B or 1, R)
    log_loss: Array  # (B or 1, R)
    weight: Array  # (B or 1, R)
    prior_shift: Array  # (B or 1, P), by how many standard deviations a fit's priors are moved
    delta: Array  # (B or 1, 1)
    noise: Array  # (B or 1, 1), sigma, the sd of a log residual that sets how much the priors weigh
    prior_strength: float = 0.0
    """Factor on the priors; 0 leaves them out."""

    @property
    def kappa(self) -> Array | None:
        """Factor on the priors, (B or 1, 1); None without priors."""
        return self.prior_strength * huber_scale(self.delta, self.noise) if self.prior_strength > 0 else None

    def rows(self, index: NDArray[np.intp]) -> "FitProblem":
        """The same problem for some of its fits."""

        def pick(x: Array) -> Array:
            return x if len(x) == 1 else x[index]

        return replace(
            self, coordinates=self.coordinates.rows(index), middle=pick(self.middle), n=pick(self.n), d=pick(self.d),
            s=pick(self.s), log_loss=pick(self.log_loss), weight=pick(self.weight), prior_shift=pick(self.prior_shift),
            delta=pick(self.delta), noise=pick(self.noise),
        )  # fmt: skip

    def in_parts(self, n_fits: int) -> list[NDArray[np.intp]]:
        """Indices of so many fits, in parts small enough for the cache (`_AT_ONCE`)."""
        step = max(1, _AT_ONCE // self.n.shape[1])
        return [np.arange(i, min(i + step, n_fits)) for i in range(0, max(n_fits, 1), step)]

    def residuals(self, phi: Array) -> Array:
        """log L - log y, (B, R); infinite where the form is not positive."""
        theta = self.coordinates.to_theta(phi)
        with np.errstate(all="ignore"):
            predicted = self.form.loss(theta[:, None, :], self.n, self.d, self.s)
            out = np.log(predicted) - self.log_loss
        return np.where(np.isfinite(out), out, np.inf)

    def value(self, phi: Array) -> Array:
        """F, (B,)."""
        return self._value(phi, self.residuals(phi), None, self.kappa)

    def _value(self, phi: Array, residuals: Array, log_share: Array | None, kappa: Array | None) -> Array:
        size = np.abs(residuals)
        inside = np.minimum(size, self.delta)
        with np.errstate(invalid="ignore"):
            out = np.sum(self.weight * inside * (size - 0.5 * inside), axis=-1)
        if kappa is not None:
            out = out + 0.5 * kappa[:, 0] * np.sum(self.prior_z(phi, log_share) ** 2, axis=-1)
        return np.where(np.isnan(out), np.inf, out)

    def jacobian(self, phi: Array) -> Array:
        """Derivative of the residuals by phi, (B, R, P)."""
        return self._linearised(phi)[1]

    def _linearised(self, phi: Array) -> tuple[Array, Array]:
        """Residuals (B, R) and their derivative by phi (B, R, P)."""
        theta = self.coordinates.to_theta(phi)[:, None, :]
        with np.errstate(all="ignore"):
            predicted, jacobian = self.form.loss_and_gradient(theta, self.n, self.d, self.s)
            jacobian *= self.coordinates.jacobian(theta)
            jacobian /= predicted[..., None]
            residual = np.log(predicted) - self.log_loss
            if not np.isfinite(jacobian.sum()):
                jacobian = np.nan_to_num(jacobian, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return np.where(np.isfinite(residual), residual, np.inf), jacobian

    def scores(self, phi: Array) -> tuple[Array, Array, Array]:
        """Gradient of F, (B, P); its Gauss-Newton Hessian H and the majorant M of that, (B, P, P)."""
        residual, jacobian = self._linearised(phi)
        size = np.abs(residual)
        psi = self.weight * np.clip(residual, -self.delta, self.delta)
        transposed = np.swapaxes(jacobian, 1, 2)
        gradient = np.matmul(transposed, psi[..., None])[..., 0]
        majorant = np.matmul(transposed * self._shrink(size)[:, None, :], jacobian)
        hessian = np.matmul(transposed * (self.weight * (size <= self.delta))[:, None, :], jacobian)
        if (kappa := self.kappa) is not None:
            z, by_phi = self.prior_z(phi), self._prior_jacobian(phi)
            by_phi_t = np.swapaxes(by_phi, 1, 2)
            gradient = gradient + kappa * np.matmul(by_phi_t, z[..., None])[..., 0]
            prior = kappa[:, :, None] * np.matmul(by_phi_t, by_phi)
            majorant, hessian = majorant + prior, hessian + prior
        return gradient, hessian, majorant

    def information(self, phi: Array) -> tuple[Array, Array]:
        """Jacobian (B, R, P) of the residuals, and the Hessian (B, P, P) of F were Huber's loss squares throughout."""
        _, jacobian = self._linearised(phi)
        hessian = np.matmul(np.swapaxes(jacobian, 1, 2) * self.weight[:, None, :], jacobian)
        if self.prior_strength > 0:
            by_phi = self._prior_jacobian(phi)
            by_fit = self.prior_strength * huber_scale(np.array(np.inf), self.noise)[:, :, None]
            hessian = hessian + by_fit * np.matmul(np.swapaxes(by_phi, 1, 2), by_phi)
        return jacobian, hessian

    def linear_part(self, phi: Array) -> "LinearPart":
        """What the linear parameters change where the others stay at phi (B, P)."""
        linear = np.flatnonzero(self.coordinates.linear)
        theta = self.coordinates.to_theta(phi)[:, None, :]
        with np.errstate(all="ignore"):
            predicted, columns = self.form.loss_and_linear(theta, self.n, self.d, self.s)  # (B, R) and (Q, B, R)
            rest = predicted - np.einsum("bq,qbr->br", theta[:, 0, linear], columns)
        return LinearPart(
            problem=self, linear=linear, rest=rest, columns=columns, log_share=self._log_share(phi), kappa=self.kappa
        )

    def _shrink(self, size: Array) -> Array:
        """Weight of the parabola that touches Huber's loss at residuals of this size from above, (B, R)."""
        return self.weight * np.minimum(1.0, self.delta / np.maximum(size, 1e-300))

    def prior_z(self, phi: Array, log_share: Array | None = None) -> Array:
        """z, (B, P): each parameter's distance from its prior's centre in standard deviations, 0 without a prior."""
        c = self.coordinates
        value = phi
        if c.amplitude.any():
            value = phi + (self._log_share(phi) if log_share is None else log_share)
        z = (value - c.centre) / c.prior_sd
        return np.where(c.has_prior, z - self.prior_shift, 0.0)

    def _log_share(self, phi: Array) -> Array:
        """log dL/dA_j at the middle of the table, (..., P), 0 for others: with log A_j, the log size of A_j's term."""
        amplitude, linear = self.coordinates.amplitude, self.coordinates.linear
        theta = self.coordinates.to_theta(phi)
        n, d, s = (x.reshape(-1, *(1,) * (phi.ndim - 2)) for x in self.middle.T)
        with np.errstate(all="ignore"):
            _, columns = self.form.loss_and_linear(theta, n, d, s)
            out = np.zeros(phi.shape)
            out[..., amplitude] = np.moveaxis(np.log(np.maximum(columns[amplitude[linear]], 1e-300)), 0, -1)
        return out

    def _prior_jacobian(self, phi: Array) -> Array:
        """dz/dphi, (B, P, P)."""
        c = self.coordinates
        n_parameters = phi.shape[1]
        out = np.broadcast_to(np.eye(n_parameters), (len(phi), n_parameters, n_parameters)).copy()
        if c.amplitude.any():
            step, bent = 1e-5, np.flatnonzero(~c.linear)  # no share depends on a linear parameter
            moves = step * np.eye(n_parameters)[bent]
            share = self._log_share(phi[:, None, :] + np.concatenate([moves, -moves]))  # (B, 2 len(bent), P)
            by_phi = (share[:, : bent.size] - share[:, bent.size :]) / (2 * step)
            out[:, :, bent] += by_phi.swapaxes(1, 2)
        return np.where(c.has_prior[:, None], out / c.prior_sd[..., :, None], 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearPart:
    """B fits as functions of their linear parameters alone, so that no form is evaluated again: L = rest + columns t.

    The share of an amplitude's term depends on that amplitude only, so no prior ties two.
    """

    problem: FitProblem
    linear: NDArray[np.intp]  # (Q,), which parameters those are
    rest: Array  # (B, R)
    columns: Array  # (Q, B, R), dL/dt
    log_share: Array  # (B, P)
    kappa: Array | None  # of the problem

    def value(self, phi: Array) -> Array:
        """F, (B,)."""
        return self.problem._value(phi, self._residuals(phi)[0], self.log_share, self.kappa)

    def _residuals(self, phi: Array) -> tuple[Array, Array]:
        """log L - log y and L, (B, R)."""
        theta = self.problem.coordinates.to_theta(phi)[:, self.linear]
        with np.errstate(all="ignore"):
            predicted = self.rest + np.einsum("bq,qbr->br", theta, self.columns)
            residual = np.log(predicted) - self.problem.log_loss
        return np.where(np.isfinite(residual), residual, np.inf), predicted

    def scores(self, phi: Array) -> tuple[Array, Array]:
        """Gradient of F and majorant by these parameters, (B, Q) and (B, Q, Q)."""
        p = self.problem
        residual, predicted = self._residuals(phi)
        by_phi = p.coordinates.jacobian(p.coordinates.to_theta(phi))[:, self.linear].T  # (Q, B)
        with np.errstate(all="ignore"):
            jacobian = self.columns * by_phi[..., None]
            jacobian /= predicted
            if not np.isfinite(jacobian.sum()):
                jacobian = np.nan_to_num(jacobian, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        by_fit = jacobian.swapaxes(0, 1)  # (B, Q, R)
        psi = p.weight * np.clip(residual, -p.delta, p.delta)
        gradient = np.matmul(by_fit, psi[..., None])[..., 0]
        majorant = np.matmul(by_fit * p._shrink(np.abs(residual))[:, None, :], by_fit.swapaxes(1, 2))
        if (kappa := self.kappa) is not None:
            sd = p.coordinates.prior_sd[..., self.linear]
            gradient = gradient + kappa * p.prior_z(phi, self.log_share)[:, self.linear] / sd
            majorant = majorant + (kappa * sd**-2.0)[:, :, None] * np.eye(self.linear.size)
        return gradient, majorant


def together(problems: Sequence[FitProblem], n_fits: Sequence[int]) -> FitProblem:
    """Problems of several tables as one, whose rows are ``n_fits`` fits of each; shorter tables get rows of no weight.

    One domain's fit is so small that a step costs mostly Python's overhead; this divides it by the number of domains.
    """
    n_runs = max(p.n.shape[1] for p in problems)
    edges = np.concatenate([[0], np.cumsum(n_fits)])

    def rows(values: Sequence[Array], n_columns: int, fill: Array | None = None) -> Array:
        out: Array = np.empty((edges[-1], n_columns))
        for k, own in enumerate(values):
            part = out[edges[k] : edges[k + 1]]
            part[:, : own.shape[1]] = own
            if own.shape[1] < n_columns:
                part[:, own.shape[1] :] = 0.0 if fill is None else fill[k]
        return out

    first, n_parameters = problems[0], problems[0].prior_shift.shape[1]
    middles = np.concatenate([p.middle for p in problems])  # (K, 3)
    bounds = {
        name: rows([getattr(p.coordinates, name)[None] for p in problems], n_parameters)
        for name in ("lower", "upper", "centre", "prior_sd")
    }
    return FitProblem(
        form=first.form,
        coordinates=first.coordinates.moved(**bounds),
        middle=rows([p.middle for p in problems], 3),
        n=rows([p.n for p in problems], n_runs, middles[:, 0]),
        d=rows([p.d for p in problems], n_runs, middles[:, 1]),
        s=rows([p.s for p in problems], n_runs, middles[:, 2]),
        log_loss=rows([p.log_loss for p in problems], n_runs),
        weight=rows([p.weight for p in problems], n_runs),
        prior_shift=rows([p.prior_shift for p in problems], n_parameters),
        delta=rows([p.delta for p in problems], 1),
        noise=rows([p.noise for p in problems], 1),
        prior_strength=first.prior_strength,
    )


def huber_scale(delta: Array, sigma: Array) -> Array:
    """kappa = E[psi^2] / E[psi'] for normal residuals of sd sigma.

    F / kappa then has the curvature of a log likelihood: sigma^2 for delta >> sigma (least squares), and
    delta sigma sqrt(pi / 2) for delta << sigma (least absolute deviations).
    """
    # At delta = inf the square beyond it is nothing times infinity.
    t = np.minimum(delta / sigma, 1e3)
    inside = erf(t / math.sqrt(2))
    squares = inside - 2 * t * np.exp(-0.5 * t * t) / math.sqrt(2 * math.pi) + t * t * (1 - inside)
    return np.asarray(sigma**2 * squares / inside)
