"""`raysplit journal` as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from raysplit.journal import Journal
from raysplit.runs import read_runs
from tests.cli.conftest import Command
from tests.journal.test_journal_old import segment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a journal of five records in it."""
    journal = Journal(tmp_path / "journal")
    journal.append_many([("note" if number else "round", {"number": number}) for number in range(5)])
    journal.close()
    return tmp_path


def damage(folder: Path) -> Path:
    batch = folder / "journal" / "0000000001.jsonl"
    batch.write_bytes(batch.read_bytes().replace(b'"number": 2', b'"number": 3'))
    return batch


def test_an_intact_journal(raysplit: Command, folder: Path) -> None:
    for where in (folder, folder / "journal", f"file://{folder}/journal"):
        result = raysplit("journal", "verify", where)
        assert result.exit_code == 0
        assert "records: 5 (4 note, 1 round); batches: 2" in result.stdout
        assert "fence 1: 5" in result.stdout
        assert "intact" in result.stdout
    assert "nothing was changed" in raysplit("journal", "repair", folder).stdout


def test_a_damaged_journal_is_verified_repaired_and_verified(raysplit: Command, folder: Path) -> None:
    batch = damage(folder)
    before = batch.read_bytes()
    byte = before.index(b'{"seq": 2')
    result = raysplit("journal", "verify", folder)
    assert result.exit_code == 1
    assert f"{batch}: these bytes are damaged (byte {byte}, " in result.stdout
    assert f"raysplit journal repair {folder}" in result.stdout
    found = json.loads(raysplit("journal", "verify", folder, "--json").stdout)
    assert [(d["file"], d["byte"]) for d in found["damages"]] == [(str(batch), byte)]
    assert batch.read_bytes() == before
    result = raysplit("journal", "repair", folder)
    assert result.exit_code == 0
    assert "lost: record 2" in result.stdout
    assert f"{batch}.damaged-1" in result.stdout
    assert Path(f"{batch}.damaged-1").read_bytes() == before
    result = raysplit("journal", "verify", folder)
    assert result.exit_code == 0
    assert "records: 4 (3 note, 1 round)" in result.stdout


def test_observations_are_exported_flat(raysplit: Command, run_folder: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet", "jsonl"):
        result = raysplit("journal", "export", run_folder, "--to", tmp_path / f"x.{suffix}")
        assert result.exit_code == 0
        assert "16 observations" in result.stdout
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert read_runs(tmp_path / "x.csv").equals(read_runs(tmp_path / "x.parquet"))
    read = pd.read_json(tmp_path / "x.jsonl", lines=True, precise_float=True)
    assert read["loss"].tolist() == frame["loss"].tolist()
    with duckdb.connect() as db:
        for name in ("x.csv", "x.parquet", "x.jsonl"):
            losses = db.execute(f"select loss from '{tmp_path / name}'").fetchall()
            assert [loss for (loss,) in losses] == frame["loss"].tolist()


def test_mistakes(refusal: Callable[..., str], folder: Path, run_folder: Path) -> None:
    assert "no journal" in refusal("journal", "verify", folder / "nowhere")
    assert "no journal" in refusal("journal", "repair", folder / "nowhere")
    assert "s3://" in refusal("journal", "verify", "ftp://host/journal")
    assert "is not a run folder" in refusal("journal", "export", folder, "--to", "x.csv")
    assert "Known: csv, parquet, jsonl" in refusal("journal", "export", run_folder, "--to", "x.xlsx")
    assert "is not a folder" in refusal("journal", "export", run_folder, "--to", folder / "no" / "x.csv")


def test_an_old_journal_is_upgraded(raysplit: Command, refusal: Callable[..., str], tmp_path: Path) -> None:
    segment(tmp_path / "journal", 0, ["a", "b"], fence=1, after=0)
    assert f"raysplit journal upgrade {tmp_path / 'journal'}" in refusal("journal", "verify", tmp_path)
    assert "2 records" in raysplit("journal", "upgrade", tmp_path).stdout
    assert "intact" in raysplit("journal", "verify", tmp_path).stdout
