"""From a table, a law or a run folder to an answer. All losses here are synthetic."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raysplit.cli.answer import observations_and_weights
from raysplit.cli.live import _where
from raysplit.design.tasks import Failed
from raysplit.errors import RunError
from raysplit.journal import Journal
from raysplit.law import Law
from raysplit.live.service import LawService
from raysplit.split import Advice
from raysplit.sweep.launch import read_service
from tests.cli.conftest import Command
from tests.split.doubles import known_law
from tests.split.test_bases import table as bases_table
from tests.split.test_replay import table as replay_table

BUDGET = "1e12"


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `raysplit fit` wrote and said for the same table as CSV and as Parquet."""
    from click.testing import CliRunner

    from raysplit.cli import main

    folder = tmp_path_factory.mktemp("fit")
    table.to_csv(folder / "runs.csv", index=False)
    table.to_parquet(folder / "runs.parquet", index=False)
    out: dict[str, Any] = {"folder": folder}
    for suffix in ("csv", "parquet"):
        law = folder / f"{suffix}.json"
        arguments = ["fit", f"{folder}/runs.{suffix}", "--out", str(law), "--budget-flops", BUDGET]
        out[suffix] = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert out[suffix].exit_code == 0, out[suffix].output
    return out


def test_fit_writes_the_law_and_answers(fitted: dict[str, Any], table: pd.DataFrame) -> None:
    law = Law.from_json((fitted["folder"] / "csv.json").read_text())
    assert law.domains == ("domain-0", "domain-1")
    assert set(json.loads((fitted["folder"] / "csv.json").read_text())["choice"]) >= {"scores", "weights", "sentence"}
    assert f"{len(table)} runs, 2 domains, 2 sizes" in fitted["csv"].stdout
    assert "domain-0" in fitted["csv"].stdout


def test_csv_and_parquet_give_the_same(fitted: dict[str, Any]) -> None:
    assert (fitted["folder"] / "csv.json").read_text() == (fitted["folder"] / "parquet.json").read_text()
    told = [fitted[suffix].stdout.replace(f"{suffix}.json", "law.json") for suffix in ("csv", "parquet")]
    assert told[0] == told[1]


def test_the_law_answers_again_as_it_did(raysplit: Command, fitted: dict[str, Any]) -> None:
    law = fitted["folder"] / "csv.json"
    table = raysplit("advise", "--law", law, "--budget-flops", BUDGET)
    assert table.exit_code == 0
    assert fitted["csv"].stdout.endswith(table.stdout)
    advice = Advice.from_json(raysplit("advise", "--law", law, "--budget-flops", BUDGET, "--json").stdout)
    assert advice.budget_flops == 1e12
    assert advice.accounting == "shared"


def test_the_options_reach_the_answer(raysplit: Command, fitted: dict[str, Any]) -> None:
    law = fitted["folder"] / "csv.json"
    asked = ["advise", "--law", law, "--budget-flops", "2e12", "--n-params", "20k", "--accounting", "per-expert"]
    advice = Advice.from_json(raysplit(*asked, "--json").stdout)
    assert (advice.budget_flops, advice.accounting, advice.split.n_params) == (2e12, "per-expert", 20_000)
    longest = max(advice.split.specialize_tokens.values())
    assert 6 * 20_000 * (advice.split.pretrain_tokens + longest) == pytest.approx(2e12)


def test_independent_seeds_are_asked_for(raysplit: Command, fitted: dict[str, Any]) -> None:
    asked = ["advise", "--law", fitted["folder"] / "csv.json", "--budget-flops", "2e12", "--n-params", "20k"]
    advice = Advice.from_json(raysplit(*asked, "--seeds", "independent", "--json").stdout)
    split = advice.split
    tokens = 2 * split.pretrain_tokens + sum(split.specialize_tokens.values())
    assert 6 * 20_000 * tokens == pytest.approx(2e12)
    assert "each with a seed of its own" in raysplit(*asked, "--seeds", "independent").stdout
    assert "independent seeds" in raysplit(*asked).stdout


def test_an_objective_needs_a_run_and_takes_the_weights_place(raysplit: Command, fitted: dict[str, Any]) -> None:
    for options in (["--law", fitted["folder"] / "csv.json", "--budget-flops", "1e12"], [".", "--weight", "a=1"]):
        result = raysplit("advise", *options, "--objective", "arc_easy")
        assert result.exit_code == 2
        assert "--objective: needs a RUN folder with an evaluation, and stands in place of --weight" in result.stderr


def test_a_law_has_no_budget_of_its_own(raysplit: Command, fitted: dict[str, Any]) -> None:
    result = raysplit("advise", "--law", fitted["folder"] / "csv.json")
    assert result.exit_code == 2
    assert "--budget-flops" in result.stderr


def test_a_fit_answers_for_a_seed_that_exists_weights_and_data_there_is(
    raysplit: Command, fitted: dict[str, Any], tmp_path: Path
) -> None:
    asked = ["fit", fitted["folder"] / "runs.csv", "--out", tmp_path / "law.json", "--budget-flops", BUDGET]
    seed = ["--n-params", "14k", "--seed-tokens", "1M"]
    caps = ["--max-tokens", "domain-0=300k", "--weight", "domain-1=3", "--unique-tokens", "domain-1=100k"]
    said = raysplit(*asked, *seed, *caps).stdout
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert lines["pretrain"][1] == "1M"
    assert lines["domain-0"][1:3] == ["0.25", "300k"]
    assert lines["domain-1"][1] == "0.75"
    law = Law.from_json((tmp_path / "law.json").read_text())
    assert law.repetition is not None
    assert law.repetition.unique_specialize_tokens == {"domain-1": 1e5}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--weight", "domain-9=1"], ["--weight", "domain-9", "domain-0, domain-1"]),
        (
            ["--weight", "domain-0=1", "--weight", "domain-0=2"],
            ["--weight: domain-0 is given twice, as 1.0 and as 2.0"],
        ),
        (["--unique-tokens", "domain-9=1M"], ["domain-9", "domain-0, domain-1"]),
        (["--max-tokens", "domain-9=1M"], ["max_specialize_tokens", "domain-9"]),
        (["--seed-tokens", "1M"], ["--seed-tokens", "--n-params", "--budget-flops"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_a_fit_refuses_what_makes_no_sense(
    refusal: Callable[..., str], fitted: dict[str, Any], tmp_path: Path, options: list[str], named: list[str]
) -> None:
    line = refusal("fit", fitted["folder"] / "runs.csv", "--out", tmp_path / "law.json", *options)
    assert all(word in line for word in named), line


def test_two_ways_to_divide_the_text_are_compared(
    raysplit: Command, refusal: Callable[..., str], fitted: dict[str, Any], table: pd.DataFrame, tmp_path: Path
) -> None:
    """The same losses and one domain more that is no better: it costs tokens and gains nothing."""
    third = table[table["domain"] == "domain-1"].assign(domain="domain-2")
    pd.concat([table, third]).to_csv(tmp_path / "three.csv", index=False)
    two, three = fitted["folder"] / "runs.csv", tmp_path / "three.csv"
    shares = ["--weight", "domain-0=2", "--weight", "domain-1=1"]  # of the text, which a third domain leaves as it is
    said = raysplit("compare", two, three, "--budget-flops", BUDGET, *shares).stdout.splitlines()
    assert "best in" in said[1]
    assert {line.split()[0] for line in said[1:]} == {str(two), str(three)}
    assert "at least two" in refusal("compare", two, "--budget-flops", BUDGET)
    assert "domain-9" in refusal("compare", two, three, "--budget-flops", BUDGET, "--weight", "domain-9=1")


def test_a_run_folder_is_compared_by_its_observations_and_its_own_weights(
    space_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    space_file(target__domain_weights={"domain-0": 3, "domain-1": 1}).rename(tmp_path / "run" / "space.yaml")
    table, weights = observations_and_weights(tmp_path / "run")
    assert table == tmp_path / "run" / "observations.parquet"
    assert weights == {"domain-0": 0.75, "domain-1": 0.25}
    assert observations_and_weights(tmp_path / "runs.csv") == (tmp_path / "runs.csv", {})


@pytest.mark.parametrize("policy", ["grid", "adaptive"])
def test_replay_of_a_table(raysplit: Command, fitted: dict[str, Any], table: pd.DataFrame, policy: str) -> None:
    runs = fitted["folder"] / "runs.csv"
    result = raysplit("replay", runs, "--budget-flops", BUDGET, "--policy", policy, "--sweep-budget-flops", "1.5e12")
    assert result.exit_code == 0, result.output
    first, *_ = result.stdout.splitlines()
    assert f"of {len(table)} rows used" in first
    assert "domain-1" in result.stdout
    n_used = int(first.split(" of ")[-2].split()[-1])
    if policy == "grid":
        assert n_used == len(table)
        # A grid replayed is the table fitted.
        assert result.stdout.endswith(sized_answer(raysplit, fitted))
    else:
        assert 0 < n_used < len(table)


def sized_answer(raysplit: Command, fitted: dict[str, Any]) -> str:
    """What the fitted law says when it may choose between the table's own sizes, as a replay does."""
    sizes = ["--n-params", "14000", "--n-params", "36000"]
    law = fitted["folder"] / "csv.json"
    return raysplit("advise", "--law", law, "--budget-flops", BUDGET, *sizes).stdout


def test_a_run_is_asked_while_it_goes_on(raysplit: Command, run_folder: Path) -> None:
    before = {file: file.read_bytes() for file in (run_folder / "journal").iterdir()}
    status = raysplit("status", run_folder)
    assert status.exit_code == 0
    assert "round 1: 4 of 14 trials done; 16 observations" in status.stdout
    assert "not ended" in status.stdout
    told = raysplit("advise", run_folder, "--json").stdout
    advice, rests_on = Advice.from_json(told), json.loads(told)
    assert advice.budget_flops == 1e9
    assert (rests_on["source"], rests_on["law"]["version"], rests_on["law"]["n_observations"]) == ("journal", 0, 16)
    assert "a law fitted now, 16 observations" in raysplit("advise", run_folder).stderr
    assert "unknown version of the law '7'" in raysplit("advise", run_folder, "--version", 7).stderr
    assert set(advice.losses) == {"domain-0", "domain-1"}
    point = ["--n-params", "14k", "--pretrain-tokens", "4096", "--specialize-tokens", "1024"]
    predicted = raysplit("predict", run_folder, "--domain", "domain-0", *point, "--level", "0.8")
    assert predicted.exit_code == 0
    mean, low, high = (float(predicted.stdout.split()[i]) for i in (0, 4, 6))
    assert low < mean < high
    assert "80%" in predicted.stdout
    lost = raysplit("predict", run_folder, "--domain", "domain-7", *point)
    assert lost.exit_code == 2
    assert "domain-7" in lost.stderr
    assert {file: file.read_bytes() for file in (run_folder / "journal").iterdir()} == before


def test_a_journal_alone_answers(raysplit: Command, run_folder: Path, tmp_path: Path) -> None:
    """No corpus, no space, no law that was fitted before."""
    (tmp_path / "alone").mkdir()
    shutil.copytree(run_folder / "journal", tmp_path / "alone" / "journal")
    asked = ("--n-params", "14k", "--n-params", "28k", "--budget-flops", "1e11", "--json")
    here, there = (raysplit("advise", folder, *asked) for folder in (run_folder, tmp_path / "alone"))
    assert there.exit_code == 0, there.stderr
    told = [
        {name: value for name, value in json.loads(answer.stdout).items() if name != "law"} for answer in (here, there)
    ]
    assert told[0] == told[1]
    assert raysplit("status", tmp_path / "alone").stdout == raysplit("status", run_folder).stdout


def test_one_observation_is_one(run_folder: Path) -> None:
    told = _where(replace(read_service(run_folder).status(), n_observations=1, n_stopped=1))
    assert "; 1 observation, " in told
    assert ", 1 trial stopped, " in told


def test_why_trials_failed_is_told_once_for_each_reason(raysplit: Command, run_folder: Path) -> None:
    why = "its lane died 3 times while training it: OSError: no space left (rank 0; lane-0.log)"
    before = read_service(run_folder)
    with closing(Journal(run_folder / "journal")) as journal:
        service = LawService(before.run, journal)
        names = []
        for _ in range(2):
            trial = service.claim().trial
            assert trial is not None
            service.record(trial, trial.milestones[0], Failed(why=why))
            names.append(trial.name)
    status = raysplit("status", run_folder).stdout
    assert "2 failed" in status
    assert f"failed: {', '.join(names)}: {why}\n" in status
    assert json.loads(raysplit("status", run_folder, "--json").stdout)["failures"] == dict.fromkeys(names, why)


def test_a_known_law_in_a_file_answers(raysplit: Command, tmp_path: Path) -> None:
    (tmp_path / "law.json").write_text(known_law(n_domains=3, n_draws=3).to_json())
    result = raysplit("advise", "--law", tmp_path / "law.json", "--budget-flops", "1e12", "--n-params", "36k")
    assert result.exit_code == 0
    assert "domain-2" in result.stdout


def test_a_law_that_does_not_answer_is_not_waited_for(
    run_folder: Path, raysplit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the node that it lives on is gone, and no other one may hold it."""
    waited: list[float] = []

    class Silent:
        def __init__(self, actor: object, *, timeout_seconds: float = 60.0) -> None:
            self.actor, self.timeout_seconds = actor, timeout_seconds

        def status(self) -> None:
            waited.append(self.timeout_seconds)
            raise RunError(f"the law actor did not answer within {self.timeout_seconds:g} s")

    monkeypatch.setattr("raysplit.live.endpoint.find", lambda folder: object())
    monkeypatch.setattr("raysplit.live.client.connect", lambda folder: Silent(None))
    monkeypatch.setattr("raysplit.live.client.LiveLaw", Silent)
    status = raysplit("status", run_folder)
    assert status.exit_code == 0
    assert "16 observations" in status.stdout
    assert "did not answer within 20 s; reading the journal" in status.stderr
    assert waited == [20.0]


def test_what_is_not_told_is_status_3_where_that_is_asked(
    raysplit: Command, table: pd.DataFrame, tmp_path: Path
) -> None:
    seeds = tmp_path / "seeds.csv"
    table[table["specialize_tokens"] == 0].to_csv(seeds, index=False)
    law = tmp_path / "law.json"
    lax = raysplit("fit", seeds, "--out", law, "--budget-flops", BUDGET, "--suggest", "2")
    assert lax.exit_code == 0
    assert "Not told by these runs" in lax.stdout
    assert "priced by      6 N FLOPs a token" in lax.stdout
    assert "Runs to add, the most useful for their price first" in lax.stdout
    assert raysplit("advise", "--law", law, "--budget-flops", BUDGET, "--strict").exit_code == 3
    told = json.loads(raysplit("advise", "--law", law, "--budget-flops", BUDGET, "--json").stdout)
    assert "specialize tokens" in told["withheld"]
    refused = raysplit("fit", seeds, "--out", law, "--suggest", "2")
    assert refused.exit_code == 2
    assert "--suggest: needs --budget-flops" in refused.stderr


def test_fit_answers_from_runs_of_bases_without_their_d(
    raysplit: Command, refusal: Callable[..., str], tmp_path: Path
) -> None:
    runs = bases_table()
    runs.to_csv(tmp_path / "bases.csv", index=False)
    arguments = ["fit", str(tmp_path / "bases.csv"), "--out", str(tmp_path / "law.json"), "--budget-flops", "4e19"]
    told = raysplit(*arguments)
    assert "start from     small a base that exists (best in" in told.stdout
    assert "Every base was pretrained on one D" in told.stdout
    refused = refusal(*arguments, "--n-params", "7B")
    assert "--n-params: unknown base of size '7000000000'" in refused
    assert "3600000000 (large)" in refused
    again = raysplit("advise", "--law", tmp_path / "law.json", "--budget-flops", "4e19").stdout
    assert "start from     small a base that exists" in again
    assert "tokens of the mixture" not in again
    other = [str(tmp_path / "bases.csv")] * 2
    assert "compare takes runs that were pretrained" in refusal("compare", *other, "--budget-flops", "4e19")
    assert "replay takes runs that were pretrained" in refusal("replay", other[0], "--budget-flops", "4e19")


def test_fit_advises_the_share_replayed_and_holds_the_general_loss(
    raysplit: Command, refusal: Callable[..., str], tmp_path: Path
) -> None:
    runs = replay_table().drop(columns="pretrain_tokens")
    runs[(runs["base"] != "middle") & (runs["replay_share"] != 0.05)].to_csv(tmp_path / "replayed.csv", index=False)
    arguments = ["fit", str(tmp_path / "replayed.csv"), "--out", str(tmp_path / "law.json")]
    told = raysplit(*arguments, "--budget-flops", "4e19", "--max-general-rise", "1.5 %").stdout
    assert "general loss rises by at most" in told
    assert "general text among the tokens" in told
    assert "expert of" in told
    again = ["advise", "--law", tmp_path / "law.json", "--budget-flops", "4e19"]
    assert "general loss rises by at most" in raysplit(*again, "--max-general-rise", "0.015").stdout
    assert "--max-general-rise: needs --budget-flops" in refusal(*arguments, "--max-general-rise", "0.02")
    assert "such as 0.02 or 2%, got 2" in raysplit(*arguments, "--max-general-rise", "2").stderr
    assert "--suggest" in refusal(*arguments, "--budget-flops", "4e19", "--suggest", "2")
