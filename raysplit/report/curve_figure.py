"""Loss against the share of the tokens that goes into pretraining, at the target budget."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raysplit.errors import SplitError
from raysplit.quantities import format_count
from raysplit.report.budget_line import Point, measured_variants, sweep_readings
from raysplit.report.final import RECOMMENDED
from raysplit.report.story import Story
from raysplit.report.style import ACCENT, INK, MUTED, PAPER, legend_below, new_figure
from raysplit.split import LossCurve, loss_curve
from raysplit.split.advice import FLAT_TOLERANCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHARES = np.linspace(0.0, 1.0, 201)
_MOST_EXCESS = 0.25
"""Losses further above the best than this, as a share, do not stretch the axis."""
_VARIANT_MARKERS = {RECOMMENDED: "*", "pretraining only": "s", "80/20": "D", "50/50": "v", "from scratch": "^"}
_DASHES: tuple[tuple[float, ...], ...] = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 2), (8, 3))


def draw_curve(story: Story, width: float) -> "Figure":
    """The advised size's curve with its interval, the other sizes' as thin lines, and every measured point."""
    advice = story.advice
    curve = _curve(story, advice.split.n_params)
    figure = new_figure(width=width, height=4.4 if width > 5 else 4.6)
    axes = figure.add_subplot()
    variants, readings = measured_variants(story), sweep_readings(story)
    if curve is not None:
        axes.fill_between(
            curve.shares, curve.low, curve.high, color=ACCENT, alpha=0.18, linewidth=0,
            label=f"{advice.level:.0%} interval",
        )  # fmt: skip
        axes.plot(
            curve.shares, curve.loss, color=ACCENT, linewidth=2, zorder=3,
            label=f"N = {format_count(curve.n_params)} (advised)",
        )  # fmt: skip
    others = [size.split.n_params for size in advice.sizes if size.split.n_params != advice.split.n_params]
    for k, n_params in enumerate(others):
        if (other := _curve(story, n_params)) is not None:
            axes.plot(
                other.shares, other.loss, color=MUTED, linewidth=0.9, dashes=_DASHES[k % len(_DASHES)],
                label=f"N = {format_count(n_params)}",
            )  # fmt: skip
    low, high = advice.flat
    axes.axvspan(low, high, color=INK, alpha=0.07, linewidth=0, label=f"within {FLAT_TOLERANCE:.1%} of the best")
    axes.axvline(advice.pretrain_share.mean, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label="advised split")
    if readings:
        axes.plot(
            [p.pretrain_share for p in readings], [p.loss for p in readings], "o", color=INK, markerfacecolor=PAPER,
            markersize=4.5, zorder=4, label="sweep's runs, interpolated",
        )  # fmt: skip
    _frame(axes, story, curve, [p.loss for p in (*variants, *readings)])
    for point in variants:
        _draw_variant(axes, story, point)
    legend_below(figure, axes, n_columns=3 if width > 5 else 2)
    return figure


def _draw_variant(axes: "Axes", story: Story, point: Point) -> None:
    """A measured split; one above the frame sits on its edge, with an arrow and its loss."""
    top = axes.get_ylim()[1]
    beyond = point.loss > top
    axes.errorbar(
        [point.pretrain_share], [top if beyond else point.loss],
        yerr=None if beyond else [point.loss * (story.law.seed_noise or 0.0)],
        fmt=_VARIANT_MARKERS.get(point.name, "P"), color=INK, markeredgecolor=PAPER, markeredgewidth=0.7,
        markersize=12 if point.name == RECOMMENDED else 7.5, elinewidth=1, zorder=5, clip_on=False,
        label=f"{point.name}, measured",
    )  # fmt: skip
    if beyond:
        axes.annotate(
            f"↑ {point.loss:.2f}", (point.pretrain_share, top), xytext=(0, -9), textcoords="offset points",
            ha="right" if point.pretrain_share > 0.5 else "left", va="top", zorder=6,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip


def _frame(axes: "Axes", story: Story, curve: LossCurve | None, measured: Sequence[float]) -> None:
    """Limits that show how flat the bottom is: what is far above the best does not stretch them."""
    best = story.advice.loss.mean
    near = [*measured, story.advice.loss.low, story.advice.loss.high]
    near += [gain.loss.high for gain in story.advice.gains] + [size.loss.high for size in story.advice.sizes]
    near = [loss for loss in near if loss < best * (1 + _MOST_EXCESS)]
    lowest = [float(np.nanmin(curve.low))] if curve is not None else []
    bottom, top = min([*near, *lowest]), max(near)
    margin = 0.08 * max(top - bottom, 0.01 * best)
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks(np.linspace(0, 1, 6), ["0\nfrom scratch", "0.2", "0.4", "0.6", "0.8", "1\npretraining only"])
    # The outer labels would hang over the frame.
    ticks = axes.get_xticklabels()
    ticks[0].set_horizontalalignment("left")
    ticks[-1].set_horizontalalignment("right")
    total = "D + Σ D'" if story.advice.accounting == "shared" else "D + D'"
    axes.set_xlabel(f"share of the tokens in pretraining, D / ({total})")
    axes.set_ylabel("weighted loss (nats/token)")
    relative = axes.twinx()
    relative.set_ylim(*(100 * (loss / best - 1) for loss in axes.get_ylim()))
    relative.grid(visible=False)
    relative.set_ylabel("above the advised split (%)")
    relative.spines["right"].set_visible(True)


def _curve(story: Story, n_params: int) -> LossCurve | None:
    """The loss along the budget's line at a size; None where the budget buys nothing there."""
    try:
        return loss_curve(story.law, story.problem, n_params=n_params, shares=_SHARES, level=story.advice.level)
    except SplitError:
        return None
