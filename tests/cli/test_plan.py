"""`raysplit plan` on every search space that comes with raysplit."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from raysplit.space import load_space
from tests.cli.conftest import Command
from tests.cli.test_mistakes import SpaceFile

FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_space_has_a_plan(raysplit: Command, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    calibrate = pytest.importorskip("raysplit.train.calibrate")
    monkeypatch.setattr(calibrate, "can_train_on", lambda device: False)
    if load_space(path).model.checkpoints:
        pytest.skip("starts from models that a script makes first")
    result = raysplit("plan", path)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "whole grid" in said
    assert "warning" not in said
    if load_space(path).compute.gpu is None:
        assert "not timed" in said
        return
    # What the file advertises is what its plan says.
    hours = re.search(r"about [^:]* for the sweep", said)
    assert hours is not None
    assert hours.group() in " ".join(path.read_text().split("schema_version")[0].replace("#", " ").split())
    assert "reckoned, not measured" in said


def test_a_plan_says_what_text_it_takes(
    raysplit: Command, space_file: SpaceFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate = pytest.importorskip("raysplit.train.calibrate")
    monkeypatch.setattr(calibrate, "can_train_on", lambda device: False)
    sources = {
        "short": {"kind": "files", "path": "texts/domain-0", "max_bytes": "2k"},
        "gone": {"kind": "table", "path": "nowhere.csv"},
    }
    said = " ".join(raysplit("plan", space_file(corpus__domains=sources)).stdout.split())
    assert "of a domain up to 4.1k tokens are trained on (its share of D, then D')" in said
    assert "warning: domain 'short': max_bytes = 2,000 bytes of text hold fewer than the 4,096 tokens" in said
    assert "nowhere.csv: no such file or folder here" in said


@pytest.mark.parametrize("command", ["plan", "run", "sweep"])
def test_a_size_that_no_machine_holds_is_refused_before_anything_starts(
    refusal: Callable[..., str], tmp_path: Path, command: str
) -> None:
    path = tmp_path / "small_gpus.yaml"
    path.write_text((FILES[0].parent / "cluster_8x8.yaml").read_text().replace("80G", "8G"))
    out = () if command == "plan" else ("--out", tmp_path / "run")
    line = refusal(command, path, *out)
    assert line.startswith(f"raysplit: {path}: compute: a model of ")
    assert "device_memory = 8 GB leaves 7.2 GB" in line
    assert not (tmp_path / "run").exists()
