"""The functions that a form's misfit is made of (`raysplit.law.discrepancy`): what it may be, not how large it is.

They take the scaled logarithms t = (t_N, t_D, t_D') of N, D + d0 and D' + s0, which lie between -1 and 1 where the runs
are. Beyond the runs t grows ever more slowly, to 1.25, so that a far extrapolation is wide and not absurd. Three kinds:

    smooth      exp(-|t|^2 / 2 l^2) times the monomials of t up to the third degree, so scaled that independent normal
                coefficients of one sd make a Gaussian process of that sd with the squared exponential kernel of
                length l, exp(-|t|^2 / 2 l^2) exp(-|t'|^2 / 2 l^2) sum_j (t.t' / l^2)^j / j!, cut at j = 3
    of a size   hats over log N: how well width, depth and learning rate suit a size is not smooth in N. On both
                measured surfaces one of four sizes is off by 0.7 or 4 % at nearly every D and D' (LOG 2026-11-30)
    unbranched  1 at D' = 0, where a seed is read after a cooldown of its own

Notation
    K   domains          M   features          B   draws          P   points
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from raysplit.law.form import Array

_DEGREE = 3
_SMOOTH = [e for e in product(range(_DEGREE + 1), repeat=3) if sum(e) <= _DEGREE]
"""Exponents of t_N, t_D and t_D'."""
_IN_ND = sorted({(i, j) for i, j, _ in _SMOOTH})
_N_SIZES = 8
"""Hats, from a quarter of the least size to four times the greatest."""
_ROWS = len(_IN_ND) + _N_SIZES
"""Functions of N and D alone."""
N_FEATURES = len(_SMOOTH) + _N_SIZES + 1
LENGTH = 1.3
"""l, in half widths of what the runs span."""
_LEAST_HALF_WIDTH = math.log(2.0)
"""Of a scaled logarithm, so that runs of one size do not make a double of it look infinitely far."""
_BESIDE = math.log(4.0)
_REACH = 0.25
"""Beyond the runs t exceeds 1 by at most this."""


def _root_factorial(i: int) -> float:
    return math.sqrt(math.factorial(i)) * LENGTH**i


_SCALE = np.array([math.prod(map(_root_factorial, e)) for e in _SMOOTH] + [1.0] * _N_SIZES)
_POWER = np.array([k for _, _, k in _SMOOTH] + [_DEGREE + 1] * _N_SIZES)
"""Power of t_D' that each feature has; the hats have none, which the last index stands for."""
_ROW = np.array([_IN_ND.index((i, j)) for i, j, _ in _SMOOTH] + list(range(len(_IN_ND), _ROWS)))
"""Index of the function of N and D in each feature."""
_OF_POWER = [np.flatnonzero(power == _POWER) for power in range(_DEGREE + 2)]
"""The features of each power."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Basis:
    """The features for one table of runs."""

    centre: tuple[float, float, float]
    half_width: tuple[float, float, float]
    offsets: tuple[float, float]
    """d0 and s0, tokens: the least D and D' above zero that were measured."""

    @classmethod
    def of(cls, n: Array, d: Array, s: Array) -> "Basis":
        """For runs (R,) of all domains."""
        offsets = tuple(float(x[x > 0].min()) if (x > 0).any() else 1.0 for x in (d, s))
        logs = [np.log(n), np.log(d + offsets[0]), np.log(s + offsets[1])]
        return cls(
            centre=tuple(float(x.max() + x.min()) / 2 for x in logs),  # type: ignore[arg-type]
            half_width=tuple(max(float(x.max() - x.min()) / 2, _LEAST_HALF_WIDTH) for x in logs),  # type: ignore[arg-type]
            offsets=offsets,  # type: ignore[arg-type]
        )

    def features(self, n: Array, d: Array, s: Array) -> Array:
        """(R, M) of runs (R,)."""
        t, _ = _scaled(self._raw(2, s))
        rows, powers = self._rows(n, d), np.stack([*_powers(t), np.ones_like(t)], axis=-1)
        return np.concatenate([rows[:, _ROW] * powers[:, _POWER] / _SCALE, (s == 0)[:, None]], axis=1)

    def evaluate(self, coefficients: Array, n: Array, d: Array, s: Array, *, slope: bool) -> tuple[Array, Array | None]:
        """Sum of the features times coefficients and, if wanted, its derivative by D'.

        A search asks for many D' at one N and D, so powers of t_D' are summed by Horner's rule.

        Args:
            coefficients: (B, K, M)
            n, d, s: (1 or B, *points, 1 or K), all of as many axes.
            slope: whether the derivative is wanted, per token.

        Returns:
            (B, *points, K) each.
        """
        raw = self._raw(2, s)
        t, growth = _scaled(raw)
        *powers, of_size = self._by_power(coefficients, n, d)
        # In place and in the order of the axes, since a search spends its time here.
        g = np.empty(np.broadcast_shapes(of_size.shape, t.shape))
        g[...] = powers[_DEGREE]
        by_t = _DEGREE * g if slope else g
        for k in reversed(range(_DEGREE)):
            if slope and k:
                by_t *= t
                by_t += k * powers[k]
            g *= t
            g += powers[k]
        bound = _bound(t)
        g *= bound
        by_tokens = None
        if slope:
            by_tokens = (bound * by_t - t / LENGTH**2 * g) * growth / (self.half_width[2] * (s + self.offsets[1]))
        g += of_size
        if (s == 0).any():
            unbranched = coefficients[..., -1].reshape(len(coefficients), *(1,) * (s.ndim - 2), -1)
            g += np.where(s == 0, unbranched, 0.0)
        return g, by_tokens

    def _by_power(self, coefficients: Array, n: Array, d: Array) -> list[Array]:
        """Factors of 1, t_D', t_D'^2 and t_D'^3, then what N adds by its hats, (B, *points, K) each."""
        rows = self._rows(n, d)
        n_draws, n_domains = coefficients.shape[:2]
        points, out = rows.shape[1:-2], []
        for features in _OF_POWER:
            of_nd, by = rows[..., _ROW[features]] / _SCALE[features], coefficients[..., features]
            if rows.shape[-2] == 1:  # the same for all domains, as a rule
                found = np.matmul(of_nd.reshape(len(rows), -1, features.size), by.swapaxes(1, 2))
            else:
                each = of_nd.reshape(len(rows), -1, n_domains, features.size)
                found = np.einsum("bpkr,bkr->bpk", np.broadcast_to(each, (n_draws, *each.shape[1:])), by)
            out.append(found.reshape(n_draws, *points, n_domains))
        return out

    def _rows(self, n: Array, d: Array) -> Array:
        """The functions of N and D, (..., rows)."""
        t_n, t_d = np.broadcast_arrays(*(_scaled(self._raw(axis, x))[0] for axis, x in enumerate((n, d))))
        first = self.centre[0] - self.half_width[0] - _BESIDE
        spacing = 2.0 * (self.half_width[0] + _BESIDE) / (_N_SIZES - 1)
        at = np.clip((np.log(n) - first) / spacing, 0.0, _N_SIZES - 1.0)
        hats = np.maximum(1.0 - np.abs(at[..., None] - np.arange(_N_SIZES)), 0.0)
        rows = np.empty((*t_n.shape, _ROWS))
        rows[..., len(_IN_ND) :] = hats / np.sqrt(
            (hats**2).sum(axis=-1, keepdims=True)
        )  # the same variance between two hats as on one
        of_n, of_d = (_powers(t) for t in (t_n, t_d))
        for row, (i, j) in enumerate(_IN_ND):
            rows[..., row] = of_n[i] * of_d[j]
        return rows

    def _raw(self, axis: int, x: Array) -> Array:
        tokens = x + self.offsets[axis - 1] if axis else x
        return np.asarray((np.log(tokens) - self.centre[axis]) / self.half_width[axis])


def _scaled(raw: Array) -> tuple[Array, Array | float]:
    """t, and its derivative by what it is made of."""
    size = np.abs(raw)
    if (size <= 1.0).all():
        return raw, 1.0
    growth = np.exp(np.maximum(size - 1.0, 0.0) / -_REACH)
    return np.copysign(np.minimum(size, 1.0) + _REACH * (1.0 - growth), raw), growth


def _powers(t: Array) -> list[Array]:
    """_bound(t) t^i."""
    powers = [_bound(t)]
    for _ in range(_DEGREE):
        powers.append(powers[-1] * t)
    return powers


def _bound(t: Array) -> Array:
    return np.asarray(np.exp(-0.5 / LENGTH**2 * t * t))
