"""The pages that people read, their blocks of code, and what stands in comments about a block.

A comment of HTML just before a block or a table says what becomes of it in these tests:

    <!-- not run here: REASON -->     commands that need hours, machines or a network
    <!-- run by: FILE, ... -->        another test executes it
    <!-- long: REASON -->             executed where RAYSPLIT_LONG_DOCS=1 is set
    <!-- figures: FILE; ... -->       each number of the block below is found in FILE, or FILE#WORDS OF A HEADING
    <!-- rows: FILE -->               likewise, those of a table's row within two lines of FILE
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), REPOSITORY / "search_spaces" / "README.md"])
MARKS = ("not run here", "run by", "long", "figures", "rows")

_MARK = re.compile(r"<!-- (" + "|".join(MARKS) + r"): (.*?) -->")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Fenced code, a table or a paragraph."""

    page: Path
    line: int
    """Of its first, counted from 1."""
    language: str | None
    """None where it is not fenced."""
    text: str
    marks: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def is_commands(self) -> bool:
        """Commands of a shell stand in a fence without a language."""
        return self.language in ("", "bash")


def blocks_of(page: Path) -> Iterator[Block]:
    """Every block of a page with the comments directly above it; a comment is a line of its own."""
    marks: dict[str, str] = {}
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if found := _MARK.fullmatch(line):
            marks[found[1]] = found[2]
            continue
        if not line.strip():
            continue
        if is_fence := line.startswith("```"):
            while lines[at] != "```":
                at += 1
            at += 1
        else:
            while at < len(lines) and lines[at].strip() and not lines[at].startswith(("```", "<!--")):
                at += 1
        inner = lines[start + 1 : at - 1] if is_fence else lines[start:at]
        language = line.removeprefix("```").strip() if is_fence else None
        yield Block(page=page, line=start + 1, language=language, text="\n".join(inner), marks=marks)
        marks = {}


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
