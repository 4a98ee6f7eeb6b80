"""Real Ray Tune around a trainable that is not raysplit's: the search of the replay, unequal sizes, kills, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.errors import RunError
from raysplit.journal import ReadJournal, has_journal, read_journal
from raysplit.live.service import LawService
from raysplit.sweep.replay import replay
from raysplit.sweep.tune_plan import TunePlan
from tests.conftest import REPOSITORY
from tests.design.doubles import every_point
from tests.live.doubles import account, open_service, remember_laws, true_losses
from tests.ray.own import ASKED, SMALL_GRID, Steps, notes, train, tuner


@pytest.fixture(scope="module", autouse=True)
def _laws_are_weighed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_laws(patch)
        yield


def replayed(asked: ResolvedSpec, folder: Path) -> dict[str, Any]:
    """What the same search comes to without Tune."""
    service = open_service(asked, folder / "replayed")
    replay(service, true_losses(asked))
    service.journal.close()  # type: ignore[union-attr]
    return came_to(service)


def came_to(service: LawService) -> dict[str, Any]:
    """`account` without bits per byte, which only the double knows."""
    found = account(service)
    return {**found, "observations": [{**row, "bits_per_byte": None} for row in found["observations"]]}


def points(folder: Path) -> list[tuple[int, str, int, int]]:
    measured = [r.data for r in read_journal(folder / "journal") if r.kind == "measurement"]
    return [
        (t["n_params"], t["domain"], *((t["pretrain_tokens"], m) if t["domain"] else (m, 0)))
        for t, m in ((data["trial"], data["milestone"]) for data in measured)
    ]


@pytest.mark.parametrize("lanes", [1, 3])
def test_tune_makes_the_search_that_the_replay_makes(ray_address: str, tmp_path: Path, lanes: int) -> None:
    asked = replace(ASKED, lanes=lanes)
    with TunePlan(asked, tmp_path / "plan") as plan:
        tuner(plan, tune.with_parameters(Steps, spec=ASKED), reuse_actors=True).fit()
        assert plan.finished
        assert came_to(plan.law) == replayed(asked, tmp_path)
        assert len(points(plan.folder)) == len(set(points(plan.folder)))


def test_sizes_of_unequal_needs_all_end(ray_address: str, tmp_path: Path) -> None:
    """Two sizes that need one CPU and all three of the cluster, whose actors Tune keeps for the next of their kind."""
    asked = replace(SMALL_GRID, domains=("domain-0",))
    with TunePlan(asked, tmp_path / "plan") as plan:
        tuner(
            plan,
            tune.with_parameters(Steps, spec=asked),
            lanes_cpus=lambda config: tune.PlacementGroupFactory([{"CPU": 3 if config["n_params"] > 20_000 else 1}]),
            reuse_actors=True,
        ).fit()
        assert plan.finished == "every point of the grid is measured"
        assert set(points(plan.folder)) == every_point(asked)


def test_a_size_that_fits_nowhere_is_given_up_and_the_others_end(ray_address: str, tmp_path: Path) -> None:
    with TunePlan(SMALL_GRID, tmp_path / "plan", patience_seconds=2.0) as plan:
        tuner(
            plan,
            tune.with_parameters(train, spec=SMALL_GRID, diary=str(tmp_path / "diary")),
            lanes_cpus=lambda config: tune.PlacementGroupFactory([{"CPU": 5 if config["n_params"] > 20_000 else 1}]),
        ).fit()
        assert {n for n, *_ in points(plan.folder)} == {14_000}
        assert len(points(plan.folder)) == 2
        failures = [r.data["why"] for r in read_journal(plan.folder / "journal") if r.kind == "failure"]
    assert failures[0] == "no room for 5 CPU in 2 s; the nodes have 3 CPU"


def test_a_mistake_of_the_trainable_comes_out_of_fit(ray_address: str, tmp_path: Path) -> None:
    with TunePlan(SMALL_GRID, tmp_path / "plan") as plan:
        with pytest.raises(RunError, match="KeyError: 'learning_rate'; nothing was measured yet"):
            tuner(plan, _mistaken).fit()
        assert {r.kind for r in read_journal(plan.folder / "journal")} == {"spec", "round"}


def _mistaken(config: dict[str, Any]) -> None:
    tune.report({"learning_rate": config["learning_rate"]})


@pytest.mark.timeout(300)
def test_a_killed_driver_restored_goes_on_as_if_nothing_had_happened(ray_address: str, tmp_path: Path) -> None:
    """Also where the kill came while Tune copied its snapshot, of which Tune can make nothing then."""
    kills = (4, 9)
    for n_before_kill in (*kills, None):
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.ray.own", str(tmp_path), ray_address],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        if n_before_kill is not None:
            _wait_for_measurements(driver, tmp_path, n_before_kill)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            if n_before_kill == kills[-1]:
                snapshot = max((tmp_path / "tune").glob("experiment_state-*.json"))
                os.truncate(snapshot, snapshot.stat().st_size // 2)
        said, _ = driver.communicate(timeout=120)
        assert driver.returncode == (0 if n_before_kill is None else -signal.SIGKILL), said
    end = json.loads((tmp_path / "end.json").read_text())
    expected = replayed(ASKED, tmp_path)
    assert end == {"finished": expected["why"], "advice": expected["advice"]}
    stored = ReadJournal(read_journal(tmp_path / "journal"))
    assert came_to(LawService(None, stored)) == expected
    measured = points(tmp_path)
    assert len(measured) == len(set(measured))
    started = notes(tmp_path / "diary")
    lost_at_most = len(kills) * 2 * 2 * ASKED.lanes
    assert len(measured) <= len(started) <= len(measured) + lost_at_most, "at a kill a lane loses little"


def _wait_for_measurements(driver: subprocess.Popen[str], folder: Path, n: int) -> None:
    end = time.monotonic() + 120
    journal = folder / "journal"
    while not has_journal(journal) or len(points(folder)) < n:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end, "did not get there"
        time.sleep(0.05)
