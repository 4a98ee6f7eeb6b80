"""Every link leads somewhere: files of the repository, and headings of their pages."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.pages import BLOCKS, PAGES

INDEX = REPOSITORY / "docs" / "README.md"
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    found: set[str] = set()
    for block in (block for block in BLOCKS if block.page == page and block.language is None):
        for heading in re.findall(r"^#+ (.+)$", block.text, re.MULTILINE):
            plain = re.sub(r"[^\w\- ]", "", heading.lower()).strip()
            found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    for block in (block for block in BLOCKS if block.page == page and block.language is None):
        for link in _LINK.findall(block.text.replace("\n", " ")):
            if link.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{block.place}: {link}"
            assert not anchor or anchor in anchors(target), f"{block.place}: {link}"


def test_the_index_leads_to_every_page() -> None:
    listed = set(re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\)", INDEX.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {page.name for page in INDEX.parent.glob("*.md")} - {"README.md"}


def test_the_readme_fits_on_a_page_or_two() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
