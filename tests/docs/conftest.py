"""A folder in which the commands of the pages find what they name: a table, a search space, a finished run."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import raysplit, space_file, sweep_folder, table, texts
from tests.conftest import REPOSITORY

__all__ = ["raysplit", "space_file", "sweep_folder", "table", "texts"]

_DOMAINS = {name: {"kind": "files", "path": f"texts/domain-{i}"} for i, name in enumerate(("code", "law"))}


@pytest.fixture
def space(space_file: Callable[..., Path]) -> Path:
    """A tiny search space whose domains are named as the pages name theirs."""
    return space_file(corpus__domains=_DOMAINS)


@pytest.fixture
def stage(space: Path, sweep_folder: Callable[..., Path], table: pd.DataFrame, tmp_path: Path) -> Path:
    """What the pages take as there."""
    folder = tmp_path / "stage"
    (folder / "runs").mkdir(parents=True)
    for name in ("search_spaces", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "my_space.yaml").write_text(space.read_text())
    (folder / "texts").symlink_to(space.parent / "texts")
    sweep_folder(n_trials=1000).rename(folder / "runs" / "mine")
    named = table.assign(domain=table["domain"].map({"domain-0": "code", "domain-1": "law"}))
    for name in ("runs.csv", "four.csv", "eight.csv"):
        named.to_csv(folder / name, index=False)
    mine = named.rename(columns={"n_params": "size"}).drop(columns=["domain", "specialize_tokens"])
    mine = mine.drop_duplicates(["size", "pretrain_tokens"])
    mine.to_csv(folder / "mine.csv", index=False)
    mine.assign(domain="law", specialize_tokens=0).rename(columns={"size": "n_params"}).to_excel(
        folder / "mine.xlsx", index=False
    )
    wide = named[named["specialize_tokens"] == 0].pivot_table(
        index=["n_params", "pretrain_tokens"], columns="domain", values="loss"
    )
    wide.add_prefix("eval/").add_suffix("_loss").reset_index().to_json(
        folder / "mine.jsonl", orient="records", lines=True
    )
    return folder
