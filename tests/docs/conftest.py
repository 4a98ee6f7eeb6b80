"""A folder in which the commands of the pages find what they name: a table, a search space, a finished run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import raysplit.law
import raysplit.split
from raysplit.cli import main
from tests.cli.conftest import Command, sweep_folder, texts
from tests.cli.conftest import space_file as plain_space_file
from tests.conftest import REPOSITORY
from tests.split.doubles import known_law, measured_table

__all__ = ["plain_space_file", "sweep_folder", "texts"]

_DOMAINS = {name: {"kind": "files", "path": f"texts/domain-{i}"} for i, name in enumerate(("code", "law"))}


@pytest.fixture(name="raysplit")
def command() -> Command:
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def space_file(plain_space_file: Callable[..., Path]) -> Callable[..., Path]:
    """Write a tiny search space whose domains are named as the pages name theirs."""
    return lambda **fields: plain_space_file(corpus__domains=_DOMAINS, **fields)


@pytest.fixture
def fits_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that fit one table share the fit; what they ask of the law is computed for each."""
    for module, name in ((raysplit.split, "fit_for_decision"), (raysplit.law, "fit_law")):
        monkeypatch.setattr(module, name, _remembered(getattr(module, name)))


def _remembered(fit: Callable[..., Any]) -> Callable[..., Any]:
    found: dict[str, Any] = {}

    def remember(runs: pd.DataFrame, *asked: Any, **options: Any) -> Any:
        key = runs.to_csv() + repr({name: value for name, value in options.items() if name != "start"})
        if key not in found:
            found[key] = fit(runs, *asked, **options)
        return found[key]

    return remember


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
def stage(space_file: Callable[..., Path], sweep_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """What the pages take as there."""
    folder, space = tmp_path / "stage", space_file()
    (folder / "runs").mkdir(parents=True)
    for name in ("search_spaces", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "my_space.yaml").write_text(space.read_text())
    (folder / "texts").symlink_to(space.parent / "texts")
    sweep_folder(n_trials=4).rename(folder / "runs" / "mine")
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
