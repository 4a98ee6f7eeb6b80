"""`raysplit observe`: a table given to a sweep's law when no live law is there."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from raysplit.journal import Journal
from raysplit.live.service import LawService
from raysplit.run_folder.folder import open_run
from raysplit.runs import Observation
from raysplit.space import load_space
from raysplit.sweep.run_spec import run_spec_of_space
from tests.cli.conftest import Command

ROWS = pd.DataFrame(
    [
        {"n_params": 20_000, "pretrain_tokens": 3000, "specialize_tokens": s, "domain": d, "loss": 4.5, "seed": 9}
        for s in (0, 1500)
        for d in ("domain-0", "domain-1")
    ]
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    ROWS.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path / "mine.csv"


def test_a_running_sweeps_journal_takes_it_once(raysplit: Command, run_folder: Path, runs: Path) -> None:
    before = raysplit("status", run_folder).stdout
    first = raysplit("observe", run_folder, runs)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("stored by the journal: 4 new, 0 known already; it knows ")
    again = json.loads(raysplit("observe", run_folder, runs, "--json").stdout)
    assert (again["n_new"], again["n_repeated"]) == (0, 4)
    after = raysplit("status", run_folder).stdout
    assert [int(text.split("; ")[1].split()[0]) for text in (before, after)] == [
        again["n_known"] - 4,
        again["n_known"],
    ]


def test_a_table_that_names_its_bases_is_taken_by_their_sizes(raysplit: Command, run_folder: Path, runs: Path) -> None:
    ROWS.assign(base="ours", replay_share=0.0, general_loss=3.5).to_csv(runs, index=False)
    assert "4 new" in raysplit("observe", run_folder, runs).stdout


def test_a_finished_sweeps_results_are_written_anew(
    raysplit: Command, sweep_folder: Callable[..., Path], runs: Path
) -> None:
    run = sweep_folder(n_trials=1000)
    assert "every point of the grid is measured" in raysplit("status", run).stdout
    assert raysplit("observe", run, runs).exit_code == 0
    table = pd.read_parquet(run / "observations.parquet")
    assert (table["seed"] == 9).sum() == len(ROWS)
    assert {"law.json", "advice.json"} <= {path.name for path in run.iterdir()}


def test_mistakes(refusal: Callable[..., str], run_folder: Path, runs: Path, tmp_path: Path) -> None:
    assert "no such" in refusal("observe", run_folder, tmp_path / "nowhere.csv").lower()
    assert "is not a run folder" in refusal("observe", tmp_path, runs)
    ROWS[:1].assign(domain="nonsense").to_csv(runs, index=False)
    assert "unknown domain 'nonsense'. Known: domain-0, domain-1" in refusal("observe", run_folder, runs)
    ROWS.drop(columns="loss").to_csv(runs, index=False)
    assert "no column 'loss'" in refusal("observe", run_folder, runs)
    ROWS.to_csv(runs, index=False)
    assert "the live law cannot be reached" in refusal("observe", "http://127.0.0.1:1", runs)


def test_a_law_that_may_live_elsewhere_is_not_written_past(
    raysplit: Command, refusal: Callable[..., str], run_folder: Path, runs: Path
) -> None:
    told = {"actor": "law-x", "namespace": "raysplit", "address": "127.0.0.1:1"}
    (run_folder / "live.json").write_text(json.dumps(told))
    before = raysplit("status", run_folder).stdout
    assert "add --offline" in refusal("observe", run_folder, runs)
    assert raysplit("status", run_folder).stdout == before
    assert raysplit("observe", run_folder, runs, "--offline").exit_code == 0


def test_a_refusal_takes_no_journal_from_who_writes_it(
    refusal: Callable[..., str], run_folder: Path, runs: Path
) -> None:
    strange = runs.with_name("strange.csv")
    pd.read_csv(runs).head(1).assign(domain="strange").to_csv(strange, index=False)
    with closing(Journal(run_folder / "journal")) as writer:
        assert "'strange'" in refusal("observe", run_folder, strange)
        writer.append("advice", {})


def test_a_law_that_was_served_alone_is_read_without_a_corpus(
    raysplit: Command, space_file: Callable[..., Path], table: pd.DataFrame, tmp_path: Path
) -> None:
    space = load_space(space_file())
    folder, run = open_run(tmp_path / "law", space), run_spec_of_space(space)
    with closing(Journal(folder.journal)) as journal:  # as `raysplit serve SPACE` leaves one that has heard of a run
        first = {str(k): v for k, v in table.iloc[0].to_dict().items()}
        LawService(run, journal).observe([Observation(**first)])
    table.to_csv(tmp_path / "runs.csv", index=False)
    told = raysplit("observe", folder.path, tmp_path / "runs.csv")
    assert told.exit_code == 0, told.output
    assert f"{len(table)} observations" in raysplit("status", folder.path).stdout
    assert json.loads(raysplit("advise", folder.path, "--json").stdout)["budget_flops"] == 1e9
    assert raysplit("journal", "export", folder.path, "--to", tmp_path / "out.csv").exit_code == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == len(table)
