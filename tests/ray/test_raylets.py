"""Raylets that end or are killed, each time on a cluster of its own: what becomes of the processes on them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.ray.sweeps import Command, start


@pytest.mark.parametrize("how", ["end", "kill"])
def test_a_worker_that_hangs_on_its_way_out_ends_with_its_raylet(how: str, home: Path, commands: list[Command]) -> None:
    command = start(how, out=home, cwd=home, module="tests.ray.hanging_worker")
    commands.append(command)
    status, said = command.end()
    assert status == 0, said
    assert said.startswith("hangs\n"), said  # then Ray on the raylet, where that was killed
    assert not command.processes("ray::Hanging")


@pytest.mark.timeout(240)
def test_the_raylet_that_the_law_actor_lives_on_is_killed(tmp_path: Path) -> None:
    """In a process of its own; the script asserts and says what it saw."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.ray.live_raylets", str(tmp_path / "journal")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=220,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "the same law" in told.stdout
    assert "made anew where no node could hold it" in told.stdout
