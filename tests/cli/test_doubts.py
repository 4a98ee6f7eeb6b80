"""What commands say of a table that can hardly be meant, and what no run tells. All losses here are synthetic."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raysplit.cli import main
from raysplit.cli.options import read_table
from raysplit.law import Law
from tests.cli.conftest import Command

TAKES_A_TABLE: dict[str, tuple[str, ...]] = {
    "fit": ("{table}", "--out", "{folder}/law.json"),
    "compare": ("{table}", "{table}", "--budget-flops", "1e12"),
    "replay": ("{table}", "--budget-flops", "1e12"),
    "observe": ("{folder}", "{table}"),
}


@pytest.mark.parametrize("command", TAKES_A_TABLE)
def test_an_impossible_table_is_refused_before_anything_is_done(
    refusal: Callable[..., str], table: pd.DataFrame, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "runs.csv"
    table.assign(loss=1 - table["loss"] / 10).to_csv(path, index=False)
    line = refusal(command, *(a.format(table=path, folder=tmp_path) for a in TAKES_A_TABLE[command]))
    assert line.startswith(f"raysplit: {path}: losses rise with parameters and tokens")
    assert line.endswith("take them with --as-is")
    assert "--as-is" in {option for p in main.commands[command].params for option in p.opts}
    assert [file.name for file in tmp_path.iterdir()] == ["runs.csv"]


def test_a_table_may_be_taken_as_it_is(table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.assign(n_params=table["n_params"] // 1000).to_csv(tmp_path / "runs.csv", index=False)
    runs = read_table(tmp_path / "runs.csv", as_is=True, is_all=False)
    assert runs["n_params"].min() == 14
    assert capsys.readouterr().err.startswith("raysplit: warning: ")


def test_a_fit_reads_what_people_write_and_says_what_no_run_tells(
    raysplit: Command, table: pd.DataFrame, tmp_path: Path
) -> None:
    pretrained = table[(table["specialize_tokens"] == 0) & (table["domain"] == "domain-0")]
    written = pretrained.assign(
        n_params=[f"{n / 1000:g}k" for n in pretrained["n_params"]],
        pretrain_tokens=[f"{d / 1e6:g}M tokens" for d in pretrained["pretrain_tokens"]],
        domain=[name.upper() if i % 2 else f"{name} " for i, name in enumerate(pretrained["domain"])],
    )
    written.to_csv(tmp_path / "runs.csv", index=False)
    told = raysplit("fit", tmp_path / "runs.csv", "--out", tmp_path / "law.json")
    assert told.exit_code == 0, told.output
    nothing = "nothing is known of D'"
    assert nothing in told.stdout
    assert nothing in told.stderr
    assert "domains 'DOMAIN-0' and 'domain-0' are taken as 2" in told.stderr
    law = Law.from_json((tmp_path / "law.json").read_text())
    assert (law.support.n_params, law.support.pretrain_tokens) == ((14_000, 36_000), (250_000, 2_000_000))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("8.25", "expected a whole number, got '8.25'"),
        (
            "8,2M",
            "expected a number such as 250k, 2M or 3e21, got '8,2M'; the decimal mark is a point here: write 8.2M",
        ),
        ("20.000", "'20.000' could be 20 or 20000; write which"),
        ("twenty", "expected a number such as 250k, 2M or 3e21, got 'twenty'"),
    ],
)
def test_a_count_that_cannot_be_read_is_refused_by_its_option(
    raysplit: Command, tmp_path: Path, number: str, message: str
) -> None:
    told = raysplit("fit", tmp_path / "runs.csv", "--n-params", number)
    assert told.exit_code == 2
    assert f"Invalid value for '--n-params': {message}" in told.stderr
