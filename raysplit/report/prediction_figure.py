"""Predicted against measured loss: the sweep's observations, and the final run that the law had not seen."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raysplit.report.final import RECOMMENDED
from raysplit.report.story import Story
from raysplit.report.style import FAINT, INK, MUTED, PAPER, domain_styles, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
_CROWDED = 150
"""With more observations than this their dots are drawn lighter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InSample:
    """The law on the observations it was fitted to, in the order of the table, all (n_rows,)."""

    measured: Array
    predicted: Array
    low: Array
    high: Array

    @property
    def error(self) -> Array:
        """How far the measured loss is above the predicted one, as a share."""
        return self.measured / self.predicted - 1.0

    @property
    def covered(self) -> float:
        """Share of the observations inside their interval."""
        return float(((self.low <= self.measured) & (self.measured <= self.high)).mean())


def in_sample(story: Story) -> InSample:
    """Predict every observation of the sweep, with the interval for one measurement at the advice's level."""
    runs = story.observations
    out = np.empty((3, len(runs)))
    for name in story.law.domains:
        own = (runs["domain"] == name).to_numpy()
        n, d, s = (runs.loc[own, c].to_numpy(float) for c in ("n_params", "pretrain_tokens", "specialize_tokens"))
        predicted = story.law.predict(name, n, d, s, level=story.advice.level)
        out[:, own] = predicted.mean, predicted.low, predicted.high
    return InSample(measured=runs["loss"].to_numpy(float), predicted=out[0], low=out[1], high=out[2])


def draw_prediction(story: Story, width: float) -> "Figure":
    """Left (or above), both losses; right (or below), how far they are apart in percent, by run and domain."""
    wide = width > 5
    figure = new_figure(width=width, height=4.1 if wide else 7.4)
    losses, errors = figure.subplots(*((1, 2) if wide else (2, 1)))
    known = in_sample(story)
    _losses(losses, story, known)
    _errors(errors, story, known)
    _legend(figure, story, n_columns=3 if wide else 2)
    return figure


def _losses(axes: "Axes", story: Story, known: InSample) -> None:
    alpha = 0.55 if len(known.measured) <= _CROWDED else 0.3
    ends = [min(known.measured.min(), known.predicted.min()), max(known.measured.max(), known.predicted.max())]
    axes.axline((ends[0], ends[0]), slope=1, color=MUTED, linewidth=0.9, zorder=1)
    final = story.final
    for name, (colour, marker) in domain_styles(story.problem.domains).items():
        own = (story.observations["domain"] == name).to_numpy()
        axes.plot(
            known.predicted[own], known.measured[own], marker, color=colour, alpha=alpha, markersize=3.2,
            markeredgewidth=0, linestyle="none",
        )  # fmt: skip
        for title, variant in final.variants.items() if final else ():
            if name in variant.predicted:
                guess = variant.predicted[name]
                axes.errorbar(
                    [guess.mean], [variant.losses[name]], fmt=marker, color=colour,
                    xerr=[[max(guess.mean - guess.low, 0)], [max(guess.high - guess.mean, 0)]], elinewidth=1.2,
                    markersize=9 if title == RECOMMENDED else 6.5, markeredgecolor=INK, markeredgewidth=1.1, zorder=4,
                )  # fmt: skip
    axes.set_xlabel("predicted loss (nats/token)")
    axes.set_ylabel("measured loss (nats/token)")


def _legend(figure: "Figure", story: Story, *, n_columns: int) -> None:
    from matplotlib.lines import Line2D

    def entry(marker: str, colour: str, size: float, edge: float, label: str) -> Line2D:
        return Line2D(
            [], [], marker=marker, color=colour, markersize=size, markeredgecolor=INK, markeredgewidth=edge,
            linestyle="none", label=label,
        )  # fmt: skip

    handles = [entry(m, colour, 6, 0, name) for name, (colour, m) in domain_styles(story.problem.domains).items()]
    handles.append(entry("o", MUTED, 3.2, 0, "sweep (in sample)"))
    if story.final:
        handles.append(entry("o", PAPER, 6.5, 1.1, "final run (out of sample)"))
    figure.legend(handles=handles, loc="outside lower left", ncols=n_columns, columnspacing=1.2, handlelength=1.2)


def _errors(axes: "Axes", story: Story, known: InSample) -> None:
    """One row for each variant of the final run and one for the sweep; one line for each domain in a row."""
    styles = domain_styles(story.problem.domains)
    final = story.final
    rows = ["sweep\n(in sample)"]
    rows += [title.replace(" ", "\n", 1) for title, v in (final.variants.items() if final else ()) if v.predicted]
    step = 0.7 / max(len(styles), 2)
    spread = float(np.quantile(np.abs(known.error), 0.98)) if final else float(np.abs(known.error).max())
    widest = [spread]
    for k, (name, (colour, marker)) in enumerate(styles.items()):
        offset = (k - (len(styles) - 1) / 2) * step
        own = (story.observations["domain"] == name).to_numpy()
        axes.plot(
            100 * known.error[own], np.full(own.sum(), offset), marker, color=colour, alpha=0.45, markersize=3.2,
            markeredgewidth=0,
        )  # fmt: skip
        row = 0
        for variant in final.variants.values() if final else ():
            if not variant.predicted:
                continue
            row += 1
            if (guess := variant.predicted.get(name)) is None:
                continue
            error = variant.losses[name] / guess.mean - 1.0
            ends = [guess.low / guess.mean - 1.0, guess.high / guess.mean - 1.0]
            # Wide intervals of far-off baselines may leave the frame; no mark does.
            widest += [abs(error), *(map(abs, ends) if final and variant is final.recommended else ())]
            axes.plot(
                [100 * e for e in ends],
                [row + offset] * 2,
                color=colour,
                linewidth=3.5,
                alpha=0.3,
                solid_capstyle="butt",
            )
            axes.plot(
                [100 * error],
                [row + offset],
                marker,
                color=colour,
                markersize=6,
                markeredgecolor=INK,
                markeredgewidth=0.8,
                zorder=4,
            )
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    for row in range(1, len(rows)):
        axes.axhline(row - 0.5, color=FAINT, linewidth=0.7)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-108 * max(widest), 108 * max(widest))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("measured above predicted (%)")
