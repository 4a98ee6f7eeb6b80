"""Every row of docs/tools.md: what it says to give becomes what it says, with the version that it names."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from raysplit.errors import TableError
from raysplit.imports import import_runs
from tests.imports.layouts import EXPECTED, RUNS, settings_of, write_experiment, write_store
from tests.imports.test_imports import sources
from tests.imports.test_optuna import write_storage
from tests.imports.test_tensorboard import write_events, write_runs
from tests.imports.test_trainer import TOLD, write_state
from tests.imports.test_tune import MEASURED, write_plan, write_sweep
from tests.imports.test_wandb import write_run

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"


class Row(NamedTuple):
    tool: str
    given: str
    tried: str
    becomes: str


def rows_of_page() -> list[Row]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines[2:]]


def lightning(folder: Path) -> Path:
    for number, run in enumerate(RUNS):
        at = write_events(folder / f"version_{number}", (30, run["loss"]))
        (at / "hparams.yaml").write_text(yaml.safe_dump(settings_of(run)))
    return folder


def cut_short(folder: Path) -> Path:
    [path] = write_events(folder / "run", (30, 3.1)).iterdir()
    path.write_bytes(path.read_bytes()[:3])
    return folder


def synced(folder: Path) -> Path:
    for number, run in enumerate(RUNS):
        write_run(folder, f"abcd{number}", run)
    return folder


def trial(folder: Path) -> Path:
    return min(write_experiment(folder, RUNS, ("TERMINATED",) * 2).glob("train*"))


def progress(folder: Path) -> Path:
    path = trial(folder) / "progress.csv"
    path.write_text("loss,training_iteration,time_total_s,trial_id\n9.5,1,1.0,a\n3.1,2,2.0,a\n")
    return path


def checkpoints(folder: Path) -> Path:
    write_state(folder / "checkpoint-100", step=100)
    write_state(folder / "checkpoint-300")
    return folder


def journal(folder: Path) -> Path:
    path = folder / "journal.log"
    path.write_text(json.dumps({"op_code": 0, "study_name": "scaling"}) + "\n")
    return path


class Example(NamedTuple):
    make: Callable[[Path], Path]
    expected: Sequence[tuple[object, ...]] | None = EXPECTED
    """None where it is refused, as the last column says."""
    columns: Mapping[str, str] | None = None
    constants: Mapping[str, str] | None = None


OF_TRAINER = [(14_000, 2_000_000, 500_000, "law", 3.1, 0)]
EXAMPLES = {
    "`mlruns`, a store of files": Example(lambda folder: write_store(folder, RUNS, (3, 3))),
    "the folder `wandb` after a sync": Example(synced),
    "the runs table as CSV": Example(lambda folder: sources(folder)["wandb button"][0]),
    "its API's runs as JSON lines": Example(lambda folder: sources(folder)["wandb json lines"][0]),
    "an experiment, or a folder of several": Example(lambda f: write_experiment(f / "a", RUNS, ("TERMINATED",) * 2)),
    "a trial's folder": Example(trial, EXPECTED[:1]),
    "a trial's `progress.csv`": Example(progress, EXPECTED[:1]),
    "the Tune folder of a sweep": Example(write_sweep, MEASURED),
    "the Tune folder of a plan": Example(write_plan, MEASURED),
    "`trainer_state.json`": Example(write_state, OF_TRAINER, constants=TOLD),
    "a run with `checkpoint-*`": Example(checkpoints, OF_TRAINER, constants=TOLD),
    "a run stopped before its end": Example(lambda folder: write_state(folder, step=200), None, constants=TOLD),
    "a folder of runs with hyperparameters": Example(write_runs, columns={"n_params": "model"}),
    "an event file that is cut short": Example(cut_short, None),
    "Lightning's `version_*` folders": Example(lightning),
    "an SQLite storage": Example(write_storage),
    "a journal (`journal.log`)": Example(journal, None),
}
RECORDED = {
    "`mlflow.db`, under any name": ("mlflow_folder", "mlflow.db"),
    "a folder with `mlflow.db`": ("mlflow_folder", ""),
    "the CSV of `mlflow.search_runs()`": ("mlflow_folder", "search_runs.csv"),
    "the folder `wandb` of offline runs": ("wandb_folder", "wandb"),
}
"""By a tool itself, in a fixture."""


@pytest.mark.parametrize("row", rows_of_page(), ids=lambda row: f"{row.tool}: {row.given}")
def test_a_row(row: Row, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    package, _, tried = row.tried.partition(" ")
    assert version(package) == tried
    if row.given in RECORDED:
        fixture, name = RECORDED[row.given]
        example = Example(lambda _: request.getfixturevalue(fixture) / name)
    else:
        example = EXAMPLES[row.given]
    run_import = partial(import_runs, example.make(tmp_path), columns=example.columns, constants=example.constants)
    if example.expected is None:
        [said] = re.findall("`(.*)`", row.becomes)
        with pytest.raises(TableError, match=re.escape(said)):
            run_import()
        return
    names = ["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss", "seed"]
    runs = run_import().runs[names]
    assert [tuple(found) for found in runs.round(6).itertuples(index=False)] == example.expected


def test_every_example_is_on_the_page() -> None:
    assert {row.given for row in rows_of_page()} == EXAMPLES.keys() | RECORDED.keys()
