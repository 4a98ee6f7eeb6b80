"""Replay: whole sweeps by the classes that Ray Tune drives, on losses that are known. All tables here are synthetic."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raysplit.design.tree import Trial
from raysplit.errors import TableError
from raysplit.journal import Journal
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.runs import check_runs
from raysplit.split import best_split, losses_of
from raysplit.sweep.replay import known_law_losses, replay, spec_of_table, table_losses
from tests.design.doubles import every_point, spec
from tests.live.doubles import account, carry_on, open_service, remember_laws, true_losses
from tests.split.doubles import known_law, measured_table

TRUTH = known_law(n_domains=2)


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """A full grid of two sizes from `TRUTH`, without noise."""
    table = measured_table(
        TRUTH, sizes=(14_000, 36_000), pretrain_tokens=(0.25e6, 0.5e6, 1e6, 2e6), specialize_tokens=(0, 0.125e6, 0.5e6)
    )
    return check_runs(table, origin="a synthetic table")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay starts no cluster and asks none, the one that other tests share included."""
    monkeypatch.setattr("ray.init", None)
    monkeypatch.setattr("ray.get", None)


@pytest.fixture
def weighed_laws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_laws(patch)
        yield


def test_a_grid_of_a_known_law_gives_that_laws_advice(runs: pd.DataFrame, tmp_path: Path) -> None:
    """The only test here that fits: a noiseless grid, every row used, and the split it leads to is as good as the
    best one under the law that the table was made from, at a quarter more than the grid's own largest budget.
    """
    asked = spec_of_table(runs, budget_flops=6 * 36_000 * 3.75e6, policy="grid")
    with closing(Journal(tmp_path / "journal")) as journal:
        service = LawService(RunSpec(spec=asked, bytes_per_token=dict.fromkeys(asked.domains, 1.0)), journal)
        assert "every point" in replay(service, table_losses(runs, asked.domains)).finished
    pd.testing.assert_frame_equal(
        service.observations()[["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss"]],
        runs[["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss"]],
    )
    advised = service.advise().advice.split
    best = best_split(TRUTH, asked.problem)
    there, here = losses_of(TRUTH, [advised, best], asked.problem)[0]
    assert there / here - 1 < 0.003


def test_the_classes_that_ray_drives_decide_as_the_service_does(weighed_laws: None, tmp_path: Path) -> None:
    asked = spec(budget_flops=0.9e12, lanes=3)
    by_tune = open_service(asked, tmp_path / "tune.jsonl")
    directly = open_service(asked, tmp_path / "direct.jsonl")
    replay(by_tune, true_losses(asked))
    carry_on(directly, true_losses(asked), n_lanes=1)
    for service in (by_tune, directly):
        service.journal.close()  # type: ignore[union-attr]
    assert account(by_tune) == account(directly)
    assert account(by_tune)["stopped"]


def test_a_replay_goes_on_where_another_was_cut_off(weighed_laws: None, tmp_path: Path) -> None:
    asked = spec(budget_flops=0.9e12, lanes=2)
    losses = true_losses(asked)
    whole, cut = (open_service(asked, tmp_path / name) for name in ("whole.jsonl", "cut.jsonl"))
    replay(whole, losses)
    n_left = 12

    def until_it_breaks(trial: Trial, milestone: int) -> Mapping[str, float]:
        nonlocal n_left
        n_left -= 1
        if n_left < 0:
            raise KeyboardInterrupt
        return losses(trial, milestone)

    with pytest.raises(KeyboardInterrupt):
        replay(cut, until_it_breaks)
    cut.journal.close()  # type: ignore[union-attr]
    again = open_service(asked, tmp_path / "cut.jsonl")
    replay(again, losses)
    assert account(again) == account(whole)
    for service in (whole, again):
        service.journal.close()  # type: ignore[union-attr]


def test_idle_lanes_are_filled_where_that_is_asked_for(weighed_laws: None, tmp_path: Path) -> None:
    """And a journal read again knows what was added; the same order of arrival gives the same sweep."""
    asked = replace(spec(budget_flops=3e12, lanes=4), design="d-optimal")  # which always finds something to measure
    busy, accounts = [], []
    for name, fills in (("waits", False), ("fills", True), ("again", True)):
        service = open_service(replace(asked, fills_idle_lanes=fills), tmp_path / name)
        busy.append(replay(service, true_losses(asked)).busy_share)
        accounts.append(account(service))
        service.journal.close()  # type: ignore[union-attr]
    assert busy[1] > busy[0] + 0.1
    assert accounts[1] == accounts[2]
    added = [record.data for record in service.journal.records if record.kind == "addition"]
    assert added
    assert service.tree_state().spent_flops <= asked.budget_flops
    read = open_service(replace(asked, fills_idle_lanes=True), tmp_path / "again")
    assert read.trials() == service.trials()
    assert account(read) == accounts[2]
    read.journal.close()  # type: ignore[union-attr]


def test_a_loss_that_the_table_lacks_is_a_failure_and_the_sweep_ends(
    weighed_laws: None, runs: pd.DataFrame, tmp_path: Path
) -> None:
    lacking = runs.drop(index=runs[(runs["specialize_tokens"] == 500_000) & (runs["pretrain_tokens"] == 500_000)].index)
    asked = spec_of_table(lacking, budget_flops=1e12, policy="grid")
    service = open_service(asked, tmp_path / "journal")
    assert replay(service, table_losses(lacking, asked.domains)).finished
    service.journal.close()  # type: ignore[union-attr]
    assert len(service.observations()) == len(lacking)
    assert service.status().n_failed == 4  # two sizes, two domains
    why = [record.data["why"] for record in service.journal.records if record.kind == "failure"]
    assert all("not known" in reason for reason in why)


def test_the_set_up_of_a_table_is_its_grid(runs: pd.DataFrame) -> None:
    asked = spec_of_table(runs, budget_flops=1e12)
    points = {
        (n, domain if s else "", d, s) for n, d, s, domain in runs[list(runs.columns[:4])].itertuples(index=False)
    }
    assert every_point(asked) == points
    assert asked.flops_per_token == {14_000: 84_000.0, 36_000: 216_000.0}
    assert not asked.scratch


def test_repeated_seeds_are_used_when_their_trunk_is_there(
    weighed_laws: None, runs: pd.DataFrame, tmp_path: Path
) -> None:
    first = runs[(runs["n_params"] == 14_000) & (runs["pretrain_tokens"] == 250_000)]
    with_trunk = first.assign(seed=1)
    without = first[first["specialize_tokens"] > 0].assign(seed=2)
    table = check_runs(pd.concat([runs, with_trunk, without]), origin="a synthetic table")
    asked = spec_of_table(table, budget_flops=1e12, policy="grid")
    service = open_service(asked, tmp_path / "journal")
    assert replay(service, table_losses(table, asked.domains)).finished
    service.journal.close()  # type: ignore[union-attr]
    assert len(service.observations()) == len(runs) + len(with_trunk)
    assert set(service.observations()["seed"]) == {0, 1}


@pytest.mark.parametrize(
    ("keep", "named"),
    [
        ("specialize_tokens == 0", "specialize_tokens > 0"),
        ("specialize_tokens > 0", "specialize_tokens = 0"),
    ],
)
def test_a_table_that_cannot_be_replayed_is_refused(runs: pd.DataFrame, keep: str, named: str) -> None:
    with pytest.raises(TableError, match=named):
        spec_of_table(runs.query(keep), budget_flops=1e12)


def test_a_table_without_seed_zero_is_refused(runs: pd.DataFrame) -> None:
    with pytest.raises(TableError, match="lowest seed is 3"):
        spec_of_table(runs.assign(seed=3), budget_flops=1e12)


def test_a_table_gives_a_trunks_loss_only_when_every_domain_has_one(runs: pd.DataFrame) -> None:
    trunk = Trial(n_params=14_000, seed=0, domain="", pretrain_tokens=500_000, milestones=(500_000,))
    branch = replace(trunk, domain="domain-1", milestones=(125_000,))
    look_up = table_losses(runs, TRUTH.domains)
    exact = TRUTH.loss([[14e3]], [[0.5e6]], [[0.0]])[0]
    assert look_up(trunk, 500_000) == pytest.approx(dict(zip(TRUTH.domains, exact, strict=True)))
    assert list(look_up(branch, 125_000) or ()) == ["domain-1"]
    partly = table_losses(runs[runs["domain"] == "domain-1"], TRUTH.domains)
    assert partly(trunk, 500_000) is None
    assert partly(branch, 125_000) == look_up(branch, 125_000)


def test_a_known_law_measures_the_same_run_the_same_way() -> None:
    trunk = Trial(n_params=14_000, seed=0, domain="", pretrain_tokens=500_000, milestones=(500_000,))
    draws = [
        (known_law_losses(lambda *_: 2.0, ("a", "b"), noise=noise, seed=seed)(replace(trunk, seed=own), 500_000) or {})
        for noise, seed, own in ((0.1, 0, 0), (0.1, 0, 0), (0.1, 1, 0), (0.1, 0, 1), (0.0, 0, 0))
    ]
    assert draws[0] == draws[1]
    assert len({losses["a"] for losses in draws}) == 4
    assert draws[0]["a"] != draws[0]["b"]
    assert draws[-1] == {"a": 2.0, "b": 2.0}
    assert np.all(np.array([list(losses.values()) for losses in draws]) > 0)
