"""Placement of lanes: what a lane needs of each node, what nodes have left, and which nodes a lane is put on."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysplit.design.lane_shapes import LaneShape

Resources = Mapping[str, float]
"""Ray's name of a resource -> amount."""

_ROUNDING = 1e-6
"""Ray keeps amounts to 1e-4; sums of fractions differ by less than this."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Footprint:
    """The machines that a lane takes. A lane serves every size whose lane shape takes the same machines."""

    n_workers: int
    n_nodes: int
    gpus_per_worker: float
    cpus_per_worker: float

    @classmethod
    def of(cls, shape: LaneShape) -> "Footprint":
        """The footprint of a lane shape, which leaves out how the lane trains."""
        return cls(
            n_workers=shape.n_workers,
            n_nodes=shape.n_nodes,
            gpus_per_worker=shape.gpus_per_worker,
            cpus_per_worker=shape.cpus_per_worker,
        )

    @property
    def of_a_worker(self) -> dict[str, float]:
        """Resources of each worker, in Ray's terms."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}

    @property
    def in_all(self) -> dict[str, float]:
        return {name: amount * self.n_workers for name, amount in self.of_a_worker.items()}

    def __str__(self) -> str:
        workers = "1 worker" if self.n_workers == 1 else f"{self.n_workers} workers"
        each = " and ".join(f"{amount:g} {name}" for name, amount in sorted(self.of_a_worker.items(), reverse=True))
        return f"{workers} of {each}" + (f" on {self.n_nodes} nodes" if self.n_nodes > 1 else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A machine of the cluster that is alive."""

    name: str
    """Ray's id of the node."""
    address: str
    total: Resources
    free: Resources
    """Resources left, as the cluster reports them, which may be a second old."""
    leaves: bool = False
    """Whether notice was given that the node will go, with whatever runs there."""


def place(footprint: Footprint, free: Mapping[str, Resources]) -> tuple[str, ...] | None:
    """The node of each worker: the nodes that the lane fills best, so that large nodes stay whole for large lanes.

    Args:
        footprint: of the lane; its workers are spread evenly over ``footprint.n_nodes`` nodes.
        free: node -> what is left there.

    Returns:
        A node's name for each worker, in their order; None where there is no room.
    """
    n_each = math.ceil(footprint.n_workers / footprint.n_nodes)
    roomy = sorted(
        (_left(footprint, n_each, have), name) for name, have in free.items() if _holds(footprint, n_each, have)
    )
    chosen = sorted(name for _, name in roomy[: footprint.n_nodes])
    if len(chosen) < footprint.n_nodes:
        return None
    return tuple(name for name in chosen for _ in range(n_each))[: footprint.n_workers]


def on_these(footprint: Footprint, nodes: Iterable[Resources]) -> Footprint | None:
    """The footprint as these nodes can hold it when idle: spread over more nodes where they are smaller than asked for.

    Args:
        footprint: of the lane.
        nodes: all resources of each node.

    Returns:
        None where the nodes cannot hold it.
    """
    idle = {str(number): node for number, node in enumerate(nodes)}
    for n_nodes in range(footprint.n_nodes, footprint.n_workers + 1):
        if footprint.n_workers % n_nodes == 0:
            spread = Footprint(
                n_workers=footprint.n_workers, n_nodes=n_nodes, gpus_per_worker=footprint.gpus_per_worker,
                cpus_per_worker=footprint.cpus_per_worker,
            )  # fmt: skip
            if place(spread, idle) is not None:
                return spread
    return None


def without(free: Mapping[str, Resources], footprint: Footprint, spots: Iterable[str]) -> dict[str, Resources]:
    """Node -> what is left of it once a lane's workers are there; ``spots`` has the node of each worker."""
    left = dict(free)
    for name, n_workers in Counter(name for name in spots if name in free).items():
        have = free[name]
        taken = {resource: have.get(resource, 0.0) - n_workers * n for resource, n in footprint.of_a_worker.items()}
        left[name] = {**have, **taken}
    return left


def words(nodes: Iterable[Resources]) -> str:
    """The GPUs and CPUs of nodes in words, for messages."""
    each = [
        " and ".join(f"{node[name]:g} {name}" for name in ("GPU", "CPU") if node.get(name)) or "neither CPU nor GPU"
        for node in nodes
    ]
    counted = [f"{each.count(one)} x {one}" if each.count(one) > 1 else one for one in dict.fromkeys(each)]
    return ", ".join(counted) or "nothing"


def _holds(footprint: Footprint, n_workers: int, have: Resources) -> bool:
    for name, amount in footprint.of_a_worker.items():
        there = have.get(name, 0.0) + _ROUNDING
        # A worker that wants whole GPUs finds none in the halves that others have left.
        whole = math.floor(there) if name == "GPU" and amount >= 1 else there
        if whole + _ROUNDING < amount * n_workers:
            return False
    return True


def _left(footprint: Footprint, n_workers: int, have: Resources) -> tuple[float, float]:
    """(GPUs, CPUs) that a node keeps beside the workers."""
    each = footprint.of_a_worker
    gpus, cpus = (have.get(name, 0.0) - n_workers * each.get(name, 0.0) for name in ("GPU", "CPU"))
    return gpus, cpus
