"""What is asked of an autoscaler; Ray's placement groups are stood for."""

from pathlib import Path
from typing import Any

import pytest

from raysplit.lanes import lane_jobs
from raysplit.lanes.lane_jobs import RayLaneJobs
from raysplit.pool.placement import Footprint
from raysplit.run_folder.folder import RunFolder


def test_room_that_was_waited_for_is_left_to_the_lanes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states: dict[int, str] = {}
    now = [100.0]

    def ask(bundles: list[dict[str, float]], strategy: str) -> int:
        states[len(states)] = "PENDING"
        return len(states) - 1

    def end(group: int) -> None:
        states[group] = "REMOVED"

    monkeypatch.setattr(lane_jobs, "placement_group", ask)
    monkeypatch.setattr(lane_jobs, "placement_group_table", lambda group: {"state": states[group]})
    monkeypatch.setattr(lane_jobs, "remove_placement_group", end)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    wanted = Footprint(n_workers=1, n_nodes=1, gpus_per_worker=0.0, cpus_per_worker=1.0)
    no_space: Any = None
    jobs = RayLaneJobs(space=no_space, folder=RunFolder(path=tmp_path), corpus_folder=tmp_path, law=None)
    jobs.want([wanted])
    jobs.want([wanted])
    assert states == {0: "PENDING"}, "one wish at a time"
    states[0] = "CREATED"
    jobs.want([wanted])
    assert states == {0: "REMOVED"}, "no other takes the room again before a lane can"
    now[0] += 10
    jobs.want([wanted])
    assert states == {0: "REMOVED", 1: "PENDING"}
    jobs.want([])
    assert states == {0: "REMOVED", 1: "REMOVED"}
