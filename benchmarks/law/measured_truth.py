"""A measured grid as the truth that answers are judged by: smoothed without any form of the law, its noise kept apart.

Log losses of one domain are three surfaces: of branches over (log N, log D, log D'), of seeds that were not branched
over (log N, log D), and of runs without pretraining over (log N, log D'). Each is smoothed by a Gaussian process with a
quadratic mean and a Matern 5/2 kernel. The noise has two parts: the luck of a trunk, which its branches share, and that
of single runs. Length scales, amplitude and both noises are found by maximum likelihood. The residuals of single runs
are divided by the root of one minus their leverage, for what the smoothing took from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, RectBivariateSpline
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

Array = NDArray[np.float64]

_TABLE = 40
"""Points a side at which a surface is tabulated; between them it is a spline."""
_COLUMNS = ("n_params", "pretrain_tokens", "specialize_tokens")


@dataclass(frozen=True, kw_only=True)
class Smooth:
    """One surface, smoothed."""

    axes: tuple[int, ...]
    """Which of N, D and D' it varies over."""
    centre: Array
    spread: Array
    points: Array  # (R, axes), in units of the spread
    trend: Array
    pull: Array  # (R,)
    lengths: Array
    amplitude: float
    residuals: Array
    """(R,) log losses less the smooth, scaled for leverage."""
    left_out_error: float
    """Mean absolute log error of each point's prediction from all others."""

    @classmethod
    def of(cls, rows: pd.DataFrame, axes: tuple[int, ...]) -> "Smooth":
        logs = np.log(rows[[_COLUMNS[i] for i in axes]].to_numpy(dtype=float))
        y = np.log(rows["loss"].to_numpy(dtype=float))
        centre, spread = logs.mean(axis=0), logs.std(axis=0)
        x = (logs - centre) / spread
        trend = _quadratic(x)
        branch_point = rows[["n_params", "pretrain_tokens", "seed"]].to_numpy()
        together = (branch_point[:, None] == branch_point).all(axis=2) & (branch_point[:, 1] > 0)
        luck = (together | np.eye(len(y), dtype=bool)).astype(float)

        def parts(log_theta: Array) -> tuple[Array, Array]:
            lengths, (amplitude, shared, alone) = np.exp(log_theta[:-3]), np.exp(log_theta[-3:])
            kernel = amplitude**2 * _matern(x, x, lengths) + trend @ trend.T  # a vague prior on the mean
            return kernel, kernel + shared**2 * luck + alone**2 * np.eye(len(y))

        def misfit(log_theta: Array) -> float:
            _, covariance = parts(log_theta)
            factor = cho_factor(covariance, lower=True)
            prior = 0.5 * np.sum((log_theta[:-3] - np.log(2.0)) ** 2)
            return float(0.5 * y @ cho_solve(factor, y) + np.log(np.diag(factor[0])).sum() + prior)

        start = np.log([2.0] * len(axes) + [0.02, 0.01, 0.005])
        bounds = [(-1, 3)] * len(axes) + [(-8, 0), (-7, -2), (-7, -2)]
        theta = minimize(misfit, start, method="L-BFGS-B", bounds=bounds).x
        kernel, covariance = parts(theta)
        inverse = np.linalg.inv(covariance)
        solved = inverse @ y
        leverage = np.diag(kernel @ inverse)
        residuals = y - kernel @ solved
        return cls(
            axes=axes,
            centre=centre,
            spread=spread,
            points=x,
            trend=trend.T @ solved,
            pull=solved,
            lengths=np.exp(theta[:-3]),
            amplitude=float(np.exp(theta[-3])),
            residuals=residuals / np.sqrt(1 - leverage),
            left_out_error=float(np.abs(solved / np.diag(inverse)).mean()),
        )

    def log_loss(self, *point: Array | float) -> Array:
        """At N, D and D' that broadcast together."""
        chosen = np.broadcast_arrays(*(np.asarray(point[i], dtype=float) for i in self.axes))
        x = (np.log(np.stack([np.ravel(c) for c in chosen], -1)) - self.centre) / self.spread
        kernel = self.amplitude**2 * _matern(x, self.points, self.lengths)
        return np.asarray(_quadratic(x) @ self.trend + kernel @ self.pull).reshape(chosen[0].shape)


def _quadratic(x: Array) -> Array:
    n = range(x.shape[1])
    pairs = list(combinations_with_replacement(n, 2))
    return np.stack([np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i, j in pairs)], -1)


def _matern(x: Array, y: Array, lengths: Array) -> Array:
    r = np.sqrt(5 * (((x[:, None] - y) / lengths) ** 2).sum(axis=-1))
    return np.asarray((1 + r + r * r / 3) * np.exp(-r))


@dataclass(frozen=True, kw_only=True)
class MeasuredDomain:
    """The three surfaces of a domain, tabulated at the sizes that were measured."""

    branched: Smooth
    seeds: Smooth
    scratch: Smooth
    least: tuple[float, float]
    """The least D and D' above zero that were measured."""
    tables: Mapping[float, tuple[RectBivariateSpline, CubicSpline, CubicSpline]]
    luck: Mapping[tuple[float, ...], float]
    """(N, D, D', seed) of a run -> by how much its log loss is off, scaled for leverage."""

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "MeasuredDomain":
        n, d, s = (rows[name].to_numpy(dtype=float) for name in _COLUMNS)
        parts = [rows[(d > 0) & (s > 0)], rows[(d > 0) & (s == 0)], rows[d == 0]]
        branched, seeds, scratch = (
            Smooth.of(p, axes) for p, axes in zip(parts, ((0, 1, 2), (0, 1), (0, 2)), strict=True)
        )
        luck: dict[tuple[float, ...], float] = {}
        for part, smooth in zip(parts, (branched, seeds, scratch), strict=True):
            runs = part[[*_COLUMNS, "seed"]].itertuples(index=False, name=None)
            luck |= dict(zip(runs, smooth.residuals.tolist(), strict=True))
        at_d, at_s = (np.geomspace(x[x > 0].min(), 1.2 * x.max(), _TABLE) for x in (d, s))
        tables = {
            size: (
                RectBivariateSpline(np.log(at_d), np.log(at_s), branched.log_loss(size, at_d[:, None], at_s)),
                CubicSpline(np.log(at_d), seeds.log_loss(size, at_d, at_d)),
                CubicSpline(np.log(at_s), scratch.log_loss(size, at_s, at_s)),
            )
            for size in np.unique(n)
        }
        least = (float(at_d[0]), float(at_s[0]))
        return cls(branched=branched, seeds=seeds, scratch=scratch, least=least, tables=tables, luck=luck)

    def log_loss(self, n: Array, d: Array, s: Array) -> Array:
        """At sizes that were measured. Between zero and the least measured D, or D', log losses are interpolated."""
        n, d, s = np.broadcast_arrays(n, d, s)
        out = np.full(n.shape, np.nan)
        for size, (branched, seeds, scratch) in self.tables.items():
            here = n == size
            if not here.any():
                continue
            d_here, s_here = d[here], s[here]
            log_d, log_s = (np.log(np.maximum(x, least)) for x, least in zip((d_here, s_here), self.least, strict=True))
            of_d, of_s = (
                np.log2(1 + np.minimum(x / least, 1)) for x, least in zip((d_here, s_here), self.least, strict=True)
            )
            pretrained = (1 - of_s) * seeds(log_d) + of_s * branched.ev(log_d, log_s)
            out[here] = np.where(
                s_here > 0, (1 - of_d) * scratch(log_s) + of_d * pretrained, np.where(d_here > 0, pretrained, np.nan)
            )
        return out


def left_out_error(domains: Sequence[MeasuredDomain]) -> float:
    """Mean over domains and surfaces, as a share of the loss: what is not known of the truth, noise included."""
    parts = [part for d in domains for part in (d.branched, d.seeds, d.scratch)]
    return float(np.mean([part.left_out_error for part in parts]))
