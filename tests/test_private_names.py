"""Names that other packages do not promise: in one module each, and tried with the version that is installed."""

import re
from importlib.metadata import version

import pytest

from raysplit import ray_private
from raysplit.train import deepspeed_private
from tests.conftest import REPOSITORY

MODULES = {"ray": ray_private, "deepspeed": deepspeed_private}
PRIVATE = {
    "ray": r"\bray\.(?:\w+\.)*_\w+|\b_raylet\b|\b_internal_kv\w*|internal_kv\b|\"_base_exc\"",
    "deepspeed": r"__compatible_ops__|_zero3_\w+|see_memory_usage|_hp_\w+|[\"'.]ds_(?:id|shape|numel|tensor|status)\b",
    "torch": r"\btorch\.(?:\w+\.)*_[a-z]\w*",
    "transformers": r"\btransformers\.(?:\w+\.)*_[a-z]\w*",
}
"""What its private names look like, by package."""


@pytest.mark.parametrize("package", sorted(MODULES))
def test_they_were_tried_with_the_version_that_is_installed(package: str) -> None:
    tried, installed = MODULES[package].TRIED_WITH, version(package)
    assert installed == tried, (
        f"{package} {installed} is installed; try each name in {MODULES[package].__name__} with it (tests/ray, "
        f"tests/train and tests/live use them all), then set TRIED_WITH"
    )


@pytest.mark.parametrize("package", sorted(PRIVATE))
def test_no_other_module_has_them(package: str) -> None:
    home = MODULES[package].__file__ if package in MODULES else None
    found = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in sorted((REPOSITORY / "raysplit").rglob("*.py"))
        if str(path) != home
        for name in re.findall(PRIVATE[package], path.read_text(encoding="utf-8"))
    ]
    assert not found
