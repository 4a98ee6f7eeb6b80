"""`raysplit import`: what it says it did, and the mistakes that it names."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.cli.conftest import Command
from tests.imports.layouts import EXPECTED, RUNS, write_store


def test_says_what_it_read_and_what_it_left_out(raysplit: Command, tmp_path: Path) -> None:
    store = write_store(tmp_path / "mlruns", [*RUNS, {**RUNS[0], "seed": 9}], (3, 3, 4))
    out = tmp_path / "runs.csv"
    result = raysplit("import", store, "--out", out)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "read as mlflow (guessed" in said
    assert "loss metrics.eval/loss guessed" in said
    assert "left out 1: failed (run-2)" in said
    assert f"{len(EXPECTED)} runs, 1 domains, 2 sizes" in said
    assert out.read_text().startswith("n_params,pretrain_tokens,specialize_tokens,domain,loss,seed")
    assert "given" in raysplit("import", store, "--out", out, "--column", "loss=eval/loss").stdout


def test_a_table_goes_on_to_the_fit(raysplit: Command, table: pd.DataFrame, tmp_path: Path) -> None:
    source, out, law = tmp_path / "mine.csv", tmp_path / "runs.parquet", tmp_path / "law.json"
    table.rename(columns={"n_params": "size", "loss": "val_loss"}).to_csv(source, index=False)
    assert raysplit("import", source, "--column", "n_params=size", "--out", out).exit_code == 0
    result = raysplit("fit", out, "--out", law)
    assert result.exit_code == 0, result.output
    assert law.exists()


def test_mistakes(refusal: Callable[..., str], raysplit: Command, tmp_path: Path) -> None:
    store = write_store(tmp_path / "mlruns", RUNS, (3, 3))
    out = ("--out", tmp_path / "runs.csv")
    assert "no such file or folder" in refusal("import", tmp_path / "nowhere", *out)
    assert "did you mean 'loss'" in refusal("import", store, *out, "--column", "los=eval/loss")
    assert "loss is given twice" in refusal("import", store, *out, "--column", "loss=a", "--column", "loss=b")
    assert "must end with .csv or .parquet" in refusal("import", store, "--out", tmp_path / "runs.txt")
    assert "is not a folder" in refusal("import", store, "--out", tmp_path / "nowhere" / "runs.csv")
    assert "'loss' is not FIELD=COLUMN" in raysplit("import", store, *out, "--column", "loss").stderr
    assert not (tmp_path / "runs.csv").exists()
    source = tmp_path / "same.csv"
    source.write_text("n_params\n1\n")
    assert "is the source itself" in refusal("import", source, "--out", source)
