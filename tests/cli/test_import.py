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
    assert "left out 1: with status FAILED (run-2)" in said
    assert f"{len(EXPECTED)} runs, 1 domain, 2 sizes" in said
    assert out.read_text().startswith("n_params,pretrain_tokens,specialize_tokens,domain,loss,seed")
    assert "given" in raysplit("import", store, "--out", out, "--column", "loss=eval/loss").stdout


def test_a_table_goes_on_to_the_fit(raysplit: Command, table: pd.DataFrame, tmp_path: Path) -> None:
    source, out, law = tmp_path / "mine.csv", tmp_path / "runs.parquet", tmp_path / "law.json"
    table.rename(columns={"n_params": "size", "loss": "val_loss"}).to_csv(source, index=False)
    assert raysplit("import", source, "--column", "n_params=size", "--out", out).exit_code == 0
    result = raysplit("fit", out, "--out", law)
    assert result.exit_code == 0, result.output
    assert law.exists()


def test_tables_as_people_have_them(raysplit: Command, refusal: Callable[..., str], tmp_path: Path) -> None:
    """Through every door: semicolons and decimal commas, Excel, another encoding."""
    out = tmp_path / "runs.csv"
    text = "run;state;Params (M);Pretrain Tokens (B);domain;Loss\na;done;8,2;0,4;größe;3,5\nb;OOM;8,2;0,8;größe;9,5\n"
    (source := tmp_path / "MINE.CSV").write_bytes(text.encode("cp1252"))
    told = ("--out", out, "--set", "specialize_tokens=0")
    assert "--encoding cp1252" in refusal("import", source, *told)
    result = raysplit("import", source, *told, "--encoding", "cp1252")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "left out 1: with state OOM (b)" in said
    assert "note: decimal commas: 8,2 is read as 8.2" in said
    assert "n_params Params (M) guessed, in millions, as its name says" in said
    assert out.read_text().splitlines()[1:] == ["8200000,400000000,0,größe,3.5,0,a"]

    book = tmp_path / "mine.xlsx"
    with pd.ExcelWriter(book) as writer:
        for sheet in ("first", "second"):
            pd.DataFrame({"n_params": ["20M"], "pretrain_tokens": [1000], "domain": [sheet], "loss": [3.5]}).to_excel(
                writer, sheet_name=sheet, index=False
            )
    assert "has 2 sheets: 'first', 'second'; say which" in refusal("import", book, *told)
    assert raysplit("import", book, *told, "--sheet", "second").exit_code == 0
    assert out.read_text().splitlines()[1:] == ["20000000,1000,0,second,3.5,0,row 1"]


def test_one_column_a_domain_as_the_readme_says(raysplit: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "runs.jsonl", tmp_path / "runs.csv"
    source.write_text(
        '{"name": "a", "state": "finished", "config": {"n_params": 1000, "pretrain_tokens": 2000}, '
        '"summary": {"eval/law_loss": 3.5, "eval/code_loss": 2.5}}\n'
    )
    told = ("--column", "loss=eval/{domain}_loss", "--set", "specialize_tokens=0")
    result = raysplit("import", source, "--out", out, *told)
    assert result.exit_code == 0, result.output
    assert "2 runs, 2 domains, 1 size:" in " ".join(result.stdout.split())


def test_mistakes(refusal: Callable[..., str], raysplit: Command, tmp_path: Path) -> None:
    store = write_store(tmp_path / "mlruns", RUNS, (3, 3))
    out = ("--out", tmp_path / "runs.csv")
    assert "no such file or folder" in refusal("import", tmp_path / "nowhere", *out)
    assert "did you mean 'loss'" in refusal("import", store, *out, "--column", "los=eval/loss")
    both = [*out, "--column", "loss=a", "--set", "loss=3"]
    assert "loss: has both a column and a value for every run" in refusal("import", store, *both)
    assert "loss is given twice" in refusal("import", store, *out, "--column", "loss=a", "--column", "loss=b")
    assert "must end with .csv or .parquet" in refusal("import", store, "--out", tmp_path / "runs.txt")
    assert "is not a folder" in refusal("import", store, "--out", tmp_path / "nowhere" / "runs.csv")
    assert "'loss' is not FIELD=COLUMN" in raysplit("import", store, *out, "--column", "loss").stderr
    assert not (tmp_path / "runs.csv").exists()
    source = tmp_path / "same.csv"
    source.write_text("n_params\n1\n")
    assert "is the source itself" in refusal("import", source, "--out", source)
