"""The pictures' parts: colours, marks, axes, and the library that draws them."""

import gzip
import re
from importlib.resources import files
from typing import Any

import pytest

from raysplit.pictures import path_picture, tree_picture
from raysplit.pictures.bundle import versions
from raysplit.pictures.images import svg_of
from raysplit.pictures.spec import axis, labelled, layer, log_axis, panel, picture
from raysplit.pictures.style import CONFIG, darkened, domain_styles, style_sheet, styled_by_page
from raysplit.pictures.tree import say
from raysplit.split import Interval
from tests.pictures.doubles import DrawnTrial, Recommended


def test_domains_can_be_told_apart_without_colour() -> None:
    styles = domain_styles([f"domain-{k}" for k in range(56)])
    assert len(set(styles.values())) == 56
    assert len({marker for _, marker in list(styles.values())[:8]}) == 8


def test_every_colour_has_a_name_and_a_dark_side() -> None:
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6});", sheet)) for sheet in style_sheet().split("@media"))
    assert light.keys() == dark.keys()
    assert len(set(light.values())) == len(light)
    every = " ".join(light.values())
    assert darkened(every).split() == list(dark.values())
    assert styled_by_page(every).split() == [f"var(--{name})" for name in light]


def luminance(colour: str) -> float:
    """Relative, of sRGB (WCAG 2.2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("which", [0, 1])
def test_lines_and_words_stand_out_from_the_paper(which: int) -> None:
    colours = dict(re.findall(r"--(\w+): (#\w{6});", style_sheet().split("@media")[which]))
    paper = luminance(colours.pop("paper"))
    del colours["faint"]  # of grids alone
    for name, colour in colours.items():
        low, high = sorted((paper, luminance(colour)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_a_trial_says_how_far_it_got() -> None:
    trial = DrawnTrial(
        domain="code", milestones=(1000, 2000), losses={1000: {"code": 2.5}}, state="stopped", why="dear"
    )
    assert say(trial) == (
        "14k, seed 1, code after 250k tokens of pretraining: stopped; 1 of 2 points measured; at 1k tokens 2.5000; "
        "dear."
    )
    assert say(DrawnTrial()) == "14k, seed 1, trunk: planned; 0 of 1 points measured."


def test_the_tree_draws_what_is_measured_under_way_and_lost() -> None:
    trials = [
        DrawnTrial(losses={250_000: {"code": 3.0}}, state="done"),
        DrawnTrial(domain="code", milestones=(1000, 2000), losses={1000: {"code": 2.5}}, state="running"),
        DrawnTrial(domain="law", milestones=(1000, 2000), state="failed"),
    ]
    spec = tree_picture(trials, domains=["code", "law"], width=400)
    plot, legend = spec["vconcat"]
    words = {row["text"] for each in legend["layer"] for row in each["data"]["values"]}
    assert {"under way", "not trained", "failed", "code", "law"} <= words
    assert "stopped there" not in words
    spoken = next(each for each in plot["layer"] if each["mark"].get("ariaRoleDescription") == "trial")
    assert [row["text"] for row in spoken["data"]["values"]] == [say(trial) for trial in trials]
    filled = [row for row in points(plot) if row.get("fill") == row["stroke"]]
    assert len(filled) == 2  # what was measured
    assert "<svg" in svg_of(spec)


def points(plot: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for each in plot["layer"] if each["mark"]["type"] == "point" for row in each["data"]["values"]]


def test_many_steps_are_drawn_small() -> None:
    """Their intervals by the band alone, and along the observations where no FLOPs are told."""
    steps = [Recommended(n_observations=k, pretrain_share=Interval(mean=0.5, low=0.4, high=0.6)) for k in range(1, 30)]
    few, many = (
        path_picture(part, sizes=[14_000, 28_000], regret_tolerance=0, width=400) for part in (steps[:3], steps)
    )
    kinds = [[each["mark"]["type"] for each in spec["vconcat"][0]["layer"]] for spec in (few, many)]
    assert kinds == [["area", "rule", "line", "point"], ["area", "line", "point"]]
    assert many["vconcat"][2]["layer"][0]["encoding"]["x"]["axis"]["title"] == "observations that the law knew"


@pytest.mark.parametrize("limits", [(0.0021, 0.0098), (0.05, 0.3), (1e-5, 30.0)])
def test_a_logarithmic_axis_has_numbers_to_read(limits: tuple[float, float]) -> None:
    values = log_axis("rate", limits)["axis"]["values"]
    assert 3 <= len(values) <= 9
    assert all(limits[0] <= value <= limits[1] for value in values)


def test_ticks_have_their_own_words() -> None:
    """Also of values that no binary number meets."""
    ticks = {0.1: "a tenth", 1 / 3: ("a", "third"), 1e9: "many"}
    x = axis("x", (0.05, 2e9), scale={"type": "log"}, **labelled(ticks))
    plot = panel([layer({"type": "point"}, [{"x": 0.2}], x="x")], x=x, y={}, width=900, height=50)
    drawn = svg_of(picture(plot, description="ticks", config=CONFIG))
    assert all(f">{word}<" in drawn for word in ("a tenth", "third", "many"))


def test_the_page_draws_with_the_library_of_the_report() -> None:
    """When this fails: make the page's file anew, as raysplit/pictures/bundle.py says."""
    bundle = gzip.decompress((files("raysplit.live") / "page" / "vega.js.gz").read_bytes()).decode()
    assert bundle.startswith(versions())
