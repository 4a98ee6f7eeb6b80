"""From a run folder to its page and figures."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from raysplit import __version__
from raysplit.errors import RunError
from raysplit.report import tables, words
from raysplit.report.costs import Costs, costs_of
from raysplit.report.curve_figure import draw_curve
from raysplit.report.path_figure import draw_path
from raysplit.report.prediction_figure import draw_prediction
from raysplit.report.rate_figure import draw_rates
from raysplit.report.story import Story, read_story
from raysplit.report.style import DARK, PAGE_WIDTH, PHONE_WIDTH, in_style
from raysplit.report.tree_figure import draw_tree
from raysplit.sweep.folder import RunFolder, write_text
from raysplit.tuning.tuned import Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PNG_DPI = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Plate:
    """One figure of the page, as data URIs of SVGs for wide and narrow, light and dark screens."""

    title: str
    caption: str
    page: str
    page_dark: str
    phone: str
    phone_dark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picture:
    file: str
    title: str
    draw: Callable[[Story, float], "Figure"]
    caption: str


def write_report(folder: RunFolder) -> Path:
    """Write the page and its figures into the run's report folder; returns the page's path.

    Raises:
        RunError: the sweep has not finished, a file is damaged, or the folder cannot be written.
        CorpusError, LawError, SpaceError, SplitError, TableError: the file of that kind is missing or damaged.
    """
    story = read_story(folder)
    costs = costs_of(story.setup, story.history)
    try:
        folder.report.mkdir(parents=True, exist_ok=True)
        plates = []
        for picture in _pictures(story, costs):
            with in_style():
                page, phone = (picture.draw(story, width) for width in (PAGE_WIDTH, PHONE_WIDTH))
                page.savefig(folder.report / f"{picture.file}.png", dpi=_PNG_DPI)
                wide, narrow = _svg(page), _svg(phone)
            plates.append(
                Plate(
                    title=picture.title, caption=picture.caption, page=_uri(wide), page_dark=_uri(_darkened(wide)),
                    phone=_uri(narrow), phone_dark=_uri(_darkened(narrow)),
                )
            )  # fmt: skip
        path = folder.report / "report.html"
        write_text(path, render_page(story, costs, plates))
    except OSError as error:
        raise RunError(f"{folder.report}: cannot be written: {error.strerror}") from error
    return path


def render_page(story: Story, costs: Costs, plates: list[Plate]) -> str:
    """The page as HTML that asks for nothing beyond itself; every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = files("raysplit.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    choice = tables.choice_table(story)
    content: Mapping[str, object] = {
        "name": story.space.name,
        "answer": words.answer(story),
        "outcome": words.outcome(story),
        "warnings": words.warnings_of(story),
        "figures": plates,
        "advice": tables.advice_tables(story),
        "final": tables.final_tables(story),
        "sweep": [tables.cost_table(story, costs), tables.round_table(story), *tables.ending_tables(story)],
        "tuning": [] if story.tuned is None else tables.tuning_tables(story.tuned),
        "tuning_words": "" if story.tuned is None else words.tuning(story.tuned),
        "law": [*([choice] if choice else []), tables.corpus_table(story)],
        "space_yaml": story.space_yaml,
        "version": __version__,
    }
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(content)


def _pictures(story: Story, costs: Costs) -> list[_Picture]:
    found = [
        _Picture(file="split", title="Loss against the share of the tokens in pretraining", draw=draw_curve,
                 caption=words.curve_caption(story)),
        _Picture(file="prediction", title="Predicted and measured loss", draw=draw_prediction,
                 caption=words.prediction_caption(story)),
        _Picture(file="tree", title="The tree of runs", draw=draw_tree, caption=words.tree_caption(story, costs)),
    ]  # fmt: skip
    if story.history.advices:
        found.append(_Picture(file="path", title="How the recommendation moved", draw=draw_path,
                              caption=words.path_caption(story)))  # fmt: skip
    if (tuned := story.tuned) is not None:
        found.append(_Picture(file="learning_rate", title="The learning rate",
                              draw=lambda story, width: draw_rates(tuned, story.setup.sizes, width),
                              caption=words.rate_caption(tuned)))  # fmt: skip
    return found


def draw_learning_rate(tuned: Tuned, sizes: Sequence[int], folder: RunFolder) -> Path:
    """Write the figure of the learning rate alone, for a run that was tuned and not yet swept; returns its path.

    Raises:
        RunError: the folder cannot be written.
    """
    path = folder.report / "learning_rate.png"
    try:
        folder.report.mkdir(parents=True, exist_ok=True)
        with in_style():
            draw_rates(tuned, sizes, PAGE_WIDTH).savefig(path, dpi=_PNG_DPI)
    except OSError as error:
        raise RunError(f"{folder.report}: cannot be written: {error.strerror}") from error
    return path


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _darkened(svg: str) -> str:
    for light, dark in DARK.items():
        svg = svg.replace(light, dark)
    return svg


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
