"""Runs of other tools: read in their true layouts, columns found, the unusable left out and counted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.imports import guess_kind, import_runs
from raysplit.imports.columns import choose_columns
from raysplit.imports.found import Found, FoundRow
from raysplit.runs import read_runs
from tests.imports.layouts import EXPECTED, RUNS, rows_of, settings_of, write_experiment, write_store

CRASHED = {**RUNS[0], "seed": 7, "loss": 4.0}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def write_jsonl(path: Path, runs: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(run) + "\n" for run in runs))
    return path


def sources(folder: Path) -> dict[str, tuple[Path, str]]:
    """Every layout of the same two runs, and what it is read as."""
    ended = [{"name": f"run-{i}", "state": "finished"} for i in range(len(RUNS))]
    whole: list[dict[str, Any]] = [
        {**end, "config": settings_of(run), "summary": {"eval/loss": run["loss"], "train/loss": 1.5, "_step": 3}}
        for end, run in zip(ended, RUNS, strict=True)
    ]
    # The export button knows no nesting but the dots.
    flat = [
        {
            "Name": run["name"],
            "State": run["state"],
            **{k: v for k, v in run["config"].items() if k != "model"},
            "model.n_params": run["config"]["model"]["n_params"],
            **run["summary"],
        }
        for run in whole
    ]
    searched = [
        {
            "run_id": f"{i:032x}",
            "experiment_id": "1",
            "status": "FINISHED",
            **{f"params.{k}": v for k, v in settings_of(run).items() if k != "model"},
            "params.model/n_params": run["n_params"],
            "metrics.eval/loss": run["loss"],
            "metrics.loss": 1.5,
        }
        for i, run in enumerate(RUNS)
    ]
    return {
        "csv": (write_csv(folder / "plain.csv", RUNS), "csv"),
        "wandb button": (write_csv(folder / "button.csv", flat), "wandb"),
        "wandb api csv": (write_csv(folder / "api.csv", whole), "wandb"),
        "wandb json lines": (write_jsonl(folder / "runs.jsonl", whole), "wandb"),
        "mlflow csv": (write_csv(folder / "searched.csv", searched), "mlflow"),
        "mlflow store": (write_store(folder / "mlruns", RUNS, (3, 3)), "mlflow"),
        "tune": (write_experiment(folder / "tune", RUNS, ("TERMINATED", "TERMINATED")), "tune"),
    }


LAYOUTS = ("csv", "wandb button", "wandb api csv", "wandb json lines", "mlflow csv", "mlflow store", "tune")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_runs_come_out_of_every_layout(layout: str, tmp_path: Path) -> None:
    source, kind = sources(tmp_path)[layout]
    assert guess_kind(source) == kind
    imported = import_runs(source)
    assert rows_of(imported) == EXPECTED
    assert not imported.skipped
    out = tmp_path / "out.csv"
    imported.runs.to_csv(out, index=False)
    assert len(read_runs(out)) == len(EXPECTED)  # what `raysplit fit` reads


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        EXPECTED, columns=["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss", "seed"]
    )
    frame.to_parquet(tmp_path / "runs.parquet")
    assert rows_of(import_runs(tmp_path / "runs.parquet")) == EXPECTED


class TestLeftOut:
    def test_crashed_and_running(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", [*RUNS, CRASHED, CRASHED], (3, 3, 4, 1))
        experiment = write_experiment(
            tmp_path / "tune", [*RUNS, CRASHED, CRASHED], ("TERMINATED", "TERMINATED", "ERROR", "RUNNING")
        )
        runs: list[dict[str, Any]] = [
            {"name": str(i), "state": state, "config": settings_of(run), "summary": {"eval/loss": run["loss"]}}
            for i, (run, state) in enumerate(
                zip([*RUNS, CRASHED, CRASHED], ["finished", "finished", "crashed", "running"], strict=True)
            )
        ]
        wandb = write_jsonl(tmp_path / "runs.jsonl", runs)
        for source, reasons in (
            (store, {"with status FAILED", "with status RUNNING"}),
            (experiment, {"crashed", "running"}),
            (wandb, {"with state crashed", "with state running"}),
        ):
            imported = import_runs(source)
            assert rows_of(imported) == EXPECTED
            assert set(imported.skipped) == reasons
            assert all(len(names) == 1 for names in imported.skipped.values())

    @pytest.mark.parametrize("loss", ["nan", "inf", "-Infinity"])
    def test_diverged(self, loss: str, tmp_path: Path) -> None:
        imported = import_runs(write_csv(tmp_path / "runs.csv", [*RUNS, {**CRASHED, "loss": loss}]))
        assert rows_of(imported) == EXPECTED
        assert list(imported.skipped) == ["diverged: the loss is no finite number"]

    def test_diverged_within_a_cell_of_the_api(self, tmp_path: Path) -> None:
        runs = [{"name": str(i), "config": settings_of(run), "summary": {"eval/loss": run["loss"]}}
                for i, run in enumerate([*RUNS, {**CRASHED, "loss": float("nan")}])]  # fmt: skip
        imported = import_runs(write_csv(tmp_path / "api.csv", runs))
        assert rows_of(imported) == EXPECTED
        assert len(imported.skipped["diverged: the loss is no finite number"]) == 1

    def test_without_a_value_and_repeated(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [*RUNS, {**CRASHED, "n_params": ""}, RUNS[0]]
        imported = import_runs(write_csv(tmp_path / "runs.csv", rows))
        assert rows_of(imported) == EXPECTED
        assert {reason: list(names) for reason, names in imported.skipped.items()} == {
            "without a value for n_params (n_params)": ["row 3"],
            "the same as another": ["row 4"],
        }

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", RUNS, (4, 1))
        with pytest.raises(TableError, match=r"no run is usable \(1 with status FAILED; 1 with status RUNNING\)"):
            import_runs(store)


class TestColumns:
    def test_told_ones_win(self, tmp_path: Path) -> None:
        rows = [{**run, "size": 1000 * (i + 1), "eval_loss": 1.0} for i, run in enumerate(RUNS)]
        source = write_csv(tmp_path / "runs.csv", rows)
        with pytest.raises(TableError, match=r"beside 'eval_loss' a column 'loss' .* --column loss=eval_loss or"):
            import_runs(source)
        imported = import_runs(source, columns={"n_params": "size", "loss": "loss"}, constants={"seed": "5"})
        assert imported.runs["n_params"].tolist() == [1000, 2000]
        assert imported.runs["seed"].tolist() == [5, 5]
        assert imported.runs["loss"].tolist() == [3.1, 2.9]
        assert imported.choices["n_params"].how == "given"

    def test_by_its_name_without_the_container(self, tmp_path: Path) -> None:
        store = write_store(tmp_path / "mlruns", RUNS, (3, 3))
        assert rows_of(import_runs(store, columns={"n_params": "model/n_params"})) == EXPECTED

    def test_a_column_a_domain(self, tmp_path: Path) -> None:
        """A pretrained model is read on every domain, a specialized one on its own alone."""
        rows: list[dict[str, Any]] = [
            {"n_params": 1000, "pretrain_tokens": 500, "specialize_tokens": 0, "eval/law_loss": 3, "eval/code_loss": 2},
            {
                "n_params": 1000,
                "pretrain_tokens": 500,
                "specialize_tokens": 10,
                "domain": "law",
                "eval/law_loss": 1,
                "eval/code_loss": 9,
            },
        ]
        imported = import_runs(write_csv(tmp_path / "runs.csv", rows), columns={"loss": "eval/{domain}_loss"})
        assert imported.runs[["specialize_tokens", "domain", "loss"]].values.tolist() == [
            [0, "code", 2.0],
            [0, "law", 3.0],
            [10, "law", 1.0],
        ]

    def test_a_training_loss_is_never_guessed(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [
            {**{k: v for k, v in run.items() if k != "loss"}, "train/loss": 1.0} for run in RUNS
        ]
        with pytest.raises(TableError, match=r"no column for loss\. .* held-out text .* train/loss"):
            import_runs(write_csv(tmp_path / "runs.csv", rows))

    def test_two_that_differ_are_asked_about(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [
            {"model.n_params": 1, "head.n_params": 2, **{k: v for k, v in RUNS[0].items() if k != "n_params"}}
        ]
        with pytest.raises(TableError, match=r"'model\.n_params' and 'head\.n_params' could each be it"):
            import_runs(write_csv(tmp_path / "runs.csv", rows))

    @given(st.permutations(["config.n_params", "config.pretrain_tokens", "summary.eval/loss", "config.domain"]))
    def test_the_order_of_columns_does_not_matter(self, names: list[str]) -> None:
        row = FoundRow(run="a", where="a", values={**dict.fromkeys(names, 1), "specialize_tokens": 0})
        chosen = choose_columns(Found(kind="wandb", origin="x", rows=[row]), columns={}, constants={})
        assert {field: choice.column.split(".")[-1] for field, choice in chosen.items()} == {
            "n_params": "n_params",
            "pretrain_tokens": "pretrain_tokens",
            "specialize_tokens": "specialize_tokens",
            "domain": "domain",
            "loss": "eval/loss",
        }


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (
                {"n_params": "big"},
                r"row 3 \(line 4\): column 'n_params', read as n_params: expected a number .* got 'big'",
            ),
            ({"pretrain_tokens": "1.5"}, r"read as pretrain_tokens: expected a whole number, got '1\.5'"),
            ({"pretrain_tokens": "-1k"}, r"must not be negative, got '-1k'"),
            ({"loss": "0"}, r"row 3 \(line 4\): column 'loss', read as loss: must be positive, got '0'"),
            ({"specialize_tokens": "inf"}, r"read as specialize_tokens: expected a number"),
            ({"n_params": "1e400"}, r"read as n_params: "),
        ],
    )
    def test_impossible_values(self, change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
        with pytest.raises(TableError, match=complaint):
            import_runs(write_csv(tmp_path / "runs.csv", [*RUNS, {**CRASHED, **change}]))

    def test_other_losses_of_the_same_run(self, tmp_path: Path) -> None:
        rows = [*RUNS, {**RUNS[0], "loss": 3.3}]
        with pytest.raises(
            TableError, match=r"row 3 \(line 4\): loss = 3\.3 of n_params=14000.* 'row 1' says 3\.1; give .* seeds"
        ):
            import_runs(write_csv(tmp_path / "runs.csv", rows))

    def test_fields_columns_and_kinds(self, tmp_path: Path) -> None:
        source = write_csv(tmp_path / "runs.csv", RUNS)
        with pytest.raises(TableError, match=r"unknown field 'los' \(did you mean 'loss'\?\)"):
            import_runs(source, columns={"los": "loss"})
        with pytest.raises(TableError, match=r"loss: unknown column 'los' \(did you mean 'loss'\?\)"):
            import_runs(source, columns={"loss": "los"})
        with pytest.raises(TableError, match="only the loss may have a column a domain"):
            import_runs(source, columns={"seed": "x_{domain}"})
        with pytest.raises(TableError, match="unknown kind of source 'excel'"):
            import_runs(source, kind="excel")
        with pytest.raises(TableError, match="holds no trials of Ray Tune"):
            import_runs(source, kind="tune")
        with pytest.raises(TableError, match="read as mlflow, there are no runs in it"):
            import_runs(tmp_path, kind="mlflow")
        with pytest.raises(TableError, match=r"row 1 \(line 2\): --set seed: expected a number .* got 'big'"):
            import_runs(source, constants={"seed": "big"})

    @pytest.mark.parametrize(
        ("name", "text", "complaint"),
        [
            ("runs.jsonl", '{"name": 1}\nnonsense\n', r"runs\.jsonl: line 2: is not JSON"),
            ("runs.jsonl", "[1]", r"runs\.jsonl: run 1: is no object"),
            (
                "runs.csv",
                "name,config,summary\na,not a mapping,{}\n",
                r"row 1 \(line 2\): column 'config' is no mapping",
            ),
            ("runs.csv", "", r"runs\.csv: cannot be read as a table: it is empty"),
            ("runs.docx", "", r"unknown table format '\.docx'"),
        ],
    )
    def test_unreadable_files(self, name: str, text: str, complaint: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(TableError, match=complaint):
            import_runs(tmp_path / name)

    def test_a_folder_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(
            TableError, match=r"nothing that is recognised, which would be: trials of Ray Tune .*; runs of MLflow"
        ):
            import_runs(tmp_path)
        with pytest.raises(TableError, match="no such file or folder"):
            import_runs(tmp_path / "nowhere")


class TestTune:
    def test_every_report_where_each_is_a_measurement(self, tmp_path: Path) -> None:
        experiment = write_experiment(tmp_path / "tune", RUNS[:1], ("ERROR",))
        reports = next(experiment.rglob("result.json"))
        lines = [json.loads(line) for line in reports.read_text().splitlines()]
        reports.write_text(
            "".join(json.dumps({**r, "specialize_tokens": r["training_iteration"]}) + "\n" for r in lines)
        )
        imported = import_runs(experiment, all_points=True)
        assert imported.runs[["specialize_tokens", "loss"]].values.tolist() == [[1, 9.5], [2, 3.1]]
