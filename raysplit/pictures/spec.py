"""The few shapes of Vega-Lite that all pictures are made of (vega.github.io/vega-lite/docs).

Each row of data says how its mark looks. So a specification needs no scale of colours or shapes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]

_MEASURES = ("opacity", "size", "strokeWidth")
_KEY_ROW, _KEY_TEXT = 17, 26
"""Pixels: height of a legend's row, and where its text begins."""


def layer(mark: Spec, rows: Sequence[Mapping[str, object]], *looks: str, **channels: str | Spec) -> Spec:
    """A layer of marks, made from rows.

    Args:
        mark: the marks' type, and looks that they have in common.
        rows: one for each mark, or one for each vertex of a line or an area.
        looks: channels that take a mark's own look (a colour, a shape, a width) from the field of the same name.
        channels: for each channel the name of its quantitative field, or its whole definition.
    """
    encoding: Spec = {
        name: {"field": given, "type": "quantitative"} if isinstance(given, str) else given
        for name, given in channels.items()
    }
    for name in ("x2", "y2"):  # they take the type of the channel that they extend
        if isinstance(channels.get(name), str):
            encoding[name] = {"field": channels[name]}
    encoding |= {
        name: {"field": name, "type": "quantitative" if name in _MEASURES else "nominal", "scale": None}
        for name in looks
    }
    return {"mark": {"aria": False, **mark}, "data": {"values": [dict(row) for row in rows]}, "encoding": encoding}


def written(field: str = "text") -> Spec:
    """The definition of a text channel."""
    return {"field": field, "type": "nominal"}


def panel(layers: Sequence[Spec], *, x: Spec, y: Spec, width: float, height: float, **more: Any) -> Spec:
    """Layers on the same two axes; a layer without rows is left out. Width and height are in pixels."""
    layers = [each for each in layers if each["data"]["values"]]
    for each in layers:
        for name, axis in (("x", x), ("y", y)):
            if name in each["encoding"]:
                each["encoding"][name] = {"type": "quantitative", **axis, **each["encoding"][name]}
    return {"width": round(width), "height": round(height), "layer": layers, **more}


def axis(title: str | Sequence[str] | None, domain: tuple[float, float], **more: Any) -> Spec:
    """A channel's axis with its limits; ``more`` are properties of the axis, and ``scale`` those of its scale."""
    scale = {"domain": list(domain), "nice": False, **more.pop("scale", {"zero": False})}
    return {
        "scale": scale,
        "axis": {"title": title if title is None or isinstance(title, str) else list(title), **more},
    }


def labelled(labels: Mapping[float, str | Sequence[str]]) -> Spec:
    """Properties of an axis: ticks at these values, labelled with these words; a label may have several lines."""
    values, words = json.dumps(list(labels)), json.dumps(list(labels.values()))
    return {"values": list(labels), "labelExpr": f"{words}[indexof({values}, datum.value)]"}


def log_axis(title: str | Sequence[str], limits: tuple[float, float], **more: Any) -> Spec:
    """A logarithmic axis with ticks at round numbers, at least three where the limits allow, written as 0.002."""
    decades = range(math.floor(math.log10(limits[0])), math.ceil(math.log10(limits[1])))
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [tick for k in decades for m in steps if limits[0] <= (tick := m * 10.0**k) <= limits[1]]
        if len(ticks) >= 3:
            break
    return axis(title, limits, scale={"type": "log"}, **labelled({tick: f"{tick:.3g}" for tick in ticks}), **more)


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """An entry of a legend: a line, a marker, or both."""

    label: str
    colour: str
    line: float = 0.0
    """Width in pixels; a wide one stands for an area."""
    opacity: float = 1.0
    dash: Sequence[float] = (1, 0)
    shape: str = ""
    fill: str = ""
    """Fill of the marker; ``colour`` where this is empty."""
    size: float = 45.0
    """Area of the marker, square pixels."""


def legend(keys: Sequence[Key], *, width: float, n_columns: int) -> Spec:
    """A panel of entries, row by row in columns of the same width."""
    rows = [
        {
            "x": (k % n_columns) * width / n_columns, "x2": (k % n_columns) * width / n_columns + 19,
            "middle": (k % n_columns) * width / n_columns + 9.5, "y": k // n_columns * _KEY_ROW + _KEY_ROW / 2,
            "at": (k % n_columns) * width / n_columns + _KEY_TEXT, "text": key.label, "stroke": key.colour,
            "strokeWidth": key.line, "opacity": key.opacity, "strokeDash": list(key.dash), "shape": key.shape,
            "fill": key.fill or key.colour, "size": key.size,
        }
        for k, key in enumerate(keys)
    ]  # fmt: skip
    height = -(-len(keys) // n_columns) * _KEY_ROW
    return panel(
        [
            layer(
                {"type": "rule"}, [row for row in rows if row["strokeWidth"]],
                "stroke", "strokeWidth", "opacity", "strokeDash", x="x", x2="x2", y="y",
            ),
            layer(
                {"type": "point", "strokeWidth": 1, "opacity": 1}, [row for row in rows if row["shape"]],
                "stroke", "fill", "shape", "size", x="middle", y="y",
            ),
            layer({"type": "text", "align": "left", "baseline": "middle"}, rows, x="at", y="y", text=written()),
        ],
        x={"scale": {"domain": [0, width]}, "axis": None}, y={"scale": {"domain": [height, 0]}, "axis": None},
        width=width, height=height,
    )  # fmt: skip


def picture(*panels: Spec, description: str, config: Spec) -> Spec:
    """A whole specification: panels one below the other."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "config": config,
        "vconcat": list(panels),
    }
