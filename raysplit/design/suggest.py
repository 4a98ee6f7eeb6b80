"""Which runs to add to a table: those that tell most about the split for their price, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.design.designs import drop_of_spread
from raysplit.design.value import belief_of
from raysplit.law import DEFAULT_FORMS, Law, fit_law
from raysplit.law.identified import SAME_RATIO, Identified
from raysplit.quantities import format_count, format_flops
from raysplit.split import Problem

_LEVELS = 5
"""Values of each quantity that are tried, between the least and the most that the runs have."""
_SHARE_OF_TARGET = 0.1
"""A run that costs more than this share of the target's budget is not suggested."""
_DRAWS = 64


class PriceLike(Protocol):
    """F(N), FLOPs per training token; `raysplit.split.price.Price` is one."""

    def __call__(self, n_params: int) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SuggestedRun:
    """One run to add."""

    n_params: int
    pretrain_tokens: int
    specialize_tokens: int
    domain: str
    flops: float
    """FLOPs from initialisation, F(N) (D + D')."""
    drop: float
    """How much it is expected to lower the variance of the regret, as a share of what the runs before it leave."""


def suggest(
    law: Law, runs: pd.DataFrame, problem: Problem, price: PriceLike, *, n_runs: int, seed: int = 0
) -> list[SuggestedRun]:
    """The runs that tell most for their price, the most useful first; each is chosen as if those before it were run.

    First comes one run for each thing that the table does not tell (`raysplit.law.identified`).

    Where the runs do not vary N, D or D', the two-stage law's priors say how much may be learnt there. For a choice of
    runs that is a prior's proper use: a guess of what is not known yet.

    Args:
        law: fitted to the runs.
        runs: a checked table.
        problem: the target; its caps and a fixed seed count.
        price: F(N) of any size.
        n_runs: how many; fewer come back where no more are worth adding.
        seed: of the fit of a two-stage law, where the runs have no D' > 0.

    Raises:
        LawError: no two-stage law can be fitted to the runs.
        SplitError: no split satisfies the problem.
    """
    if (runs["specialize_tokens"] == 0).all():
        law = fit_law(runs, forms=DEFAULT_FORMS, n_draws=_DRAWS, seed=seed)
    points = _points(runs, problem, price)
    n, d, s = np.array(points, dtype=float).T
    domains = law.domains
    belief = belief_of(law, problem, n, d, s)
    flops = np.repeat([price(int(a)) * (b + c) for a, b, c in points], len(domains))
    found: list[SuggestedRun] = []
    opening = _openings(
        law.identified, runs, np.repeat(np.array(points), len(domains), axis=0), np.tile(domains, len(points))
    )
    for _ in range(n_runs):
        left = float(belief.regret.var(axis=0).sum())
        drop = drop_of_spread(belief, np.arange(flops.size)[:, None]) * belief.regret.shape[1] / max(left, 1e-300)
        rate = drop / flops
        if opening and (first := opening.pop(0) & np.isfinite(flops)).any():
            rate = np.where(first, rate + np.finfo(float).tiny / flops, 0.0)  # the cheapest, where none tells anything
        best = int(np.argmax(rate))
        if not rate[best] > 0:
            break
        at, k = divmod(best, len(domains))
        found.append(
            SuggestedRun(
                n_params=int(points[at][0]), pretrain_tokens=int(points[at][1]), specialize_tokens=int(points[at][2]),
                domain=domains[k], flops=float(flops[best]), drop=float(drop[best]),
            )
        )  # fmt: skip
        belief = belief.expecting([best])
        flops[best] = np.inf
    return found


def render_suggestions(found: Sequence[SuggestedRun]) -> str:
    """The runs as a table for a person."""
    if not found:
        return "No run is worth adding: the law's draws agree on the split."
    lines = [
        "Runs to add, the most useful for their price first",
        f"  {'N':>8} {'D':>8} {'D_':>8}  {'FLOPs':>12}  domain",
    ]
    lines[1] = lines[1].replace("D_", "D'")
    for one in found:
        lines.append(
            f"  {format_count(one.n_params):>8} {format_count(one.pretrain_tokens):>8} "
            f"{format_count(one.specialize_tokens):>8}  {format_flops(one.flops):>12}  {one.domain}"
        )
    return "\n".join(lines)


def _points(runs: pd.DataFrame, problem: Problem, price: PriceLike) -> list[tuple[int, int, int]]:
    """(N, D, D') that could be run: values that the runs have, and others where they do not vary a quantity."""
    sizes = _levels(runs["n_params"])
    pretrain = _levels(runs.loc[runs["pretrain_tokens"] > 0, "pretrain_tokens"])
    branch = _levels(runs.loc[runs["specialize_tokens"] > 0, "specialize_tokens"])
    if not pretrain:
        pretrain = branch
    if not branch:
        branch = sorted({d // part for d in pretrain for part in (4, 16)})
    every = [(n, d, s) for n, d, s in product(sizes, pretrain, (0, *branch)) if d + s > 0]
    most = _SHARE_OF_TARGET * problem.budget_flops
    cheap = [(n, d, s) for n, d, s in every if price(n) * (d + s) <= most]
    return cheap or [min(every, key=lambda p: price(p[0]) * (p[1] + p[2]))]


def _openings(
    known: Identified | None, runs: pd.DataFrame, points: NDArray[np.int64], domain: NDArray[np.str_]
) -> list[NDArray[np.bool_]]:
    """For each thing that the runs do not tell, which candidates (X,) would begin to; ``points`` is (X, 3)."""
    if known is None:
        return []
    n, d, s = points.T
    found = []
    if not known.specialization:
        found.append(s > 0)
    if not known.pretraining:
        found.append((d > 0) & ~np.isin(d, runs["pretrain_tokens"]))
    if not known.sizes:
        found.append(~np.isin(n, runs["n_params"]))
    if known.one_size_ratio is not None:
        found.append(np.abs(np.log(np.maximum(d, 1) / n / known.one_size_ratio)) > np.log(SAME_RATIO))
    if known.one_branch_ratio is not None:
        found.append(np.abs(np.log(np.maximum(s, 1) / np.maximum(d, 1) / known.one_branch_ratio)) > np.log(SAME_RATIO))
    found += [(domain == name) & (s > 0) for name in known.without_specialization]
    found += [domain == name for name in known.few_points if name not in known.without_specialization]
    return found


def _levels(values: "pd.Series[int]") -> list[int]:
    """At most `_LEVELS` of the values; of a single value, itself, a quarter of it and four times it."""
    known = np.unique(values.to_numpy())
    if known.size == 1:
        return [int(known[0]) // 4, int(known[0]), 4 * int(known[0])]
    if not known.size:
        return []
    at = np.unique(np.linspace(0, known.size - 1, min(known.size, _LEVELS)).astype(int))
    return known[at].astype(int).tolist()
