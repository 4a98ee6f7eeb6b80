"""Optuna's SQLite storage, as Optuna writes it itself."""

from pathlib import Path

import optuna
import pytest

from raysplit.errors import TableError
from raysplit.imports import guess_kind, import_runs
from tests.imports.layouts import EXPECTED, RUNS, rows_of, settings_of


def write_storage(folder: Path) -> Path:
    """A study with two trials that are complete, one pruned, and one that failed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "optuna.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="scaling")
    states = optuna.trial.TrialState
    for run, state in zip((*RUNS, *RUNS), (states.COMPLETE, states.COMPLETE, states.PRUNED, states.FAIL), strict=True):
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=None if state == states.FAIL else run["loss"],
                params={"domain": run["domain"], "seed": run["seed"]},
                distributions={
                    "domain": optuna.distributions.CategoricalDistribution(("code", "law")),
                    "seed": optuna.distributions.IntDistribution(0, 9),
                },
                user_attrs={k: v for k, v in settings_of(run).items() if k not in ("domain", "seed")},
            )
        )
    return path


def test_complete_trials_with_the_objective_as_their_loss(tmp_path: Path) -> None:
    storage = write_storage(tmp_path)
    for source in (storage, storage.parent):
        assert guess_kind(source) == "optuna"
        imported = import_runs(source)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped == {"with state PRUNED": ["scaling 2"], "with state FAIL": ["scaling 3"]}
        assert imported.choices["loss"].note == "the objective: a loss on held-out text?"


def test_a_folder_without_a_storage_that_can_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "runs.txt").write_text("none")
    with pytest.raises(TableError, match=r"holds no SQLite storage of Optuna"):
        import_runs(tmp_path, kind="optuna")
    storage = write_storage(tmp_path)
    storage.write_bytes(storage.read_bytes()[:5000])
    with pytest.raises(TableError, match=r"optuna\.db: cannot be read as an SQLite database: .*malformed"):
        import_runs(tmp_path, kind="optuna")


def test_a_journal_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_text('{"op_code": 0, "worker_id": "a", "study_name": "scaling"}\n')
    with pytest.raises(TableError, match=r"journal of Optuna.*trials_dataframe\(\)\.to_csv"):
        import_runs(path)
