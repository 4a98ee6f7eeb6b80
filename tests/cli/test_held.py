"""A run folder that another command holds: every command that would change it says so and does nothing."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import click
import pandas as pd
import pytest

from raysplit.cli import main
from raysplit.run_folder import holder
from raysplit.run_folder.holder import held
from tests.cli.conftest import SPACE, Command

Refusal = Callable[..., str]
SpaceFile = Callable[..., Path]


@pytest.mark.parametrize("command", ["run", "sweep", "tune", "corpus build", "serve"])
def test_it_is_refused_in_one_line(refusal: Refusal, space_file: SpaceFile, tmp_path: Path, command: str) -> None:
    run = tmp_path / "run"
    path = space_file(tuning={"n_trials": 4}) if command == "tune" else space_file()
    with held(run, command="raysplit sweep"):
        line = refusal(*command.split(), path, "--out", run)
    assert f"{run}: is held by `raysplit sweep` (process {os.getpid()} of " in line
    assert line.endswith("--take-over makes it end")
    assert sorted(entry.name for entry in run.iterdir()) == ["holder"]


def test_nothing_is_trained_or_stored_in_it(
    raysplit: Command, refusal: Refusal, run_folder: Path, tmp_path: Path, table: pd.DataFrame
) -> None:
    (run_folder / "advice.json").write_text(raysplit("advise", run_folder, "--json").stdout)
    table.to_csv(tmp_path / "table.csv", index=False)
    journal = sorted((run_folder / "journal").iterdir())
    with held(run_folder, command="raysplit sweep"):
        assert "is held by" in refusal("observe", run_folder, tmp_path / "table.csv")
        assert "is held by" in refusal("train", "--advice", run_folder / "advice.json")
    assert sorted((run_folder / "journal").iterdir()) == journal


def test_reading_asks_nobody(raysplit: Command, run_folder: Path) -> None:
    with held(run_folder, command="raysplit sweep"):
        for command in ("status", "advise"):
            assert raysplit(command, run_folder).exit_code == 0, command


def test_whoever_is_taken_over_ends_with_a_word(
    raysplit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of the one for Ctrl-C: nobody pressed it, and the same command would not continue."""
    monkeypatch.setattr(holder, "BEAT_SECONDS", 0.05)

    def body() -> None:
        with held(tmp_path, command="raysplit sweep"):
            (tmp_path / "holder" / "000002.json").write_text("{}")
            time.sleep(30)

    monkeypatch.setitem(main.commands, "body", click.Command("body", callback=body))
    result = raysplit("body")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"raysplit: {tmp_path}: taken over by ")
    assert "stopped" not in result.stderr


def test_every_command_that_changes_a_run_folder_can_take_it_over() -> None:
    corpus = main.commands["corpus"].commands["build"]  # type: ignore[attr-defined]
    for command in (*(main.commands[name] for name in ("run", "sweep", "tune", "train", "controls", "serve")), corpus):
        assert "take_over" in {parameter.name for parameter in command.params}, command.name


def test_one_that_was_left_behind_is_named_and_succeeded(
    raysplit: Command, space_file: SpaceFile, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert raysplit("corpus", "build", space_file(), "--out", run).exit_code == 0
    [claim] = (run / "holder").iterdir()
    text = claim.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194305')
    claim.write_text(text[: text.index('"ended"')] + '"ended": ""}')
    result = raysplit("corpus", "build", space_file(), "--out", run)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"raysplit: {run}: was held by ")
    assert "corpus build` (process 4194305 of " in result.stderr
    assert result.stderr.endswith("which is gone\n")
    assert SPACE["name"] in (run / "space.yaml").read_text()
