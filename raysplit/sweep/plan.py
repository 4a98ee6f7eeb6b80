"""What a sweep will cost and on which machines it trains, before anything trains."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from raysplit.design.campaign import opening, whole_grid
from raysplit.design.lane_shapes import LaneShape, bytes_of, lane_shape_of
from raysplit.design.resolved_spec import ResolvedSpec, spec_of
from raysplit.design.tree import Trial
from raysplit.design.tree_state import price_together
from raysplit.machines import PEAK_FLOPS_PER_SECOND
from raysplit.quantities import counted, format_bytes, format_count, format_flops, format_seconds
from raysplit.space import Space
from raysplit.split.problem import FORWARD_SHARE
from raysplit.sweep.speed import Speed, busy_share, lanes_at_a_time, speed_of

_LANE_START_SECONDS = 20.0
STATE_BYTES = 12
"""Bytes of a checkpoint for each parameter: fp32 weights and Adam's two moments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRow:
    """What one size takes if the whole grid is measured, and what it is trained on."""

    n_params: int
    n_params_total: int
    lane: LaneShape
    rank_bytes: float
    """Bytes of its device that each worker takes."""
    n_trials: int
    n_points: int
    tokens: int
    """Tokens to train, each token of the tree once."""
    tokens_alone: int
    """Tokens to train if every point were a run of its own."""
    flops: float
    checkpoint_bytes: float
    """Size of one checkpoint."""
    disk_bytes: float
    """Size of all checkpoints that the tree needs at the end."""
    speed: Speed | None
    seconds: float | None
    """Time on one lane; None where the speed is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a sweep takes: each size, and all together."""

    rows: tuple[PlanRow, ...]
    opening_flops: float
    budget_flops: float
    """Most FLOPs that the sweep may train; infinite without a limit."""
    target_flops: float
    busy_share: float
    """Share of the time in which a lane has work; measured on other sweeps, see `raysplit.sweep.speed`."""
    n_lanes: float
    """Lanes at a time, in the mean over the work."""
    seconds_low: float | None
    """Wall time if the sweep ends after its opening."""
    seconds_high: float | None
    """Wall time if it spends its whole budget, or measures the whole grid."""
    disk_bytes: float
    """Checkpoints at the end, and one more of the largest for each lane: what is saved while it trains."""
    gpu: str | None
    utilization: float
    n_workers: int
    """Workers for which the machines have room."""

    @property
    def grid_flops(self) -> float:
        return sum(row.flops for row in self.rows)

    @property
    def is_timed(self) -> bool:
        return all(row.speed and row.speed.is_timed for row in self.rows)


def make_plan(space: Space, spec: ResolvedSpec, *, vocab_size: int, seconds_per_token: Mapping[int, float]) -> Plan:
    """Compute machines, trials, tokens, FLOPs, disk and time.

    ``seconds_per_token`` is one worker's by size, from `raysplit.train.calibrate`, as far as sizes could be timed.

    Raises:
        SpaceError: a size does not fit on the machines; names the nearest shape that does.
    """
    grid = whole_grid(spec).trials
    first = opening(spec).trials if spec.policy == "adaptive" else grid
    rows = tuple(_row(space, spec, n, grid, vocab_size, seconds_per_token) for n in spec.sizes)
    opening_flops, grid_flops = price_together(spec, first), sum(row.flops for row in rows)
    lane_seconds = [row.seconds for row in rows if row.seconds is not None]
    n_lanes = busy = 1.0
    low = high = None
    if len(lane_seconds) == len(rows):
        n_lanes = lanes_at_a_time(space, [(row.lane, s) for row, s in zip(rows, lane_seconds, strict=True)])
        together = sum(lane_seconds) / n_lanes
        busy = busy_share(n_lanes, idle_lanes=space.sweep.idle_lanes)
        low, high = (
            _LANE_START_SECONDS
            + max(
                together / busy * flops / grid_flops,
                _longest_seconds(trials, rows, most_flops=flops, trunks_exist=bool(spec.tree.given)),
            )
            for trials, flops in (
                (first, min(opening_flops, spec.budget_flops)),
                (grid, min(grid_flops, max(spec.budget_flops, opening_flops))),
            )
        )
    return Plan(
        rows=rows,
        opening_flops=opening_flops,
        budget_flops=spec.budget_flops,
        target_flops=spec.problem.budget_flops,
        busy_share=busy,
        n_lanes=n_lanes,
        seconds_low=low,
        seconds_high=high,
        disk_bytes=sum(row.disk_bytes for row in rows) + spec.lanes * max(row.checkpoint_bytes for row in rows),
        gpu=space.compute.gpu,
        utilization=space.compute.utilization,
        n_workers=space.compute.n_workers,
    )


def describe_plan(plan: Plan) -> list[tuple[str, list[tuple[str, ...]]]]:
    """The plan as titled tables, each with its header first."""
    machines: list[tuple[str, ...]] = [
        ("N", "ranks", "nodes", "ZeRO", "micro-batch", "memory a rank", "tokens/s", "one lane", "checkpoint")
    ]
    work: list[tuple[str, ...]] = [
        ("N", "with embedding", "trials", "points", "tokens", "as single runs", "FLOPs", "disk")
    ]
    for row in plan.rows:
        lane, mark = row.lane, "" if row.speed and row.speed.is_timed else "~"
        machines.append(
            (
                format_count(row.n_params),
                _ranks(lane),
                str(lane.n_nodes),
                str(lane.zero_stage),
                f"{lane.micro_batch_sequences}{', twice' if lane.activation_checkpointing else ''}",
                format_bytes(row.rank_bytes),
                "not timed" if row.speed is None else f"{mark}{format_count(row.speed.of_lane(lane))}",
                "not timed" if row.seconds is None else f"{mark}{format_seconds(row.seconds)}",
                format_bytes(row.checkpoint_bytes),
            )
        )
        work.append(
            (
                format_count(row.n_params),
                format_count(row.n_params_total),
                str(row.n_trials),
                str(row.n_points),
                format_count(row.tokens),
                format_count(row.tokens_alone),
                f"{row.flops:.2e}",
                format_bytes(row.disk_bytes),
            )
        )
    return [("machines", machines), ("work, if the whole grid is measured", work)]


def plan_notes(plan: Plan) -> list[str]:
    """The sentences below the tables."""
    notes = [
        f"whole grid {format_flops(plan.grid_flops)}; opening round {format_flops(plan.opening_flops)}; "
        f"target budget {format_flops(plan.target_flops)}; checkpoints at most {format_bytes(plan.disk_bytes)}"
    ]
    if any(row.lane.activation_checkpointing for row in plan.rows):
        notes.append("twice: activations are computed twice, which takes a third more and is no part of the FLOPs")
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
    return [*notes, *_time_notes(plan), _final_note(plan)]


def hours_sentence(plan: Plan) -> str:
    """How long the sweep will take, in words; empty where the speed is not known."""
    if plan.seconds_low is None or plan.seconds_high is None:
        return ""
    return f"about {_duration(plan.seconds_low)} to {_duration(plan.seconds_high)} for the sweep"


def _time_notes(plan: Plan) -> list[str]:
    if not (hours := hours_sentence(plan)):
        return [
            "not timed: this machine lacks the device that the space asks for, and compute.gpu does not name it to "
            "reckon with"
        ]
    notes = [
        f"{hours}, reading the held-out text included, with {plan.n_lanes:.3g} lanes at a time that have work for "
        f"{100 * plan.busy_share:.0f} % of it (measured on replayed sweeps with equal lanes, LOG 2026-11-26)"
    ]
    if not plan.is_timed:
        notes.append(
            f"times with ~ are reckoned, not measured: F(N) at {100 * plan.utilization:.0f} % of the bf16 peak of one "
            f"{plan.gpu} (compute.gpu, compute.utilization), without what ranks say to each other"
        )
    return notes


def _final_note(plan: Plan) -> str:
    """What comes after the sweep, if the answer is taken at the target's budget."""
    times = plan.target_flops / min(plan.budget_flops, plan.grid_flops)
    note = f"a final run at the target budget costs {times:.2g} times what the sweep may spend"
    if plan.gpu is not None:
        reached = PEAK_FLOPS_PER_SECOND[plan.gpu] * plan.utilization * plan.n_workers
        note += f", about {_duration(plan.target_flops / reached)} on {counted(plan.n_workers, 'GPU')} that never wait"
    return note


def _duration(seconds: float) -> str:
    """A time in words; from ten hours on without minutes, since nothing here is known better than that."""
    return f"{seconds / 3600:.0f} h" if seconds >= 36_000 else format_seconds(seconds)


def _ranks(lane: LaneShape) -> str:
    shares = lane.gpus_per_worker % 1
    return f"{lane.n_workers} of {lane.gpus_per_worker:g} GPU" if shares else str(lane.n_workers)


def _longest_seconds(
    trials: tuple[Trial, ...], rows: tuple[PlanRow, ...], *, most_flops: float, trunks_exist: bool
) -> float:
    """Seconds of the longest path through trunk and branch that ``most_flops`` pay: more lanes do not shorten it."""
    by_size, longest = {row.n_params: row for row in rows}, 0.0
    for trial in trials:
        points = [trial.point(m) for m in trial.milestones]
        row, tokens = by_size[trial.n_params], max(s if trunks_exist else d + s for d, s in points)
        if row.speed is not None and tokens * row.flops / row.tokens <= most_flops:
            longest = max(longest, tokens / row.speed.of_lane(row.lane))
    return longest


def text_notes(space: Space) -> list[str]:
    """How much text the grids ask for, and which text is missing, as far as that shows before anything is read."""
    share_of, corpus = space.corpus.shares, space.corpus
    needed = {
        name: math.ceil(share_of[name] * space.most_mixture_tokens) + max(space.specialize_grid)
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
    return notes + [
        f"warning: corpus: {name!r}: {path}: no such file or folder here" for name, path in missing_texts(space)
    ]


def missing_texts(space: Space) -> list[tuple[str, str]]:
    """(name, path) of files and folders that are not on this machine."""
    corpus = space.corpus
    paths = {
        name: source.path or ""
        for name, source in {**corpus.texts, **corpus.sources}.items()
        if source.kind in ("files", "table")
    }
    return [(name, path) for name, path in paths.items() if not has_magic(path) and not Path(path).exists()]


def checkpoint_bytes(space: Space) -> float:
    """Most bytes of checkpoints on the run's storage, computed before anything is built."""
    vocab_size = space.corpus.tokenizer.vocab_size
    spec = spec_of(space, vocab_size=vocab_size)
    return make_plan(space, spec, vocab_size=vocab_size, seconds_per_token={}).disk_bytes


def _row(
    space: Space,
    spec: ResolvedSpec,
    n_params: int,
    grid: tuple[Trial, ...],
    vocab_size: int,
    timed: Mapping[int, float],
) -> PlanRow:
    trials = [trial for trial in grid if trial.n_params == n_params]
    points = [trial.point(m) for trial in trials for m in trial.milestones]
    flops = price_together(spec, trials)
    tokens = round(flops / spec.flops_per_token[n_params])
    model = space.shape(n_params, vocab_size)
    lane = lane_shape_of(space, n_params, vocab_size=vocab_size)
    # A trunk keeps a checkpoint at every D of the grid, each branch its deepest; an initialisation needs no file.
    n_trunk = 0 if spec.tree.given else sum(d > 0 for d in spec.pretrain_grid)
    n_kept = sum(n_trunk if trial.is_trunk else 1 for trial in trials)
    checkpoint_bytes = float(model.n_params_trained * STATE_BYTES)
    read = len(points) * len(spec.domains) * space.training.validation_tokens * FORWARD_SHARE
    speed = speed_of(space, model, lane, timed)
    return PlanRow(
        n_params=n_params,
        n_params_total=model.n_params_total,
        lane=lane,
        rank_bytes=bytes_of(space, model, lane).total,
        n_trials=len(trials),
        n_points=len(points),
        tokens=tokens,
        tokens_alone=sum(s if spec.tree.given else d + s for d, s in points),
        flops=flops,
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=n_kept * checkpoint_bytes,
        speed=speed,
        seconds=None if speed is None else (tokens + read) / speed.of_lane(lane),
    )
