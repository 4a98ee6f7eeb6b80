"""(synthetic) How often does the interval of the recommended share cover the truth?

    python benchmarks/law/split_recovery.py --repetitions 200

For every form: true parameters are drawn around a plausible centre for each domain, a full grid of runs is measured
with lognormal noise, the same form is fitted to it, and its advice is compared with the best split under the truth.

A line is a form and a budget: 1x, 4x or 16x the largest iso-budget line of the grid.

coverage      how often the 90 % interval of the recommended D / T (at the advised size) holds the truth's own best
width         mean width of that interval
true D/T      mean of the truth's own best
bias          mean of the advised share minus the best
regret %      how far the advised split's true loss is above the true best, in percent of it: the mean
p95           the 95th percentile of that regret
"""

import argparse
import time
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from raysplit.ladder import shape_for
from raysplit.law import FORMS, Support, fit_law
from raysplit.law.form import Array, Form
from raysplit.split import Problem, advise, best_by_size, losses_of

SIZES = (14_000, 36_000, 111_000)
PRETRAIN_TOKENS = (0.25e6, 0.5e6, 1e6, 2e6, 4e6)
SPECIALIZE_TOKENS = (0.0, 0.125e6, 0.25e6, 0.5e6, 1e6)
GRID = Support(
    n_params=(SIZES[0], SIZES[-1]),
    pretrain_tokens=(PRETRAIN_TOKENS[0], PRETRAIN_TOKENS[-1]),
    specialize_tokens=(SPECIALIZE_TOKENS[0], SPECIALIZE_TOKENS[-1]),
)
DOMAINS = ("code", "legal", "prose")
NOISE = 0.01
BUDGET_FACTORS = (1.0, 4.0, 16.0)
LEVEL = 0.9

CENTRES: dict[str, dict[str, float]] = {
    "law-1": {"E": 1.2, "A": 15, "a": 0.3, "B": 25, "b": 0.2, "l": 5.0},
    "law-2": {"E": 1.2, "A": 15, "a": 0.3, "B": 25, "b": 0.2, "d0": 1e5, "k": 3e4, "c": 0.15},
    "law-4": {"E": 1.2, "A": 15, "a": 0.3, "B": 25, "b": 0.2, "d0": 1e5, "k": 3e4, "c": 0.2, "g": 0.1},
    "law-5b": {"E": 1.2, "A": 15, "a": 0.3, "b": 0.25, "h": 0.8, "g": 0.6, "d1": 3e6, "d2": 1e6},
    "law-8": {"E": 1.2, "A": 15, "a": 0.3, "B": 20, "b": 0.2, "d0": 1e5, "k": 3e4, "c": 0.15, "m": 0.03},
    "law-16": {"E": 1.2, "A": 12, "a": 0.3, "B": 20, "b": 0.2, "d0": 1e5, "k": 3e4, "c": 0.15, "m": 0.03, "g": 0.3},
}
CENTRES |= {f"{name}+cooldown": {**CENTRES[name], "w": 0.02} for name in CENTRES if f"{name}+cooldown" in FORMS}
"""Parameters near those of small models on real text (log of the project, 2026-11)."""


@dataclass(frozen=True, kw_only=True)
class TrueLaw:
    """A form with known parameters, one row a domain."""

    form: Form
    theta: Array  # (K, P)
    domains: tuple[str, ...] = DOMAINS
    n_draws: int = 1
    support: Support = GRID
    """The truth is asked about the same splits as the law."""

    def loss(self, n: Array, d: Array, s: Array) -> Array:
        """Loss, as `raysplit.law.Law.loss`."""
        return self.form.loss(self.theta, n, d, s)

    def slope(self, n: Array, d: Array, s: Array) -> Array:
        """Derivative by D', as `raysplit.law.Law.slope`."""
        return self.form.slope(self.theta, n, d, s)


def draw_truth(form: Form, rng: np.random.Generator) -> TrueLaw:
    """Domains and repetitions differ: amplitudes and offsets by 20 % (log sd), exponents by 10 %."""
    rows = []
    for _ in DOMAINS:
        row = []
        for parameter in form.parameters:
            spread = 0.2 if parameter.unit else 0.1
            row.append(CENTRES[form.name][parameter.name] * np.exp(rng.normal(0, spread)))
        rows.append(row)
    return TrueLaw(form=form, theta=np.array(rows))


def measure(truth: TrueLaw, *, noise: float, trunk_noise: float = 0.0, rng: np.random.Generator) -> pd.DataFrame:
    """A full grid of runs with lognormal noise of their own, and of the branch point (N, D) that runs share."""
    runs = pd.DataFrame(
        list(product(SIZES, PRETRAIN_TOKENS, SPECIALIZE_TOKENS, DOMAINS)),
        columns=["n_params", "pretrain_tokens", "specialize_tokens", "domain"],
    )
    n, d, s = (runs[c].to_numpy(dtype=float)[None, :, None] for c in runs.columns[:3])
    own = [DOMAINS.index(name) for name in runs["domain"]]
    exact = truth.loss(n, d, s)[0][np.arange(len(runs)), own]
    branch_point = runs.groupby(["n_params", "pretrain_tokens"]).ngroup().to_numpy()
    luck = rng.normal(0, trunk_noise, branch_point.max() + 1)[branch_point]
    runs["loss"] = exact * np.exp(luck + rng.normal(0, noise, len(runs)))
    return runs


def target(factor: float) -> Problem:
    """The largest line of the grid, D = 4 M and three times 1 M tokens at the middle size, times a factor."""
    shapes = [shape_for(n, vocab_size=512, context_length=128) for n in SIZES]
    sizes = {n: float(shape.flops_per_token) for n, shape in zip(SIZES, shapes, strict=True)}
    return Problem(budget_flops=factor * 7e6 * sizes[SIZES[1]], sizes=sizes, domains=DOMAINS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """What one repetition found at one budget."""

    covered: bool
    width: float
    """Of the interval of D / T."""
    regret: float
    advised: float
    true: float
    """D / T."""


def _plain_first(name: str) -> tuple[bool, str]:
    """So that a form keeps its draws when others come to the list."""
    return "+" in name, name


def recover(
    form_name: str, *, seed: int, noise: float = NOISE, trunk_noise: float = 0.0, n_draws: int = 64
) -> list[Recovery]:
    """One repetition: truth, table, fit, and the advice at each budget."""
    form = FORMS[form_name]
    rng = np.random.default_rng([seed, sorted(CENTRES, key=_plain_first).index(form_name)])
    truth = draw_truth(form, rng)
    runs = measure(truth, noise=noise, trunk_noise=trunk_noise, rng=rng)
    law = fit_law(runs, forms=[form_name], n_draws=n_draws, seed=seed)
    found = []
    for factor in BUDGET_FACTORS:
        problem = target(factor)
        advice = advise(law, problem, level=LEVEL)
        best = best_by_size(truth, problem)
        at_size = best.split(0, best.n_params.index(advice.split.n_params))
        loss = losses_of(truth, [advice.split], problem)[0, 0]
        share = problem.pretrain_share(at_size)
        slack = 0.002  # to which a draw's own best is searched
        found.append(
            Recovery(
                covered=advice.pretrain_share.low - slack <= share <= advice.pretrain_share.high + slack,
                width=advice.pretrain_share.high - advice.pretrain_share.low,
                regret=max(float(loss / best.loss.min() - 1.0), 0.0),
                advised=advice.pretrain_share.mean,
                true=share,
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--forms", nargs="+", default=list(CENTRES), choices=list(CENTRES))
    parser.add_argument("--noise", type=float, default=NOISE, help="log sd of one observation")
    parser.add_argument("--trunk-noise", type=float, default=0.0, help="log sd that all runs of one (N, D) share")
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    n_runs = len(SIZES) * len(PRETRAIN_TOKENS) * len(SPECIALIZE_TOKENS) * len(DOMAINS)
    print(f"{args.repetitions} repetitions of {n_runs} runs, {LEVEL:.0%} intervals")
    print(f"noise {args.noise:.1%} of each run, {args.trunk_noise:.1%} of each branch point")
    print(
        f"{'form':16} {'budget':>6} {'coverage':>9} {'width':>6} {'true D/T':>9} {'bias':>7} {'regret %':>9} {'p95':>6}"
    )
    for name in args.forms:
        start = time.perf_counter()
        seeds = range(args.first_seed, args.first_seed + args.repetitions)
        results = [recover(name, seed=seed, noise=args.noise, trunk_noise=args.trunk_noise) for seed in seeds]
        for j, factor in enumerate(BUDGET_FACTORS):
            row = [result[j] for result in results]
            regret = 100 * np.array([r.regret for r in row])
            covered, width = np.mean([r.covered for r in row]), np.mean([r.width for r in row])
            true, bias = np.mean([r.true for r in row]), np.mean([r.advised - r.true for r in row])
            print(
                f"{name:16} {factor:5g}x {covered:9.1%} {width:6.3f} {true:9.3f} {bias:+7.3f} "
                f"{regret.mean():9.3f} {np.quantile(regret, 0.95):6.3f}",
                flush=True,
            )
        print(f"{'':16} {(time.perf_counter() - start) / args.repetitions:.2f} s a repetition", flush=True)


if __name__ == "__main__":
    main()
