"""The picture of the tree of trials: trunks and branches, and what was measured, is under way, or was stopped."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from raysplit.pictures.spec import Key, Spec, axis, labelled, layer, legend, panel, picture, written
from raysplit.pictures.style import ALARM, CONFIG, CROSS, INK, MUTED, PAPER, domain_styles
from raysplit.quantities import counted, format_count

_LEFT, _RIGHT = 50, 14
"""Pixels left of the plot, for the names of rows, and right of it, for half a label."""
_RISE = 12
"""Pixels from one milestone of a branch to the next."""
_MOST_GAP = 12
"""Most pixels between the branches of two domains."""


class DrawnTrial(Protocol):
    """A trunk or a branch, and how far it has got; `raysplit.live.answers.TrialState` is one."""

    @property
    def name(self) -> str: ...
    @property
    def n_params(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def domain(self) -> str: ...
    @property
    def pretrain_tokens(self) -> int: ...
    @property
    def milestones(self) -> tuple[int, ...]: ...
    @property
    def state(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def losses(self) -> Mapping[int, Mapping[str, float]]: ...


def tree_picture(trials: Sequence[DrawnTrial], *, domains: Sequence[str], width: float) -> Spec:
    """One line for each trunk, from left to right by D; branches rise from it by D', one for each domain.

    Every trial has one wide, invisible mark, with its name as key and its words as description. Pointers, keyboards and
    screen readers use it.

    Args:
        trials: the sweep's trials; a milestone with a loss is drawn as measured.
        domains: in the order of their colours.
        width: of the picture, pixels.
    """
    place = _Places(trials, domains, width=width)
    styles = domain_styles(domains)
    lines: list[dict[str, Any]] = []
    dots: list[dict[str, Any]] = []
    crosses: list[dict[str, Any]] = []
    for trial in trials:
        colour, shape = styles.get(trial.domain, (INK, "circle"))
        _add_lines(lines, trial, place, colour)
        for milestone in trial.milestones:
            row = {**place.of(trial, milestone), "stroke": colour, "fill": colour, "shape": shape, "size": 30.0}
            done = milestone in trial.losses
            following = next((m for m in trial.milestones if m not in trial.losses), None) == milestone
            if done:
                dots.append(row)
            elif following and trial.state in ("stopped", "failed"):
                crosses.append({**row, "stroke": ALARM if trial.state == "failed" else MUTED})
            elif following and trial.state == "running":
                dots.append({**row, "fill": PAPER, "size": 42.0})
            else:
                dots.append({**row, "stroke": MUTED, "fill": PAPER, "size": 14.0})
    spoken = [{**line, "text": say(line["trial"]), "name": line["trial"].name} for line in lines if line["is_way"]]
    layers = [
        layer({"type": "rule"}, [_plain(line) for line in lines],
              "stroke", "strokeWidth", "strokeDash", x="x", x2="x2", y="y", y2="y2"),
        layer({"type": "point", "strokeWidth": 1.3, "opacity": 1}, dots,
              "stroke", "fill", "shape", "size", x="x", y="y"),
        layer({"type": "point", "shape": CROSS, "strokeWidth": 1.7, "size": 26, "opacity": 1, "fill": None}, crosses,
              "stroke", x="x", y="y"),
        layer({"type": "text", "align": "left", "baseline": "middle", "x": -_LEFT + 2, "fontWeight": 600}, place.names,
              y="y", text=written()),
        layer({"type": "text", "align": "left", "baseline": "middle", "x": -_LEFT + 2, "dy": 13, "fontSize": 10,
               "color": MUTED}, place.seeds, y="y", text=written()),
        layer({"type": "rule", "strokeWidth": 10, "opacity": 0, "aria": True, "ariaRoleDescription": "trial",
               "stroke": INK}, [_plain(row) for row in spoken],
              x="x", x2="x2", y="y", y2="y2", description=written(), tooltip=written(), key=written("name")),
    ]  # fmt: skip
    plot = panel(
        layers, x=place.x_axis(), y=place.y_axis(),
        width=place.width, height=place.height,
    )  # fmt: skip
    keys = _keys(trials, domains)
    return picture(plot, legend(keys, width=place.width, n_columns=4 if width > 520 else 2), config=CONFIG,
                   description=f"The tree of {counted(len(trials), 'trial')}")  # fmt: skip


class _Places:
    """Where each milestone of each trial is drawn, in pixels from the left and the bottom of the plot."""

    def __init__(self, trials: Sequence[DrawnTrial], domains: Sequence[str], *, width: float) -> None:
        self.width = width - _LEFT - _RIGHT
        self.columns = sorted({d for t in trials for d in ((t.pretrain_tokens,) if t.domain else t.milestones)})
        self._rises = sorted({m for t in trials if t.domain for m in t.milestones})
        self._domains = list(domains)
        self._step = self.width / max(1, len(self.columns))
        self._gap = min(_MOST_GAP, (self._step - 10) / max(1, len(domains)))
        self._bottoms: dict[tuple[int, int], float] = {}
        self.names: list[dict[str, Any]] = []
        self.seeds: list[dict[str, Any]] = []
        y = 10.0
        for n_params, seed in sorted({(t.n_params, t.seed) for t in trials}, key=lambda row: (row[0], -row[1])):
            self._bottoms[n_params, seed] = y
            self.names.append({"y": y, "text": format_count(n_params)})
            if seed:
                self.seeds.append({"y": y, "text": f"seed {seed}"})
            own = [m for t in trials if t.domain and (t.n_params, t.seed) == (n_params, seed) for m in t.milestones]
            y += 30 + _RISE * max((self._rises.index(m) + 1 for m in own), default=0)
        self.height = y

    def of(self, trial: DrawnTrial, milestone: int) -> dict[str, float]:
        """Where a milestone of a trial lies."""
        bottom = self._bottoms[trial.n_params, trial.seed]
        if not trial.domain:
            return {"x": self._column(milestone), "y": bottom}
        return {"x": self.start(trial)["x"], "y": bottom + 7 + _RISE * (self._rises.index(milestone) + 0.5)}

    def start(self, trial: DrawnTrial) -> dict[str, float]:
        """Where a trial begins: at the left, or on its trunk's line."""
        bottom = self._bottoms[trial.n_params, trial.seed]
        if not trial.domain:
            return {"x": 0.0, "y": bottom}
        k = self._domains.index(trial.domain) if trial.domain in self._domains else 0
        return {
            "x": self._column(trial.pretrain_tokens) + (k - (len(self._domains) - 1) / 2) * self._gap,
            "y": bottom + 3,
        }

    def _column(self, tokens: int) -> float:
        return (self.columns.index(tokens) + 0.5) * self._step

    def x_axis(self) -> Spec:
        labels = {self._column(tokens): format_count(tokens) for tokens in self.columns}
        return axis("D, tokens of pretraining", (0, self.width), **labelled(labels), grid=False, ticks=False)

    def y_axis(self) -> Spec:
        return {"scale": {"domain": [0, self.height], "nice": False}, "axis": None}


def _add_lines(lines: list[dict[str, Any]], trial: DrawnTrial, place: _Places, colour: str) -> None:
    """Add a trial's lines: its planned way, dashed where it was given up, and the part of it that was trained."""
    start, end = place.start(trial), place.of(trial, max(trial.milestones))
    given_up = trial.state in ("stopped", "failed")
    way = {
        "trial": trial, "is_way": True, **start, "x2": end["x"], "y2": end["y"], "stroke": MUTED, "strokeWidth": 0.7,
        "strokeDash": [1.5, 2.5] if given_up else [1, 0],
    }  # fmt: skip
    lines.append(way)
    if measured := [m for m in trial.milestones if m in trial.losses]:
        reached = place.of(trial, max(measured))
        trained = {"stroke": colour, "strokeWidth": 1.6 if trial.domain else 2.2, "strokeDash": [1, 0]}
        lines.append({**way, "is_way": False, "x2": reached["x"], "y2": reached["y"], **trained})


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("trial", "is_way")}


def say(trial: DrawnTrial) -> str:
    """A trial in words, for a tooltip or a screen reader."""
    after = f"{trial.domain} after {format_count(trial.pretrain_tokens)} tokens of pretraining"
    seed = f", seed {trial.seed}" if trial.seed else ""
    measured = [m for m in trial.milestones if m in trial.losses]
    parts = [
        f"{format_count(trial.n_params)}{seed}, {after if trial.domain else 'trunk'}: {trial.state}",
        f"{len(measured)} of {len(trial.milestones)} points measured",
    ]
    if measured:
        losses = trial.losses[measured[-1]]
        of_own = f"{losses[trial.domain]:.4f}" if trial.domain in losses else ""
        every = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        parts.append(f"at {format_count(measured[-1])} tokens {of_own or every}")
    return "; ".join([*parts, *([trial.why] if trial.why else [])]) + "."


def _keys(trials: Sequence[DrawnTrial], domains: Sequence[str]) -> list[Key]:
    keys = [Key(label="trunk (mixture)", colour=INK, line=2.2, shape="circle")]
    keys += [
        Key(label=name, colour=colour, line=1.6, shape=shape)
        for name, (colour, shape) in domain_styles(domains).items()
    ]
    states = {trial.state for trial in trials}
    open_ones = any(m not in t.losses for t in trials for m in t.milestones)
    if "running" in states:
        keys.append(Key(label="under way", colour=INK, shape="circle", fill=PAPER, size=42))
    if open_ones:
        keys.append(Key(label="not trained", colour=MUTED, shape="circle", fill=PAPER, size=14))
    if "stopped" in states:
        keys.append(Key(label="stopped there", colour=MUTED, shape=CROSS, size=26))
    if "failed" in states:
        keys.append(Key(label="failed", colour=ALARM, shape=CROSS, size=26))
    return keys
