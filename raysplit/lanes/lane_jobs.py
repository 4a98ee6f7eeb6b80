"""Lanes on Ray: each is a Ray Train job of its own on the nodes that were chosen for it."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from raysplit import ray_private
from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.tasks import Task
from raysplit.lanes.lane_worker import LaneConfig, serve
from raysplit.lanes.stable import stable_options
from raysplit.pool.lane_state import LaneState
from raysplit.pool.placement import Footprint, Machine
from raysplit.run_folder.folder import RunFolder
from raysplit.space import Space

_QUIET = {
    # Lanes report through the broker; Train's own log lines and health chatter would bury the live table.
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # The broker watches for nodes that leave, and has lanes save before they do.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A lane is opened where there is room; where somebody else was quicker, it is tried elsewhere.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}

_WANTED = "raysplit-wants-"
"""What the names of placement groups begin with that wait for machines, so that other sweeps know them."""
_ROOM_SEEN_SECONDS = 3.0
"""How long room that the autoscaler has made is left to lanes alone; the next look at nodes opens them."""


class LaneHost:
    """Runs one lane's Ray Train job, in a process of its own, so that the end of one lane ends no other."""

    def run(self, config: LaneConfig) -> None:
        """Run the lane until it is told to close.

        Raises:
            Exception: Ray Train's, of many kinds, around what ended a worker.
        """
        import ray.train  # brings torch, which the broker has no use for
        from ray.train.torch import TorchConfig

        footprint = config.footprint
        ray_private.trainer_in_this_process()(
            serve,
            train_loop_config={"lane": config},
            torch_config=TorchConfig(backend="nccl" if footprint.gpus_per_worker else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=footprint.n_workers,
                use_gpu=footprint.gpus_per_worker > 0,
                resources_per_worker=footprint.of_a_worker,
                label_selector=[{"ray.io/node-id": name} for name in config.spots],
            ),
            run_config=ray.train.RunConfig(
                name=f"lane-{config.number}",
                storage_path=str(config.folder.path / "ray" / "train"),
                # Another lane takes its place, perhaps on other nodes.
                failure_config=ray.train.FailureConfig(
                    max_failures=0, controller_failure_limit=0, max_preemption_failures=0
                ),
            ),
        ).fit()


@dataclass(kw_only=True, slots=True)
class RayLaneJobs:
    """Opens and ends lanes, and says which nodes there are; lives in the broker's process."""

    space: Space
    """The resolved search space."""
    folder: RunFolder
    corpus_folder: Path
    law: ActorHandle | None
    _hosts: dict[int, ActorHandle] = field(default_factory=dict)
    _wanted: dict[Footprint, list[PlacementGroup]] = field(default_factory=dict)
    _granted_at: dict[Footprint, float] = field(default_factory=dict)
    """When machines that were asked for last became available, on the monotonic clock."""

    def footprint_of(self, task: Task) -> Footprint:
        """The machines that a task's lane takes."""
        return Footprint.of(task.lane_shape or lane_shape_of(self.space, task.trial.n_params))

    def nodes(self) -> list[Machine]:
        """The nodes that are alive."""
        free, leaving = ray_private.free_by_node(), ray_private.leaving_nodes()
        return [
            Machine(
                name=node["NodeID"],
                address=node["NodeManagerAddress"],
                total=node["Resources"],
                free=free.get(node["NodeID"], {}),
                leaves=node["NodeID"] in leaving,
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def open(self, lane: LaneState, broker: ActorHandle) -> Awaitable[None]:
        """Start a lane; the result ends when the lane ends, and raises what ended it."""
        config = LaneConfig(
            number=lane.number, footprint=lane.footprint, spots=lane.spots, space=self.space, folder=self.folder,
            corpus_folder=self.corpus_folder, broker=broker, law=self.law,
        )  # fmt: skip
        host = ray.remote(LaneHost).options(**stable_options(), runtime_env={"env_vars": _QUIET}).remote()
        self._hosts[lane.number] = host
        run: Awaitable[None] = host.run.remote(config)
        return run

    def kill_worker(self, lane: LaneState) -> None:
        """Kill a lane's first rank; Ray Train then ends the others and gives the machines back."""
        if lane.worker is not None:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):  # it may have died of itself
                ray.kill(lane.worker)

    def clear_away(self, lane: LaneState) -> None:
        """End what may be left of a lane, whose placement group outlives the process that runs Ray Train."""
        if (host := self._hosts.pop(lane.number, None)) is not None:
            ray.kill(host)
        if lane.placement_group is not None:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                remove_placement_group(lane.placement_group)

    def others_wait(self) -> bool:
        """Whether another sweep waits for machines of this cluster."""
        mine = {group.id.hex() for queued in self._wanted.values() for group in queued}
        return any(
            group["name"].startswith(_WANTED)
            and group["state"] == "PENDING"
            and group["placement_group_id"] not in mine
            for group in placement_group_table().values()
        )

    def want(self, footprints: Sequence[Footprint]) -> None:
        """Have the autoscaler make room, by placement groups that wait, and are removed once they are placed.

        `ray.autoscaler.sdk.request_resources` would not do. It keeps one request for the whole cluster, so of two
        sweeps only the last to ask would be heard; and it keeps it when the sweep has died, so nodes would stay unused.
        """
        counts = Counter(footprints)
        for footprint in {*self._wanted, *counts}:
            queued = self._wanted.setdefault(footprint, [])
            for group in list(queued):
                is_there = placement_group_table(group).get("state") == "CREATED"
                if is_there:
                    self._granted_at[footprint] = time.monotonic()
                if is_there or len(queued) > counts[footprint]:
                    queued.remove(group)
                    remove_placement_group(group)
            # A new group at once would take the room that was just made, and no lane would ever see it free.
            since_granted = time.monotonic() - self._granted_at.get(footprint, -math.inf)
            for _ in range(counts[footprint] - len(queued) if since_granted > _ROOM_SEEN_SECONDS else 0):
                workers = [footprint.of_a_worker] * footprint.n_workers
                queued.append(placement_group(workers, strategy=_strategy(footprint), name=f"{_WANTED}{uuid4().hex}"))


def _strategy(footprint: Footprint) -> str:
    if footprint.n_nodes == 1:
        return "STRICT_PACK"
    return "STRICT_SPREAD" if footprint.n_nodes == footprint.n_workers else "PACK"
