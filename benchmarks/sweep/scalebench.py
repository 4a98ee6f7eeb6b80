"""ScaleBench (2604.22753): which runs to train, judged by the law that they give in a costly target region.

    python benchmarks/sweep/scalebench.py --shared ../shared/data [--seeds 10] [--protocol-seeds 3] [--check-seeds 2]

A task is a pool of runs with known losses and costs (6 N D), a target region whose inputs are known and whose losses
are not, and forms of the law. A design names runs one by one; at 1, 5 and 10 % of the pool's cost a law is fitted to
what was bought, and R2 on the target, clipped to [-1, 1], is averaged over seeds and forms. The design knows a form
only by its formula and bounds, and cost only as a number a run.

Fits
    protocol   least squares on the loss inside the bounds, 64 L-BFGS-B starts, the best kept; up to 8 of the starts of
               a design are its own earlier fits, as in the published code
    cold       the same with 64 random starts
    optimum    the same sum of squares by `least_squares` here: where L-BFGS-B ends from its result, in a tenth of the
               time; random starts alone often end above it (`same_optimum` shows both)
    own        generalised least squares on log loss with weak priors and a misfit that neighbouring runs share, which
               is predicted too; averaged over the local optima of the one form by their probability

Notation
    z   search coordinates of theta: logarithms where the lower bound is positive    B   starts, draws or sigma points
    P   parameters     M   runs of the pool     Q   target points
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from raysplit.design.criteria import expecting, variance_drop

Array = NDArray[np.float64]

CHECKPOINTS = (0.01, 0.05, 0.10)
N_STARTS = 64
MISFIT = 0.8
"""Share of a residual's variance that is the form's misfit, which neighbouring runs have in common; the rest noise."""
PUBLISHED = {
    "farseer": {
        "random": (-0.77, 0.78, 0.79),
        "cheapest": (-0.89, 0.41, 0.68),
        "v-optimal": (0.67, 0.87, 0.92),
        "mspe": (0.60, 0.88, 0.93),
        "all data": (0.91,) * 3,
    },
    "data_constrained": {
        "random": (-0.74, -0.36, 0.12),
        "cheapest": (-0.58, -0.56, -0.40),
        "v-optimal": (0.58, 0.83, 0.85),
        "mspe": (0.73, 0.85, 0.86),
        "all data": (0.79,) * 3,
    },
}
PUBLISHED_DEVIATION = {
    ("farseer", "mspe"): (0.11, 0.02, 0.00),
    ("farseer", "v-optimal"): (0.22, 0.01, 0.01),
    ("farseer", "all data"): (0.01,) * 3,
    ("data_constrained", "mspe"): (0.37, 0.16, 0.11),
    ("data_constrained", "v-optimal"): (0.53, 0.17, 0.13),
    ("data_constrained", "all data"): (0.23,) * 3,
}


# Laws ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inputs:
    """Unique tokens u, parameters n, tokens d, each (M,), with their logarithms."""

    u: Array
    n: Array
    d: Array
    lu: Array
    ln: Array
    ld: Array

    @classmethod
    def of(cls, u: Array, n: Array, d: Array) -> "Inputs":
        return cls(u, n, d, np.log(u), np.log(n), np.log(d))

    def rows(self, index: NDArray[np.intp] | Sequence[int]) -> "Inputs":
        i = np.asarray(index, dtype=np.intp)
        return Inputs(self.u[i], self.n[i], self.d[i], self.lu[i], self.ln[i], self.ld[i])

    def followed_by(self, other: "Inputs") -> "Inputs":
        return Inputs.of(*(np.concatenate([getattr(self, k), getattr(other, k)]) for k in ("u", "n", "d")))

    def __len__(self) -> int:
        return len(self.n)


Formula = Callable[[list[Array], Inputs], tuple[Array, list[Array]]]


@dataclass(frozen=True, kw_only=True)
class Law:
    """A form: its formula gives loss and derivatives at theta, each parameter (B, 1), and M inputs."""

    name: str
    formula: Formula
    bounds: tuple[tuple[float, float], ...]
    linear: tuple[int, ...] = ()
    """Parameters in which, all together, the loss is linear: a start solves for them."""

    @property
    def lower(self) -> Array:
        return np.array([b[0] for b in self.bounds], dtype=float)

    @property
    def upper(self) -> Array:
        return np.array([b[1] for b in self.bounds], dtype=float)

    def __call__(self, theta: Array, x: Inputs) -> tuple[Array, Array]:
        """(B, P) and M inputs -> loss (B, M), derivatives (B, P, M)."""
        loss, parts = self.formula([theta[:, j, None] for j in range(theta.shape[1])], x)
        out: Array = np.empty((len(theta), len(parts), len(x)))
        for j, part in enumerate(parts):
            out[:, j] = part
        return loss, out

    def loss(self, theta: Array, x: Inputs) -> Array:
        """(B, M)."""
        return self.formula([theta[:, j, None] for j in range(theta.shape[1])], x)[0]


def farseer(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    e_, s, q, s_, b_, b, q_, a_, a = t
    nq, nb, na = np.exp(q * x.ln), np.exp(b * x.ln), np.exp(a * x.ln)
    floor = np.exp(np.clip(s * nq + s_, -50, 50))
    power = np.exp(np.clip(a_ * na + e_, -50, 50))
    term = np.exp(np.clip(np.clip(b_ * nb + q_, -50, 50) - power * x.ld, -50, 50))
    by_power = -term * x.ld * power
    return floor + term, [
        by_power,
        floor * nq,
        floor * s * nq * x.ln,
        floor,
        term * nb,
        term * b_ * nb * x.ln,
        term,
        by_power * na,
        by_power * a_ * na * x.ln,
    ]


def form1(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    a_, alpha, b_, beta, e_, gamma, delta = t
    pn, pd_, pe = np.exp(-alpha * x.ln), np.exp(-beta * x.ld), np.exp(gamma * x.lu + delta * x.ln)
    tn, td, te = a_ * pn, b_ * pd_, e_ * pe
    return tn + td + te, [pn, -tn * x.ln, pd_, -td * x.ld, pe, te * x.lu, te * x.ln]


def form2(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    a, b, c, d, p, q, r = t
    pu, pn, pd_ = np.exp(p * x.lu), np.exp(q * x.ln), np.exp(r * x.ld)
    one = np.ones_like(pu)
    return a + b * pu + c * pn + d * pd_, [one, pu, pn, pd_, b * pu * x.lu, c * pn * x.ln, d * pd_ * x.ld]


def form3(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    a_, tau_n, b_, tau_d, alpha, c, rho = t
    r_d = x.d / x.u - 1.0
    u_n = np.minimum(rho * x.u, x.n)
    r_n = np.maximum(x.n / u_n - 1.0, 0.0)
    en, ed = np.exp(-r_n / tau_n), np.exp(-r_d / tau_d)
    n_eff = u_n * (1.0 + tau_n * (1.0 - en))
    d_eff = x.u * (1.0 + tau_d * (1.0 - ed))
    ln, ld = np.log(n_eff), np.log(d_eff)
    pn, pd_ = np.exp(-alpha * ln), np.exp(-alpha * ld)
    tn, td = a_ * pn, b_ * pd_
    by_n, by_d = -alpha * tn / n_eff, -alpha * td / d_eff
    below = rho * x.u < x.n
    by_rho = by_n * (1.0 + tau_n * (1.0 - en) - en * x.n / u_n) * x.u * below
    return tn + td + c, [
        pn,
        by_n * u_n * (1.0 - en * (1.0 + r_n / tau_n)),
        pd_,
        by_d * x.u * (1.0 - ed * (1.0 + r_d / tau_d)),
        -tn * ln - td * ld,
        np.ones_like(tn),
        by_rho,
    ]


def form4(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    l0, a_, a, b_, b, s, d = t
    log_scale = np.log(s) + x.lu + d * x.ln
    log_t = -np.logaddexp(-x.ld, -log_scale)
    pn, pt = np.exp(-a * x.ln), np.exp(-b * log_t)
    tn, tt = a_ * pn, b_ * pt
    by_log_scale = -b * tt * np.exp(log_t - log_scale)
    return l0 + tn + tt, [np.ones_like(tt), pn, -tn * x.ln, pt, -tt * log_t, by_log_scale / s, by_log_scale * x.ln]


def form5(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    a_, alpha, b_, beta, e_, gamma = t
    ld = gamma * x.lu + (1.0 - gamma) * x.ld
    pn, pd_ = np.exp(-alpha * x.ln), np.exp(-beta * ld)
    tn, td = a_ * pn, b_ * pd_
    return tn + td + e_, [pn, -tn * x.ln, pd_, -td * ld, np.ones_like(td), -beta * td * (x.lu - x.ld)]


def form6(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    e_, a_, alpha, b_, beta, c_, c, d = t
    excess = np.maximum(x.d / x.u - 1.0, 0.0)
    le = np.log(np.maximum(excess, 1e-12))
    rate = np.where(excess > 0, np.exp(c * le), 0.0 * c) * np.exp(d * x.ln)
    penalty = c_ * rate
    ld = x.ld - np.log1p(penalty)
    pn, pd_ = np.exp(-alpha * x.ln), np.exp(-beta * ld)
    tn, td = a_ * pn, b_ * pd_
    by_penalty = beta * td / (1.0 + penalty)
    return e_ + tn + td, [
        np.ones_like(td),
        pn,
        -tn * x.ln,
        pd_,
        -td * ld,
        by_penalty * rate,
        by_penalty * penalty * le,
        by_penalty * penalty * x.ln,
    ]


def form7(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    l0, a_, p, b_, t_, c_, u = t
    lnu = x.ln + x.lu
    pp, pd_, pn = np.exp(p * lnu), np.exp(t_ * x.ld), np.exp(u * x.ln)
    return l0 + a_ * pp + b_ * pd_ + c_ * pn, [
        np.ones_like(pp),
        pp,
        a_ * pp * lnu,
        pd_,
        b_ * pd_ * x.ld,
        pn,
        c_ * pn * x.ln,
    ]


def form8(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    a, b, c, d, alpha, beta, gamma = t
    lr = np.log(np.log1p(x.u / x.d))
    pd_, pn, pr = np.exp(-alpha * x.ld), np.exp(-beta * x.ln), np.exp(gamma * lr)
    return a + b * pd_ + c * pn + d * pr, [
        np.ones_like(pr),
        pd_,
        pn,
        pr,
        -b * pd_ * x.ld,
        -c * pn * x.ln,
        d * pr * lr,
    ]


def form9(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    a_, alpha, b_, beta, c_, gamma, l_ = t
    pn, pd_, pu = np.exp(-alpha * x.ln), np.exp(-beta * x.ld), np.exp(-gamma * x.lu)
    tn, quality = a_ * pn, 1.0 + c_ * pu
    td = b_ * pd_
    return tn + td * quality + l_, [
        pn,
        -tn * x.ln,
        pd_ * quality,
        -td * quality * x.ld,
        td * pu,
        -td * c_ * pu * x.lu,
        np.ones_like(td),
    ]


def form10(t: list[Array], x: Inputs) -> tuple[Array, list[Array]]:
    l0, a_, b_, a, b, k, q = t
    lk = np.log(k) + x.lu
    first, second = -b * q * x.ld, -b * q * lk
    log_sum = np.logaddexp(first, second)
    share_d, share_u = np.exp(first - log_sum), np.exp(second - log_sum)
    mean = np.exp(log_sum / q)
    pn = np.exp(-a * x.ln)
    tn, tm = a_ * pn, b_ * mean
    mixed = share_d * x.ld + share_u * lk
    return l0 + tn + tm, [
        np.ones_like(tm),
        pn,
        mean,
        -tn * x.ln,
        -tm * mixed,
        -tm * b * share_u / k,
        tm * (-log_sum / q**2 - b * mixed / q),
    ]


FARSEER = (
    Law(
        name="farseer",
        formula=farseer,
        bounds=((1, 6), (-1, 0.3), (0.01, 0.5), (-1, 1), (10, 1000), (-0.6, -0.01), (-5, 1), (-5, 1), (0.001, 0.25)),
    ),
)
_UP2 = (0.05, 2.0)
DATA_CONSTRAINED = tuple(
    Law(name=f"form {i}", formula=formula, bounds=bounds, linear=linear)
    for i, (formula, linear, bounds) in enumerate(
        (
            (form1, (0, 2, 4), ((1e-3, 1e9), _UP2, (1e-3, 1e8), _UP2, (-100, 200), (-0.5, 0.5), (-0.5, 0.5))),
            (
                form2,
                (0, 1, 2, 3),
                ((-3, 10), (-1e6, 1e6), (-1e6, 1e6), (-1e7, 1e7), (-1.5, 0.5), (-1.5, 0.5), (-1.5, 0.5)),
            ),
            (form3, (0, 2, 5), ((1e-3, 1e7), (1e-3, 500), (1e-3, 1e7), (1e-3, 500), _UP2, (-3, 10), (1e-3, 100))),
            (form4, (0, 1, 3), ((-3, 8), (1e-3, 1e11), (0.05, 2.5), (1e-3, 1e9), (0.05, 2.5), (1e-5, 1e7), (-2, 1.5))),
            (form5, (0, 2, 4), ((1e-3, 1e10), _UP2, (1e-3, 1e10), _UP2, (-3, 10), (0, 1))),
            (form6, (0, 1, 3), ((-3, 10), (1e-3, 1e11), _UP2, (1e-3, 1e12), _UP2, (0, 1e4), (0, 2), (-1, 1))),
            (
                form7,
                (0, 1, 3, 5),
                ((-3, 10), (1e-3, 1e9), (-2, 0.5), (1e-3, 1e9), (-2, 0.5), (-1e13, 1e13), (-2.5, 0.5)),
            ),
            (form8, (0, 1, 2, 3), ((-3, 10), (-1e8, 1e8), (-1e8, 1e8), (-200, 200), _UP2, _UP2, (0.05, 5))),
            (form9, (0, 2, 6), ((1e-3, 1e7), _UP2, (1e-3, 1e7), _UP2, (0, 1e11), _UP2, (-3, 10))),
            (form10, (0, 1, 2), ((-3, 8), (1e-3, 1e9), (1e-3, 1e9), _UP2, _UP2, (1e-3, 1e4), (0.1, 50))),
        ),
        start=1,
    )
)


# Tasks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    laws: tuple[Law, ...]
    pool: Inputs
    losses: Array
    cost: Array
    """(M,) share of the whole pool's cost."""
    target: Inputs
    target_losses: Array
    """(Q,) for `r2` alone: no design and no fit sees it."""

    def r2(self, predicted: Array) -> float:
        if not np.isfinite(predicted).all():
            return -1.0
        error = np.sum((self.target_losses - predicted) ** 2)
        return float(np.clip(1.0 - error / np.sum((self.target_losses - self.target_losses.mean()) ** 2), -1.0, 1.0))


def read_tasks(folder: Path) -> tuple[Task, ...]:
    tasks = []
    for name, laws, columns in (
        ("farseer", FARSEER, ("N", "N", "D")),  # this law has no unique tokens
        ("data_constrained", DATA_CONSTRAINED, ("unique_tokens", "params", "tokens")),
    ):
        parts = []
        for part in ("train", "test"):
            table = pd.read_csv(folder / f"{name}_{part}.csv")
            u, n, d = (table[c].to_numpy(dtype=float) for c in columns)
            parts.append((Inputs.of(u, n, d), table["loss"].to_numpy(dtype=float)))
        (pool, losses), (target, target_losses) = parts
        cost = 6.0 * pool.n * pool.d
        tasks.append(
            Task(
                name=name,
                laws=laws,
                pool=pool,
                losses=losses,
                cost=cost / cost.sum(),
                target=target,
                target_losses=target_losses,
            )
        )
    return tuple(tasks)


# Fits ---------------------------------------------------------------------------------------------------------------


class Coordinates:
    """Search coordinates of a law, and the weak prior that its bounds make: their middle, a quarter of their range."""

    def __init__(self, law: Law) -> None:
        self.law = law
        self.log = law.lower > 0
        self.lower, self.upper = self.of(law.lower), self.of(law.upper)
        self.middle, self.sd = (self.lower + self.upper) / 2, (self.upper - self.lower) / 4

    def of(self, theta: Array) -> Array:
        return np.where(self.log, np.log(np.where(self.log, np.maximum(theta, 1e-300), 1.0)), theta)

    def theta(self, z: Array) -> Array:
        return np.where(self.log, np.exp(np.where(self.log, z, 0.0)), z)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        return self.lower + (self.upper - self.lower) * rng.random((count, len(self.lower)))

    def loss(self, z: Array, x: Inputs) -> Array:
        return self.law.loss(self.theta(z), x)

    def derivatives(self, z: Array, x: Inputs) -> tuple[Array, Array]:
        """Loss (B, M), and its derivatives by z, (B, P, M)."""
        theta = self.theta(z)
        loss, slopes = self.law(theta, x)
        return loss, slopes * np.where(self.log, theta, 1.0)[:, :, None]

    def solve_linear(self, z: Array, x: Inputs, y: Array) -> Array:
        """The linear parameters of each start by ridge regression; what leaves the bounds is put on them."""
        linear = list(self.law.linear)
        if not linear:
            return z
        theta = self.theta(z)
        theta[:, linear] = 0.0
        rest, slopes = self.law(theta, x)
        theta[:, linear] = 1.0
        slopes = self.law(theta, x)[1][:, linear]
        size = np.sqrt((slopes**2).mean(axis=-1))
        slopes = slopes / size[:, :, None]
        system = slopes @ slopes.transpose(0, 2, 1) + 4e-5 * np.eye(len(linear))
        solution = np.linalg.solve(system, slopes @ (y - rest)[:, :, None])[..., 0] / size
        theta[:, linear] = np.clip(solution, self.law.lower[linear], self.law.upper[linear])
        return self.of(theta)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """|W (f - y)|^2 + prior sum ((z - middle) / sd_z)^2, f and y losses, or log losses where there is a W (M, M)."""

    coordinates: Coordinates
    x: Inputs
    y: Array
    whiten: Array | None = None
    prior: float = 0.0

    def residuals(self, loss: Array) -> Array:
        r = loss - self.y
        if self.whiten is not None:
            r = (np.log(np.maximum(loss, 1e-3)) - np.log(self.y)) @ self.whiten.T
        return np.clip(np.nan_to_num(r, nan=1e8), -1e8, 1e8)

    def value(self, z: Array, r: Array | None = None) -> Array:
        if r is None:
            r = self.residuals(self.coordinates.loss(z, self.x))
        off = (z - self.coordinates.middle) / self.coordinates.sd
        return (r * r).sum(axis=1) + self.prior * (off * off).sum(axis=1)

    def scores(self, z: Array) -> tuple[Array, Array, Array]:
        """Value (B,), half its gradient (B, P), and the Gauss-Newton matrix (B, P, P)."""
        loss, slopes = self.coordinates.derivatives(z, self.x)
        r = self.residuals(loss)
        if self.whiten is not None:
            slopes = (slopes / np.maximum(loss, 1e-3)[:, None, :]) @ self.whiten.T
        slopes = np.nan_to_num(np.clip(slopes, -1e12, 1e12))
        precision = self.prior / self.coordinates.sd**2
        gradient = (slopes @ r[:, :, None])[..., 0] + precision * (z - self.coordinates.middle)
        return self.value(z, r), gradient, slopes @ slopes.transpose(0, 2, 1) + np.diag(precision)


def descend(objective: Objective, z: Array, *, steps: int, tolerance: float) -> tuple[Array, Array]:
    """Levenberg and Marquardt's method from many starts at once, coordinates on a bound that push outward held."""
    lower, upper = objective.coordinates.lower, objective.coordinates.upper
    z = np.clip(z, lower, upper)
    value, gradient, matrix = objective.scores(z)
    damping, quiet, active = np.full(len(z), 1e-2), np.zeros(len(z), dtype=int), np.arange(len(z))
    diagonal = np.arange(z.shape[1])
    for _ in range(steps):
        if not active.size:
            break
        here, g, h = z[active], gradient[active], matrix[active]
        free = ~(((here <= lower) & (g > 0)) | ((here >= upper) & (g < 0)))
        scale = np.sqrt(np.maximum(h[:, diagonal, diagonal], 1e-300))
        scale = np.where(scale < 1e-140, 1.0, scale)
        system = np.where(free[:, :, None] & free[:, None, :], h / scale[:, :, None] / scale[:, None, :], 0.0)
        system[:, diagonal, diagonal] += np.where(free, damping[active][:, None] + 1e-15, 1.0)
        step = -np.linalg.solve(system, np.where(free, g / scale, 0.0)[..., None])[..., 0] / scale
        trial = np.clip(here + np.nan_to_num(step), lower, upper)
        reached = objective.value(trial)
        better = reached < value[active]
        small = value[active] - reached < tolerance * value[active]
        quiet[active] = np.where(better & small, quiet[active] + 1, np.where(better, 0, quiet[active]))
        moved = active[better]
        if moved.size:
            z[moved] = trial[better]
            value[moved], gradient[moved], matrix[moved] = objective.scores(z[moved])
        damping[active] = np.where(better, np.maximum(0.1 * damping[active], 1e-14), 10 * damping[active])
        active = active[(quiet[active] < 3) & (damping[active] < 1e9)]
    return z, value


def least_squares(
    coordinates: Coordinates,
    x: Inputs,
    y: Array,
    rng: np.random.Generator,
    *,
    warm: Array | None = None,
    n_starts: int = N_STARTS,
    scan: int = 1500,
    steps: tuple[int, int] = (200, 1000),
) -> tuple[Array, Array]:
    """The best local optima of the sum of squares, best first: z (at most 12, P) and their sums of squares.

    Of ``scan`` draws, linear parameters solved, the best ``n_starts`` and those in ``warm`` are followed for some steps
    and the best of them to the end: farseer's valleys take a thousand steps.
    """
    objective = Objective(coordinates=coordinates, x=x, y=y)
    z = coordinates.solve_linear(coordinates.draw(rng, scan), x, y)
    z = z[np.argsort(objective.value(z), kind="stable")[:n_starts]]
    if warm is not None:
        z = np.concatenate([warm, z])
    z, value = descend(objective, z, steps=steps[0], tolerance=1e-6)
    z, value = descend(objective, z[np.argsort(value, kind="stable")[:12]], steps=steps[1], tolerance=1e-9)
    order = np.argsort(value, kind="stable")
    return z[order], value[order]


def protocol_fit(
    law: Law, x: Inputs, y: Array, rng: np.random.Generator, *, log_starts: bool, warm: Array | None = None
) -> tuple[Array, Array]:
    """(P,) of the published fit, with ``warm`` starts (z) in place of some random ones, and without.

    The published code draws the starts of positive parameters on a logarithmic scale for its designs and for all data,
    and uniformly for random and cheapest first; its designs start from their own earlier fits too.
    """
    coordinates = Coordinates(law)
    share = rng.random((N_STARTS, len(law.bounds)))
    starts = law.lower + (law.upper - law.lower) * share
    if log_starts:
        starts = coordinates.theta(coordinates.lower + (coordinates.upper - coordinates.lower) * share)

    def mean_square(theta: Array) -> tuple[float, Array]:
        loss, slopes = law(theta[None], x)
        r = loss[0] - y
        return float(r @ r) / len(y), slopes[0] @ r * (2.0 / len(y))

    def ends(starts: Array) -> list[tuple[float, Array]]:
        found = [
            minimize(
                mean_square,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=law.bounds,
                options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-10},
            )
            for start in starts
        ]
        return [(float(end.fun) if np.isfinite(end.fun) else np.inf, end.x) for end in found]

    cold = ends(starts)
    mixed = cold if warm is None else [*ends(coordinates.theta(warm)), *cold[: N_STARTS - len(warm)]]
    return min(mixed, key=lambda end: end[0])[1], min(cold, key=lambda end: end[0])[1]


def own_fit(task: Task, law: Law, runs: Sequence[int], rng: np.random.Generator) -> Array:
    """(Q,) predicted losses by the belief that the design has too: log loss is the law, a misfit and noise.

    Generalised least squares with weak priors from the bounds, local optima averaged by their probability, and the
    misfit predicted from its values at the runs (universal kriging). A residual beyond two robust standard deviations
    widens its own noise, as in Huber's weights.
    """
    coordinates, at, m = Coordinates(law), positions(task), len(runs)
    x, y = task.pool.rows(runs), task.losses[list(runs)]
    z, _ = least_squares(coordinates, x, y, rng)
    where = np.concatenate([at[list(runs)], at[len(task.pool) :]])
    alike = MISFIT * correlation(where)

    def residual(z: Array) -> Array:
        return np.log(y) - np.log(np.maximum(coordinates.loss(z, x), 1e-3))

    sd = max(1.4826 * float(np.median(np.abs(residual(z[:1])))), 5e-4)
    for _ in range(2):
        widened = np.maximum(1.0, np.abs(residual(z[:1])[0]) / (2 * sd)) ** 2
        covariance = sd**2 * (alike[:m, :m] + np.diag(widened - MISFIT))
        whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        objective = Objective(coordinates=coordinates, x=x, y=y, whiten=whiten, prior=0.1)
        z, value = descend(objective, z, steps=400, tolerance=1e-8)
        order = np.argsort(value, kind="stable")
        z, value = z[order], value[order]
    weight = np.exp(-0.5 * (value - value[0]))
    misfit = residual(z) @ np.linalg.solve(covariance, sd**2 * alike[:m, m:])  # (B, Q)
    return (weight / weight.sum()) @ (coordinates.loss(z, task.target) * np.exp(misfit))


def positions(task: Task) -> Array:
    """(M + Q, 3) logarithms of the inputs in units of their range; (M + Q, 2) where nothing is repeated."""
    both = task.pool.followed_by(task.target)
    columns = [both.ln, both.ld] if np.array_equal(both.u, both.n) else [both.lu, both.ln, both.ld]
    return np.stack([c / np.ptp(c) for c in columns], axis=1)


def correlation(at: Array) -> Array:
    """Matern 3/2 between all points, with the inputs' own range as its length."""
    distance = np.sqrt(3.0) * np.sqrt(((at[:, None] - at[None]) ** 2).sum(axis=-1))
    return (1.0 + distance) * np.exp(-distance)


# Designs ------------------------------------------------------------------------------------------------------------


class Design:
    """Names runs one by one; None when it wants no more before the next checkpoint."""

    fits: Array | None = None
    """(at most 8, P) local optima in z when it last fitted."""

    def propose(self, bought: Sequence[int], spent: float, until: float) -> int | None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Bought:
    runs: list[int]
    fits: Array | None = None
    """The design's own earlier fits, see `Design.fits`."""


def buy(design: Design, cost: Array) -> list[Bought]:
    """What a design has at each checkpoint, by the benchmark's rule.

    Runs are taken while less than the checkpoint is spent; one that would pass it is kept back and charged at the next.
    """
    bought: list[int] = []
    kept_back: int | None = None
    spent = 0.0
    out: list[Bought] = []
    for until in CHECKPOINTS:
        if kept_back is not None:
            bought, spent, kept_back = [*bought, kept_back], spent + float(cost[kept_back]), None
        while spent < until - 1e-15 and len(bought) < len(cost):
            run = design.propose(bought, spent, until)
            if run is None:
                break
            if spent + float(cost[run]) > until + 1e-15:
                kept_back = run
                break
            bought, spent = [*bought, run], spent + float(cost[run])
        out.append(Bought(list(bought), design.fits))
    return out


class InOrder(Design):
    def __init__(self, order: NDArray[np.intp]) -> None:
        self._order = order

    def propose(self, bought: Sequence[int], spent: float, until: float) -> int | None:
        return int(self._order[len(bought)])


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a designed sweep believes of runs that it has not made."""

    spread: bool
    """The first runs are far apart in the logarithms of their inputs, from near the target; else the cheapest."""
    first_runs: float = 2.5
    """In multiples of the law's parameters; they may take a tenth of the first checkpoint."""
    misfit: float
    """Share of the residuals' variance that neighbouring runs have in common: what the form cannot express. Many small
    runs beside each other do not average it away, and a run near the target tells of it."""
    prior_sd: float
    """Of a residual, as a share of the loss, before any is seen."""
    prior_runs: float = 4.0
    """How many runs that counts for."""
    n_optima: int
    """Local optima of the fit that are believed in at once, by their likelihood."""
    cost_power: float
    """A run is worth its drop of the target's variance over its cost to this power. With 1 only the cheapest are ever
    bought, with 0 only the dearest; the published designs use 0.3 and 0.4."""
    whole_budget: bool
    """Considers only runs that the present checkpoint pays for; else one that overshoots is kept back."""


V_OPTIMAL = Policy(spread=False, misfit=0.0, prior_sd=0.1, n_optima=1, cost_power=0.3, whole_budget=False)
MSPE = Policy(spread=False, misfit=0.0, prior_sd=0.1, n_optima=6, cost_power=0.4, whole_budget=False)
OURS = Policy(spread=True, misfit=MISFIT, prior_sd=0.03, n_optima=6, cost_power=0.4, whole_budget=True)


CHANGE = 0.02
"""Share of a checkpoint that is not worth spending: only tiny runs can be had for it, far from the target."""


@dataclass
class Adaptive(Design):
    """Fits the law to what was bought, plans the rest of the budget, buys a quarter of the plan, fits again."""

    policy: Policy
    task: Task
    law: Law
    rng: np.random.Generator
    together: Array
    """(R, M + Q) factors of the correlation of the misfit between runs and targets."""
    _queue: list[int] = field(default_factory=list)

    def propose(self, bought: Sequence[int], spent: float, until: float) -> int | None:
        if not bought and not self._queue:
            self._queue = first_runs(self.task, self.policy, len(self.law.bounds))
        if not self._queue and self.policy.whole_budget and until - spent < CHANGE * until:
            return None
        if not self._queue:
            plan = self._plan(bought, until - spent)
            self._queue = plan[: -(-len(plan) // 4)]
        if self._queue and self.policy.whole_budget and self.task.cost[self._queue[0]] > until - spent + 1e-15:
            self._queue = []
            return None
        return self._queue.pop(0) if self._queue else None

    def _plan(self, bought: Sequence[int], left: float) -> list[int]:
        """Runs in the order of their worth, each given those before it, until ``left`` is spent."""
        cost, noise, *ensemble = self.task.cost, *self._believe(bought)
        foreseen, target, log_weights = ensemble
        open_ = np.ones(len(cost), dtype=bool)
        open_[list(bought)] = False
        plan: list[int] = []
        while len(plan) < 40:
            can = open_ & (cost <= left) if self.policy.whole_budget else open_
            if not can.any() or left <= 0:
                break
            drop = variance_drop(foreseen, noise, target, log_weights=log_weights)
            best = int(np.argmax(np.where(can, drop / cost**self.policy.cost_power, -1.0)))
            plan.append(best)
            open_[best], left = False, left - float(cost[best])
            foreseen, target = expecting(foreseen, target, [best], noise, log_weights=log_weights)
        return plan

    def _believe(self, bought: Sequence[int]) -> tuple[Array, Array, Array, Array]:
        """Noise (M,), and an ensemble for `raysplit.design.criteria`: foreseen log losses, target losses, log weights.

        Around each local optimum the ensemble is made of sigma points, two for each parameter's prior and two for each
        factor of the misfit, so that its covariance is exact, and then conditioned on what was bought.
        """
        task, policy = self.task, self.policy
        coordinates = Coordinates(self.law)
        x, y = task.pool.rows(bought), task.losses[list(bought)]
        z, squares = least_squares(coordinates, x, y, self.rng, warm=self.fits, n_starts=24, scan=600, steps=(60, 600))
        self.fits = z[:8]
        fitted = np.maximum(coordinates.loss(z[:1], x)[0], 0.05)
        freedom = max(len(y) - z.shape[1], 0)
        seen = float(np.sum(((fitted - y) / fitted) ** 2))
        sd = float(np.sqrt((policy.prior_runs * policy.prior_sd**2 + seen) / (policy.prior_runs + freedom)))
        scale = sd * float(np.median(y))
        likelihood = -0.5 * (squares - squares[0]) / scale**2
        kept = self._distinct(coordinates.loss(z, task.target), likelihood, 0.3 * scale)
        n_pool = len(task.pool)
        noise = np.full(n_pool, sd * np.sqrt(1.0 - policy.misfit))
        both = task.pool.followed_by(task.target)
        misfit = self.together * sd * np.sqrt(policy.misfit)
        parts = []
        for k in kept:
            loss, slopes = coordinates.derivatives(z[k : k + 1], both)
            loss = np.clip(loss[0], 0.05, 50.0)
            slopes = np.nan_to_num(np.clip(slopes[0] * coordinates.sd[:, None], -1e3, 1e3))
            apart = np.concatenate([slopes / loss, misfit]) if policy.misfit else slopes / loss
            apart = apart * np.sqrt(len(apart))
            points = np.concatenate([apart, -apart])
            foreseen, target = expecting(points[:, :n_pool], points[:, n_pool:], bought, noise)
            weight = np.full(len(points), likelihood[k] - np.log(len(points)))
            parts.append((np.log(loss[:n_pool]) + foreseen, loss[n_pool:] * (1.0 + target), weight))
        foreseen, target, log_weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        return noise, foreseen, target, log_weights

    def _distinct(self, target: Array, likelihood: Array, apart: float) -> list[int]:
        kept = [0]
        for k in range(1, len(target)):
            if len(kept) == self.policy.n_optima or likelihood[k] < -6:
                break
            if np.isfinite(target[k]).all() and all(
                np.sqrt(np.mean((target[k] - target[j]) ** 2)) > apart for j in kept
            ):
                kept.append(k)
        return kept


def misfit_factors(task: Task, rank: int = 60) -> Array:
    """(R, M + Q) factors of the misfit's correlation."""
    values, vectors = np.linalg.eigh(correlation(positions(task)))
    return (vectors[:, ::-1][:, :rank] * np.sqrt(np.maximum(values[::-1][:rank], 0.0))).T


def first_runs(task: Task, policy: Policy, n_parameters: int) -> list[int]:
    n, allowance = int(policy.first_runs * n_parameters), 0.1 * CHECKPOINTS[0]
    if not policy.spread:
        order = np.argsort(task.cost, kind="stable")[:n]
        return [int(i) for i in order[np.cumsum(task.cost[order]) <= 2 * CHECKPOINTS[0]]]
    at = positions(task)
    pool, target = at[: len(task.pool)], at[len(task.pool) :]
    open_ = np.flatnonzero(task.cost <= allowance / n)
    to_target = ((pool[open_][:, None] - target[None]) ** 2).sum(axis=-1).min(axis=1)
    chosen = [int(open_[to_target.argmin()])]
    nearest = np.full(len(open_), np.inf)
    while len(chosen) < min(n, len(open_)):
        nearest = np.minimum(nearest, ((pool[open_] - pool[chosen[-1]]) ** 2).sum(axis=-1))
        chosen.append(int(open_[nearest.argmax()]))
    return chosen


# The comparison -----------------------------------------------------------------------------------------------------

METHODS = ("random", "cheapest", "v-optimal", "mspe", "ours")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    task: Task
    law: Law
    method: str
    seed: int
    protocol: bool
    """Fit with plain L-BFGS-B too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    task: str
    law: str
    method: str
    fit: str
    seed: int
    r2: tuple[float, ...]
    runs: tuple[int, ...]
    spent: tuple[float, ...]


def score(job: Job) -> list[Score]:
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    task, law = job.task, job.law
    coordinates = Coordinates(law)
    rng = np.random.default_rng([job.seed, METHODS.index(job.method) if job.method in METHODS else 99])
    if job.method == "all data":
        bought = [Bought(list(range(len(task.pool))))] * len(CHECKPOINTS)
    else:
        bought = buy(design_of(job, rng), task.cost)
    predicted: dict[str, list[Array]] = {}
    for k, (runs, fits_before) in enumerate((b.runs, b.fits) for b in bought):
        if job.method == "all data" and k:
            for fits in predicted.values():
                fits.append(fits[0])
            continue
        x, y = task.pool.rows(runs), task.losses[runs]
        z, _ = least_squares(coordinates, x, y, np.random.default_rng([job.seed, 1, k]))
        predicted.setdefault("optimum", []).append(coordinates.loss(z[:1], task.target)[0])
        if job.method in ("ours", "all data"):
            own = own_fit(task, law, runs, np.random.default_rng([job.seed, 2, k]))
            predicted.setdefault("own", []).append(own)
        if job.protocol:
            log_starts = job.method not in ("random", "cheapest")
            seeded = np.random.default_rng([job.seed, 3, k])
            ends = protocol_fit(law, x, y, seeded, log_starts=log_starts, warm=fits_before)
            for name, theta in zip(("protocol", "cold"), ends, strict=True):
                predicted.setdefault(name, []).append(law.loss(theta[None], task.target)[0])
    return [
        Score(
            task=task.name,
            law=law.name,
            method=job.method,
            fit=fit,
            seed=job.seed,
            r2=tuple(task.r2(p) for p in losses),
            runs=tuple(len(b.runs) for b in bought),
            spent=tuple(float(task.cost[b.runs].sum()) for b in bought),
        )
        for fit, losses in predicted.items()
    ]


def design_of(job: Job, rng: np.random.Generator) -> Design:
    if job.method == "random":
        return InOrder(rng.permutation(len(job.task.cost)))
    if job.method == "cheapest":
        return InOrder(np.argsort(job.task.cost, kind="stable"))
    policy = {"v-optimal": V_OPTIMAL, "mspe": MSPE, "ours": OURS}[job.method]
    return Adaptive(policy=policy, task=job.task, law=job.law, rng=rng, together=misfit_factors(job.task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--protocol-seeds", type=int, default=3, help="of ours that get the slow L-BFGS-B fits too")
    parser.add_argument("--check-seeds", type=int, default=2, help="of every design but ours")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=[*METHODS, "all data"])
    arguments = parser.parse_args()
    began = time.perf_counter()
    jobs = [
        Job(task=task, law=law, method=method, seed=seed, protocol=seed < arguments.protocol_seeds)
        for method in sorted(arguments.methods, key=lambda m: m != "ours")
        for task in read_tasks(arguments.shared / "scalebench")
        for law in task.laws
        for seed in range(arguments.seeds if method == "ours" else arguments.check_seeds)
    ]
    with Pool(arguments.processes) as pool:
        scores = [s for batch in pool.imap_unordered(score, jobs) for s in batch]
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, {time.perf_counter() - began:.0f} s"
    )
    report(scores)
    same_optimum(read_tasks(arguments.shared / "scalebench"))


def report(scores: Sequence[Score]) -> None:
    for task in dict.fromkeys(s.task for s in sorted(scores, key=lambda s: s.task, reverse=True)):
        print(f"\n{task}: R2 on the target at 1, 5 and 10 % of the pool's cost, mean +- deviation (published)")
        print(f"  {'design':10} {'fit':9} {'seeds':>5} {'1 %':>23} {'5 %':>23} {'10 %':>23}   runs")
        for method in ("random", "cheapest", "all data", "v-optimal", "mspe", "ours"):
            for fit in ("cold", "protocol", "optimum", "own"):
                mine = [s for s in scores if (s.task, s.method, s.fit) == (task, method, fit)]
                if mine:
                    print(line(task, method, fit, mine))
        print("  ours, form by form, protocol | own fit (mean over seeds)")
        for law in dict.fromkeys(s.law for s in sorted(scores, key=lambda s: (len(s.law), s.law)) if s.task == task):
            shown = []
            for fit in ("protocol", "own"):
                mine = [s for s in scores if (s.task, s.law, s.method, s.fit) == (task, law, "ours", fit)]
                if mine:
                    shown.append(" ".join(f"{v:6.3f}" for v in np.mean([s.r2 for s in mine], axis=0)))
            print(f"    {law:8} {' | '.join(shown)}")


def line(task: str, method: str, fit: str, mine: Sequence[Score]) -> str:
    mean, sd = np.mean([s.r2 for s in mine], axis=0), np.std([s.r2 for s in mine], axis=0)
    known = "mspe" if method == "ours" else method
    published = PUBLISHED[task][known]
    deviation = PUBLISHED_DEVIATION.get((task, known))
    cells = []
    for k in range(len(CHECKPOINTS)):
        beside = f"{published[k]:.2f}" + (f"+-{deviation[k]:.2f}" if deviation else "")
        cells.append(f"{mean[k]:.3f}+-{sd[k]:.3f} ({beside})".rjust(23))
    runs = "/".join(f"{r:.0f}" for r in np.mean([s.runs for s in mine], axis=0))
    n_seeds = len({s.seed for s in mine})
    return f"  {method:10} {fit:9} {n_seeds:5} {' '.join(cells)}   {runs}"


def same_optimum(tasks: Sequence[Task]) -> None:
    print("\nSum of squares of the protocol's fit over that of `least_squares`, 40 runs spread over the pool")
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    for task in tasks:
        runs = np.argsort(task.cost, kind="stable")[np.linspace(0, len(task.cost) - 1, 40).round().astype(int)]
        x, y = task.pool.rows(runs), task.losses[runs]
        for law in task.laws:
            began = time.process_time()
            z, value = least_squares(Coordinates(law), x, y, np.random.default_rng(0))
            fast = time.process_time() - began
            ends = protocol_fit(law, x, y, np.random.default_rng(0), log_starts=True, warm=z[:8])
            slow = time.process_time() - began - fast
            warm, cold = (float(((law.loss(end[None], x)[0] - y) ** 2).sum()) / value[0] for end in ends)
            print(
                f"  {law.name:8} 64 random starts {cold:9.5f}   8 of them from least_squares {warm:.7f}"
                f"   processor seconds {fast:.2f} and {slow:.2f}"
            )


if __name__ == "__main__":
    main()
