"""Which form of the law picks good splits on the measured surface, judged on runs that it did not see?

    python benchmarks/law/surface_forms.py

Every form of `raysplit.law.FORMS` is fitted without the larger budgets and without the largest N, and picks a split at
held-out budgets. Regret is how far the measured loss of that split is above the best one. Error is the mean absolute
log error of the losses held out. `raysplit.split.choice` has the rules.
"""

import argparse
from functools import partial
from pathlib import Path

from raysplit.ladder import shape_for
from raysplit.law import FORMS
from raysplit.runs import read_runs
from raysplit.split import Problem, choose_forms
from raysplit.split.choice import fit_alone

SURFACE = Path(__file__).parents[1] / "data" / "surface-2026-11-23.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=SURFACE)
    parser.add_argument("--vocab", type=int, default=512)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--step-tokens", type=float, default=2048)
    arguments = parser.parse_args()
    runs = read_runs(arguments.table)
    shapes = {
        int(n): shape_for(int(n), vocab_size=arguments.vocab, context_length=arguments.context)
        for n in runs["n_params"].unique()
    }
    problem = Problem(
        budget_flops=3e12,  # plays no part in the choice
        sizes={n: float(shape.flops_per_token) for n, shape in shapes.items()},
        domains=tuple(sorted(runs["domain"].unique())),
    )
    fit = partial(fit_alone, step_tokens=arguments.step_tokens, seed=0)
    choice = choose_forms(runs, problem, forms=list(FORMS), fit=fit)
    print(f"{'form':16} {'regret %':>9} {'worst %':>8} {'error %':>8} {'weight':>7}")
    for score in choice.scores:
        figures = (score.regret, score.worst_regret, score.held_out_error)
        shown = [f"{100 * x:.2f}" if x is not None else "" for x in figures]
        weight = choice.weights.get(score.form, 0.0)
        print(f"{score.form:16} {shown[0]:>9} {shown[1]:>8} {shown[2]:>8} {weight:>7.2f}")
    print(choice.sentence)


if __name__ == "__main__":
    main()
