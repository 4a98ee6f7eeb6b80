"""A folder in which the commands of the pages find what they name: a table, a search space, a finished run."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import raysplit, space_file, sweep_folder, texts
from tests.conftest import REPOSITORY
from tests.split.doubles import known_law, measured_table

__all__ = ["raysplit", "space_file", "sweep_folder", "texts"]

_DOMAINS = {name: {"kind": "files", "path": f"texts/domain-{i}"} for i, name in enumerate(("code", "law"))}


@pytest.fixture
def space(space_file: Callable[..., Path]) -> Path:
    """A tiny search space whose domains are named as the pages name theirs."""
    return space_file(corpus__domains=_DOMAINS)


def runs_of_two_domains() -> pd.DataFrame:
    """A synthetic grid, as small as one that answers everything."""
    grid = measured_table(
        known_law(n_domains=2),
        sizes=(14_000, 36_000),
        pretrain_tokens=(0.5e6, 1e6, 2e6),
        specialize_tokens=(0, 0.25e6, 0.5e6),
        noise=0.01,
    )
    named = grid.assign(domain=grid["domain"].map({"domain-0": "code", "domain-1": "law"}))
    return named[["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss"]]


@pytest.fixture
def stage(space: Path, sweep_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """What the pages take as there."""
    folder = tmp_path / "stage"
    (folder / "runs").mkdir(parents=True)
    for name in ("search_spaces", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "my_space.yaml").write_text(space.read_text())
    (folder / "texts").symlink_to(space.parent / "texts")
    sweep_folder(n_trials=1000).rename(folder / "runs" / "mine")
    named = runs_of_two_domains()
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
