"""The tree of runs: what was trained from where, what was measured, stopped or lost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raysplit.design.evidence import chain
from raysplit.design.tree import Trial
from raysplit.live.answers import Ending
from raysplit.quantities import format_count
from raysplit.report.story import Story
from raysplit.report.style import ALARM, INK, PAPER, count_ticks, domain_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_INCHES = (0.055, 0.13)
_GROUP_GAP = 1.2
"""Rows left empty between the trees of two seeds."""
_COMPRESSED = 40.0
"""When the longest path is this many times the shortest step, positions are drawn on a square-root scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """One trunk or branch on its row."""

    chain: Trial
    measured: tuple[int, ...]
    row: float
    root_row: float
    """Where its seed's trunk is drawn."""

    def x(self, milestone: int) -> float:
        """Tokens trained since initialisation."""
        return float(sum(self.chain.point(milestone)))


def draw_tree(story: Story, width: float) -> "Figure":
    """A panel for each size; in it the trunk on top, its branches below, those that leave last uppermost."""
    chains = story.history.chains
    sizes = sorted({each.n_params for each in chains})
    panels = {n: _lines(story, {c: m for c, m in chains.items() if c.n_params == n}) for n in sizes}
    heights = {n: max((line.row for line in lines), default=0.0) + 2.0 for n, lines in panels.items()}
    row_inches = float(np.clip(6.5 / sum(heights.values()), *_ROW_INCHES)) if sizes else _ROW_INCHES[1]
    figure = new_figure(width=width, height=1.3 + sum(row_inches * h + 0.28 for h in heights.values()))
    endings = {chain(e.trial): e for e in (*story.history.stops, *story.history.failures)}
    failed = {chain(e.trial) for e in story.history.failures}
    axes_of = figure.subplots(
        len(sizes) or 1, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(heights.values()) or [1]}
    )[:, 0]
    for axes, n_params in zip(axes_of, sizes, strict=False):
        for line in panels[n_params]:
            _draw_line(axes, story, line, endings.get(line.chain), failed=failed)
        _dress(axes, n_params, panels[n_params], heights[n_params])
    _scale(axes_of[-1], panels)
    axes_of[-1].set_xlabel("tokens trained since initialisation, D + D'")
    _legend(figure, story, n_columns=4 if width > 5 else 2)
    return figure


def _lines(story: Story, chains: Mapping[Trial, tuple[int, ...]]) -> list[_Line]:
    """Rows from the top: each seed's trunk, then its branches from the largest D to the least, by domain."""
    order = {name: k for k, name in enumerate(story.problem.domains)}
    out, row = [], 0.0
    for seed in sorted({each.seed for each in chains}):
        own = [each for each in chains if each.seed == seed]
        own.sort(key=lambda c: (bool(c.domain), -c.pretrain_tokens, order.get(c.domain, 0)))
        out += [_Line(chain=each, measured=chains[each], row=row + k, root_row=row) for k, each in enumerate(own)]
        row += len(own) + _GROUP_GAP
    return out


def _draw_line(axes: "Axes", story: Story, line: _Line, ending: Ending | None, *, failed: set[Trial]) -> None:
    styles = domain_styles(story.problem.domains)
    trial = line.chain
    colour, marker = (INK, "o") if trial.is_trunk else styles.get(trial.domain, (INK, "o"))
    start = 0.0 if trial.is_trunk else float(trial.pretrain_tokens)
    reached = max([line.x(m) for m in line.measured], default=start)
    if not trial.is_trunk:
        axes.plot([start, start], [line.root_row, line.row], color=INK, alpha=0.25, linewidth=0.6, zorder=1)
    axes.plot([start, reached], [line.row] * 2, color=colour, linewidth=2.0 if trial.is_trunk else 1.2, zorder=2)
    axes.plot(
        [line.x(m) for m in line.measured],
        [line.row] * len(line.measured),
        marker,
        color=colour,
        markersize=4.2 if trial.is_trunk else 3.2,
        markeredgewidth=0,
        zorder=3,
    )
    if trial.is_trunk and trial.seed:
        axes.annotate(
            f"seed {trial.seed}", (reached, line.row), xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=7.5,
        )  # fmt: skip
    if ending is None or not ending.skipped:
        return
    rest = [line.x(m) for m in ending.skipped]
    axes.plot([reached, max(rest)], [line.row] * 2, color=colour, linewidth=0.8, linestyle=(0, (1, 1.6)), zorder=2)
    if trial in failed:
        axes.plot([line.x(ending.milestone)], [line.row], "x", color=ALARM, markersize=5, markeredgewidth=1.5, zorder=4)
    else:
        axes.plot([reached], [line.row], "|", color=colour, markersize=8, markeredgewidth=1.8, zorder=4)
        axes.plot(
            rest,
            [line.row] * len(rest),
            marker,
            color=colour,
            markerfacecolor=PAPER,
            markersize=3.2,
            markeredgewidth=0.7,
            zorder=3,
        )


def _dress(axes: "Axes", n_params: int, lines: list[_Line], height: float) -> None:
    axes.set_title(f"N = {format_count(n_params)}", pad=2)
    axes.set_ylim(height - 1.0, -1.0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")


def _scale(axes: "Axes", panels: Mapping[int, list[_Line]]) -> None:
    steps = [float(m) for lines in panels.values() for line in lines for m in line.measured]
    ends = [line.x(m) for lines in panels.values() for line in lines for m in line.measured]
    if steps and max(ends) > _COMPRESSED * min(steps):
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    axes.set_xlim(left=0, right=1.03 * max(ends, default=1.0))
    count_ticks(axes.xaxis)


def _legend(figure: "Figure", story: Story, *, n_columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=INK, linewidth=2, marker="o", markersize=4.2, label="trunk (mixture)")]
    handles += [
        Line2D([], [], color=colour, marker=marker, linewidth=1.2, markersize=3.6, label=name)
        for name, (colour, marker) in domain_styles(story.problem.domains).items()
    ]
    if story.history.stops:
        handles.append(
            Line2D(
                [],
                [],
                color=INK,
                marker="|",
                markersize=8,
                markeredgewidth=1.8,
                linestyle=(0, (1, 1.6)),
                linewidth=0.8,
                label="stopped there",
            )
        )
        handles.append(
            Line2D(
                [],
                [],
                color=INK,
                marker="o",
                markerfacecolor=PAPER,
                markersize=3.6,
                linestyle="none",
                markeredgewidth=0.7,
                label="not trained",
            )
        )
    if story.history.failures:
        handles.append(
            Line2D([], [], color=ALARM, marker="x", markersize=5, markeredgewidth=1.5, linestyle="none", label="failed")
        )
    figure.legend(handles=handles, loc="outside lower left", ncols=n_columns, columnspacing=1.4)
