"""Mistakes that a person can mend: status 2 and one line that names the thing, before anything expensive."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raysplit.design.tree import Node
from raysplit.ladder import shape_for
from raysplit.train.checkpoints import MANIFEST, CheckpointManifest
from tests.cli.conftest import Command

Refusal = Callable[..., str]
SpaceFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"training__zero_stag": 1}, ["training.zero_stag", "training.zero_stage"]),
        ({"training__zero_stage": 4}, ["training.zero_stage", "ZeRO stage '4'", "0, 1, 2, 3"]),
        ({"target__domain_weights": {"domain-9": 1.0}}, ["domain-9", "domain-0, domain-1"]),
        ({"corpus__mixture": {"lgal": 1.0}}, ["lgal", "domain-0, domain-1"]),
        ({"target__budget_flops": "1e5"}, ["budget_flops", "too small for any split"]),
        ({"target__budget_flops": "many"}, ["target.budget_flops", "many"]),
        ({"sweep__pretrain_tokens": [0]}, ["sweep.pretrain_tokens", "at least one D"]),
        ({"sweep__pretrain_tokens": [4096, 1024]}, ["sweep.pretrain_tokens", "[4096, 1024]"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("command", ["plan", "sweep", "run", "corpus build"])
def test_a_mistake_in_the_space(
    refusal: Refusal, space_file: SpaceFile, tmp_path: Path, fields: dict[str, object], named: list[str], command: str
) -> None:
    path = space_file(**fields)
    out = [] if command == "plan" else ["--out", tmp_path / "run"]
    line = refusal(*command.split(), path, *out)
    assert all(word in line for word in named), line
    assert not (tmp_path / "run").exists()


TUNING: dict[str, object] = {"n_trials": 4}


@pytest.mark.parametrize(
    ("tuning", "named"),
    [
        ({"sizes": ["99k"]}, ["tuning.sizes", "unknown size '99000'", "14000, 28000"]),
        ({"replay_share": [0.5, 0.1]}, ["tuning.replay_share", "lower one first", "[0.5, 0.1]"]),
        ({"batch_tokens": [256, 300]}, ["tuning.batch_tokens = 300 is not a multiple"]),
        ({"batch_tokens": [256, 512]}, ["sweep.pretrain_tokens under tuning.batch_tokens: 1024 tokens", "512"]),
        ({"n_trails": 9}, ["tuning.n_trails", "did you mean 'tuning.n_trials'?"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("command", ["tune", "sweep", "plan"])
def test_a_mistake_in_what_to_tune(
    refusal: Refusal, space_file: SpaceFile, tmp_path: Path, tuning: dict[str, object], named: list[str], command: str
) -> None:
    out = [] if command == "plan" else ["--out", tmp_path / "run"]
    line = refusal(command, space_file(tuning=tuning), *out)
    assert all(word in line for word in named), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("storage", "named"),
    [
        ("mysql://me:secret@nowhere/optuna", ["mysql://me:***@nowhere/optuna", "package mysqlclient"]),
        ("sqlite:////no/such/folder/optuna.db", ["tuning.storage", "unable to open database file"]),
        ("post gres", ["tuning.storage: post gres: cannot be used"]),
        ("postgresql://me:${NO_SUCH}@nowhere/optuna", ["environment variable NO_SUCH is not set"]),
    ],
)
def test_a_database_that_cannot_be_used_is_said_before_any_lane_starts(
    refusal: Refusal, space_file: SpaceFile, tmp_path: Path, storage: str, named: list[str]
) -> None:
    line = refusal("tune", space_file(tuning=TUNING | {"storage": storage}), "--out", tmp_path / "run")
    assert all(word in line for word in named), line
    assert "secret" not in line


def test_nothing_to_tune(refusal: Refusal, space_file: SpaceFile, tmp_path: Path) -> None:
    line = refusal("tune", space_file(), "--out", tmp_path / "run")
    assert "space.yaml: there is no section tuning" in line
    assert "search_spaces/tuned.yaml" in line


def test_a_record_of_tuning_that_is_damaged(
    raysplit: Command, refusal: Refusal, space_file: SpaceFile, tmp_path: Path
) -> None:
    path = space_file(tuning=TUNING)
    assert raysplit("corpus", "build", path, "--out", tmp_path / "run").exit_code == 0
    for text in ("{", '{"schema_version": 1}'):
        (tmp_path / "run" / "hyperparameters.json").write_text(text)
        assert "hyperparameters.json: cannot be read" in refusal("sweep", path, "--out", tmp_path / "run")


def test_a_space_that_is_not_there(refusal: Refusal, tmp_path: Path) -> None:
    assert "nowhere.yaml" in refusal("plan", tmp_path / "nowhere.yaml")


def test_a_corpus_folder_without_text(refusal: Refusal, space_file: SpaceFile, tmp_path: Path) -> None:
    path = space_file(corpus__domains={"hollow": {"kind": "files", "path": "texts/empty"}})
    line = refusal("corpus", "build", path, "--out", tmp_path / "run")
    assert "hollow" in line
    assert "texts/empty" in line


def test_a_token_grid_larger_than_the_corpus(refusal: Refusal, space_file: SpaceFile, tmp_path: Path) -> None:
    path = space_file(sweep__specialize_tokens=[1024, "10M"])
    for command in ("sweep", "run"):
        line = refusal(command, path, "--out", tmp_path / "run")
        assert "domain-0" in line
        assert "D' = 9,999,872" in line
        assert re.search(r"raise corpus\.max_epochs to [\d.]+, or add text and delete \S+/run/corpus", line)


def test_a_held_out_text_smaller_than_wanted(raysplit: Command, space_file: SpaceFile, tmp_path: Path) -> None:
    path = space_file(training__validation_tokens="1M")
    first, again = (raysplit("corpus", "build", path, "--out", tmp_path / "run").stdout for _ in range(2))
    for said in (first, again):
        assert re.search(r"domain-1: its losses are read on [\d,]+ held-out tokens, where .* = 1,000,000", said)
    assert "as built before; to read the text anew, delete" not in first
    assert "as built before; to read the text anew, delete" in again


def test_an_output_folder_that_cannot_be_written(refusal: Refusal, space_file: SpaceFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in (["corpus", "build"], ["sweep"], ["run"]):
        line = refusal(*command, space_file(), "--out", tmp_path / "file" / "run")
        assert "file/run: cannot be written" in line


def test_another_space_in_the_same_folder(
    raysplit: Command, refusal: Refusal, space_file: SpaceFile, tmp_path: Path
) -> None:
    assert raysplit("corpus", "build", space_file(), "--out", tmp_path / "run").exit_code == 0
    line = refusal("sweep", space_file(corpus__seed=7), "--out", tmp_path / "run")
    assert "corpus.seed: 0 there, 7 here" in line


def test_a_checkpoint_of_another_model_size(
    raysplit: Command, refusal: Refusal, space_file: SpaceFile, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert raysplit("corpus", "build", space_file(), "--out", out).exit_code == 0
    shape = shape_for(1_000_000, vocab_size=300, context_length=64)
    node = Node(n_params=14_000, seed=0, pretrain_tokens=4096)
    folder = out / "checkpoints" / node.folder
    folder.mkdir(parents=True)
    manifest = CheckpointManifest(node=node, shape=shape, adam_steps=16, passing=False, files=())
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    line = refusal("sweep", space_file(), "--out", out)
    for word in (str(folder), str(shape.n_params_non_embedding), "this run needs"):
        assert word in line


def test_an_install_without_what_training_needs(
    refusal: Refusal, space_file: SpaceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pip install raysplit` alone leaves it, which is enough for tables of runs."""
    monkeypatch.setitem(sys.modules, "raysplit.corpus", None)
    with pytest.raises(ModuleNotFoundError):  # a part of raysplit itself that is missing is no mistake of the user's
        refusal("sweep", space_file(), "--out", tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for name in [name for name in sys.modules if name.startswith("raysplit.corpus")]:
        monkeypatch.delitem(sys.modules, name)
    line = refusal("sweep", space_file(), "--out", tmp_path / "run")
    assert "tokenizers" in line
    assert "raysplit[train,report]" in line


def without_loss(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="loss")


def with_loss(value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(loss=np.where(np.arange(len(table)) == 6, value, table["loss"]))

    return change


def with_a_row_twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[[3]]])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (without_loss, ["no column 'loss'", "n_params, pretrain_tokens"]),
        (with_loss(-2.0), ["row 7", "loss = -2.0", "must be positive"]),
        (with_loss(float("nan")), ["row 7", "loss = nan", "not a finite number"]),
        (with_a_row_twice, ["row 65 repeats row 4"]),
    ],
    ids=["no loss", "negative", "nan", "duplicate"],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_is_wrong(
    refusal: Refusal,
    table: pd.DataFrame,
    tmp_path: Path,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    named: list[str],
    suffix: str,
) -> None:
    path = tmp_path / f"runs.{suffix}"
    spoiled = spoil(table)
    spoiled.to_csv(path, index=False) if suffix == "csv" else spoiled.to_parquet(path, index=False)
    for command in (["fit", path, "--out", tmp_path / "law.json"], ["replay", path, "--budget-flops", "1e12"]):
        line = refusal(*command)
        assert str(path) in line
        assert all(word in line for word in named), line
    assert not (tmp_path / "law.json").exists()


def test_an_address_without_its_scheme_is_no_folder(refusal: Refusal, tmp_path: Path) -> None:
    assert "begins with http://" in refusal("observe", "localhost:8350", tmp_path / "runs.csv")


def test_what_is_to_be_served_is_not_there(refusal: Refusal, tmp_path: Path) -> None:
    assert "there is no such file or folder" in refusal("serve", tmp_path / "space.yaml", "--out", tmp_path)


def test_a_table_of_another_kind_or_none_at_all(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "runs.docx").write_text("")
    assert "Known: .csv, .tsv" in refusal("fit", tmp_path / "runs.docx")
    assert "runs.csv: there is no such file" in refusal("fit", tmp_path / "runs.csv")
    (tmp_path / "runs.parquet").write_text("not parquet")
    assert "runs.parquet: cannot be read" in refusal("fit", tmp_path / "runs.parquet")


def test_nowhere_to_write_the_law(refusal: Refusal, table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "runs.csv", index=False)
    for out in (tmp_path / "missing" / "law.json", tmp_path / "runs.csv" / "law.json", tmp_path):
        assert f"{out}: cannot be written" in refusal("fit", tmp_path / "runs.csv", "--out", out)


def test_questions_without_something_to_answer_from(refusal: Refusal, tmp_path: Path) -> None:
    assert "RUN folder or --law" in refusal("advise")
    assert "law.json: cannot be read" in refusal("advise", "--law", tmp_path / "law.json", "--budget-flops", "1e12")
    for content in (b"{", b"{}", b"\xff\xfe"):
        (tmp_path / "law.json").write_bytes(content)
        assert str(tmp_path / "law.json") in refusal("advise", "--law", tmp_path / "law.json", "--budget-flops", "1e12")
    for command in (["advise"], ["status"], ["report"]):
        assert "is not a run folder" in refusal(*command, tmp_path)
    point = ["--domain", "a", "--n-params", "14k", "--pretrain-tokens", "1M", "--specialize-tokens", "0"]
    assert "is not a run folder" in refusal("predict", tmp_path, *point)
    assert "advice.json: cannot be read" in refusal("train", "--advice", tmp_path / "advice.json")
    for content in (b"{", b'{"schema_version": 7}', b"\xff\xfe"):
        (tmp_path / "advice.json").write_bytes(content)
        assert str(tmp_path / "advice.json") in refusal("train", "--advice", tmp_path / "advice.json")


@pytest.mark.parametrize("number", ["-1", "0", "lots", "nan", "inf"])
def test_a_budget_that_is_no_number(raysplit: Command, tmp_path: Path, number: str) -> None:
    result = raysplit("replay", tmp_path / "runs.csv", "--budget-flops", number)
    assert result.exit_code == 2
    assert "--budget-flops" in result.stderr
    assert number in result.stderr
