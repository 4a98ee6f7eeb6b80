"""No pretraining is a regime of its own: what it costs, beside the least pretraining that was measured.

    log L(N, 0, D') = log L(N, D1, D') + kappa (D' / s1)^-q (N / n1)^p + c

D1 is the least D > 0 that was measured, s1 and n1 the middle of the runs from scratch. The more tokens of its own a
domain has seen, the less it matters that there were none before: the first part falls nearly as 1 / D'. What is left
then is c. It is below zero where a little pretraining on other text did harm: by up to 15 % on the surface of weakly
related domains (LOG 2026-11-30). So runs with D = 0 tell four numbers of each domain, and do not bend the law of the
other runs. Between D = 0 and D1 the cost is interpolated by the factor 1 - log2(1 + D / D1).

The four are fitted for each draw of the law, with the runs moved by their noise and the priors by theirs, twice: the
second time around what all domains say together.

Notation
    K   domains          B   draws          R   runs from scratch of a domain
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysplit.law.form import Array
from raysplit.law.noise import balanced

_PRIOR_MEAN = np.array([math.log(0.08), 0.9, 0.15, 0.0])
"""Of log kappa, q, p and c."""
_PRIOR_SD = np.array([1.0, 0.35, 0.2, 0.06])
_APART_SD = np.array([0.7, 0.2, 0.1, 0.04])
"""How far domains differ."""
_USUAL_NOISE, _USUAL_RUNS = 0.02, 4.0
"""Log sd of a run from scratch around this, before any residual, and as how many runs that weighs."""
_STEPS = 12


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """The cost of no pretraining in every draw of a law."""

    least_tokens: float
    """D1"""
    middle: tuple[float, float]
    """n1 and s1."""
    least_specialize: float
    """Least D' measured from scratch, tokens; below it the cost stays what it is there."""
    known: tuple[bool, ...]
    """Whether each domain has a run from scratch. The cost of one that has none comes from the prior and from the other
    domains, and is for designs only."""
    noise: Array  # (K,), log sd of one run from scratch around the law
    mean: Array  # (K, 4), log kappa, q, p and c
    draws: Array  # (B, K, 4)

    def pretrained(self, point: Sequence[Array]) -> list[Array]:
        """The points, with D raised to D1 where it is less."""
        n, d, s = point
        return [n, np.maximum(d, self.least_tokens), s]

    def penalty(self, point: Sequence[Array], *, draw: bool) -> tuple[Array, Array] | None:
        """Log cost and its derivative by D' at points (1 or B, *points, 1 or K); None where none lies below D1."""
        n, d, s = point
        if not (d < self.least_tokens).any():
            return None
        values = self.draws if draw else self.mean[None]
        log_kappa, q, p, c = np.moveaxis(values.reshape(len(values), *(1,) * (n.ndim - 2), *values.shape[1:]), -1, 0)
        share = np.maximum(1.0 - np.log2(1.0 + np.minimum(d / self.least_tokens, 1.0)), 0.0)
        tokens = np.maximum(s, self.least_specialize)
        falling = share * np.exp(log_kappa - q * np.log(tokens / self.middle[1]) + p * np.log(n / self.middle[0]))
        return falling + share * c, np.where(s > self.least_specialize, -q * falling / tokens, 0.0)

    def of_domains(self, own: list[int]) -> "Scratch":
        """The cost of some of the domains, given by their positions."""
        return replace(
            self,
            known=tuple(self.known[k] for k in own),
            noise=self.noise[own],
            mean=self.mean[own],
            draws=self.draws[:, own],
        )

    def to_dict(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in ("noise", "mean", "draws")}
        return {**self.__dict__, **arrays}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Scratch":
        arrays = {name: np.array(raw[name]) for name in ("noise", "mean", "draws")}
        return cls(**{**raw, **arrays, "middle": tuple(raw["middle"]), "known": tuple(raw["known"])})


@dataclass(frozen=True, kw_only=True)
class ScratchRuns:
    """Runs from scratch of one domain, beside what the law says of them at D1."""

    n: Array  # (R,)
    s: Array  # (R,)
    cost: Array
    """(1 + B, R): log y - log L(N, D1, D'), for the best guess and for every draw."""


def fit_scratch(runs: Sequence[ScratchRuns], *, least_tokens: float, rng: np.random.Generator) -> Scratch:
    """Fit the cost to the runs of each domain, of which some may have none.

    Args:
        runs: One a domain.
        least_tokens: D1.
        rng: of the draws.
    """
    n_all, s_all = (np.concatenate([getattr(own, name) for own in runs]) for name in ("n", "s"))
    middle = (float(np.exp(np.log(n_all).mean())), float(np.exp(np.log(s_all).mean())))
    n_fits = len(runs[0].cost)
    stars = rng.standard_normal((len(runs), n_fits, 4))
    stars[:, 0], stars[:, 1:] = 0.0, [balanced(own) for own in stars[:, 1:]]
    luck = [rng.standard_normal(own.cost.shape) for own in runs]
    for own in luck:
        own[0], own[1:] = 0.0, balanced(own[1:])
    noise, centre, sd = (
        np.full(len(runs), _USUAL_NOISE),
        np.tile(_PRIOR_MEAN, (len(runs), n_fits, 1)),
        np.tile(_PRIOR_SD, (len(runs), 1)),
    )

    def fitted() -> tuple[Array, Array]:
        found = [
            _solved(own, middle, centre[k] + sd[k] * stars[k], sd[k], own.cost + noise[k] * luck[k], noise[k])
            for k, own in enumerate(runs)
        ]
        return np.stack([x for x, _ in found]), np.stack([variance for _, variance in found])

    for _ in range(2):
        values, variance = fitted()  # (K, 1 + B, 4)
        noise = np.array([_noise_of(own, middle, x[0]) for own, x in zip(runs, values, strict=True)])
        centre, sd = _lent(values, variance)
    values, _ = fitted()
    return Scratch(
        least_tokens=least_tokens,
        middle=middle,
        least_specialize=float(s_all.min()),
        known=tuple(bool(own.n.size) for own in runs),
        noise=noise,
        mean=values[:, 0],
        draws=values[:, 1:].swapaxes(0, 1),
    )


def _design(own: ScratchRuns, middle: tuple[float, float]) -> Array:
    """(R, 3) derivative of the log of the falling part by log kappa, q and p."""
    return np.stack([np.ones(own.n.size), -np.log(own.s / middle[1]), np.log(own.n / middle[0])], axis=-1)


def _solved(
    own: ScratchRuns, middle: tuple[float, float], centre: Array, sd: Array, cost: Array, noise: float
) -> tuple[Array, Array]:
    """Parameters (F, 4) of F fits by damped Gauss-Newton steps, and the variances of the first."""
    x, prior = _design(own, middle), np.diag(sd**-2.0)
    at = np.array(centre)
    for _ in range(_STEPS):
        falling = np.exp(at[:, :3] @ x.T)  # (F, R)
        jacobian = np.concatenate([falling[..., None] * x, np.ones((*falling.shape, 1))], axis=-1) / noise  # (F, R, 4)
        left = (cost - falling - at[:, 3:]) / noise
        hessian = jacobian.swapaxes(1, 2) @ jacobian + prior
        gradient = (jacobian.swapaxes(1, 2) @ left[..., None])[..., 0] + (centre - at) * sd**-2.0
        move = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        at = at + move * np.minimum(1.0, 1.0 / np.maximum(np.abs(move).max(axis=-1, keepdims=True), 1e-12))
    return at, np.diagonal(np.linalg.inv(hessian[0]))


def _noise_of(own: ScratchRuns, middle: tuple[float, float], values: Array) -> float:
    left = own.cost[0] - np.exp(_design(own, middle) @ values[:3]) - values[3]
    return math.sqrt((left @ left + _USUAL_RUNS * _USUAL_NOISE**2) / (max(left.size - 1.5, 0.0) + _USUAL_RUNS))


def _lent(values: Array, variance: Array) -> tuple[Array, Array]:
    """Centre (K, F, 4) and sd (K, 4) of each domain's second fit: what the others say, and the prior as one more."""
    weight = 1.0 / (variance + _APART_SD**2)  # (K, 4)
    own_prior = 1.0 / (_PRIOR_SD**2 + _APART_SD**2)
    total = weight.sum(axis=0) - weight + own_prior
    said = weight[:, None] * values
    mean = (said.sum(axis=0) - said + own_prior * _PRIOR_MEAN) / total[:, None]
    return mean, np.sqrt(_APART_SD**2 + 1.0 / total)
