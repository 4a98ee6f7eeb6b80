"""What a training token costs at each size: what the runs paid, and 6N (Kaplan 2001.08361, 2.1) where they do not say.

Notation
    N   n_params, non-embedding parameters          F(N)   FLOPs to train a model of N parameters on one token
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raysplit.quantities import counted
from raysplit.runs import BASE

SAME_PRICE = 1.1
"""FLOPs a token of one size that differ by less than this factor are one price."""
FAMILY = "the model family's own FLOPs"
COUNTED = "FLOPs counted from each base's model"
TABLE = "the FLOPs that the runs paid"
RULE = "6 N FLOPs a token"


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """F(N), from what is known of some sizes."""

    known: Mapping[int, float]
    """n_params -> FLOPs per training token; empty for 6N."""
    source: str
    """Where F(N) is from, as the answer says it."""

    def __call__(self, n_params: int) -> float:
        """F(N): linear in the logarithms between known sizes, and a constant multiple of N beyond them."""
        if n_params in self.known:
            return self.known[n_params]
        if not self.known:
            return 6.0 * n_params
        sizes = np.array(sorted(self.known), dtype=float)
        ratios = np.array([self.known[int(n)] / n for n in sizes])
        return float(n_params * np.exp(np.interp(np.log(n_params), np.log(sizes), np.log(ratios))))

    def of(self, sizes: "list[int] | tuple[int, ...]") -> dict[int, float]:
        """F(N) of some sizes."""
        return {int(n): self(int(n)) for n in sizes}


def price_of(runs: pd.DataFrame) -> tuple[Price, str]:
    """The price that a checked table of runs tells by its ``flops``, and a doubt about them, empty where there is none.

    ``flops`` are those of the whole path from initialisation, F(N) (D + D'), as in raysplit's own observations; from a
    base they are those of the branch, F(N) D'.
    """
    told = runs[runs["flops"] > 0] if "flops" in runs else runs.iloc[:0]
    if BASE in runs:
        told = told[told["specialize_tokens"] > 0]
    if told.empty:
        return Price(known={}, source=RULE), ""
    before = 0 if BASE in runs else told["pretrain_tokens"]
    per_token = told["flops"] / (before + told["specialize_tokens"])
    by_size = per_token.groupby(told["n_params"])
    medians = by_size.median()
    known = dict(zip(medians.index.astype(int).tolist(), medians.astype(float).tolist(), strict=True))
    apart = np.maximum(per_token / by_size.transform("median"), by_size.transform("median") / per_token)
    if (n_apart := int((apart > SAME_PRICE).sum())) > len(told) // 2:
        return Price(known={}, source=RULE), (
            f"flops over tokens is no one number for a size ({counted(n_apart, 'row')} differ by more than "
            f"{SAME_PRICE - 1:.0%}): they are not the FLOPs of the whole path, D + D' tokens, and 6 N is taken"
        )
    return Price(known=known, source=TABLE), ""
