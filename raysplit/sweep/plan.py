"""What a sweep is going to cost, before anything trains."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from raysplit.design.campaign import opening, whole_grid
from raysplit.design.evidence import price_together
from raysplit.design.setup import Setup
from raysplit.design.tree import Trial
from raysplit.quantities import format_bytes, format_count, format_flops, format_seconds
from raysplit.space import Space

_LANE_START_SECONDS = 20.0
_STATE_BYTES = {"fp32": 12, "bf16": 14}
"""Bytes of a checkpoint for each parameter: fp32 weights and Adam's two moments, and the bf16 weights beside them."""
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """What one size takes if the whole grid is measured."""

    n_params: int
    n_params_total: int
    n_trials: int
    n_points: int
    tokens: int
    """Each token of the tree once."""
    tokens_alone: int
    """If every point were a run of its own."""
    flops: float
    disk_bytes: float
    seconds: float | None
    """On one lane; None without a calibration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    rows: tuple[PlanRow, ...]
    opening_flops: float
    budget_flops: float
    """Of the sweep; infinite without a limit."""
    target_flops: float
    seconds_low: float | None
    """Wall time on all lanes if the sweep ends after its opening."""
    seconds_high: float | None
    """If it spends its whole budget, or measures the whole grid."""
    disk_bytes: float

    @property
    def grid_flops(self) -> float:
        return sum(row.flops for row in self.rows)


def make_plan(space: Space, setup: Setup, *, vocab_size: int, seconds_per_token: Mapping[int, float] | None) -> Plan:
    """Reckon trials, tokens, FLOPs, disk and time.

    Args:
        space: the search space.
        setup: its resolved set-up.
        vocab_size: of the tokenizer.
        seconds_per_token: of one worker by size, from `raysplit.train.calibrate`; None leaves times out.
    """
    grid = whole_grid(setup).trials
    rows = tuple(_row(space, setup, n, grid, vocab_size, seconds_per_token) for n in setup.sizes)
    opening_flops = price_together(setup, opening(setup).trials if setup.policy == "adaptive" else grid)
    grid_flops = sum(row.flops for row in rows)
    low = high = None
    if seconds_per_token is not None:
        whole = sum(row.seconds or 0.0 for row in rows) / setup.lanes
        per_flop = whole / grid_flops
        low = _LANE_START_SECONDS + min(opening_flops, setup.budget_flops) * per_flop
        high = _LANE_START_SECONDS + min(grid_flops, max(setup.budget_flops, opening_flops)) * per_flop
    return Plan(
        rows=rows,
        opening_flops=opening_flops,
        budget_flops=setup.budget_flops,
        target_flops=setup.problem.budget_flops,
        seconds_low=low,
        seconds_high=high,
        disk_bytes=sum(row.disk_bytes for row in rows),
    )


def describe_plan(plan: Plan) -> tuple[list[tuple[str, ...]], list[str]]:
    """The plan as rows of a table (header first) and sentences below it."""
    table: list[tuple[str, ...]] = [
        ("N", "with embedding", "trials", "points", "tokens", "as single runs", "FLOPs", "disk", "one lane")
    ]
    for row in plan.rows:
        table.append(
            (
                format_count(row.n_params),
                format_count(row.n_params_total),
                str(row.n_trials),
                str(row.n_points),
                format_count(row.tokens),
                format_count(row.tokens_alone),
                f"{row.flops:.2e}",
                format_bytes(row.disk_bytes),
                format_seconds(row.seconds) if row.seconds is not None else "not timed",
            )
        )
    notes = [
        f"whole grid {format_flops(plan.grid_flops)}; opening round {format_flops(plan.opening_flops)}; "
        f"target budget {format_flops(plan.target_flops)}; checkpoints at most {format_bytes(plan.disk_bytes)}"
    ]
    if plan.budget_flops < float("inf"):
        notes.append(
            f"sweep budget {format_flops(plan.budget_flops)}, "
            f"{100 * plan.budget_flops / plan.grid_flops:.0f} % of the grid"
        )
        if plan.opening_flops > plan.budget_flops:
            notes.append(
                "warning: the opening round alone is over the sweep's budget; raise sweep.budget_flops or "
                "shorten the grids"
            )
    if plan.seconds_low is not None and plan.seconds_high is not None:
        notes.append(
            f"about {format_seconds(plan.seconds_low)} to {format_seconds(plan.seconds_high)} on all lanes, "
            "reading the held-out text included"
        )
    else:
        notes.append("not timed: this machine lacks the device that the space asks for")
    return table, notes


def text_notes(space: Space) -> list[str]:
    """What the grids ask of the text, and where that can be seen not to be there before anything is read."""
    share_of, corpus = space.corpus.shares, space.corpus
    needed = {
        name: math.ceil(share_of[name] * max(space.pretrain_grid)) + max(space.specialize_grid)
        for name in space.domains
    }
    notes = [
        f"of a domain up to {format_count(max(needed.values()))} tokens are trained on (its share of D, then D'), each "
        f"at most corpus.max_epochs = {corpus.max_epochs:g} times"
    ]
    if corpus.discover is not None:
        notes.append(
            f"its domains are found in the text first: {corpus.discover.k} clusters, reckoned here as equally large"
        )
    for name, source in corpus.domains.items():
        if source.max_bytes is not None and needed[name] > corpus.max_epochs * source.max_bytes:
            notes.append(
                f"warning: domain {name!r}: max_bytes = {source.max_bytes:,} bytes of text hold fewer than the "
                f"{needed[name]:,} tokens; raise it or corpus.max_epochs, or shorten the grids"
            )
    for name, source in {**corpus.domains, **corpus.sources}.items():
        path = source.path or ""
        if source.kind in ("files", "table") and not has_magic(path) and not Path(path).exists():
            notes.append(f"warning: domain {name!r}: {path}: no such file or folder here")
    return notes


def _row(
    space: Space,
    setup: Setup,
    n_params: int,
    grid: tuple[Trial, ...],
    vocab_size: int,
    seconds_per_token: Mapping[int, float] | None,
) -> PlanRow:
    trials = [trial for trial in grid if trial.n_params == n_params]
    points = [trial.point(m) for trial in trials for m in trial.milestones]
    flops = price_together(setup, trials)
    tokens = round(flops / setup.flops_per_token[n_params])
    total = space.shape(n_params, vocab_size).n_params_total
    # Trunks keep a checkpoint at every D of the grid and at zero, each branch its deepest.
    n_kept = sum(1 + len(setup.pretrain_grid) if trial.is_trunk else 1 for trial in trials)
    read = len(points) * len(setup.domains) * space.training.validation_tokens * _FORWARD_SHARE
    seconds = None
    if seconds_per_token is not None:
        seconds = (tokens + read) * seconds_per_token[n_params] / space.compute.workers_per_lane
    return PlanRow(
        n_params=n_params,
        n_params_total=total,
        n_trials=len(trials),
        n_points=len(points),
        tokens=tokens,
        tokens_alone=sum(map(sum, points)),
        flops=flops,
        disk_bytes=float(n_kept * total * _STATE_BYTES[space.training.precision]),
        seconds=seconds,
    )
