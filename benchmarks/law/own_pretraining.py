"""What would a D of its own save each expert, where experts share no seed?

    .venv/bin/python benchmarks/law/own_pretraining.py

The split of `target.seeds: independent` gives all experts the same D. But nothing ties them: at one size the best split
is that of K problems, each with its own D_k and D'_k, which share the budget's tokens T. It is found here by a
multiplier m on the tokens: expert k takes the T_k at which w_k L_k + m T_k is least, with L_k the least loss over
D_k + D'_k = T_k. The law is the best fit of one form to each measured surface, whose longest runs have 5M tokens and
2.5M. A line gives the losses of the best splits with one shared seed, with one D for all, and with a D for each.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from raysplit.quantities import format_count
from raysplit.runs import read_runs
from raysplit.split import Problem, Split, best_split
from raysplit.split.choice import fit_alone
from raysplit.split.surface import Array, DrawSurface

SURFACES = ("surface-2026-11-23.csv", "surface-weak-2026-11-30.csv")
FORM = "law-8+cooldown"
SIZES = (13_408, 100_672)
TOKENS = (2e6, 8e6)
"""T, all experts together."""
SHARES = np.linspace(0.0, 0.95, 96)
"""D_k / T_k that are tried."""
N_TOTALS = 3000
"""T_k that are tried."""


def loss_of(surface: DrawSurface, split: Split) -> float:
    """Weighted loss of a split, nats per token."""
    tokens = np.array([[list(split.specialize_tokens.values())]])
    return float(surface.loss(np.array([[float(split.n_params)]]), np.array([[split.pretrain_tokens]]), tokens)[0, 0])


def least_loss(surface: DrawSurface, *, n_params: int, total: float) -> float:
    """Least weighted loss where each expert has a D of its own, nats per token."""
    n_domains = len(surface.weights)
    own = np.geomspace(total / n_domains / 20, total, N_TOTALS)[:, None]  # T_k
    d = (own * SHARES)[None]  # (1, T_k, shares)
    s = np.repeat((own - d)[..., None], n_domains, axis=-1)
    losses = np.nan_to_num(surface.losses(np.full_like(d, n_params), d, s)[0], nan=np.inf).min(axis=1)  # (T_k, K)

    def taken(log_multiplier: float) -> Array:
        return np.asarray(np.argmin(surface.weights * losses + np.exp(log_multiplier) * own, axis=0))

    low, high = -60.0, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if own[taken(middle)].sum() > total else (low, middle)
    return float(surface.weights @ losses[taken(high), np.arange(n_domains)])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{time.strftime('%Y-%m-%d')}, best fits of {FORM}; nats per token, all domains alike")
    print(f"{'surface':<28} {'N':>6} {'T':>6}  shared seed  one D for all  a D each  a D each saves")
    for name in SURFACES:
        law = fit_alone(read_runs(Path(__file__).parents[1] / "data" / name), FORM)
        for n_params in SIZES:
            for total in TOKENS:
                shared = Problem(budget_flops=total, sizes={n_params: 1.0}, domains=law.domains)
                apart = Problem(
                    budget_flops=total, sizes={n_params: 1.0}, domains=law.domains, seeds="independent"
                )  # fmt: skip
                surface = DrawSurface(law, law.domains, shared.weights)
                one_seed, one_d = (loss_of(surface, best_split(law, problem)) for problem in (shared, apart))
                own = least_loss(surface, n_params=n_params, total=total)
                at = f"{name:<28} {format_count(n_params):>6} {format_count(total):>6}"
                print(f"{at}  {one_seed:>11.4f}  {one_d:>13.4f}  {own:>8.4f}  {1 - own / one_d:>14.2%}")


if __name__ == "__main__":
    main()
