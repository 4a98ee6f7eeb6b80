"""The law service without Ray: its journal is its memory, and nothing but what was measured decides."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysplit.design.campaign import whole_grid
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tasks import Failed, Measured
from raysplit.design.tree import Trial
from raysplit.errors import LawError, RunError
from raysplit.journal import Journal, ReadJournal, Record, read_journal
from raysplit.live.service import LawService
from tests.design.doubles import PRETRAIN, SIZES, SPECIALIZE, every_point, spec
from tests.live.doubles import account, carry_on, open_service, remember_laws, true_losses

ASKED = spec(budget_flops=0.9e12, lanes=3)
LOSSES = true_losses(ASKED)


def measured(trial: Trial, milestone: int) -> Measured:
    return Measured(losses=LOSSES(trial, milestone), tokens=0, wall_seconds=0.0)


Whole = tuple[list[Record], dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def _laws_are_weighed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_laws(patch)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The journal's records of a whole sweep, and what it came to."""
    service = open_service(ASKED, tmp_path_factory.mktemp("whole") / "journal")
    carry_on(service, LOSSES)
    service.journal.close()  # type: ignore[union-attr]
    return list(service.journal.records), account(service)


def write_journal(path: Path, records: Sequence[Record]) -> None:
    """As its first opening leaves it."""
    shutil.rmtree(path, ignore_errors=True)
    journal = Journal(path)
    journal.append_many([(record.kind, record.data) for record in records])
    journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def service(path: Path) -> Iterator[LawService]:
    service = open_service(ASKED, path)
    yield service
    service.journal.close()  # type: ignore[union-attr]


def kinds(service: LawService) -> Counter[str]:
    return Counter(record.kind for record in service.journal.records)


def first_of(service: LawService, *, trunk: bool) -> Trial:
    """A trial of the opening; claimed, when it is a branch, after the trunks have run."""
    while (trial := service.claim().trial) is not None:
        if trial.is_trunk == trunk:
            return trial
        for milestone in trial.milestones:
            service.record(trial, milestone, measured(trial, milestone))
    raise AssertionError("nothing to claim")


def test_the_sweep_is_worth_testing(uninterrupted: Whole) -> None:
    """Several rounds, some stops, not the whole grid: else the tests below would prove little."""
    records, came_to = uninterrupted
    assert sum(record.kind == "round" for record in records) >= 3
    assert came_to["stopped"]
    assert came_to["spent"] <= ASKED.budget_flops
    assert len(came_to["observations"]) < len(every_point(ASKED))


@pytest.mark.parametrize(("n_lanes", "seed"), [(1, 0), (2, 1), (2, 2), (3, 3), (5, 4), (5, 5)])
def test_decisions_do_not_depend_on_which_lane_is_faster(
    service: LawService, uninterrupted: Whole, n_lanes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    carry_on(service, LOSSES, n_lanes=n_lanes, pick=lambda n_running: int(rng.integers(n_running)))
    assert account(service) == uninterrupted[1]


def test_a_crash_after_any_record_changes_nothing(path: Path, uninterrupted: Whole) -> None:
    records, came_to = uninterrupted
    for n_records in range(len(records) + 1):
        write_journal(path, records[:n_records])
        service = open_service(ASKED, path)
        carry_on(service, LOSSES)
        service.journal.close()  # type: ignore[union-attr]
        assert account(service) == came_to, f"after {n_records} records"
        stored = [
            (Trial.of(record.data["trial"]).name, record.data["milestone"])
            for record in service.journal.records
            if record.kind == "measurement"
        ]
        assert len(stored) == len(set(stored))


def test_a_finished_sweep_is_only_read(path: Path, uninterrupted: Whole) -> None:
    records, came_to = uninterrupted
    write_journal(path, records)
    service = LawService(None, ReadJournal(read_journal(path)))
    assert service.claim().finished == came_to["why"]
    assert account(service) == came_to


def test_a_measurement_twice_is_one(service: LawService) -> None:
    trial = first_of(service, trunk=True)
    for loss in (3.0, 3.0, 4.0):  # even when the second time it came out different
        losses = dict.fromkeys(ASKED.domains, loss)
        service.record(trial, trial.milestones[0], Measured(losses=losses, tokens=0, wall_seconds=0.0))
    assert kinds(service)["measurement"] == 1
    assert service.observations()["loss"].tolist() == [3.0] * len(ASKED.domains)


def test_what_was_recorded_of_a_task_can_be_asked_for_after_a_restart_too(path: Path) -> None:
    service = open_service(ASKED, path)
    trial = first_of(service, trunk=True)
    failed = service.claim([trial]).trial
    assert failed is not None
    first, why = trial.milestones[0], Failed(why="the loss is NaN")
    done = Measured(losses=LOSSES(trial, first), tokens=512, wall_seconds=2.5)
    assert service.recorded(trial, first) is None
    service.record(trial, first, done)
    service.record(failed, failed.milestones[0], why)
    service.journal.close()  # type: ignore[union-attr]
    service = open_service(ASKED, path)
    assert service.recorded(trial, first) == done
    assert service.recorded(replace(trial, milestones=(first,)), first) == done, "whichever trial asks for it"
    assert service.recorded(trial, first + 1) is None
    assert service.recorded(failed, failed.milestones[0]) == why
    service.journal.close()  # type: ignore[union-attr]


def test_a_trunk_is_read_on_every_domain_and_a_branch_on_its_own(service: LawService) -> None:
    branch = first_of(service, trunk=False)
    before = service.observations()
    assert set(before["domain"]) == set(ASKED.domains)
    assert (before["specialize_tokens"] == 0).all()
    service.record(
        branch, branch.milestones[0], Measured(losses=LOSSES(branch, branch.milestones[0]), tokens=0, wall_seconds=0)
    )
    after = service.observations()
    assert len(after) == len(before) + 1
    row = after[after["specialize_tokens"] > 0].iloc[0]
    assert (row["domain"], row["pretrain_tokens"]) == (branch.domain, branch.pretrain_tokens)
    assert row["bits_per_byte"] == pytest.approx(row["loss"] / math.log(2) / 2.0)
    assert row["flops"] == 6.0 * branch.n_params * (branch.pretrain_tokens + branch.milestones[0])


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0, -1.0])
def test_a_loss_that_is_no_loss_is_a_failure(service: LawService, loss: float) -> None:
    branch = first_of(service, trunk=False)
    losses = {**LOSSES(branch, branch.milestones[0]), branch.domain: loss}
    service.record(branch, branch.milestones[0], Measured(losses=losses, tokens=0, wall_seconds=0.0))
    assert service.status().n_failed == 1
    assert not service.judge(branch, branch.milestones[0]).go_on
    assert carry_on(service, LOSSES)
    assert np.isfinite(service.observations()["loss"]).all()
    [failure] = [record.data for record in service.journal.records if record.kind == "failure"]
    assert branch.domain in failure["why"]


def test_a_failed_trunk_takes_its_branches_with_it_and_the_sweep_still_ends(service: LawService, path: Path) -> None:
    trunk = first_of(service, trunk=True)
    service.record(trunk, trunk.milestones[0], Failed(why="its loss overflowed"))
    service.record(trunk, trunk.milestones[0], Failed(why="told twice"))
    assert carry_on(service, LOSSES)
    assert set(service.observations()["n_params"]) == {n for n in SIZES if n != trunk.n_params}
    orphans = [r.data["trial"] for r in service.journal.records if r.kind == "failure"][1:]
    assert len(orphans) == len(ASKED.domains)
    assert {orphan["n_params"] for orphan in orphans} == {trunk.n_params}
    assert service.status().n_failed == 1 + len(orphans)
    again = LawService(None, ReadJournal(read_journal(path)))
    assert again.status() == replace(service.status(), law_version=0)


@pytest.mark.parametrize("policy", ["adaptive", "grid"])
def test_a_sweep_in_which_everything_fails_says_why(tmp_path: Path, policy: str) -> None:
    asked = spec(policy=policy)
    service = open_service(asked, tmp_path / "journal")
    while (trial := service.claim().trial) is not None:
        service.record(trial, trial.milestones[0], Failed(why="the device is on fire"))
    assert "on fire" in service.claim().finished
    with pytest.raises(LawError, match="on fire"):
        service.law()
    service.journal.close()  # type: ignore[union-attr]


def test_the_grid_policy_measures_everything_and_stops_nothing(tmp_path: Path) -> None:
    asked = spec(policy="grid")
    service = open_service(asked, tmp_path / "journal")
    why = carry_on(service, LOSSES, n_lanes=3)
    service.journal.close()  # type: ignore[union-attr]
    assert "every point" in why
    assert kinds(service) == {"spec": 1, "round": 1, "measurement": len(every_point(asked)), "advice": 1, "finish": 1}


def test_trunks_and_the_opening_are_never_stopped(uninterrupted: Whole) -> None:
    records, came_to = uninterrupted
    second_round = [i for i, record in enumerate(records) if record.kind == "round"][1]
    assert not any(record.kind == "stop" for record in records[:second_round])
    assert all(domain for _, domain, _ in came_to["stopped"])


def test_a_full_disk_stores_nothing_and_forgets_nothing(service: LawService, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = first_of(service, trunk=True)
    milestone = trial.milestones[0]

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            service.record(trial, milestone, measured(trial, milestone))
    assert service.status().n_observations == 0
    service.record(trial, milestone, measured(trial, milestone))
    assert service.status().n_observations == len(ASKED.domains)


def test_once_another_has_the_journal_nothing_is_handed_out_to_train(service: LawService, path: Path) -> None:
    trial = service.claim().trial
    assert trial is not None
    taken = Journal(path)
    milestone = trial.milestones[0]
    with pytest.raises(RunError, match="another writer has taken over"):
        service.record(trial, milestone, Measured(losses=LOSSES(trial, milestone), tokens=1, wall_seconds=1.0))
    with pytest.raises(RunError, match="another writer has taken over"):
        service.claim()
    taken.close()


def test_no_trial_is_handed_out_twice_and_a_lost_lane_gives_its_back(service: LawService) -> None:
    claimed: list[Trial] = []
    for _ in SIZES:
        trial = service.claim(claimed).trial
        assert trial is not None
        claimed.append(trial)
    assert len(set(claimed)) == len(SIZES)
    assert service.claim(claimed).trial is None  # the branches wait for their trunks
    assert service.claim(claimed[:1]).trial == claimed[1]


def test_a_branch_may_start_as_soon_as_its_trunk_has_passed(service: LawService) -> None:
    trunk = first_of(service, trunk=True)
    service.record(
        trunk, trunk.milestones[0], Measured(losses=LOSSES(trunk, trunk.milestones[0]), tokens=0, wall_seconds=0.0)
    )
    running: list[Trial] = []
    while (trial := service.claim(running).trial) is not None and trial.is_trunk:
        running.append(trial)
    assert trial is not None
    assert trial.domain
    assert (trial.n_params, trial.pretrain_tokens) == (trunk.n_params, trunk.milestones[0])


def test_before_the_first_observation_there_is_no_law(service: LawService) -> None:
    for ask in (service.law, service.choice, service.advise):
        with pytest.raises(LawError, match="no observations yet"):
            ask()
    assert service.status().round == 0


def test_a_prediction_for_a_domain_that_is_not_there(path: Path, uninterrupted: Whole) -> None:
    write_journal(path, uninterrupted[0])
    service = LawService(None, ReadJournal(read_journal(path)))
    point = {"n_params": SIZES[0], "pretrain_tokens": PRETRAIN[0], "specialize_tokens": SPECIALIZE[0]}
    assert service.predict("domain-1", **point).mean > 0
    with pytest.raises(LawError, match=r"domain-7.*domain-0, domain-1"):
        service.predict("domain-7", **point)


def test_the_status_counts_what_is_in_the_journal(path: Path, uninterrupted: Whole) -> None:
    records, came_to = uninterrupted
    write_journal(path, records)
    service = LawService(None, ReadJournal(read_journal(path)))
    status, seen = service.status(), kinds(service)
    assert (status.round, status.n_stopped, status.n_failed) == (seen["round"], seen["stop"], 0)
    assert status.n_observations == len(came_to["observations"])
    assert status.n_trials_left == 0
    assert status.spent_flops == came_to["spent"]


def test_repeats_run_under_their_own_seed(tmp_path: Path) -> None:
    trunk = Trial(n_params=SIZES[0], seed=3, domain="", pretrain_tokens=PRETRAIN[1], milestones=(PRETRAIN[1],))
    branch = replace(trunk, domain="domain-1", milestones=(SPECIALIZE[0],))
    asked: ResolvedSpec = spec(policy="grid", repeats=(trunk, branch))
    service = open_service(asked, tmp_path / "journal")
    carry_on(service, true_losses(asked))
    service.journal.close()  # type: ignore[union-attr]
    frame = service.observations()
    assert len(frame[frame["seed"] == 3]) == len(asked.domains) + 1
    assert len(whole_grid(asked).trials) == len({record["trial"] for record in frame.to_dict("records")})
