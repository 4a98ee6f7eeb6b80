"""Measured losses along iso-budget lines: what a split would really have cost, where a table of runs says so.

At a size N and T tokens, each measured D leaves R = T - D tokens for the domains. A domain's loss at its share of R is
read off its measured D' grid, interpolated linearly in log(D' + s), s being the least D' > 0 measured there. A point
outside the measured D' is not read at all: nothing here extrapolates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raysplit.split.problem import Accounting, Array


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredGrid:
    """Measured D' of one domain at one (N, D), rising, and the mean losses over the seeds."""

    specialize_tokens: Array
    losses: Array

    def loss(self, tokens: float) -> float:
        """Interpolated loss; NaN outside the grid."""
        s, slack = self.specialize_tokens, 1e-9 * self.specialize_tokens[-1]
        if not s[0] - slack <= tokens <= s[-1] + slack:
            return np.nan
        offset = s[s > 0].min(initial=np.inf)
        if offset == np.inf:  # the seed alone was read
            return float(self.losses[0])
        return float(np.interp(np.log(tokens + offset), np.log(s + offset), self.losses))


Surface = Mapping[int, Mapping[int, Sequence[MeasuredGrid]]]
"""N -> D -> one grid per domain; only the (N, D) at which every domain was measured."""


def measured_surface(runs: pd.DataFrame, domains: Sequence[str]) -> Surface:
    """Arrange a checked table of runs (see `raysplit.runs`) by N, D and domain."""
    keys = ["n_params", "pretrain_tokens", "domain", "specialize_tokens"]
    means = runs.groupby(keys, sort=True)["loss"].mean().reset_index()
    surface: dict[int, dict[int, list[MeasuredGrid]]] = {}
    at = zip(means["n_params"].astype(int), means["pretrain_tokens"].astype(int), strict=True)
    for n_params, pretrain_tokens in dict.fromkeys(at):
        rows = means[(means["n_params"] == n_params) & (means["pretrain_tokens"] == pretrain_tokens)]
        grids = []
        for name in domains:
            own = rows[rows["domain"] == name]
            grids.append(
                MeasuredGrid(
                    specialize_tokens=own["specialize_tokens"].to_numpy(dtype=float),
                    losses=own["loss"].to_numpy(dtype=float),
                )
            )
        if all(grid.losses.size for grid in grids):
            surface.setdefault(n_params, {})[pretrain_tokens] = grids
    return surface


def row_budget(runs: pd.DataFrame, *, n_domains: int, accounting: Accounting) -> Array:
    """T of the smallest iso-budget line that a row lies on, every domain specialized alike, (n_rows,) tokens."""
    copies = n_domains if accounting == "shared" else 1
    return (runs["pretrain_tokens"] + copies * runs["specialize_tokens"]).to_numpy(dtype=float)


def largest_budget(grids: Mapping[int, Sequence[MeasuredGrid]], *, accounting: Accounting, n_choices: int = 3) -> float:
    """Largest T at which ``n_choices`` measured D of one size can be compared; 0 where there are fewer."""
    tops = []
    for pretrain_tokens, domains in grids.items():
        most = [grid.specialize_tokens[-1] for grid in domains]
        tops.append(pretrain_tokens + (sum(most) if accounting == "shared" else min(most)))
    # At a smaller T a D may drop out from below, so ask again at each candidate.
    for total in sorted(tops, reverse=True):
        if len(comparable(grids, total, accounting=accounting)) >= n_choices:
            return float(total)
    return 0.0


def comparable(
    grids: Mapping[int, Sequence[MeasuredGrid]], total: float, *, accounting: Accounting, n_seeds: int = 1
) -> list[int]:
    """Measured D, paid for ``n_seeds`` times, from which T tokens can be spent within every domain's measured D'."""
    found = []
    for pretrain_tokens, domains in grids.items():
        rest = total - n_seeds * pretrain_tokens
        least = [grid.specialize_tokens[0] for grid in domains]
        most = [grid.specialize_tokens[-1] for grid in domains]
        slack = 1e-9 * total
        if accounting == "shared":
            fits = sum(least) - slack <= rest <= sum(most) + slack
        else:
            fits = max(least) - slack <= rest <= min(most) + slack
        if fits:
            found.append(pretrain_tokens)
    return found
