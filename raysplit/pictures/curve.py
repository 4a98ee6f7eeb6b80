"""The picture of the loss against the share of the tokens in pretraining, at one budget."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from raysplit.pictures.spec import Key, Spec, axis, labelled, layer, legend, panel, picture, written
from raysplit.pictures.style import ACCENT, CONFIG, INK, MUTED, PAPER, STAR
from raysplit.quantities import format_count, format_flops
from raysplit.split import Advice
from raysplit.split.advice import FLAT_TOLERANCE
from raysplit.split.problem import Array

_MOST_EXCESS = 0.25
"""A loss further above the best than this share does not stretch the axis."""
_VARIANT_SHAPES = {
    "recommended": STAR, "pretraining only": "square", "80/20": "diamond", "50/50": "triangle-down",
    "from scratch": "triangle-up",
}  # fmt: skip
_DASHES: tuple[tuple[float, ...], ...] = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 2), (8, 3))
_LEFT, _RIGHT = 56, 45
"""Pixels left and right of the plot, for its axes."""


class Line(Protocol):
    """The best loss along the budget's line at one size: `raysplit.split.LossCurve`, or what a live law sends of it."""

    @property
    def n_params(self) -> int: ...
    @property
    def shares(self) -> Sequence[float] | Array: ...
    @property
    def loss(self) -> Sequence[float] | Array: ...
    @property
    def low(self) -> Sequence[float] | Array: ...
    @property
    def high(self) -> Sequence[float] | Array: ...


def curve_picture(
    advice: Advice,
    curve: Line | None,
    *,
    width: float,
    others: Sequence[Line] = (),
    readings: Sequence[tuple[float, float]] = (),
    moved: Sequence[tuple[float, float]] = (),
    variants: Mapping[str, tuple[float, float]] | None = None,
    seed_noise: float = 0.0,
) -> Spec:
    """The advised size's curve with its interval, the other sizes' as thin lines, and every measured split.

    Args:
        advice: the advice whose budget the curves are at.
        curve: curve of the advised size; None where the budget buys nothing there.
        width: of the picture, pixels.
        others: curves of other sizes.
        readings: (D / T, weighted loss) of the sweep's own measurements on the budget's line; T is all tokens.
        moved: (D / T, weighted loss) of runs at other budgets, which the law has moved to this one.
        variants: (D / T, weighted loss) of the final run's variants, by name.
        seed_noise: one standard deviation between seeds, as a share of a loss; drawn at the variants.
    """
    variants = variants or {}
    limits = _limits(advice, curve, [loss for _, loss in (*readings, *variants.values())])
    keys: list[Key] = []
    layers = [*_flat(advice, keys), *_lines(advice, curve, others, keys), *_advised(advice, limits, keys)]
    layers += _points("sweep's runs, interpolated", readings, {"fill": PAPER, "stroke": INK}, 40, keys)
    layers += _points(
        "runs of this size, moved here by the law", moved, {"fill": MUTED, "stroke": MUTED, "opacity": 0.6}, 22, keys
    )
    layers += _variants(variants, seed_noise, limits, keys)
    plot = _plot(advice, layers, limits, width=width)
    return picture(
        plot, legend(keys, width=width - _LEFT - 8, n_columns=3 if width > 520 else 1), config=CONFIG,
        description=_description(advice),
    )  # fmt: skip


def _description(advice: Advice) -> str:
    share, loss = advice.pretrain_share.mean, advice.loss.mean
    low, high = advice.flat
    return (
        f"Weighted loss by share of the tokens in pretraining at {format_flops(advice.budget_flops)} and "
        f"N = {format_count(advice.split.n_params)}: lowest, {loss:.4f}, at {share:.0%}; within {FLAT_TOLERANCE:.1%} "
        f"of it from {low:.0%} to {high:.0%}"
    )


def _limits(advice: Advice, curve: Line | None, measured: Sequence[float]) -> tuple[float, float]:
    """The ends of the axis of losses, which show how flat the bottom is: losses far above it do not stretch them."""
    best = advice.loss.mean
    near = [*measured, advice.loss.low, advice.loss.high, *(gain.loss.high for gain in advice.gains)]
    near += [size.loss.high for size in advice.sizes]
    near = [loss for loss in near if loss < best * (1 + _MOST_EXCESS)]
    lowest = [float(np.nanmin(curve.low))] if curve is not None else []
    bottom, top = min([*near, *lowest]), max(near)
    margin = 0.08 * max(top - bottom, 0.01 * best)
    return bottom - margin, top + margin


def _flat(advice: Advice, keys: list[Key]) -> list[Spec]:
    low, high = advice.flat
    keys.append(Key(label=f"within {FLAT_TOLERANCE:.1%} of the best", colour=INK, line=11, opacity=0.09))
    return [layer({"type": "rect", "color": INK, "opacity": 0.07}, [{"low": low, "high": high}], x="low", x2="high")]


def _lines(advice: Advice, curve: Line | None, others: Sequence[Line], keys: list[Key]) -> list[Spec]:
    layers = []
    if curve is not None:
        rows = _rows(curve)
        layers += [
            layer(
                {"type": "area", "color": ACCENT, "opacity": 0.18, "clip": True}, rows, x="share", y="low", y2="high"
            ),
            layer({"type": "line", "color": ACCENT, "strokeWidth": 2, "clip": True}, rows, x="share", y="loss"),
        ]
        keys += [
            Key(label=f"N = {format_count(curve.n_params)} (advised)", colour=ACCENT, line=2),
            Key(label=f"its {advice.level:.0%} interval", colour=ACCENT, line=11, opacity=0.22),
        ]
    for k, other in enumerate(others):
        dash = _DASHES[k % len(_DASHES)]
        look = {"type": "line", "color": MUTED, "strokeWidth": 1, "strokeDash": list(dash), "clip": True}
        layers.append(layer(look, _rows(other), x="share", y="loss"))
        keys.append(Key(label=f"N = {format_count(other.n_params)}", colour=MUTED, line=1, dash=dash))
    return layers


def _rows(curve: Line) -> list[dict[str, float]]:
    columns = (np.asarray(column, dtype=float) for column in (curve.shares, curve.loss, curve.low, curve.high))
    names = ("share", "loss", "low", "high")
    return [
        dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True) if np.isfinite(row).all()
    ]


def _advised(advice: Advice, limits: tuple[float, float], keys: list[Key]) -> list[Spec]:
    """The advised split: a point with its numbers, and a line down to the axis."""
    share, loss = advice.pretrain_share.mean, advice.loss.mean
    right = share > 0.6
    keys.append(Key(label="advised split", colour=ACCENT, shape="circle", size=60))
    row = {"share": share, "loss": loss, "bottom": limits[0], "text": f"{share:.0%}, {loss:.4f}"}
    text = {
        "type": "text", "align": "right" if right else "left", "dx": -8 if right else 8, "dy": 14, "fontWeight": 600,
    }  # fmt: skip
    halo = {**text, "stroke": PAPER, "strokeWidth": 4, "strokeJoin": "round", "opacity": 0.85}
    return [
        layer({"type": "rule", "color": INK, "strokeDash": [3, 2]}, [row], x="share", y="loss", y2="bottom"),
        layer({"type": "point", "fill": ACCENT, "stroke": PAPER, "size": 90, "opacity": 1}, [row], x="share", y="loss"),
        *(layer(each, [row], x="share", y="loss", text=written()) for each in (halo, text)),
    ]


def _points(label: str, points: Sequence[tuple[float, float]], look: Spec, size: float, keys: list[Key]) -> list[Spec]:
    """Measured splits without a name."""
    if not points:
        return []
    keys.append(Key(label=label, colour=look["stroke"], shape="circle", fill=look["fill"], size=size))
    rows = [{"share": share, "loss": loss} for share, loss in points]
    mark = {"type": "point", "clip": True, "opacity": 1, "size": size, "strokeWidth": 1.3, **look}
    return [layer(mark, rows, x="share", y="loss")]


def _variants(
    variants: Mapping[str, tuple[float, float]], seed_noise: float, limits: tuple[float, float], keys: list[Key]
) -> list[Spec]:
    """Measured splits; one above the frame sits on its edge, with an arrow and its loss."""
    top = limits[1]
    rows = []
    for name, (share, loss) in variants.items():
        beyond, shape = loss > top, _VARIANT_SHAPES.get(name, "cross")
        size = 190.0 if shape == STAR else 75.0
        keys.append(Key(label=f"{name}, measured", colour=PAPER, fill=INK, shape=shape, size=min(size, 110)))
        rows.append({
            "share": share, "loss": top if beyond else loss, "shape": shape, "size": size, "beyond": beyond,
            "low": loss * (1 - seed_noise), "high": min(loss * (1 + seed_noise), top), "text": f"↑ {loss:.2f}",
            "align": "right" if share > 0.5 else "left",
        })  # fmt: skip
    inside, above = ([row for row in rows if row["beyond"] is which] for which in (False, True))
    mark = {"type": "point", "fill": INK, "stroke": PAPER, "strokeWidth": 0.8, "opacity": 1}
    layers = [layer({"type": "rule", "color": INK}, inside, x="share", y="low", y2="high")] if seed_noise else []
    layers.append(layer(mark, rows, "shape", "size", x="share", y="loss"))
    for align in ("left", "right"):
        text = {"type": "text", "align": align, "dy": 13, "dx": 7 if align == "left" else -7}
        layers.append(layer(text, [r for r in above if r["align"] == align], x="share", y="loss", text=written()))
    return layers


def _plot(advice: Advice, layers: Sequence[Spec], limits: tuple[float, float], *, width: float) -> Spec:
    """The layers on the axis of losses, and beside it how far a loss is above the best."""
    wide = width > 520
    total = "D + Σ D'" if advice.accounting == "shared" else "D + D'"
    ticks: dict[float, str | Sequence[str]] = {
        k / 10: f"{k / 10:.0%}" for k in ((0, 2, 4, 6, 8, 10) if wide else (0, 5, 10))
    }
    ticks |= {0.0: ("0%", "from scratch"), 1.0: ("100%", "pretraining only")}
    outer_labels = [{"test": "datum.value < 0.01", "value": "left"}, {"test": "datum.value > 0.99", "value": "right"}]
    share = axis(
        f"share of the tokens in pretraining, D / ({total})", (-0.02, 1.02), **labelled(ticks),
        labelAlign={"condition": outer_labels, "value": "center"},  # they would hang over the frame
    )  # fmt: skip
    relative = layer(
        {"type": "point", "color": INK, "opacity": 0},
        [{"excess": 100 * (limit / advice.loss.mean - 1)} for limit in limits],
        y={
            "field": "excess", "type": "quantitative",
            **axis("above the advised split (%)", tuple(100 * (v / advice.loss.mean - 1) for v in limits),  # type: ignore[arg-type]
                   orient="right", grid=False),
        },
    )  # fmt: skip
    size = {"width": width - _LEFT - _RIGHT, "height": 300 if wide else 270}
    losses = panel(
        list(layers), x=share, y=axis("weighted loss (nats/token)", limits, format=".2f", minExtent=34, maxExtent=34),
        **size,
    )  # fmt: skip
    return {
        "width": losses.pop("width"), "height": losses.pop("height"), "layer": [losses, relative],
        "resolve": {"scale": {"y": "independent"}},
    }  # fmt: skip
