"""What an expert loses elsewhere: its loss on general text beside its base's, by N, D, D' and the share replayed.

    log G(N, D, D', p) - log G(N, D, 0) = A (D' / s1)^b ((1 + B p) N / n1)^-a (D / d1)^c + E - R log(1 + 30 p D' / s1)

The first term is after Bethune et al. (2502.06042), whose forgetting grows as a power of the tokens and falls with size
and with the share p of general text among them, which counts as a model (1 + B p) times as large. Theirs is in nats and
this one in logarithms, and it has no D; where all bases have one D, c is its prior and without effect. E is what a
branch costs or gains however short it is; n1, s1 and d1 are the middles of the runs.

The last term is ours: what the p D' replayed tokens teach of general text again. Measured, the rise grows with D' at
p = 0 and falls with it at p = 20 %, and no term of the first kind does both. Without it the general loss of held-out
runs was off by 2.2 to 3.2 %, with it by 0.9 to 1.5 %; 10 or 100 in the place of 30 do as well (LOG 2026-12-01).

Each domain has parameters of its own, with weak priors, and normal draws around their best fit. A draw is of one expert
that is trained: its E has the luck of a run in it.

Notation
    K   domains          B   draws (as an axis)          R   runs of a domain
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import ndtri

from raysplit.errors import LawError
from raysplit.law.form import Array
from raysplit.runs import BASE, GENERAL_LOSS, REPLAY_SHARE

PARAMETERS = ("log A", "log b", "log a", "log B", "E", "c", "log R")
_PRIOR_MEAN = np.array([math.log(0.02), math.log(0.6), math.log(0.4), math.log(30.0), 0.0, 0.0, math.log(0.01)])
_PRIOR_SD = np.array([2.0, 0.5, 0.7, 1.5, 0.01, 0.3, 1.5])
_TAUGHT_AGAIN = 30.0
"""Of s1: replayed tokens from a thirtieth of the middle D' on teach as their logarithm."""
_FEWEST_RUNS = 4
_USUAL_NOISE, _USUAL_RUNS = 0.005, 3.0
"""Log sd of a run around this, before any residual, and as how many runs that weighs."""
_HIGHEST = 2.0
"""Highest log rise: a power grows without end, and a loss of seven times the base's is worse than a blind guess."""
SURE = 0.9
"""With what probability an expert stays below a limit."""


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What each domain's experts lose on general text; made by `fit_forgetting`."""

    domains: tuple[str, ...]
    middle: tuple[float, float, float]
    """n1, s1 and d1."""
    least_tokens: tuple[float, ...]
    """(K,), the smallest D' that was measured of each domain; the way there is not known."""
    noise: Array  # (K,), log sd of one run
    draws: Array  # (B, K, 7), in the order of `PARAMETERS`
    of_base: Mapping[tuple[int, int, str], float]
    """(N, D, domain) -> general loss of the base as it is, nats per token, by which that domain's expert is judged."""

    def rise(
        self,
        domain: str,
        n_params: float,
        specialize_tokens: Array | float,
        replay_share: float,
        *,
        pretrain_tokens: float,
    ) -> Array:
        """Share by which a trained expert's general loss is above its base's, by draw, (B, *specialize_tokens)."""
        s = np.asarray(specialize_tokens, dtype=float)
        theta = self.draws[:, self.domains.index(domain)]
        theta = theta.reshape(len(theta), *(1,) * s.ndim, len(PARAMETERS))
        n, middle_s, d = self.middle
        size, seen = np.asarray(n_params / n), np.asarray(pretrain_tokens / d)
        return np.expm1(np.minimum(_log_rise(theta, size, s / middle_s, replay_share, seen), _HIGHEST))

    def most_tokens(
        self,
        domain: str,
        n_params: float,
        replay_share: float,
        *,
        pretrain_tokens: float,
        max_rise: float,
        most: float,
        level: float = SURE,
    ) -> float:
        """The most D' up to which the rise stays at most ``max_rise`` with probability ``level``; 0 where none does.

        ``most`` is the largest D' that is tried; ``max_rise`` is a share of the base's general loss. The rise is looked
        at from the smallest D' on that was measured: nearer to nothing the form rises steeply, and no run has shown it.
        """
        least = min(self.least_tokens[self.domains.index(domain)], most)
        tokens = np.geomspace(least, most, 401)
        rise = self.rise(domain, n_params, tokens, replay_share, pretrain_tokens=pretrain_tokens)
        allowed = np.flatnonzero(np.quantile(rise, level, axis=0) > max_rise)
        if not allowed.size:
            return most
        return float(tokens[allowed[0] - 1]) if allowed[0] else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return {
            "domains": list(self.domains),
            "middle": list(self.middle),
            "least_tokens": list(self.least_tokens),
            "noise": self.noise.tolist(),
            "draws": self.draws.tolist(),
            "of_base": [[*key, loss] for key, loss in self.of_base.items()],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Forgetting":
        draws = np.array(raw["draws"])
        if draws.shape[1:] != (len(raw["domains"]), len(PARAMETERS)):
            raise ValueError(f"draws of forgetting have the shape {draws.shape}, of another raysplit's form")
        return cls(
            domains=tuple(raw["domains"]),
            middle=tuple(raw["middle"]),
            least_tokens=tuple(raw["least_tokens"]),
            noise=np.array(raw["noise"]),
            draws=draws,
            of_base={(n, d, domain): loss for n, d, domain, loss in raw["of_base"]},
        )


def fit_forgetting(runs: pd.DataFrame, *, n_draws: int = 64, seed: int = 0) -> Forgetting:
    """Fit the rise of each domain's experts.

    Args:
        runs: a checked table of continued pretraining (`raysplit.runs.check_runs`), or of a sweep from bases, with the
            column ``general_loss``.
        n_draws: of the posterior.
        seed: of the draws.

    Raises:
        LawError: a base's own general loss is not known, or a domain has too few runs.
    """
    known = runs[runs[GENERAL_LOSS].notna()]
    domains = tuple(sorted(runs["domain"].unique()))
    of_base = _of_bases(known[known["specialize_tokens"] == 0], domains)
    branches = known[known["specialize_tokens"] > 0]
    at = list(zip(branches["n_params"], branches["pretrain_tokens"], branches["domain"], strict=True))
    for (n, _, _), key in zip(at, at, strict=True):
        if key not in of_base:
            name = branches.loc[branches["n_params"] == n, BASE].iloc[0] if BASE in branches else n
            raise LawError(f"general_loss of base {name!r} is not known: give it in a row with specialize_tokens = 0")
    shares = branches[REPLAY_SHARE] if REPLAY_SHARE in branches else pd.Series(0.0, index=branches.index)
    points = pd.DataFrame(
        {
            "domain": branches["domain"], "n": branches["n_params"].astype(float),
            "s": branches["specialize_tokens"].astype(float), "d": branches["pretrain_tokens"].astype(float),
            "p": shares, "rise": np.log(branches[GENERAL_LOSS] / [of_base[key] for key in at]),
        }
    )  # fmt: skip
    for name in domains:
        if (n_runs := int((points["domain"] == name).sum())) < _FEWEST_RUNS:
            raise LawError(
                f"domain {name!r} has {n_runs} runs with a general_loss; {_FEWEST_RUNS} begin to tell a curve"
            )
    n_middle, s_middle, d_middle = (float(np.exp(np.log(points[name]).mean())) for name in ("n", "s", "d"))
    rng = np.random.default_rng(seed)
    middle = (n_middle, s_middle, d_middle)
    fits = [_fit(points[points["domain"] == name], middle, n_draws, rng) for name in domains]
    return Forgetting(
        domains=domains,
        middle=middle,
        least_tokens=tuple(float(points.loc[points["domain"] == name, "s"].min()) for name in domains),
        noise=np.array([noise for noise, _ in fits]),
        draws=np.stack([draws for _, draws in fits], axis=1),
        of_base=of_base,
    )


def forgetting_of(runs: pd.DataFrame) -> Forgetting | None:
    """`fit_forgetting`; None where the runs have no ``general_loss``, or too few of them."""
    if GENERAL_LOSS not in runs:
        return None
    try:
        return fit_forgetting(runs)
    except LawError:
        return None


def _of_bases(as_they_are: pd.DataFrame, domains: Sequence[str]) -> dict[tuple[int, int, str], float]:
    """General loss of each base (N, D) for every domain; a domain without a row of its own gets the rows' mean."""
    found: dict[tuple[int, int, str], float] = {}
    for n, d in dict.fromkeys(zip(as_they_are["n_params"], as_they_are["pretrain_tokens"], strict=True)):
        rows = as_they_are[(as_they_are["n_params"] == n) & (as_they_are["pretrain_tokens"] == d)]
        own = rows.groupby("domain")[GENERAL_LOSS].mean()
        found |= {(int(n), int(d), name): float(own.get(name, rows[GENERAL_LOSS].mean())) for name in domains}
    return found


def _log_rise(theta: Array, n: Array, s: Array, p: Array | float, d: Array) -> Array:
    log_a, log_b, log_alpha, log_replay, start, by_pretraining, log_taught = np.moveaxis(theta, -1, 0)
    with np.errstate(divide="ignore"):
        log_tokens = np.log(s)
    size = np.log1p(np.exp(log_replay) * p) + np.log(n)
    log_grown = log_a + np.exp(log_b) * log_tokens - np.exp(log_alpha) * size + by_pretraining * np.log(d)
    grown = np.exp(np.minimum(log_grown, _HIGHEST))
    taught = np.exp(log_taught) * np.log1p(_TAUGHT_AGAIN * p * s)
    return np.asarray(np.where(s > 0, grown + start - taught, 0.0))


def _fit(
    points: pd.DataFrame, middle: tuple[float, float, float], n_draws: int, rng: np.random.Generator
) -> tuple[float, Array]:
    """Noise of one run, and draws (B, 7)."""
    n, s, d, p, rise = (points[name].to_numpy() for name in ("n", "s", "d", "p", "rise"))
    n, s, d = n / middle[0], s / middle[1], d / middle[2]
    noise = _USUAL_NOISE
    for _ in range(3):

        def left(theta: Array, sd: float = noise) -> Array:
            off = (_log_rise(theta, n, s, p, d) - rise) / sd
            return np.concatenate([off, (theta - _PRIOR_MEAN) / _PRIOR_SD])

        starts: Sequence[Array] = [_PRIOR_MEAN + shift * _PRIOR_SD for shift in (-1.0, 0.0, 1.0)]
        found = min((least_squares(left, start) for start in starts), key=lambda one: one.cost)
        off = found.fun[: rise.size] * noise
        freedom = max(rise.size - len(PARAMETERS) / 2, 1.0)
        noise = math.sqrt((off @ off + _USUAL_RUNS * _USUAL_NOISE**2) / (freedom + _USUAL_RUNS))
    jacobian = np.asarray(found.jac)
    covariance = np.linalg.inv(jacobian.T @ jacobian)
    draws = rng.multivariate_normal(found.x, covariance, size=n_draws)
    # Quantiles of the luck in a random order: their mean is zero, however few draws there are.
    draws[:, PARAMETERS.index("E")] += noise * ndtri(rng.permutation((np.arange(n_draws) + 0.5) / n_draws))
    return noise, draws
