"""A figure that cites a file is in it, rounded as it is written."""

import re
from itertools import pairwise

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import BLOCKS, Block

MARKED = [block for block in BLOCKS if {"figures", "rows"} & block.marks.keys()]

_RESULT = re.compile(r"benchmarks/results/[^)\s]*\.(?:txt|json|csv)")
_NUMBER = re.compile(r"(?<![\w.])(\d+(?:,\d{3})+|\d*\.?\d+(?:e[+-]?\d+)?)([kMGB]?)\b")
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
_NO_FIGURES = re.compile(
    r"\[[^\]]*\]\([^)]*\)|`[^`]*`|20\d\d-\d\d-\d\d|\d{4}\.\d{5}|80/20|50/50|(?<![\d.])90 %|\*\*\d\."
    r"|^\d\. |^\| ?(?:\d+[kM]?|law \w+)[^|]*\|",
    re.MULTILINE,
)
"""Links, code, dates, papers, rules of thumb, the level of an interval, numbers of lists, and the names of rows."""


def figures(text: str) -> list[tuple[float, float]]:
    """Numbers with half of their last digit, by which rounding may have moved them."""
    found = []
    for number, scale in _NUMBER.findall(text):
        plain, _, exponent = number.replace(",", "").partition("e")
        value = float(number.replace(",", "")) * _SCALES[scale]
        half = 0.5 * 10.0 ** (int(exponent or 0) - len(plain.partition(".")[2]))
        found.append((value, 0.005 * value if scale else half))
    return found


def is_in(figure: tuple[float, float], known: list[float]) -> bool:
    """Whether a known number is this one when it is rounded; a share may be written in per cent."""
    value, half = figure
    return any(abs(abs(other) * scale - value) <= 1.000001 * half for other in known for scale in (1, 100))


@pytest.mark.parametrize("block", MARKED, ids=lambda block: block.place)
def test_each_is_in_its_file(block: Block) -> None:
    cited = block.marks.get("figures") or block.marks["rows"]
    lines = [line for part in cited.split("; ") for line in lines_of(part)]
    text = _NO_FIGURES.sub(lambda row: "|" if row[0].startswith("|") else " ", body_of(block))
    parts = text.splitlines() if "rows" in block.marks else [text]
    height = 2 if "rows" in block.marks else len(lines)
    windows = ["\n".join(lines[at : at + height]) for at in range(max(1, len(lines) - height + 1))]
    for part in parts:
        misses = min((missing(part, window) for window in windows), key=len)
        assert misses == [], f"{cited}: {part}"


def lines_of(cited: str) -> list[str]:
    """Lines of FILE; of FILE#WORDS those below the headings that have these words."""
    file, _, words = cited.partition("#")
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
    if not words:
        assert file != "LOG.md", "name the entry: LOG.md#WORDS OF ITS HEADING"
        return lines
    within, found = False, []
    for line in lines:
        within = words in line if line.startswith("#") else within
        if within:
            found.append(line)
    assert found, f"{file}: no heading has the words {words!r}"
    return found


def missing(text: str, window: str) -> list[float]:
    """Figures of a text that a part of a file lacks."""
    known = [value for value, _ in figures(window)]
    return [figure[0] for figure in figures(text) if not is_in(figure, known)]


def body_of(block: Block) -> str:
    """A table without its head."""
    lines = block.text.splitlines()
    return "\n".join(lines[2:] if lines[0].startswith("|") else lines)


def test_a_wrong_figure_is_found() -> None:
    said = figures("2.4 % of 0.005, 95 %, 608k and 1.5e-4")
    known = [[2.38], [0.005], [0.954], [608_000.0], [0.00015]]
    assert all(is_in(figure, others) for figure, others in zip(said, known, strict=True))
    wrong = [[2.5], [0.004], [0.944], [615_000.0], [0.00025]]
    assert not any(is_in(figure, others) for figure, others in zip(said, wrong, strict=True))


def test_what_cites_a_result_is_held_to_it() -> None:
    """A block that names a file of results, and a table that such a block announces."""
    pages = [block for block in BLOCKS if block.page.name not in ("LOG.md", "CHANGELOG.md")]
    for before, block in pairwise(pages):
        announced = block.text.startswith("|") and before.text.endswith(":") and before.page == block.page
        if _RESULT.search(block.text + (before.text if announced else "")) and "figures" not in block.marks:
            assert "rows" in block.marks or not figures(_NO_FIGURES.sub(" ", body_of(block))), block.place
