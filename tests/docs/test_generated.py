"""The reference is as the code has it; each field says why it is there; the table of common errors quotes real ones."""

import re

from docs.generate import PAGES, out_of_date
from docs.generators.messages import KINDS
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
_OTHERS = ("cli/main.py", "doubts.py", "design/lane_shapes.py", "imports/columns.py", "quantities.py")
"""Which say messages that another module raises."""


def test_the_reference_is_up_to_date() -> None:
    assert list(out_of_date()) == [], "run: .venv/bin/python -m docs.generate"


def test_every_field_of_a_search_space_has_a_reason() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (`\w+`) \|.*\|\s+\|$", page, re.MULTILINE) == []


def test_every_generated_page_says_that_it_is() -> None:
    for page in PAGES:
        assert (REPOSITORY / page).read_text(encoding="utf-8").startswith("<!-- Made by `python -m docs.generate`")


def test_every_kind_of_error_has_its_messages() -> None:
    """A kind without a row is one that nothing raises, or whose messages the page does not find."""
    page = (DOCS / "messages.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r" \| `(\w+)` \| `[\w/]+\.py` \|$", page, re.MULTILINE))
    assert len(KINDS) > 15
    assert {*KINDS, "finding", "option"} - {"RaysplitError"} <= kinds


def test_the_common_errors_are_in_the_code() -> None:
    """A message of the page of questions is made of parts that the code says in the same words."""
    table = (DOCS / "faq.md").read_text(encoding="utf-8").split("| message | why |")[1].split("\n\n")[0]
    quoted = [part for row in table.splitlines()[2:] for part in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    pages = [DOCS / "messages.md", *(REPOSITORY / "raysplit" / path for path in _OTHERS)]
    said = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert len(quoted) > 10
    for part in quoted:
        words = max(re.split(r"'[^']*'|\d[\d.,]*|[()?]", part), key=len).strip(" ;")
        assert words in said, part
