"""Predicted against measured loss: the sweep's observations, and the final run that the law had not seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysplit.law import Law
from raysplit.pictures.spec import Key, Spec, axis, labelled, layer, legend, panel, picture
from raysplit.pictures.style import CONFIG, FAINT, INK, MUTED, PAPER, domain_styles
from raysplit.report.story import Story
from raysplit.runs import REPLAY_SHARE
from raysplit.sweep.final_run import RECOMMENDED, TrainedVariant

Array = NDArray[np.float64]
_CROWDED = 150
"""The dots of more observations than this are drawn lighter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InSample:
    """The law on the observations it was fitted to: losses of shape (n_rows,), in the table's order."""

    measured: Array
    predicted: Array
    low: Array
    high: Array

    @property
    def error(self) -> Array:
        """How far the measured loss is above the predicted one, as a share of the predicted."""
        return self.measured / self.predicted - 1.0

    @property
    def covered(self) -> float:
        """Share of the observations inside their interval."""
        return float(((self.low <= self.measured) & (self.measured <= self.high)).mean())


def in_sample(story: Story) -> InSample:
    """Predict every observation of the sweep, with the interval for one measurement at the advice's level."""
    runs = story.observations
    out = np.empty((3, len(runs)))
    for law, at_share in _by_share(story):
        for name in law.domains:
            own = at_share & (runs["domain"] == name).to_numpy()
            n, d, s = (runs.loc[own, c].to_numpy(float) for c in ("n_params", "pretrain_tokens", "specialize_tokens"))
            predicted = law.predict(name, n, d, s, level=story.advice.level)
            out[:, own] = predicted.mean, predicted.low, predicted.high
    return InSample(measured=runs["loss"].to_numpy(float), predicted=out[0], low=out[1], high=out[2])


def _by_share(story: Story) -> Iterator[tuple[Law, NDArray[np.bool_]]]:
    """(law, which runs) of each replayed share; the bases themselves, at D' = 0, count at the first share."""
    law, runs = story.law, story.observations
    if len(law.replay_shares) < 2:
        yield law, np.ones(len(runs), dtype=bool)
        return
    as_it_is = (runs["specialize_tokens"] == 0).to_numpy()
    shares = runs[REPLAY_SHARE].where(~as_it_is, law.replay_shares[0])
    for share in law.replay_shares:
        yield law.at_share(share), (shares == share).to_numpy()


def prediction_picture(story: Story, width: float) -> Spec:
    """Two panels: measured against predicted losses, and how far they are apart in percent, by run and domain.

    They lie side by side in a picture wider than 520 pixels, and one below the other in a narrower one.
    """
    wide = width > 520
    known = in_sample(story)
    half = (width - 166) / 2 if wide else width - 98
    panels = [_losses(story, known, half), _errors(story, known, half)]
    return picture(
        {"hconcat": panels} if wide else {"vconcat": panels},
        legend(_keys(story), width=width - 60, n_columns=3 if wide else 2),
        config=CONFIG, description="Predicted and measured losses",
    )  # fmt: skip


def _predicted(story: Story) -> dict[str, TrainedVariant]:
    """The final run's variants whose losses the law predicted before they were trained."""
    return {name: v for name, v in (story.final.variants.items() if story.final else ()) if v.predicted}


def _losses(story: Story, known: InSample, side: float) -> Spec:
    styles = domain_styles(story.problem.domains)
    dots: list[dict[str, Any]] = [
        {"predicted": float(p), "measured": float(m), "fill": styles[name][0], "shape": styles[name][1]}
        for p, m, name in zip(known.predicted, known.measured, story.observations["domain"], strict=True)
    ]
    marks: list[dict[str, Any]] = [
        {
            "predicted": guess.mean, "measured": variant.losses[name], "low": guess.low, "high": guess.high,
            "fill": styles[name][0], "stroke": styles[name][0], "shape": styles[name][1],
            "size": 110.0 if title == RECOMMENDED else 55.0,
        }
        for title, variant in _predicted(story).items()
        for name, guess in variant.predicted.items()
    ]  # fmt: skip
    every = [value for row in (*dots, *marks) for value in (row["predicted"], row["measured"])]
    ends = (min(every), max(every))
    limits = (ends[0] - 0.04 * (ends[1] - ends[0]), ends[1] + 0.04 * (ends[1] - ends[0]))
    unit = story.advice.loss_unit
    opacity = 0.6 if len(dots) <= _CROWDED else 0.35
    layers = [
        layer({"type": "line", "color": MUTED, "strokeWidth": 1}, [{"x": e, "y": e} for e in ends], x="x", y="y"),
        layer({"type": "point", "strokeWidth": 0, "size": 18, "opacity": opacity}, dots, "fill", "shape",
              x="predicted", y="measured"),
        layer({"type": "rule", "strokeWidth": 1.3, "clip": True}, marks, "stroke", x="low", x2="high", y="measured"),
        layer({"type": "point", "stroke": INK, "strokeWidth": 1.1, "opacity": 1}, marks, "fill", "shape", "size",
              x="predicted", y="measured"),
    ]  # fmt: skip
    return panel(
        layers, x=axis(f"predicted loss ({unit})", limits, tickCount=6),
        y=axis(f"measured loss ({unit})", limits, tickCount=6, minExtent=24, maxExtent=24), width=side, height=side,
    )  # fmt: skip


def _errors(story: Story, known: InSample, side: float) -> Spec:
    """The panel of errors: a row for the sweep and one for each variant of the final run, a line for each domain."""
    styles = domain_styles(story.problem.domains)
    step = 0.7 / max(len(styles), 2)
    offsets = {name: (k - (len(styles) - 1) / 2) * step for k, name in enumerate(styles)}
    variants = _predicted(story)
    dots = [
        {"error": 100 * float(e), "y": offsets[name], "fill": styles[name][0], "shape": styles[name][1]}
        for e, name in zip(known.error, story.observations["domain"], strict=True)
    ]
    marks: list[dict[str, Any]] = [
        {
            "error": 100 * (variant.losses[name] / guess.mean - 1), "low": 100 * (guess.low / guess.mean - 1),
            "high": 100 * (guess.high / guess.mean - 1), "y": row + offsets[name], "fill": styles[name][0],
            "stroke": styles[name][0], "shape": styles[name][1], "is_own": title == RECOMMENDED,
        }
        for row, (title, variant) in enumerate(variants.items(), start=1)
        for name, guess in variant.predicted.items()
    ]  # fmt: skip
    # The wide intervals of baselines far off may leave the frame; no mark does.
    widest = [100 * (float(np.quantile(np.abs(known.error), 0.98)) if marks else float(np.abs(known.error).max()))]
    widest += [abs(row["error"]) for row in marks]
    widest += [abs(row[end]) for row in marks if row["is_own"] for end in ("low", "high")]
    rows = {0.0: ("sweep,", "in sample"), **{float(k): title.split(" ", 1) for k, title in enumerate(variants, 1)}}
    between = [{"y": k + 0.5} for k in range(len(variants))]
    layers = [
        layer({"type": "rule", "color": MUTED}, [{"x": 0}], x="x"),
        layer({"type": "rule", "color": FAINT}, between, y="y"),
        layer({"type": "point", "strokeWidth": 0, "size": 18, "opacity": 0.5, "clip": True}, dots, "fill", "shape",
              x="error", y="y"),
        layer({"type": "rule", "strokeWidth": 5, "opacity": 0.3, "clip": True}, marks, "stroke", x="low", x2="high",
              y="y"),
        layer({"type": "point", "stroke": INK, "strokeWidth": 0.8, "size": 42, "opacity": 1}, marks, "fill", "shape",
              x="error", y="y"),
    ]  # fmt: skip
    limit = 1.08 * max(widest)
    return panel(
        layers,
        x=axis("measured above predicted (%)", (-limit, limit), tickCount=6),
        y=axis(None, (len(rows) - 0.5, -0.5), **labelled(rows), grid=False, ticks=False, minExtent=72, maxExtent=72),
        width=side, height=side,
    )  # fmt: skip


def _keys(story: Story) -> list[Key]:
    keys = [
        Key(label=name, colour=PAPER, fill=colour, shape=shape)
        for name, (colour, shape) in domain_styles(story.problem.domains).items()
    ]
    keys.append(Key(label="sweep, in sample", colour=PAPER, fill=MUTED, shape="circle", size=20))
    if _predicted(story):
        keys.append(Key(label="final run, out of sample", colour=INK, fill=PAPER, shape="circle", size=55))
    return keys
