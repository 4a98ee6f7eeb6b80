"""What is asked of an autoscaler, and that another sweep sees it; Ray's placement groups are stood for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raysplit.lanes import lane_jobs
from raysplit.lanes.lane_jobs import RayLaneJobs
from raysplit.pool.placement import Footprint
from raysplit.run_folder.folder import RunFolder

WANTED = Footprint(n_workers=1, n_nodes=1, gpus_per_worker=0.0, cpus_per_worker=1.0)


@dataclass
class Group:
    """A placement group, as it is handed out and as the cluster's table has it."""

    number: int
    name: str

    @property
    def id(self) -> "Group":
        return self

    def hex(self) -> str:
        return str(self.number)


@dataclass
class Groups:
    """All placement groups of a cluster."""

    states: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def ask(self, bundles: list[dict[str, float]], strategy: str, name: str = "") -> Group:
        self.states.append("PENDING")
        self.names.append(name)
        return Group(number=len(self.states) - 1, name=name)

    def remove(self, group: Group) -> None:
        self.states[group.number] = "REMOVED"

    def table(self, group: Group | None = None) -> dict[str, Any]:
        rows: dict[str, Any] = {
            str(number): {"placement_group_id": str(number), "name": name, "state": state}
            for number, (name, state) in enumerate(zip(self.names, self.states, strict=True))
        }
        return rows if group is None else rows[group.hex()]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    groups = Groups()
    monkeypatch.setattr(lane_jobs, "placement_group", groups.ask)
    monkeypatch.setattr(lane_jobs, "placement_group_table", groups.table)
    monkeypatch.setattr(lane_jobs, "remove_placement_group", groups.remove)
    return groups


@pytest.fixture
def make_jobs(tmp_path: Path) -> Callable[[], RayLaneJobs]:
    no_space: Any = None
    return lambda: RayLaneJobs(space=no_space, folder=RunFolder(path=tmp_path), corpus_folder=tmp_path, law=None)


def test_room_that_was_waited_for_is_left_to_the_lanes(
    groups: Groups, make_jobs: Callable[[], RayLaneJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    jobs = make_jobs()
    jobs.want([WANTED])
    jobs.want([WANTED])
    assert groups.states == ["PENDING"], "one wish at a time"
    groups.states[0] = "CREATED"
    jobs.want([WANTED])
    assert groups.states == ["REMOVED"], "no other takes the room again before a lane can"
    now[0] += 10
    jobs.want([WANTED])
    assert groups.states == ["REMOVED", "PENDING"]
    jobs.want([])
    assert groups.states == ["REMOVED", "REMOVED"]


def test_a_sweep_sees_what_another_one_waits_for_and_nobody_else(
    groups: Groups, make_jobs: Callable[[], RayLaneJobs]
) -> None:
    one, other = make_jobs(), make_jobs()
    groups.ask([{"CPU": 1.0}], "PACK", name="somebody's")
    assert not one.others_wait()
    other.want([WANTED])
    assert one.others_wait()
    assert not other.others_wait()
    other.want([])
    assert not one.others_wait()
