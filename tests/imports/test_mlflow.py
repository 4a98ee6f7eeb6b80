"""MLflow: its database as it writes it itself, its store of files, and what is broken in either."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from raysplit.errors import TableError
from raysplit.imports import guess_kind, import_runs
from tests.imports.layouts import EXPECTED, RUNS, rows_of, write_store


def newest_run(store: Path) -> Path:
    return max(path.parents[2] for path in store.rglob("metrics/eval/loss"))


class TestDatabase:
    @pytest.mark.parametrize("name", ["mlflow.db", "", "search_runs.csv"])
    def test_that_mlflow_wrote_itself(self, mlflow_folder: Path, name: str) -> None:
        source = mlflow_folder / name
        assert guess_kind(source) == "mlflow"
        imported = import_runs(source)
        assert rows_of(imported) == EXPECTED
        skipped = {reason: runs for reason, runs in imported.skipped.items() if not reason.startswith("files")}
        assert skipped == {
            "with status FAILED": ["failed"],
            **({} if name.endswith("csv") else {"deleted": ["deleted"]}),
        }

    def test_of_another_name_with_tags_and_experiments(self, mlflow_folder: Path, tmp_path: Path) -> None:
        shutil.copy(mlflow_folder / "mlflow.db", tmp_path / "tracking store?.sqlite")
        imported = import_runs(tmp_path / "tracking store?.sqlite", columns={"domain": "team"})
        assert set(imported.runs["domain"]) == {"nlp"}
        assert set(import_runs(tmp_path, columns={"domain": "experiment"}).runs["domain"]) == {"small", "large"}

    def test_with_a_log_beside_it_and_while_it_is_open(self, mlflow_folder: Path, tmp_path: Path) -> None:
        path = Path(shutil.copy(mlflow_folder / "mlflow.db", tmp_path))
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("UPDATE latest_metrics SET value = 2.5 WHERE key = 'eval/loss' AND value = 3.1")
            writer.commit()
            assert path.with_name("mlflow.db-wal").stat().st_size > 0
            assert import_runs(path).runs["loss"].tolist() == [2.5, 2.9]

    def test_that_is_locked(self, mlflow_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = Path(shutil.copy(mlflow_folder / "mlflow.db", tmp_path))
        connect = sqlite3.connect
        monkeypatch.setattr("sqlite3.connect", lambda path, uri: connect(path, uri=uri, timeout=0.01))
        with closing(connect(path)) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            with pytest.raises(TableError, match=r"mlflow\.db: .*locked; a program is writing into it: try again"):
                import_runs(path, kind="mlflow")

    def test_of_another_version(self, mlflow_folder: Path, tmp_path: Path) -> None:
        path = Path(shutil.copy(mlflow_folder / "mlflow.db", tmp_path))
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("ALTER TABLE latest_metrics RENAME COLUMN is_nan TO is_not")
        with pytest.raises(TableError, match=r"schema \w{12}\) without columns is_nan .*mlflow db upgrade sqlite:///"):
            import_runs(path)
        with closing(sqlite3.connect(path)) as writer:
            writer.execute("DROP TABLE params")
        with pytest.raises(TableError, match="holds no runs of MLflow"):
            import_runs(path, kind="mlflow")

    def test_that_is_damaged(self, mlflow_folder: Path, tmp_path: Path) -> None:
        whole = (mlflow_folder / "mlflow.db").read_bytes()
        (tmp_path / "mlflow.db").write_bytes(whole[: len(whole) // 3])
        with pytest.raises(TableError, match=r"mlflow\.db"):
            import_runs(tmp_path / "mlflow.db")


class TestFiles:
    @pytest.mark.parametrize("metadata", ["", "run_id: [", "- a list", None])
    def test_a_run_without_metadata_is_counted_and_the_others_read(self, tmp_path: Path, metadata: str | None) -> None:
        store = write_store(tmp_path / "mlruns", [*RUNS, RUNS[0]], (3, 3, 3))
        run = newest_run(store)
        broken = run / "meta.yaml"
        broken.unlink()
        if metadata is not None:
            broken.write_text(metadata)
        imported = import_runs(store)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped == {"without metadata that can be read (meta.yaml)": [run.name]}

    def test_metadata_cut_before_the_status(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", [*RUNS, RUNS[0]], (3, 3, 3))
        path = newest_run(store) / "meta.yaml"
        path.write_text(path.read_text().partition("status")[0])
        imported = import_runs(store)
        assert rows_of(imported) == EXPECTED
        assert list(imported.skipped) == ["without a status in its metadata (meta.yaml)"]

    @pytest.mark.parametrize(
        "text", ["yesterday 3.1\n", "1795548612005 3.1 2x\n", "1795548612005 2.0 20", "17 low 3\n"]
    )
    def test_a_damaged_metric_is_named(self, tmp_path: Path, text: str) -> None:
        store = write_store(tmp_path / "mlruns", [*RUNS, RUNS[0]], (3, 3, 3))
        metric = newest_run(store) / "metrics" / "eval" / "loss"
        metric.write_text(text)
        imported = import_runs(store)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped["damaged files of runs"] == [metric.relative_to(store).as_posix()]
        assert imported.skipped["without a value for loss (metrics.eval/loss)"] == ["run-2"]

    def test_deleted_ones_and_an_experiment_in_the_trash(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", RUNS, (3, 3))
        write_store(store / ".trash", [RUNS[0]], (3,))
        assert import_runs(store).skipped == {"deleted": ["run-0"]}

    def test_a_damaged_database_beside_a_store_is_named(self, mlflow_folder: Path, tmp_path: Path) -> None:
        write_store(tmp_path / "mlruns", RUNS, (3, 3))
        (tmp_path / "mlflow.db").write_bytes((mlflow_folder / "mlflow.db").read_bytes()[:2000])
        imported = import_runs(tmp_path)
        assert rows_of(imported) == EXPECTED
        [(reason, names)] = imported.skipped.items()
        assert "cannot be read as an SQLite database" in reason
        assert names == ["mlflow.db"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_cannot_be_listed(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", RUNS, (3, 3))
        closed = store / "closed"
        closed.mkdir(mode=0o000)
        assert import_runs(store).skipped == {"folders that cannot be listed": ["closed"]}

    def test_other_files_are_named(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", RUNS, (3, 3))
        (store / "late.csv").write_text("n_params\n")
        (store / "._late.csv").write_text("")
        [(reason, names)] = import_runs(store).skipped.items()
        assert reason.startswith("files that are no runs of MLflow")
        assert names == ["late.csv"]
