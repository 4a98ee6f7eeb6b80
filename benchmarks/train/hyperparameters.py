"""What does a learning rate that is off cost, and does it move the split? A grid was measured at five rates.

    python benchmarks/train/hyperparameters.py                  # reads data/rates-2026-11-24.csv
    python benchmarks/train/hyperparameters.py --train /tmp/out # measures it again, about half an hour on two cores

The demo's texts, N = 13.4k and 27.8k, a grid of D and D', every run at 1/4, 1/2, 1, 2 and 4 times the demo's rate. It
prints in turn:
- the loss against that at the demo's rate, in percent;
- the best rate at each (N, D), and the rule through them;
- the splits that the laws of the five tables advise, and what those would cost on the surface at the demo's rate;
- the size that a law prefers when one size was trained at another rate than the other.
"""

import argparse
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from raysplit.design.hyperparameters import Range, Tried, find_optimum, fit_rule
from raysplit.ladder import shape_for
from raysplit.runs import check_runs
from raysplit.split import Problem, advise, fit_for_decision
from raysplit.split.cases import cases_at, regrets_of
from raysplit.split.measured import largest_budget, measured_surface

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parents[1] / "data" / "rates-2026-11-24.csv"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
REFERENCE, REFERENCE_PARAMS, EXPONENT = 1.2e-2, 14_000, -0.25
POINT = ["n_params", "pretrain_tokens", "specialize_tokens", "domain"]
MISMATCHES = ((1.0, 1.0), (1.0, 0.5), (1.0, 2.0), (1.0, 4.0), (0.5, 1.0), (2.0, 1.0), (4.0, 1.0))
STEP_TOKENS = 2048


def train(out: Path) -> pd.DataFrame:
    """Sweep the whole grid once for each rate."""
    space = yaml.safe_load((ROOT / "search_spaces" / "quickstart.yaml").read_text())
    space["model"]["sizes"] = ["14k", "28k"]
    space["sweep"] = {
        "pretrain_tokens": ["125k", "250k", "500k", "1M"],
        "specialize_tokens": ["62500", "125k", "250k"],
        "policy": "grid",
    }
    space["target"] = {"budget_flops": 3e11}
    tables = []
    for factor in FACTORS:
        space["training"]["learning_rate"] = {
            "reference": REFERENCE * factor,
            "reference_params": REFERENCE_PARAMS,
            "exponent": EXPONENT,
        }
        space["name"] = f"rate-x{factor:g}".replace(".", "_")
        run = out / space["name"]
        run.mkdir(parents=True, exist_ok=True)
        first = out / f"rate-x{FACTORS[0]:g}".replace(".", "_") / "corpus"
        if first.exists() and not (run / "corpus").exists():
            (run / "corpus").symlink_to(first)
        (run.with_suffix(".yaml")).write_text(yaml.safe_dump(space))
        command = [sys.executable, "-m", "raysplit", "sweep", str(run.with_suffix(".yaml")), "--out", str(run)]
        subprocess.run(command, check=True)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        table = pd.read_csv(run / "observations.csv")
        table.insert(0, "rate_factor", factor)
        tables.append(table)
    return pd.concat(tables)


def demo_rate(n_params: float) -> float:
    return REFERENCE * (n_params / REFERENCE_PARAMS) ** EXPONENT


def print_losses(table: pd.DataFrame) -> None:
    print("loss against the demo's rate, %, mean over domains and D' (standard deviation over the points)")
    demo = table[table["rate_factor"] == 1].set_index(POINT)["loss"]
    grid = sorted(table["pretrain_tokens"].unique())
    print(f"{'N':>8} {'rate':>6} {'all points':>16} " + " ".join(f"D={d / 1e3:.0f}k".rjust(8) for d in grid))
    for (n, factor), rows in table.groupby(["n_params", "rate_factor"]):
        own = rows.set_index(POINT)["loss"]
        change = 100 * np.log(own / demo.reindex(own.index))
        by_d = change.groupby("pretrain_tokens").mean()
        shown = f"{change.mean():+.2f} ({change.std():.2f})"
        print(f"{n:8d} {factor:5g}x {shown:>16} " + " ".join(f"{by_d[d]:+8.2f}" for d in grid))


def print_rule(table: pd.DataFrame) -> None:
    print("\nbest rate of the trunk at each (N, D), and the rule through them")
    optima = []
    trunks = table[table["specialize_tokens"] == 0]
    for (n, d), rows in trunks.groupby(["n_params", "pretrain_tokens"]):
        losses = rows.groupby("rate_factor")["loss"].mean()
        tried = [
            Tried(n_params=n, pretrain_tokens=d, learning_rate=demo_rate(n) * factor, loss=loss)
            for factor, loss in losses.items()
        ]
        rates = [t.learning_rate for t in tried]
        optimum = find_optimum(tried, Range(low=min(rates), high=max(rates)))
        optima.append(optimum)
        print(
            f"{n:8d} D={d / 1e3:4.0f}k  {optimum.learning_rate:.4f} x/ {math.exp(optimum.log_error):.2f}  a factor of "
            f"two costs {optimum.doubling_penalty:.2%}  {optimum.edge}"
        )
    rule = fit_rule(optima, prior_exponent=EXPONENT)
    print(
        f"lr = {rule.reference:.4f} (N / {rule.reference_params})^{rule.exponent:.2f} (D / {rule.reference_tokens})^"
        f"{rule.token_exponent:.2f}, standard errors {rule.exponent_error:.2f} and {rule.token_exponent_error:.2f}"
    )
    for left in rule.left_out:
        print(f"without {left.n_params}: off by a factor of {math.exp(left.log_error):.2f}, {left.penalty:.2%} of loss")


def print_splits(table: pd.DataFrame, problem: Problem) -> None:
    print("\nsplits advised by the law of each table, and what they cost on the surface at the demo's rate")
    print(f"{'rate':>6} {'share D/T':>10} {'90 % interval':>16} {'N':>8} {'regret mean %':>14} {'worst %':>8}")
    surface = measured_surface(at_rates(table, 1.0, 1.0), problem.domains)
    cases = [
        case
        for n, grids in surface.items()
        for case in cases_at(grids, n, largest_budget(grids, accounting="shared"), (1.0, 0.8, 0.6), problem)
    ]
    for factor in FACTORS:
        law, _ = fit_for_decision(at_rates(table, factor, factor), problem, step_tokens=STEP_TOKENS)
        advice = advise(law, problem)
        share = advice.pretrain_share
        regrets = 100 * np.array([regrets_of({"law": law}, case, problem)["law"] for case in cases])
        interval = f"{share.low:.0%} to {share.high:.0%}"
        print(
            f"{factor:5g}x {share.mean:10.1%} {interval:>16} {advice.split.n_params:8d} {regrets.mean():14.2f} "
            f"{regrets.max():8.2f}"
        )


def print_sizes(table: pd.DataFrame, problem: Problem) -> None:
    print("\none size at another rate than the other: the better size, by how much, and the split")
    print(f"{'13.4k at':>9} {'27.8k at':>9} {'better N':>9} {'other worse by %':>17} {'share D/T':>10}")
    for small, large in MISMATCHES:
        law, _ = fit_for_decision(at_rates(table, small, large), problem, step_tokens=STEP_TOKENS)
        advice = advise(law, problem)
        worse = max(size.excess.mean for size in advice.sizes)
        print(
            f"{small:8g}x {large:8g}x {advice.split.n_params:9d} {100 * worse:17.2f} {advice.pretrain_share.mean:10.1%}"
        )


def at_rates(table: pd.DataFrame, small: float, large: float) -> pd.DataFrame:
    """The table of runs with the smaller size at one rate and the larger at another."""
    sizes = table["n_params"]
    wanted = np.where(sizes == sizes.min(), small, large)
    return check_runs(table[table["rate_factor"] == wanted].drop(columns="rate_factor"), origin="rates")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--train", type=Path, help="folder to measure the table in, instead of reading it")
    parser.add_argument("--budget-flops", type=float, default=4e11)
    arguments = parser.parse_args()
    if arguments.train:
        table = train(arguments.train)
        table.to_csv(arguments.train / "rates.csv", index=False)
    else:
        table = pd.read_csv(arguments.table)
    sizes = [int(n) for n in sorted(table["n_params"].unique())]
    problem = Problem(
        budget_flops=arguments.budget_flops,
        sizes={n: float(shape_for(n, vocab_size=512, context_length=128).flops_per_token) for n in sizes},
        domains=tuple(sorted(table["domain"].unique())),
    )
    print_losses(table)
    print_rule(table)
    print_splits(table, problem)
    print_sizes(table, problem)


if __name__ == "__main__":
    main()
