"""(synthetic) How do a fit, a refit after one more observation and a new question grow with the domains and the rows?

    .venv/bin/python benchmarks/law/many_domains.py        # minutes

A line is a number of domains and rows, measured in a process of its own. "Fitted" are the rows left after thinning.
Seconds are of processor time on one core, "GB" is peak memory. Losses are those of a law of the second kind with
lognormal noise of 1 %, whose parameters differ between domains by 10 to 30 %.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from raysplit.law import fit_law
from raysplit.runs import check_runs, thinned
from raysplit.split import Problem, advise, fit_for_decision

CASES = ((4, 120), (16, 120), (64, 120), (256, 391))
"""Domains, and rows of each."""
QUICK_DRAWS, QUICK_ITERATIONS = 24, 3
"""As the live law fits between two thorough fits."""
BUDGET_FLOPS = 1e16


def table(n_domains: int, rows_each: int, *, seed: int = 0) -> pd.DataFrame:
    """A grid of 5 sizes, 4 D and as many D' as make that many rows, one loss of every domain at each point."""
    rng = np.random.default_rng(seed)
    n_branches = -(-rows_each // 20)
    n, d, s = np.array(
        [
            (n, d, s)
            for n in (1e6, 2e6, 4e6, 8e6, 16e6)
            for d in (8e6, 16e6, 32e6, 64e6)
            for s in (0, *np.geomspace(0.5e6, 8e6, n_branches - 1).round())
        ]
    )[:rows_each].T
    rows = []
    for k in range(n_domains):
        floor, size, data = 1.6 + 0.2 * rng.normal(), 40 * np.exp(0.2 * rng.normal()), 120 * np.exp(0.2 * rng.normal())
        a, b = 0.28 * np.exp(0.1 * rng.normal()), 0.32 * np.exp(0.1 * rng.normal())
        d0, scale, c = (x * np.exp(0.3 * rng.normal()) for x in (3e5, 1e6, 0.12))
        loss = floor + size * n**-a + data * (d + d0) ** -b * (1 + np.where(s > 0, s, 0.01 * d) / scale) ** -c
        rows.append(
            pd.DataFrame(
                {
                    "n_params": n.astype(int), "pretrain_tokens": d.astype(int), "specialize_tokens": s.astype(int),
                    "domain": f"d{k:03d}", "loss": loss * np.exp(0.01 * rng.normal(size=n.size)),
                }
            )
        )  # fmt: skip
    return check_runs(pd.concat(rows, ignore_index=True), origin="synthetic")


def measure(n_domains: int, rows_each: int) -> str:
    """One row of the report."""
    whole = table(n_domains, rows_each)
    sizes = {int(n): 6.0 * n for n in sorted(whole["n_params"].unique())}
    problem = Problem(budget_flops=BUDGET_FLOPS, sizes=sizes, domains=tuple(sorted(whole["domain"].unique())))
    seconds = [time.process_time()]
    runs, _ = thinned(whole)
    law, choice = fit_for_decision(runs, problem)
    seconds.append(time.process_time())
    last = runs.sample(1, random_state=0).index
    before = law.warm_start(explores=False)
    quick = fit_law(
        runs.drop(last), forms=list(choice.weights), form_weights=choice.weights, n_draws=QUICK_DRAWS,
        draw_iterations=QUICK_ITERATIONS, start=before,
    )  # fmt: skip
    seconds.append(time.process_time())
    advise(quick, problem)
    seconds.append(time.process_time())
    fit, refit, ask = np.diff(seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"{n_domains:>8} {len(whole):>8} {len(runs):>8} {fit:>8.1f} {refit:>8.2f} {ask:>9.2f} {memory:>8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, type=int, metavar=("DOMAINS", "ROWS"), help="Measure this one alone.")
    case = parser.parse_args().case
    if case:
        print(measure(*case))
        return
    print(f"{'domains':>8} {'rows':>8} {'fitted':>8} {'fit s':>8} {'refit s':>8} {'question s':>9} {'GB':>8}")
    for at in CASES:
        command = [sys.executable, __file__, "--case", *map(str, at)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip(), flush=True)


if __name__ == "__main__":
    main()
