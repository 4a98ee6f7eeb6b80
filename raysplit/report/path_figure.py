"""How the recommendation moved as the sweep paid for more observations."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raysplit.quantities import format_count
from raysplit.report.story import Story
from raysplit.report.style import ACCENT, INK, MUTED, new_figure
from raysplit.split.problem import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_SPAN = 0.3
"""Of D/T shown, so that a settled recommendation looks settled."""
_LABEL_INCHES = 0.4
"""Least distance between two labels."""
_MOST_SIZES = 5


def draw_path(story: Story, width: float) -> "Figure":
    """D/T with its interval, N, and what better knowledge would still save, against the FLOPs that the sweep spent."""
    figure = new_figure(width=width, height=4.8)
    share, size, regret = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [1.6, 0.9, 1.1]})
    spent = np.array([advice.spent_flops for advice in story.history.advices])
    exponent = math.floor(math.log10(max(spent)))
    spent = spent / 10.0**exponent
    _share(share, story, spent, label_gap=_LABEL_INCHES / width * max(spent))
    _size(size, story, spent)
    _regret(regret, story, spent)
    regret.set_xlim(0, 1.06 * max(spent))
    regret.set_xlabel(f"FLOPs spent by the sweep (1e{exponent})")
    figure.align_ylabels([share, size, regret])
    return figure


def _share(axes: "Axes", story: Story, spent: Array, *, label_gap: float) -> None:
    past = story.history.advices
    mean, low, high = (np.array([getattr(a.pretrain_share, end) for a in past]) for end in ("mean", "low", "high"))
    axes.fill_between(spent, low, high, color=ACCENT, alpha=0.15, linewidth=0)
    axes.errorbar(
        spent, mean, yerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)], fmt="o-", color=ACCENT,
        markersize=4.5, linewidth=1.6, elinewidth=1,
    )  # fmt: skip
    last = -math.inf
    for x, top, each in zip(spent, np.maximum(mean, high), past, strict=True):
        if x - last >= label_gap:
            axes.annotate(
                str(each.n_observations), (x, top), xytext=(0, 3), textcoords="offset points", ha="center",
                fontsize=7.5, color=MUTED,
            )  # fmt: skip
            last = x
    middle, span = (low.min() + high.max()) / 2, max(1.25 * (high.max() - low.min()), _LEAST_SPAN)
    axes.set_ylim(max(middle - span / 2, -0.02), min(middle + 0.6 * span, 1.1))
    axes.set_ylabel("advised D/T")


def _size(axes: "Axes", story: Story, spent: Array) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    sizes = sorted(story.problem.sizes)
    advised = [a.n_params for a in story.history.advices]
    axes.step(spent, advised, where="post", color=INK, linewidth=1.2)
    axes.plot(spent, advised, "s", color=INK, markersize=4.5)
    axes.set_yscale("log")
    shown = _spread(sizes, _MOST_SIZES)
    axes.set_yticks(shown, [format_count(n) for n in shown])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.set_ylabel("advised N")


def _regret(axes: "Axes", story: Story, spent: Array) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    regrets = [100 * advice.expected_regret for advice in story.history.advices]
    tolerance = 100 * story.setup.regret_tolerance
    axes.plot(spent, regrets, "o-", color=INK, markersize=4.5, linewidth=1.2)
    if tolerance > 0:
        axes.axhline(tolerance, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        axes.annotate(
            "tolerance", (0, tolerance), xycoords=("axes fraction", "data"), xytext=(3, 2), textcoords="offset points",
            fontsize=7.5, color=MUTED,
        )  # fmt: skip
    if shown := [value for value in (*regrets, tolerance) if value > 0]:
        axes.set_yscale("log")
        axes.set_ylim(min(shown) / 2, max(shown) * 2)
        within_a_decade = max(shown) / min(shown) < 10
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if within_a_decade else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("expected\nregret (%)")


def _spread(sizes: Sequence[int], most: int) -> list[int]:
    """At most so many of the sizes, evenly spread, first and last among them."""
    if len(sizes) <= most:
        return list(sizes)
    return [sizes[i] for i in sorted({round(k * (len(sizes) - 1) / (most - 1)) for k in range(most)})]
