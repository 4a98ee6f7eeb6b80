"""The picture of how the recommendation moved as observations came in."""

import math
from collections.abc import Sequence
from typing import Protocol

from raysplit.pictures.spec import Spec, axis, labelled, layer, log_axis, panel, picture, written
from raysplit.pictures.style import ACCENT, CONFIG, INK, MUTED
from raysplit.quantities import format_count
from raysplit.split import Interval

_LEAST_SPAN = 0.3
"""Least range of D/T that is shown, so that a settled recommendation looks settled."""
_LABEL_PIXELS = 38
"""Least distance between two labels."""
_MOST_SIZES = 5
_CROWDED = 16
"""With more steps than this the marks are small, and the band alone shows the intervals."""
_LEFT, _RIGHT = 66, 14
"""Pixels left and right of the plots."""


class DrawnAdvice(Protocol):
    """One recommendation of the past."""

    @property
    def n_observations(self) -> int: ...
    @property
    def n_params(self) -> int: ...
    @property
    def pretrain_share(self) -> Interval: ...
    @property
    def expected_regret(self) -> float: ...


def path_picture(
    advices: Sequence[DrawnAdvice],
    *,
    sizes: Sequence[int],
    regret_tolerance: float,
    width: float,
    spent_flops: Sequence[float] | None = None,
) -> Spec:
    """Three panels, one below the other: D/T with its interval, N, and the expected regret.

    Args:
        advices: the recommendations, at least one, oldest first.
        sizes: non-embedding parameters of the sizes that could be advised.
        regret_tolerance: expected regret at which a sweep ends, a share of the loss; 0 draws no line.
        width: of the picture, pixels.
        spent_flops: FLOPs that the sweep had spent at each advice, for the common axis; without them that axis is the
            number of observations.
    """
    along = [float(a.n_observations) for a in advices] if spent_flops is None else list(spent_flops)
    title = "observations that the law knew"
    if spent_flops is not None and max(along) > 0:
        exponent = math.floor(math.log10(max(along)))
        along, title = [x / 10.0**exponent for x in along], f"FLOPs spent by the sweep (1e{exponent})"
    x = axis(title, (0.0, 1.06 * max(max(along), 1e-9)), tickCount=6)
    hidden = {"scale": x["scale"], "axis": {**x["axis"], "title": None, "labels": False}}
    plot_width = width - _LEFT - _RIGHT
    labels = spent_flops is not None
    panels = [
        _share(advices, along, hidden, width=plot_width, labels=labels),
        _size(advices, along, hidden, sizes, width=plot_width),
        _regret(advices, along, x, 100 * regret_tolerance, width=plot_width),
    ]
    shares = ", ".join(f"{a.pretrain_share.mean:.0%}" for a in advices)
    return picture(*panels, description=f"Advised share of the tokens in pretraining, step by step: {shares}",
                   config=CONFIG)  # fmt: skip


def _axis(title: str | Sequence[str], domain: tuple[float, float], **more: object) -> Spec:
    return axis(title, domain, minExtent=40, maxExtent=40, titlePadding=2, **more)


def _share(advices: Sequence[DrawnAdvice], along: Sequence[float], x: Spec, *, width: float, labels: bool) -> Spec:
    shares = [a.pretrain_share for a in advices]
    rows = [
        {
            "x": at, "mean": s.mean, "low": s.low, "high": s.high, "text": str(a.n_observations),
            "top": max(s.mean, s.high),
        }
        for at, s, a in zip(along, shares, advices, strict=True)
    ]  # fmt: skip
    middle = (min(s.low for s in shares) + max(s.high for s in shares)) / 2
    span = max(1.25 * (max(s.high for s in shares) - min(s.low for s in shares)), _LEAST_SPAN)
    limits = (max(middle - span / 2, -0.02), min(middle + 0.6 * span, 1.1))
    layers = [
        layer({"type": "area", "color": ACCENT, "opacity": 0.15}, rows, x="x", y="low", y2="high"),
        layer({"type": "rule", "color": ACCENT}, [] if len(rows) > _CROWDED else rows, x="x", y="low", y2="high"),
        layer({"type": "line", "color": ACCENT, "strokeWidth": 1.8}, rows, x="x", y="mean"),
        layer(
            {"type": "point", "fill": ACCENT, "stroke": ACCENT, "size": _dot(rows), "opacity": 1}, rows, x="x", y="mean"
        ),
    ]
    if labels:
        text = {"type": "text", "dy": -7, "fontSize": 10, "color": MUTED}
        layers.append(layer(text, _apart(rows, _LABEL_PIXELS / width * max(along)), x="x", y="top", text=written()))
    values = [tick / 10 for tick in range(11) if limits[0] <= tick / 10 <= limits[1]]
    return panel(layers, x=x, y=_axis("advised D/T", limits, values=values, format=".0%"), width=width, height=135)


def _dot(rows: Sequence[object]) -> int:
    """Area of a mark, square pixels."""
    return 30 if len(rows) <= _CROWDED else 9


def _apart(rows: Sequence[dict[str, object]], least: float) -> list[dict[str, object]]:
    """Rows that lie at least ``least`` apart on x; others are left out."""
    kept: list[dict[str, object]] = []
    for row in rows:
        if not kept or float(row["x"]) - float(kept[-1]["x"]) >= least:  # type: ignore[arg-type]
            kept.append(row)
    return kept


def _size(
    advices: Sequence[DrawnAdvice], along: Sequence[float], x: Spec, sizes: Sequence[int], *, width: float
) -> Spec:
    rows = [{"x": at, "n_params": a.n_params} for at, a in zip(along, advices, strict=True)]
    shown = _spread(sorted({*sizes}), _MOST_SIZES)
    every = [*sizes, *(a.n_params for a in advices)]
    y = _axis(
        "advised N", (min(every) / 1.5, max(every) * 1.5), **labelled({n: format_count(n) for n in shown}),
        scale={"type": "log"},
    )  # fmt: skip
    layers = [
        layer({"type": "line", "color": INK, "interpolate": "step-after"}, rows, x="x", y="n_params"),
        layer({"type": "point", "shape": "square", "fill": INK, "stroke": INK, "size": _dot(rows), "opacity": 1}, rows,
              x="x", y="n_params"),
    ]  # fmt: skip
    return panel(layers, x=x, y=y, width=width, height=75)


def _regret(advices: Sequence[DrawnAdvice], along: Sequence[float], x: Spec, tolerance: float, *, width: float) -> Spec:
    rows = [{"x": at, "regret": 100 * a.expected_regret} for at, a in zip(along, advices, strict=True)]
    shown = [value for value in (*(row["regret"] for row in rows), tolerance) if value > 0] or [1.0]
    limits = (min(shown) / 2, max(shown) * 2)
    y = log_axis(["expected", "regret (%)"], limits, minExtent=40, maxExtent=40, titlePadding=2)
    positive = [row for row in rows if row["regret"] > 0]
    layers = [
        layer({"type": "line", "color": INK, "strokeWidth": 1.3}, positive, x="x", y="regret"),
        layer(
            {"type": "point", "fill": INK, "stroke": INK, "size": _dot(rows), "opacity": 1}, positive, x="x", y="regret"
        ),
    ]
    if tolerance > 0:
        row = [{"y": tolerance, "text": "tolerance"}]
        text = {"type": "text", "x": 3, "align": "left", "dy": -6, "fontSize": 10, "color": MUTED}
        layers.append(layer({"type": "rule", "color": MUTED, "strokeDash": [4, 3]}, row, y="y"))
        layers.append(layer(text, row, y="y", text=written()))
    return panel(layers, x=x, y=y, width=width, height=95)


def _spread(sizes: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the sizes, evenly spread, with the first and the last."""
    if len(sizes) <= most:
        return list(sizes)
    return [sizes[i] for i in sorted({round(k * (len(sizes) - 1) / (most - 1)) for k in range(most)})]
