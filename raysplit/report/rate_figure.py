"""The figure of the tuned learning rate: the loss by rate at each (N, D), and the rule through the best rates."""

import math
from collections.abc import Sequence

import numpy as np

from raysplit.design.hyperparameters import Optimum
from raysplit.pictures.spec import Key, Spec, axis, labelled, layer, legend, log_axis, panel, picture
from raysplit.pictures.style import CONFIG, INK, MUTED, PAPER, domain_styles
from raysplit.quantities import format_count
from raysplit.tuning.tuned import Tuned

_MOST_EXCESS = 0.12
"""A loss further above the lowest of its (N, D) than this share is drawn as an arrow at the top."""


def rate_picture(tuned: Tuned, sizes: Sequence[int], width: float) -> Spec:
    """Two panels: losses and their parabolas, each above its own lowest; and the best rates with the rule.

    They lie side by side in a picture wider than 520 pixels, and one below the other in a narrower one.

    Args:
        tuned: what tuning found.
        sizes: the sweep's sizes, non-embedding parameters, to which the rule carries the rate.
        width: of the picture, pixels.
    """
    wide = width > 520
    plot = (width - 152) / 2 if wide else width - 76
    panels = [_bowls(tuned, width=plot), _rule(tuned, sizes, width=plot)]
    return picture(
        {"hconcat": panels} if wide else {"vconcat": panels},
        legend(_keys(tuned), width=width - 70, n_columns=2 if wide else 1),
        config=CONFIG, description="Losses by learning rate, and the best rates by model size",
    )  # fmt: skip


def _styles(tuned: Tuned) -> dict[str, tuple[str, str]]:
    return domain_styles([_name(o) for o in tuned.optima])


def _name(optimum: Optimum) -> str:
    return f"N = {format_count(optimum.n_params)}, D = {format_count(optimum.pretrain_tokens)}"


def _bowls(tuned: Tuned, *, width: float) -> Spec:
    layers: list[Spec] = []
    rates: list[float] = []
    top = 100 * _MOST_EXCESS
    for optimum, (colour, shape) in zip(tuned.optima, _styles(tuned).values(), strict=True):
        at = (optimum.n_params, optimum.pretrain_tokens)
        tried = [t for t in tuned.tried if (t.n_params, t.pretrain_tokens) == at and math.isfinite(t.loss)]
        excess = [100 * (t.loss / optimum.loss - 1) for t in tried]
        rates += [t.learning_rate for t in tried]
        losses = [
            {"rate": t.learning_rate, "excess": min(e, top), "shape": shape if e <= top else "triangle-up"}
            for t, e in zip(tried, excess, strict=True)
        ]
        layers.append(
            layer({"type": "point", "fill": colour, "strokeWidth": 0, "size": 28, "opacity": 0.85}, losses, "shape",
                  x="rate", y="excess")
        )  # fmt: skip
        if optimum.curvature:
            layers.append(
                layer({"type": "line", "color": colour, "strokeWidth": 1.3, "clip": True}, _parabola(optimum),
                      x="rate", y="excess")
            )  # fmt: skip
        tick = [{"rate": optimum.learning_rate, "low": -0.4, "high": 0.05 * top}]
        layers.append(layer({"type": "rule", "color": colour, "strokeWidth": 2}, tick, x="rate", y="low", y2="high"))
    limits = (min(rates) / 1.15, max(rates) * 1.15)
    return panel(
        layers, x=log_axis("learning rate", limits),
        y=axis("loss above its lowest (%)", (-0.4, 1.02 * top), minExtent=24, maxExtent=24), width=width, height=250,
    )  # fmt: skip


def _parabola(optimum: Optimum) -> list[dict[str, float]]:
    reach = math.sqrt(_MOST_EXCESS / optimum.curvature)
    centre = math.log(optimum.learning_rate)
    x = np.linspace(
        max(centre - reach, math.log(optimum.low)), min(centre + reach, math.log(optimum.high)), 120
    )  # fmt: skip
    return [{"rate": math.exp(at), "excess": 100 * optimum.curvature * (at - centre) ** 2} for at in x.tolist()]


def _rule(tuned: Tuned, sizes: Sequence[int], *, width: float) -> Spec:
    """The panel of the rule: the rate of every trunk of the sweep with one standard error, and the best rates."""
    rule = tuned.rule
    n_params = np.geomspace(min(sizes), max(sizes), 60).tolist()
    band = [
        {"n_params": n, "rate": tuned.rate(n), "low": tuned.rate(n) / spread, "high": tuned.rate(n) * spread}
        for n in n_params
        for spread in [_spread(tuned, n)]
    ]
    optima = [
        {
            "n_params": o.n_params, "rate": o.learning_rate, "low": o.learning_rate * math.exp(-o.log_error),
            "high": o.learning_rate * math.exp(o.log_error), "stroke": colour, "fill": PAPER if o.edge else colour,
            "shape": shape,
        }
        for o, (colour, shape) in zip(tuned.optima, _styles(tuned).values(), strict=True)
    ]  # fmt: skip
    layers = [layer({"type": "area", "color": MUTED, "opacity": 0.18}, band, x="n_params", y="low", y2="high")]
    for tokens in sorted({o.pretrain_tokens for o in tuned.optima}):
        rows = [{"n_params": n, "rate": rule.rate(n, tokens)} for n in n_params]
        layers.append(
            layer({"type": "line", "color": MUTED, "strokeWidth": 0.9, "strokeDash": [4, 2]}, rows,
                  x="n_params", y="rate")
        )  # fmt: skip
    trunks = [{"n_params": n, "rate": tuned.rate(n)} for n in sizes]
    layers += [
        layer({"type": "line", "color": INK, "strokeWidth": 1.6}, band, x="n_params", y="rate"),
        layer({"type": "tick", "color": INK, "orient": "vertical", "size": 10, "thickness": 1.3}, trunks,
              x="n_params", y="rate"),
        layer({"type": "rule", "strokeWidth": 1.2}, optima, "stroke", x="n_params", y="low", y2="high"),
        layer({"type": "point", "size": 50, "opacity": 1}, optima, "stroke", "fill", "shape", x="n_params", y="rate"),
    ]  # fmt: skip
    every = [row[name] for row in (*band, *optima) for name in ("low", "high")]
    across = [*n_params, *(o.n_params for o in tuned.optima)]
    x = axis(
        "model size N", (min(across) / 1.15, max(across) * 1.15), scale={"type": "log"},
        **labelled({n: format_count(n) for n in sizes}),
    )  # fmt: skip
    y = log_axis("best learning rate", (float(min(every)) / 1.1, float(max(every)) * 1.1), minExtent=34, maxExtent=34)
    return panel(layers, x=x, y=y, width=width, height=250)


def _spread(tuned: Tuned, n_params: float) -> float:
    """One standard error of the rule's rate at a size, as a factor; the rule's three errors count as independent."""
    rule = tuned.rule
    return math.exp(
        math.sqrt(
            rule.log_error**2
            + (rule.exponent_error * math.log(n_params / rule.reference_params)) ** 2
            + (rule.token_exponent_error * math.log(tuned.horizon_tokens / rule.reference_tokens)) ** 2
        )
    )


def _keys(tuned: Tuned) -> list[Key]:
    keys = [
        Key(label=name, colour=colour, line=1.3, shape=shape, fill=PAPER if optimum.edge else colour)
        for optimum, (name, (colour, shape)) in zip(tuned.optima, _styles(tuned).items(), strict=True)
    ]
    keys.append(Key(label=f"the rule at D = {format_count(tuned.horizon_tokens)}", colour=INK, line=1.6))
    keys.append(Key(label="the rule at the D that were tuned", colour=MUTED, line=0.9, dash=(4, 2)))
    return keys
