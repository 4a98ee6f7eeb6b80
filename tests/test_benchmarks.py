"""The index of the benchmarks holds every command and every result, and nothing that is not there."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ROOT = REPOSITORY / "benchmarks"
INDEX = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", sorted(ROOT.glob("*/*.py")), ids=lambda path: path.name)
def test_every_script_is_in_the_index(script: Path) -> None:
    assert f"benchmarks/{script.relative_to(ROOT)}" in INDEX or f"`{script.name}`" in INDEX


@pytest.mark.parametrize("result", sorted(p for p in ROOT.glob("results/*/*")), ids=lambda path: path.name)
def test_every_result_is_in_the_index(result: Path) -> None:
    assert f"({result.relative_to(ROOT)})" in INDEX


def test_what_the_index_names_is_there() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", INDEX):
        assert (ROOT / link).exists(), link
    for script in re.findall(r"benchmarks/\w+/\w+\.py", INDEX):
        assert (REPOSITORY / script).exists(), script


def test_every_figure_of_the_readme_is_a_result_that_the_index_leads_to() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\(benchmarks/([^)]+\.\w+)\)", readme):
        assert f"({link})" in INDEX or link.endswith((".md", ".py")), link
