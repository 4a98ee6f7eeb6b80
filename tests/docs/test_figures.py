"""A figure that cites a file is in it, rounded as it is written."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import BLOCKS, Block

MARKED = [block for block in BLOCKS if {"figures", "rows"} & block.marks.keys()]
PAGES_WITHOUT_MARKS = (
    "answers.md", "checkpoints.md", "cluster.md", "evaluate.md", "experts.md", "from-a-checkpoint.md", "lanes.md",
    "law.md",
)  # fmt: skip
"""Pages that link to results and whose figures are not held to them yet."""

_RESULT = re.compile(r"benchmarks/results/[^)\s]*\.(?:txt|json|csv)")
_NUMBER = re.compile(r"(?<![\w.])(\d+(?:,\d{3})+|\d*\.\d+(?:e[+-]?\d+)?|\d+)(?:e\d+)?([kMGB]?)\b")
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
_NO_FIGURES = re.compile(
    r"\[[^\]]*\]\([^)]*\)|`[^`]*`|20\d\d-\d\d-\d\d|80/20|50/50|90 %|^\| ?(?:\d+[kM]?|law \w+)[^|]*\|", re.MULTILINE
)
"""Links, code, rules of thumb, the level of an interval, and the names of rows and columns."""


def figures(text: str) -> list[tuple[float, int]]:
    """Numbers with how many decimals they are written."""
    found = []
    for number, scale in _NUMBER.findall(text):
        plain = number.replace(",", "")
        decimals = len(plain.partition(".")[2].partition("e")[0])
        found.append((float(plain) * _SCALES[scale], decimals if not scale else -1))
    return found


def is_in(figure: tuple[float, int], known: list[float]) -> bool:
    """Whether a known number is this one when it is rounded; a share may be written in per cent."""
    value, decimals = figure
    if decimals < 0:  # with a suffix, as the file has it
        return any(abs(value - other) <= 0.005 * value for other in known)
    half = 0.5000001 * 10.0**-decimals
    return any(abs(abs(other) * scale - value) <= half for other in known for scale in (1, 100))


@pytest.mark.parametrize("block", MARKED, ids=lambda block: block.place)
def test_each_is_in_its_file(block: Block) -> None:
    file = block.marks.get("figures") or block.marks["rows"]
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
    text = _NO_FIGURES.sub(lambda row: "|" if row[0].startswith("|") else " ", body_of(block))
    parts = text.splitlines() if "rows" in block.marks else [text]
    height = 2 if "rows" in block.marks else len(lines)
    windows = ["\n".join(lines[at : at + height]) for at in range(max(1, len(lines) - height + 1))]
    for part in parts:
        misses = min((missing(part, window) for window in windows), key=len)
        assert misses == [], f"{file}: {part}"


def missing(text: str, window: str) -> list[float]:
    """Figures of a text that a part of a file lacks."""
    known = [value for value, _ in figures(window)]
    return [figure[0] for figure in figures(text) if not is_in(figure, known)]


def body_of(block: Block) -> str:
    """A table without its head."""
    lines = block.text.splitlines()
    return "\n".join(lines[2:] if lines[0].startswith("|") else lines)


def test_a_wrong_figure_is_found() -> None:
    assert is_in((2.4, 1), [2.38]) and is_in((95.0, 0), [0.954]) and is_in((608e3, -1), [608_000.0])  # noqa: PT018
    assert not is_in((2.4, 1), [2.5])
    assert not is_in((4.77, 2), [4.78])


def test_pages_that_cite_results_are_held_to_them() -> None:
    """A page with a link to a result has a marked block, or is in the list of those that have none yet."""
    citing = {block.page for block in BLOCKS if _RESULT.search(block.text) and block.page.parent.name == "docs"}
    marked = {block.page for block in MARKED}
    assert {page.name for page in citing - marked} <= set(PAGES_WITHOUT_MARKS)
    assert Path("README.md").name in {page.name for page in marked}
