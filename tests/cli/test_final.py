"""What a final run costs is said before it begins, and somebody has to agree where that is much."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from raysplit.cli.work import NOT_AGREED
from raysplit.doctor.findings import Finding
from raysplit.journal import read_journal
from tests.cli.conftest import Command


class Trained(Exception):
    """The final run has begun."""


@pytest.fixture
def advice_file(raysplit: Command, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def run_final(*_: object, baseline_names: tuple[str, ...], **__: object) -> None:
        raise Trained(*baseline_names)

    monkeypatch.setattr("raysplit.sweep.final.run_final", run_final)
    path = run_folder / "advice.json"
    path.write_text(raysplit("advise", run_folder, "--json").stdout)
    return path


def parts_in(advice_file: Path) -> int:
    """The seed, and an expert of each domain that is given tokens."""
    tokens = json.loads(advice_file.read_text())["split"]["specialize_tokens"]
    return 1 + sum(n > 0 for n in tokens.values())


def begun(raysplit: Command, *arguments: object) -> tuple[Any, ...]:
    with pytest.raises(Trained) as trained:
        raysplit("train", *arguments)
    return trained.value.args


def test_a_costly_final_run_is_not_begun_unasked(raysplit: Command, advice_file: Path) -> None:
    ended = raysplit("train", "--advice", advice_file, "--confirm-above", "0.01")
    assert ended.exit_code == NOT_AGREED
    said = " ".join(ended.stdout.split())
    assert "the seed on 1 worker together, then 1 at a time of the experts" in said
    n_parts = parts_in(advice_file)
    assert f"times what the sweep has spent in {n_parts} parts of {n_parts}" in said
    go_on = shlex.split(said.split("To go on: raysplit train ")[1])
    assert begun(raysplit, *go_on) == ()


def test_a_cheap_final_run_goes_without_saying(raysplit: Command, advice_file: Path) -> None:
    assert begun(raysplit, "--advice", advice_file, "--confirm-above", "1000") == ()


def test_machines_that_cannot_train_are_told_before_it_begins(
    raysplit: Command, advice_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Finding(severity="error", where="the run folder", what="cannot be written", remedy="free some space")
    monkeypatch.setattr("raysplit.cli.cluster.examine", lambda *_, **__: ([found], "this machine"))
    refused = raysplit("train", "--advice", advice_file, "--yes")
    assert refused.exit_code == 2
    assert refused.stderr == "raysplit: the run folder: cannot be written; free some space\n"


def test_baselines_are_trained_when_asked_for_and_count(raysplit: Command, advice_file: Path) -> None:
    cost = {}
    for options in ((), ("--baselines",)):
        said = raysplit("train", "--advice", advice_file, "--confirm-above", "1e-9", *options).stdout
        cost[options] = float(said.split("it trains ")[1].split(" FLOPs")[0])
    assert cost["--baselines",] > 2 * cost[()]
    assert begun(raysplit, "--advice", advice_file, "--baselines", "--yes") == (
        "pretraining only",
        "80/20",
        "from scratch",
    )


def test_who_has_agreed_is_not_asked_again(raysplit: Command, advice_file: Path) -> None:
    options = ("--advice", advice_file, "--confirm-above", "0.01")
    assert begun(raysplit, *options, "--yes") == ()
    assert begun(raysplit, *options) == ()  # as after an interruption
    assert raysplit("train", *options, "--seed", "7").exit_code == NOT_AGREED
    assert raysplit("train", *options, "--baselines").exit_code == NOT_AGREED
    [agreed] = read_journal(advice_file.parent / "final_journal")
    assert len(agreed.data["parts"]) == parts_in(advice_file)


def test_without_a_sweep_to_compare_with_somebody_is_asked(raysplit: Command, advice_file: Path) -> None:
    for path in (advice_file.parent / "journal").iterdir():
        path.unlink()
    ended = raysplit("train", "--advice", advice_file, "--confirm-above", "1000")
    assert ended.exit_code == NOT_AGREED
    assert "what the sweep has spent" not in ended.stdout
    assert json.loads(advice_file.read_text())
