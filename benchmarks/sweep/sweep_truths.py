"""What the sweeps of `sweep_regret.py` are judged by: measured surfaces, smoothed, and known (synthetic) laws.

A world is a grid that may be bought, the losses that buying shows, and a truth that says what the recommended split
really costs at the target. Worlds of one kind differ by seed: synthetic ones in their parameters and their noise, the
measured one in its noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Tree, Trial
from raysplit.ladder import shape_for
from raysplit.law import FORMS, Support
from raysplit.law.form import Array
from raysplit.runs import read_runs
from raysplit.space import CooldownStart
from raysplit.split import Problem, Split, best_split, losses_of
from raysplit.sweep.replay import Losses

_DATA = Path(__file__).parents[1] / "data"
MEASURED: Mapping[str, tuple[str, float]] = {
    "measured": ("surface-2026-11-23.csv", 2e12),
    "measured, weakly related": ("surface-weak-2026-11-30.csv", 4e11),
}
"""Table of a measured grid, and the FLOPs of a target whose best split no cap of the grid binds."""
NOISE = 0.01
"""Log sd of a synthetic observation."""
DOMAINS = ("code", "legal", "prose")

Formula = Callable[[Array, Array, Array], Array]
"""(N, D, D') that broadcast to (..., K) -> loss of each domain."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A known loss, in the shape that a split needs of a law."""

    domains: tuple[str, ...]
    support: Support
    formula: Formula
    n_draws: int = 1

    def loss(self, n: Array, d: Array, s: Array) -> Array:
        """Loss, as `raysplit.law.Law.loss`."""
        n, d, s, _ = np.broadcast_arrays(n, d, s, np.zeros(len(self.domains)))
        return self.formula(n, d, s)

    def slope(self, n: Array, d: Array, s: Array) -> Array:
        """Derivative by D', by central differences."""
        step = 1e-3 * (s + 1e4)
        return (self.loss(n, d, s + step) - self.loss(n, d, np.maximum(s - step, 0.0))) / (
            s + step - np.maximum(s - step, 0.0)
        )


@dataclass(frozen=True, kw_only=True)
class World:
    """One question with a known answer."""

    name: str
    spec: ResolvedSpec
    losses: Losses
    truth: Truth

    def regret(self, split: Split) -> float:
        """How far the true loss of a split at the target is above the best, as a share."""
        best = best_split(self.truth, self.spec.problem)
        mine, least = losses_of(self.truth, [split, best], self.spec.problem)[0]
        return float(max(mine / least - 1.0, 0.0))


def measured_world(seed: int, name: str = "measured") -> World:
    """A grid measured on real text (LOG 2026-11-23 and 2026-11-30), by its name in `MEASURED`.

    The truth is a polynomial of the third degree in log N, log D and log D', another for D' = 0, fitted to each
    domain's log losses: none of the law's forms, and smooth where single runs differ by their seed. Seed 0 sees the
    losses as they were measured; every other seed sees the smooth ones with the residuals of whole branches drawn
    again with either sign (a wild bootstrap), so that what a branch's points share stays shared.
    """
    file, budget_flops = MEASURED[name]
    runs = read_runs(_DATA / file)
    domains = tuple(sorted(runs["domain"].unique()))
    own = runs[runs["seed"] == 0]
    sizes = {int(n): _flops_per_token(int(n)) for n in sorted(own["n_params"].unique())}
    pretrain, specialize = (
        tuple(int(x) for x in sorted(own[column].unique()) if x) for column in ("pretrain_tokens", "specialize_tokens")
    )
    fits = {domain: _Smooth.of(own[own["domain"] == domain]) for domain in domains}

    def formula(n: Array, d: Array, s: Array) -> Array:
        logs = [fits[domain].log_loss(n[..., k], d[..., k], s[..., k]) for k, domain in enumerate(domains)]
        return np.exp(np.stack(logs, -1))

    rng = np.random.default_rng([seed, 1])
    known: dict[tuple[int, int, int, str], float] = {}
    signs: dict[tuple[int, int, str], float] = {}
    for row in own.itertuples(index=False):
        at = (row.n_params, row.pretrain_tokens, row.specialize_tokens)
        smooth = float(fits[row.domain].log_loss(*map(np.array, at)))
        sign = signs.setdefault((row.n_params, row.pretrain_tokens, row.domain), float(rng.choice([-1.0, 1.0])))
        residual = np.log(row.loss) - smooth
        known[(*at, row.domain)] = float(np.exp(smooth + (residual if seed == 0 else sign * residual)))

    def losses(trial: Trial, milestone: int) -> Mapping[str, float] | None:
        asked = domains if trial.is_trunk else (trial.domain,)
        keys = {domain: (trial.n_params, *trial.point(milestone), domain) for domain in asked}
        return {domain: known[at] for domain, at in keys.items()} if all(at in known for at in keys.values()) else None

    problem = Problem(
        budget_flops=budget_flops,
        sizes=sizes,
        domains=domains,
        max_pretrain_tokens=float(pretrain[-1]),
        max_specialize_tokens=dict.fromkeys(domains, float(specialize[-1])),
    )
    spec = _spec(problem, sizes, pretrain, specialize, step_tokens=2048, scratch=True)
    truth = Truth(domains=domains, support=_support(sizes, pretrain, specialize), formula=formula)
    return World(name=name, spec=spec, losses=losses, truth=truth)


@dataclass(frozen=True, kw_only=True)
class _Smooth:
    coefficients: Array

    @classmethod
    def of(cls, runs: pd.DataFrame) -> "_Smooth":
        columns = ("n_params", "pretrain_tokens", "specialize_tokens", "loss")
        n, d, s, loss = (runs[column].to_numpy(dtype=float) for column in columns)
        x = _monomials(n, d, s)
        weight = np.where(d > 0, 1.0, 0.3)[:, None]
        ridge = 1e-3 * np.eye(x.shape[1])
        left = np.concatenate([weight * x, ridge])
        right = np.concatenate([weight[:, 0] * np.log(loss), np.zeros(len(ridge))])
        return cls(coefficients=np.linalg.lstsq(left, right, rcond=None)[0])

    def log_loss(self, n: Array, d: Array, s: Array) -> Array:
        return _monomials(n, d, s) @ self.coefficients


def _monomials(n: Array, d: Array, s: Array) -> Array:
    x, y, z = np.log(n / 4e4), 0.5 * np.log((d + 6e4) / 1e6), 0.5 * np.log((s + 6e4) / 4e5)
    powers = [p for p in product(range(4), repeat=3) if sum(p) <= 3 and p[0] <= 2]
    unbranched = (s == 0).astype(float)
    of_seed = [unbranched, unbranched * x, unbranched * y, unbranched * y * y]
    return np.stack([x**i * y**j * z**k for i, j, k in powers] + of_seed, -1)


CENTRES: Mapping[str, Mapping[str, float]] = {
    "law-2+cooldown": {"E": 1.2, "A": 15, "a": 0.3, "B": 25, "b": 0.2, "d0": 1e5, "k": 3e4, "c": 0.15, "w": 0.02},
    "law-8+cooldown": {
        "E": 1.2,
        "A": 15,
        "a": 0.3,
        "B": 20,
        "b": 0.2,
        "d0": 1e5,
        "k": 3e4,
        "c": 0.15,
        "m": 0.03,
        "w": 0.02,
    },
    "law-16+cooldown": {
        "E": 1.2,
        "A": 12,
        "a": 0.3,
        "B": 20,
        "b": 0.2,
        "d0": 1e5,
        "k": 3e4,
        "c": 0.15,
        "m": 0.03,
        "g": 0.3,
        "w": 0.02,
    },
}
"""Parameters near those of small models on real text; see benchmarks/law/split_recovery.py."""


def _drifting(p: Mapping[str, Array], n: Array, d: Array, s: Array) -> Array:
    """Exponents that drift with N, as in Farseer's form (2604.22753's task), and a gain that fades with D."""
    b = 0.2 * p["b"] * (n / 5e4) ** (0.04 * p["m"])
    c = 0.16 * p["c"] * ((d + 2e5) / 1e6) ** -0.06
    return p["E"] + 14 * p["A"] * n**-0.3 + 24 * p["B"] * (d + 1e5) ** -b * (1 + (s + 0.02 * d) / (3e4 * p["k"])) ** -c


def _transfer(p: Mapping[str, Array], n: Array, d: Array, s: Array) -> Array:
    """Tokens of the domain count for more than those of the mixture, the less the more there were (additive)."""
    own = 8 * p["k"] * (s + 0.02 * d) ** 0.7 * (3e5 * p["c"]) ** 0.3
    return p["E"] + 14 * p["A"] * n**-0.3 + 22 * p["B"] * (d + own + 2e4) ** -(0.21 * p["b"]) * (n / 5e4) ** 0.02


def _saturating(p: Mapping[str, Array], n: Array, d: Array, s: Array) -> Array:
    """What specialization can take off is bounded, and the larger the model the sooner it is taken."""
    x = ((s + 0.02 * d) / (2.5e5 * p["k"])) ** (0.6 * p["c"]) * (n / 5e4) ** 0.1
    return p["E"] + 14 * p["A"] * n**-0.3 + 24 * p["B"] * (d + 1e5) ** -(0.2 * p["b"]) * (1 - 0.38 * x / (1 + x))


OUTSIDE = {"drifting exponents": _drifting, "additive transfer": _transfer, "saturating gain": _saturating}
"""Truths that none of the law's forms can express."""
SYNTHETIC = (*CENTRES, *OUTSIDE)

_SIZES = (14_000, 28_000, 56_000, 112_000, 224_000)
_TARGET_SIZES = (56_000, 112_000, 224_000, 448_000, 896_000)
_PRETRAIN = tuple(250_000 * 2**i for i in range(6))
_SPECIALIZE = tuple(62_500 * 2**i for i in range(6))


def synthetic_world(kind: str, seed: int) -> World:
    """A known law; domains and seeds differ by 20 % in amplitudes and offsets and 10 % in exponents (log sd).

    The target is eight times the largest line of the grid at its middle size, to be spent on sizes up to four times the
    largest of the grid.
    """
    rng = np.random.default_rng([seed, SYNTHETIC.index(kind)])
    if kind in CENTRES:
        form = FORMS[kind]
        centre = CENTRES[kind]
        theta = np.array(
            [[centre[q.name] * np.exp(rng.normal(0, 0.2 if q.unit else 0.1)) for q in form.parameters] for _ in DOMAINS]
        )

        def formula(n: Array, d: Array, s: Array) -> Array:
            return form.loss(theta, n, d, s)
    else:
        spread = {"E": 0.2, "A": 0.2, "B": 0.2, "k": 0.2, "b": 0.05, "c": 0.1, "m": 0.1}
        p = {name: np.exp(rng.normal(0, sd, len(DOMAINS))) for name, sd in spread.items()}

        def formula(n: Array, d: Array, s: Array) -> Array:
            return OUTSIDE[kind](p, n, d, s)

    truth = Truth(domains=DOMAINS, support=_support(_SIZES, _PRETRAIN, _SPECIALIZE), formula=formula)

    def losses(trial: Trial, milestone: int) -> Mapping[str, float]:
        d, s = trial.point(milestone)
        exact = truth.loss(*(np.array([[float(x)]]) for x in (trial.n_params, d, s)))[0]
        names = DOMAINS if trial.is_trunk else (trial.domain,)
        out = {}
        for name in names:
            k = DOMAINS.index(name)
            noise = np.random.default_rng([seed, trial.n_params, d, s, k, trial.seed]).normal(0, NOISE)
            out[name] = float(exact[k] * np.exp(noise))
        return out

    largest_line = 6.0 * _SIZES[2] * (_PRETRAIN[-1] + len(DOMAINS) * _SPECIALIZE[-1])
    problem = Problem(budget_flops=8 * largest_line, sizes={n: 6.0 * n for n in _TARGET_SIZES}, domains=DOMAINS)
    spec = _spec(problem, {n: 6.0 * n for n in _SIZES}, _PRETRAIN, _SPECIALIZE, step_tokens=1, scratch=False)
    return World(name=kind, spec=spec, losses=losses, truth=truth)


def _spec(
    problem: Problem,
    flops_per_token: dict[int, float],
    pretrain: tuple[int, ...],
    specialize: tuple[int, ...],
    *,
    step_tokens: int,
    scratch: bool,
) -> ResolvedSpec:
    return ResolvedSpec(
        problem=problem,
        flops_per_token=flops_per_token,
        domains=problem.domains,
        tree=Tree(cooldown_start=CooldownStart(fraction=0.25, least_steps=1), pretrain_grid=pretrain),
        specialize_grid=specialize,
        scratch=scratch,
        policy="adaptive",
        design="value",
        budget_flops=float("inf"),
        regret_tolerance=0.0,
        repeats=(),
        lanes=2,
        step_tokens=step_tokens,
        seed=0,
    )


def _support(
    sizes: Mapping[int, float] | tuple[int, ...], pretrain: tuple[int, ...], specialize: tuple[int, ...]
) -> Support:
    return Support(
        n_params=(float(min(sizes)), float(max(sizes))),
        pretrain_tokens=(float(pretrain[0]), float(pretrain[-1])),
        specialize_tokens=(0.0, float(specialize[-1])),
    )


def _flops_per_token(n_params: int) -> float:
    return float(shape_for(n_params, vocab_size=512, context_length=128).flops_per_token)
