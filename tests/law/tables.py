"""Synthetic tables of runs from known laws, with noise that runs of one branch point share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from raysplit.law import FORMS
from raysplit.law.form import Array

TRUTH: dict[str, list[float]] = {
    "hoffmann": [1.6, 20.0, 0.3, 60.0, 0.3],
    "law-1": [2.0, 12.0, 0.3, 60.0, 0.3, 3.0],
    "law-2": [1.6, 20.0, 0.3, 60.0, 0.3, 2e5, 1e5, 0.12],
    "law-4": [1.6, 20.0, 0.3, 60.0, 0.3, 2e5, 1e5, 0.15, 0.15],
    "law-5b": [1.6, 20.0, 0.3, 0.25, 1.0, 0.8, 3e6, 8e5],
    "law-8": [1.6, 20.0, 0.3, 100.0, 0.3, 2e5, 1e5, 0.12, -0.05],
    "law-16": [1.6, 10.0, 0.3, 100.0, 0.3, 2e5, 1e5, 0.15, -0.05, 0.8],
}
TRUTH |= {
    "law-2-given": [1.6, 20.0, 0.3, 1.5, 1e5, 0.12, 0.02],
    "law-8-given": [1.6, 20.0, 0.3, 2.5, 1e5, 0.12, -0.05, 0.02],
}
if untried := {name.removesuffix("+cooldown") for name in FORMS} - TRUTH.keys():
    raise LookupError(
        f"TRUTH of tests/law/tables.py lacks parameters to try these forms with: {', '.join(sorted(untried))}"
    )
TRUTH |= {name: [*TRUTH[name.removesuffix("+cooldown")], 0.02] for name in FORMS if name.endswith("+cooldown")}
"""Parameters about as a sweep of models of 10k to 100k parameters shows them."""


def truth(form: str, n_domains: int) -> Array:
    """(K, P): the first domain has `TRUTH`, the others are near it."""
    moved = [np.random.default_rng(100 + k).normal(0, 0.08 * (k > 0), len(TRUTH[form])) for k in range(n_domains)]
    return np.array([np.array(TRUTH[form]) * np.exp(m) for m in moved])


def synthetic(
    form: str,
    *,
    n_domains: int = 1,
    sizes: Sequence[float] = (14e3, 36e3, 111e3),
    pretrain: Sequence[float] = (0.25e6, 0.5e6, 1e6, 2e6),
    specialize: Sequence[float] = (0, 0.125e6, 0.25e6, 0.5e6, 1e6),
    noise: float = 0.0,
    within: float = 0.0,
    across: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """A full grid of runs; ``noise`` is the log sd, ``within`` and ``across`` correlate runs of one branch point."""
    rng = np.random.default_rng(seed)
    theta, rows = truth(form, n_domains), []
    for n in sizes:
        for d in pretrain:
            shared = rng.normal()
            for k in range(n_domains):
                own = rng.normal()
                for s in specialize:
                    if d + s > 0:
                        luck = np.sqrt(across) * shared + np.sqrt(within - across) * own
                        error = noise * (luck + np.sqrt(1 - within) * rng.normal())
                        loss = FORMS[form].loss(theta[k], np.array(n), np.array(d), np.array(s)) * np.exp(error)
                        rows.append((int(n), int(d), int(s), f"domain{k}", float(loss), 0))
    columns = ["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss", "seed"]
    return pd.DataFrame(rows, columns=columns)


def chinchilla(shared_data: Path) -> pd.DataFrame:
    """The 240 points of Besiroglu et al. (2404.10102), digitised from Hoffmann's figure 4."""
    raw = pd.read_csv(shared_data / "chinchilla-245" / "svg_extracted_data.csv")
    n = raw["Model Size"]
    tokens = raw["Training FLOP"] / (6 * n)
    runs = pd.DataFrame({"n_params": n, "pretrain_tokens": tokens, "specialize_tokens": 0.0, "loss": raw["loss"]})
    return runs[runs["loss"] < np.sort(raw["loss"])[-5]].reset_index(drop=True)
