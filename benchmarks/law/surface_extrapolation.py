"""How far does a law reach that was fitted to the cheap corner of the measured surface?

    python benchmarks/law/surface_extrapolation.py

Fitted are the runs of at most a quarter of the largest budget, without the largest N; everything else is held out.

error       the mean absolute log error of the held-out losses (D > 0)
coverage    share of them in their 90 % interval
regret      how far the measured loss of the split that a law picks at held-out budgets is above the best one there

Below the forms stand raysplit as it is used, which chooses among the forms by what it was given, and fixed rules, where
the surface was measured. The last line is the noise floor: how far repeated seeds lie from their mean.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from raysplit.ladder import shape_for
from raysplit.law import FORMS, Law, fit_law
from raysplit.runs import read_runs
from raysplit.split import Problem, fit_for_decision
from raysplit.split.calibration import interval_scores
from raysplit.split.cases import Case, cases_at, log_errors, regrets_of
from raysplit.split.measured import largest_budget, measured_surface, row_budget

SURFACE = Path(__file__).parents[1] / "data" / "surface-2026-11-23.csv"
SHARES = {"80/20": 0.8, "50/50": 0.5, "pretraining only": 1.0}
BUDGET_FACTORS = (1.0, 0.7, 0.5)


def budget_flops(runs: pd.DataFrame, problem: Problem) -> np.ndarray:
    """Of the smallest iso-budget line that a row lies on, every domain specialized alike."""
    tokens = row_budget(runs, n_domains=len(problem.domains), accounting=problem.accounting)
    return np.asarray(runs["n_params"].map(problem.sizes) * tokens)


def held_out_cases(runs: pd.DataFrame, problem: Problem, limit_flops: float) -> list[Case]:
    """Budgets above the limit at every size, and all budgets of the largest size."""
    surface = measured_surface(runs, problem.domains)
    cases = []
    for n, grids in surface.items():
        top = largest_budget(grids, accounting=problem.accounting)
        for case in cases_at(grids, n, top, BUDGET_FACTORS, problem):
            if n == max(surface) or case.total_tokens * problem.sizes[n] > limit_flops:
                cases.append(case)
    return cases


def seed_floor(runs: pd.DataFrame) -> float:
    """Mean absolute log error that a law without any would have, from repeated seeds."""
    logs = np.log(runs["loss"]).groupby(
        [runs[c] for c in ("n_params", "pretrain_tokens", "specialize_tokens", "domain")]
    )
    sizes = logs.transform("size")
    spread = np.abs(np.log(runs["loss"]) - logs.transform("mean"))[sizes > 1]
    return float((spread * np.sqrt(sizes / (sizes - 1))[sizes > 1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=SURFACE)
    parser.add_argument("--vocab", type=int, default=512)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--step-tokens", type=float, default=2048)
    parser.add_argument("--share", type=float, default=0.25, help="of the largest budget, up to which runs are fitted")
    arguments = parser.parse_args()
    runs = read_runs(arguments.table)
    sizes = sorted(int(n) for n in runs["n_params"].unique())
    shapes = {n: shape_for(n, vocab_size=arguments.vocab, context_length=arguments.context) for n in sizes}
    problem = Problem(
        budget_flops=3e12,  # plays no part here
        sizes={n: float(shape.flops_per_token) for n, shape in shapes.items()},
        domains=tuple(sorted(runs["domain"].unique())),
    )
    budgets = budget_flops(runs, problem)
    limit = arguments.share * budgets.max()
    cheap = (budgets <= limit) & (runs["n_params"] < sizes[-1]).to_numpy()
    rest = runs[~cheap & (runs["pretrain_tokens"] > 0).to_numpy()]
    cases = held_out_cases(runs, problem, limit)
    spent = runs.loc[cheap, "flops"].sum() / runs["flops"].sum() if "flops" in runs else np.nan
    print(f"fitted: {cheap.sum()} runs, {spent:.0%} of the FLOPs; held out: {len(rest)} losses, {len(cases)} budgets")
    print(f"{'':22} {'error %':>8} {'coverage':>9} {'regret %':>9} {'worst %':>8}")

    laws: dict[str, Law] = {}
    for name in FORMS:
        laws[name] = fit_law(runs[cheap], forms=[name], step_tokens=arguments.step_tokens)
    laws["raysplit"], choice = fit_for_decision(runs[cheap], problem, step_tokens=arguments.step_tokens)
    by_case = [regrets_of(laws, case, problem, shares=SHARES) for case in cases]
    for name, law in laws.items():
        regrets = 100 * np.array([found[name] for found in by_case if name in found])
        print(
            f"{name:22} {100 * log_errors(law, rest).mean():8.2f} {(interval_scores(law, rest) <= 1).mean():9.1%} "
            f"{regrets.mean():9.2f} {regrets.max():8.2f}"
        )
    for name in SHARES:
        regrets = 100 * np.array([found[name] for found in by_case if name in found])
        shown = f"{regrets.mean():9.2f} {regrets.max():8.2f}" if regrets.size else f"{'not measured':>18}"
        print(f"{name:22} {'':8} {'':9} {shown}   at {regrets.size} of the budgets")
    print(f"{'seed noise':22} {100 * seed_floor(runs):8.2f}")
    print(choice.sentence)


if __name__ == "__main__":
    main()
