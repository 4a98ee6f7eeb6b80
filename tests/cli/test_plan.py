"""`raysplit plan` on every search space that comes with raysplit."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command

FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_space_has_a_plan(raysplit: Command, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    calibrate = pytest.importorskip("raysplit.train.calibrate")
    monkeypatch.setattr(calibrate, "can_train_on", lambda device: False)
    result = raysplit("plan", path)
    assert result.exit_code == 0, result.output
    assert "whole grid" in result.stdout
    assert "not timed" in result.stdout
    assert "warning" not in result.stdout
