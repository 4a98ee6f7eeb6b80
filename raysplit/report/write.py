"""Write the page and the figures of a run folder."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from raysplit import __version__
from raysplit.errors import RunError
from raysplit.pictures.images import png_of, svg_of
from raysplit.pictures.style import PAGE_PIXELS, PHONE_PIXELS, darkened, style_sheet
from raysplit.report import tables, words
from raysplit.report.costs import Costs, costs_of
from raysplit.report.figures import Figure, figures_of
from raysplit.report.rate_figure import rate_picture
from raysplit.report.story import Story, read_story
from raysplit.run_folder.folder import RunFolder, write_text
from raysplit.split.tables import advice_facts, advice_tables
from raysplit.tuning.tuned import Tuned


@dataclass(frozen=True, kw_only=True, slots=True)
class Plate:
    """One figure of the page, as data URIs of SVGs for wide and narrow, light and dark screens."""

    title: str
    caption: str
    page: str
    page_dark: str
    phone: str
    phone_dark: str


def write_report(folder: RunFolder) -> Path:
    """Write the page and its figures into the run's report folder; returns the page's path.

    Raises:
        RunError: the sweep has not finished, a file is damaged, or the folder cannot be written.
        CorpusError, LawError, SpaceError, SplitError, TableError: the file of that kind is missing or damaged.
    """
    story = read_story(folder)
    costs = costs_of(story.spec, story.history)
    try:
        folder.report.mkdir(parents=True, exist_ok=True)
        plates = []
        for figure in figures_of(story, costs):
            (folder.report / f"{figure.file}.png").write_bytes(png_of(figure.picture(PAGE_PIXELS)))
            plates.append(_plate(figure))
        path = folder.report / "report.html"
        write_text(path, render_page(story, costs, plates))
    except OSError as error:
        raise RunError(f"{folder.report}: cannot be written: {error.strerror}") from error
    return path


def _plate(figure: Figure) -> Plate:
    wide, narrow = (svg_of(figure.picture(width)) for width in (PAGE_PIXELS, PHONE_PIXELS))
    return Plate(
        title=figure.title, caption=figure.caption, page=_uri(wide), page_dark=_uri(darkened(wide)),
        phone=_uri(narrow), phone_dark=_uri(darkened(narrow)),
    )  # fmt: skip


def render_page(story: Story, costs: Costs, plates: list[Plate]) -> str:
    """The page as HTML that asks for nothing beyond itself; every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = files("raysplit.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    choice = tables.choice_table(story)
    content: Mapping[str, object] = {
        "name": story.space.name,
        "answer": words.answer(story.advice),
        "outcome": words.outcome(story),
        "warnings": words.warnings_of(story),
        "figures": plates,
        "facts": advice_facts(story.advice),
        "level": f"{story.advice.level:.0%}",
        "advice": advice_tables(story.advice, bytes_per_token=story.bytes_per_token),
        "final": tables.final_tables(story),
        "evaluation": tables.evaluation_tables(story),
        "sweep": [tables.cost_table(story, costs), tables.round_table(story), *tables.ending_tables(story)],
        "tuning": [] if story.tuned is None else tables.tuning_tables(story.tuned),
        "tuning_words": "" if story.tuned is None else words.tuning(story.tuned),
        "law": [*([choice] if choice else []), tables.corpus_table(story)],
        "space_yaml": story.space_yaml,
        "version": __version__,
        "colours": style_sheet(),
    }
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(content)


def draw_learning_rate(tuned: Tuned, sizes: Sequence[int], folder: RunFolder) -> Path:
    """Write the figure of the learning rate alone, for a run that was tuned and not yet swept; returns its path.

    Raises:
        RunError: the folder cannot be written.
    """
    path = folder.report / "learning_rate.png"
    try:
        folder.report.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_of(rate_picture(tuned, sizes, PAGE_PIXELS)))
    except OSError as error:
        raise RunError(f"{folder.report}: cannot be written: {error.strerror}") from error
    return path


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
