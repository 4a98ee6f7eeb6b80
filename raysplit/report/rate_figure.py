"""The learning rate that was tuned: how the loss depends on it at each (N, D), and the rule through the optima."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raysplit.design.hyperparameters import Optimum
from raysplit.quantities import format_count
from raysplit.report.style import INK, MUTED, PAPER, domain_styles, new_figure
from raysplit.tuning.tuned import Tuned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_MOST_EXCESS = 0.12
"""Losses further above the lowest of their (N, D), as a share, are drawn as arrows at the top."""


def draw_rates(tuned: Tuned, sizes: Sequence[int], width: float) -> "Figure":
    """Left, the losses and their parabolas, each above its own lowest; right, the optima and the rule.

    Args:
        tuned: what tuning found.
        sizes: of the sweep, non-embedding parameters, to which the rule carries the rate.
        width: of the figure, inches.
    """
    wide = width > 5
    figure = new_figure(width=width, height=3.6 if wide else 6.4)
    left, right = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
    styles = domain_styles([_name(o) for o in tuned.optima])
    for optimum in tuned.optima:
        _bowl(left, tuned, optimum, *styles[_name(optimum)])
        colour, marker = styles[_name(optimum)]
        ends = np.exp([-optimum.log_error, optimum.log_error]) * optimum.learning_rate
        right.errorbar(
            [optimum.n_params], [optimum.learning_rate], yerr=np.abs(ends - optimum.learning_rate)[:, None],
            fmt=marker, color=colour, markerfacecolor=PAPER if optimum.edge else colour, markersize=5.5, elinewidth=1.1,
            label=_name(optimum),
        )  # fmt: skip
    _rule(right, tuned, sizes)
    left.set_xscale("log")
    left.minorticks_off()
    _rate_ticks(left.xaxis)
    left.set_ylim(-0.4, 100 * _MOST_EXCESS)
    left.set_xlabel("learning rate")
    left.set_ylabel("loss above its lowest (%)")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3 if wide else 2, columnspacing=1.2)
    return figure


def _name(optimum: Optimum) -> str:
    return f"N = {format_count(optimum.n_params)}, D = {format_count(optimum.pretrain_tokens)}"


def _bowl(axes: "Axes", tuned: Tuned, optimum: Optimum, colour: str, marker: str) -> None:
    at = (optimum.n_params, optimum.pretrain_tokens)
    tried = [t for t in tuned.tried if (t.n_params, t.pretrain_tokens) == at and math.isfinite(t.loss)]
    rates = np.array([t.learning_rate for t in tried])
    excess = np.array([t.loss / optimum.loss - 1 for t in tried])
    inside = excess <= _MOST_EXCESS
    axes.plot(rates[inside], 100 * excess[inside], marker, color=colour, markersize=4, markeredgewidth=0, alpha=0.8)
    if not inside.all():
        beyond = rates[~inside]
        axes.plot(beyond, np.full(beyond.size, 100 * _MOST_EXCESS), "^", color=colour, markersize=5, clip_on=False)
    if optimum.curvature:
        reach = np.sqrt(_MOST_EXCESS / optimum.curvature)
        low, high = math.log(optimum.low), math.log(optimum.high)
        centre = math.log(optimum.learning_rate)
        x = np.linspace(max(centre - reach, low), min(centre + reach, high), 120)
        axes.plot(np.exp(x), 100 * optimum.curvature * (x - centre) ** 2, color=colour, linewidth=1.2)
    axes.axvline(optimum.learning_rate, ymax=0.05, color=colour, linewidth=2)


def _rule(axes: "Axes", tuned: Tuned, sizes: Sequence[int]) -> None:
    """The rate of every trunk of the sweep, and one standard error about it."""
    rule = tuned.rule
    n_params = np.geomspace(min(sizes), max(sizes), 60)
    rates = np.array([tuned.rate(n) for n in n_params])
    spread = np.exp(
        np.sqrt(
            rule.log_error**2
            + (rule.exponent_error * np.log(n_params / rule.reference_params)) ** 2
            + (rule.token_exponent_error * math.log(tuned.horizon_tokens / rule.reference_tokens)) ** 2
        )
    )
    axes.fill_between(n_params, rates / spread, rates * spread, color=MUTED, alpha=0.18, linewidth=0)
    axes.plot(n_params, rates, color=INK, linewidth=1.6, label=f"the rule at D = {format_count(tuned.horizon_tokens)}")
    for tokens in sorted({o.pretrain_tokens for o in tuned.optima}):
        axes.plot(n_params, [rule.rate(n, tokens) for n in n_params], color=MUTED, linewidth=0.8, dashes=(4, 2))
    axes.plot([], [], color=MUTED, linewidth=0.8, dashes=(4, 2), label="the rule at the D that were tuned")
    axes.plot(sizes, [tuned.rate(n) for n in sizes], "|", color=INK, markersize=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, labels=[format_count(n) for n in sizes])
    axes.minorticks_off()
    _rate_ticks(axes.yaxis)
    axes.set_xlabel("model size N")
    axes.set_ylabel("best learning rate")


def _rate_ticks(axis: "Axis") -> None:
    """Write the numbers of a logarithmic axis as 0.002, 0.01."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
