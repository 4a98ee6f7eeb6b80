"""W&B's own folders: as the package writes them offline, as it leaves them after a sync, and broken."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.imports import guess_kind, import_runs, wandb_log
from tests.imports.layouts import EXPECTED, RUNS, rows_of, settings_of

OTHER = {**RUNS[0], "seed": 7, "loss": 4.0}


def write_run(folder: Path, name: str, run: dict[str, Any], *, exit_code: int | None = 0) -> Path:
    """The folder of a run after a sync; without an exit code nothing says how it ended."""
    at = folder / f"run-20260501_100000-{name}"
    (at / "files").mkdir(parents=True)
    config = {key: {"desc": None, "value": value} for key, value in settings_of(run).items()}
    (at / "files" / "config.yaml").write_text(yaml.safe_dump({"wandb_version": 1, **config}))
    (at / "files" / "wandb-summary.json").write_text(json.dumps({"eval/loss": run["loss"], "_step": 10}))
    if exit_code is not None:
        (at / "logs").mkdir()
        (at / "logs" / "debug.log").write_text(f"INFO MainThread:1 [wandb_run.py] got exitcode: {exit_code}\n")
    return at


class TestThatTheToolWrote:
    def test_offline(self, wandb_folder: Path) -> None:
        for source in (wandb_folder, wandb_folder / "wandb"):
            assert guess_kind(source) == "wandb"
            imported = import_runs(source)
            assert rows_of(imported) == EXPECTED
            assert imported.skipped == {"failed": ["run-2"]}
            assert not imported.notes

    def test_one_run_or_the_latest_or_its_log(self, wandb_folder: Path) -> None:
        first = min((wandb_folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime)
        logs = sorted((wandb_folder / "wandb").rglob("run-*.wandb"))
        assert len(logs) == 3
        assert rows_of(import_runs(first))[0] in EXPECTED
        assert rows_of(import_runs(next(first.glob("run-*.wandb"))))[0] in EXPECTED
        with pytest.raises(TableError, match=r"no run is usable \(1 failed\)"):
            import_runs(wandb_folder / "wandb" / "latest-run")

    def test_a_log_cut_short_is_of_a_run_that_did_not_finish(self, wandb_folder: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(wandb_folder / "wandb", tmp_path / "wandb", symlinks=True))
        for log in folder.rglob("run-*.wandb"):
            whole = log.read_bytes()
            log.write_bytes(whole[: int(len(whole) * 0.98)])
            (log.parent / "logs" / "debug.log").unlink()
        with pytest.raises(TableError, match=r"no run is usable \(3 not finished\)"):
            import_runs(folder)

    def test_without_the_package_it_says_what_to_do(self, wandb_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wandb_log, "find_spec", lambda name: None)
        with pytest.raises(TableError, match=r"run-\*\.wandb\).*: pip install wandb and import again; or .*wandb sync"):
            import_runs(wandb_folder)

    @given(st.data())
    def test_damage_anywhere_in_a_log_raises_nothing(self, wandb_folder: Path, data: st.DataObject) -> None:
        log = next(iter((wandb_folder / "wandb").rglob("run-*.wandb")))
        whole = bytearray(log.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        damaged = wandb_folder / "damaged.log"
        damaged.write_bytes(bytes(whole))
        wandb_log.read_log(damaged)
        damaged.unlink()


class TestAfterASync:
    def test_config_and_summary(self, tmp_path: Path) -> None:
        for i, run in enumerate(RUNS):
            write_run(tmp_path, f"abcd{i}", run)
        write_run(tmp_path, "crashed", OTHER, exit_code=1)
        os.symlink(tmp_path / "run-20260501_100000-abcd1", tmp_path / "latest-run")
        imported = import_runs(tmp_path)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped == {"failed": ["run-20260501_100000-crashed"]}
        assert rows_of(import_runs(tmp_path / "latest-run")) == EXPECTED[1:]
        assert rows_of(import_runs(tmp_path / "latest-run" / "files" / "wandb-summary.json")) == EXPECTED[1:]

    def test_where_nothing_says_how_a_run_ended_that_is_said(self, tmp_path: Path) -> None:
        for i, run in enumerate(RUNS):
            at = write_run(tmp_path, f"abcd{i}", run, exit_code=None)
            (at / f"run-abcd{i}.wandb").write_bytes(b":W&B")
        imported = import_runs(tmp_path)
        assert rows_of(imported) == EXPECTED
        assert imported.notes == [
            "nothing says how 2 (run-20260501_100000-abcd0, run-20260501_100000-abcd1) ended: taken as finished"
        ]

    def test_broken_and_missing_pieces_are_counted(self, tmp_path: Path) -> None:
        for i, run in enumerate((*RUNS, OTHER, OTHER)):
            write_run(tmp_path, f"abcd{i}", run)
        (tmp_path / "run-20260501_100000-abcd2" / "files" / "wandb-summary.json").write_text('{"eval/lo')
        (tmp_path / "run-20260501_100000-abcd3" / "files" / "wandb-summary.json").unlink()
        imported = import_runs(tmp_path)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped == {
            "damaged files of runs": ["run-20260501_100000-abcd2/files/wandb-summary.json"],
            "with damaged files": ["run-20260501_100000-abcd2"],
            "without a summary": ["run-20260501_100000-abcd3"],
        }
