"""What an expert loses elsewhere: its loss on general text beside its base's, by N, D' and the share replayed.

    log G(N, D', p) - log G(N, 0) = A (D' / s1)^b ((1 + B p) N / n1)^-a + E

After Bethune et al. (2502.06042), whose forgetting grows as a power of the tokens and falls with size and with the
share p of general text among them, which counts as a model (1 + B p) times as large. Theirs is in nats and this one in
logarithms. E is what a branch costs or gains however short it is; n1 and s1 are the middles of the runs. Each domain
has parameters of its own, with weak priors, and normal draws around their best fit.

Notation
    K   domains          B   draws (as an axis)          R   runs of a domain
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from raysplit.errors import LawError
from raysplit.law.form import Array
from raysplit.runs import BASE, GENERAL_LOSS, REPLAY_SHARE

PARAMETERS = ("log A", "log b", "log a", "log B", "E")
_PRIOR_MEAN = np.array([math.log(0.02), math.log(0.6), math.log(0.4), math.log(30.0), 0.0])
_PRIOR_SD = np.array([2.0, 0.5, 0.7, 1.5, 0.01])
_FEWEST_RUNS = 4
_USUAL_NOISE, _USUAL_RUNS = 0.005, 3.0
"""Log sd of a run around this, before any residual, and as how many runs that weighs."""


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Made by `fit_forgetting`."""

    domains: tuple[str, ...]
    middle: tuple[float, float]
    """n1 and s1."""
    noise: Array  # (K,), log sd of one run
    draws: Array  # (B, K, 5)

    def rise(self, domain: str, n_params: float, specialize_tokens: Array | float, replay_share: float) -> Array:
        """Share by which an expert's general loss is above its base's, in each draw, (B, *specialize_tokens)."""
        s = np.asarray(specialize_tokens, dtype=float)
        theta = self.draws[:, self.domains.index(domain)]
        theta = theta.reshape(len(theta), *(1,) * s.ndim, len(PARAMETERS))
        return np.expm1(_log_rise(theta, np.asarray(n_params / self.middle[0]), s / self.middle[1], replay_share))

    def most_tokens(
        self, domain: str, n_params: float, replay_share: float, *, max_rise: float, level: float, most: float
    ) -> float:
        """The most D' up to ``most`` at which the rise is below a limit with this probability; 0 where none is."""
        tokens = np.geomspace(most * 1e-4, most, 401)
        high = np.quantile(self.rise(domain, n_params, tokens, replay_share), level, axis=0)
        allowed = np.flatnonzero(high > max_rise)
        if not allowed.size:
            return most
        return float(tokens[allowed[0] - 1]) if allowed[0] else 0.0


def fit_forgetting(runs: pd.DataFrame, *, n_draws: int = 64, seed: int = 0) -> Forgetting:
    """Fit the rise of each domain's experts.

    Args:
        runs: a checked table of continued pretraining (`raysplit.runs.check_runs`) with the column ``general_loss``.
        n_draws: of the posterior.
        seed: of the draws.

    Raises:
        LawError: a base's own general loss is not known, or a domain has too few runs.
    """
    known = runs[runs[GENERAL_LOSS].notna()]
    of_base = known[known["specialize_tokens"] == 0].groupby(BASE)[GENERAL_LOSS].mean()
    branches = known[known["specialize_tokens"] > 0]
    for name in branches[BASE].unique():
        if name not in of_base.index:
            raise LawError(f"general_loss of base {name!r} is not known: give it in a row with specialize_tokens = 0")
    shares = branches[REPLAY_SHARE] if REPLAY_SHARE in branches else pd.Series(0.0, index=branches.index)
    points = pd.DataFrame(
        {
            "domain": branches["domain"], "n": branches["n_params"].astype(float),
            "s": branches["specialize_tokens"].astype(float), "p": shares,
            "rise": np.log(branches[GENERAL_LOSS] / branches[BASE].map(of_base)),
        }
    )  # fmt: skip
    domains = tuple(sorted(runs["domain"].unique()))
    for name in domains:
        if (n_runs := int((points["domain"] == name).sum())) < _FEWEST_RUNS:
            raise LawError(
                f"domain {name!r} has {n_runs} runs with a general_loss; {_FEWEST_RUNS} begin to tell a curve"
            )
    middle = (float(np.exp(np.log(points["n"]).mean())), float(np.exp(np.log(points["s"]).mean())))
    rng = np.random.default_rng(seed)
    fits = [_fit(points[points["domain"] == name], middle, n_draws, rng) for name in domains]
    return Forgetting(
        domains=domains,
        middle=middle,
        noise=np.array([noise for noise, _ in fits]),
        draws=np.stack([draws for _, draws in fits], axis=1),
    )


def _log_rise(theta: Array, n: Array, s: Array, p: Array | float) -> Array:
    log_a, log_b, log_alpha, log_replay, start = np.moveaxis(theta, -1, 0)
    with np.errstate(divide="ignore"):
        log_tokens = np.log(s)
    size = np.log1p(np.exp(log_replay) * p) + np.log(n)
    grown = np.exp(log_a + np.exp(log_b) * log_tokens - np.exp(log_alpha) * size)
    return np.asarray(np.where(s > 0, grown + start, 0.0))


def _fit(
    points: pd.DataFrame, middle: tuple[float, float], n_draws: int, rng: np.random.Generator
) -> tuple[float, Array]:
    """Noise of one run, and draws (B, 5)."""
    n, s, p, rise = (points[name].to_numpy() for name in ("n", "s", "p", "rise"))
    noise = _USUAL_NOISE
    for _ in range(3):

        def left(theta: Array, sd: float = noise) -> Array:
            off = (_log_rise(theta, n / middle[0], s / middle[1], p) - rise) / sd
            return np.concatenate([off, (theta - _PRIOR_MEAN) / _PRIOR_SD])

        starts: Sequence[Array] = [_PRIOR_MEAN + shift * _PRIOR_SD for shift in (-1.0, 0.0, 1.0)]
        found = min((least_squares(left, start) for start in starts), key=lambda one: one.cost)
        off = found.fun[: rise.size] * noise
        freedom = max(rise.size - len(PARAMETERS) / 2, 1.0)
        noise = math.sqrt((off @ off + _USUAL_RUNS * _USUAL_NOISE**2) / (freedom + _USUAL_RUNS))
    jacobian = np.asarray(found.jac)
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    return noise, rng.multivariate_normal(found.x, covariance, size=n_draws)
