"""What is wrong with the machines, from facts that were gathered: nothing here looks at a machine."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from raysplit.design.lane_shapes import LaneShape
from raysplit.doctor.facts import NodeFacts
from raysplit.quantities import format_bytes, format_count

Severity = Literal["error", "warning"]
EXIT_STATUS: dict[Severity, int] = {"warning": 1, "error": 2}

_SKEW_SECONDS = 5.0
"""Tokens and leases live for longer; file times on shared storage get confusing beyond."""
_OPEN_FILES = 4096
"""Ray opens one for each connection of each worker; it asks for 65,536 itself."""
_SHARED_MEMORY_SHARE = 0.1
"""Of a node's memory in /dev/shm, below which Ray keeps objects on the disk and says so only in a log."""
_FREE_BYTES = 5 * 2**30
"""For Ray's logs, sockets and spilled objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong."""

    severity: Severity
    where: str
    """A node, a folder, or the cluster."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.what}; {self.remedy}"


def exit_status(findings: Iterable[Finding]) -> int:
    """0 where nothing is wrong, 1 for warnings, 2 for errors."""
    return max((EXIT_STATUS[finding.severity] for finding in findings), default=0)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first."""
    return sorted(findings, key=lambda finding: -EXIT_STATUS[finding.severity])


def findings_of(nodes: Sequence[NodeFacts], *, device: str, shapes: dict[int, LaneShape]) -> list[Finding]:
    """Everything that the facts show.

    Args:
        nodes: what was seen on each.
        device: that the space trains on.
        shapes: the lane that trains each size.
    """
    return [
        *_versions(nodes),
        *_devices(nodes, device),
        *_room(nodes, shapes),
        *_clocks(nodes),
        *(finding for node in nodes for finding in _of_one(node)),
    ]


def _versions(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    for package in sorted({name for node in nodes for name in node.versions}):
        on: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            on[node.versions.get(package, "none")].append(node.name)
        if len(on) > 1:
            said = ", ".join(f"{version} on {_some(names)}" for version, names in sorted(on.items()))
            yield Finding(
                severity="error",
                where="the cluster",
                what=f"{package} is not the same everywhere: {said}",
                remedy="install it from constraints.txt on every node, or use one image for all",
            )


def _devices(nodes: Sequence[NodeFacts], device: str) -> Iterator[Finding]:
    if device != "cuda":
        return
    if not any(node.n_gpus for node in nodes):
        yield Finding(
            severity="error", where="the cluster", what="compute.device is cuda, and no node offers Ray a GPU",
            remedy="start Ray on the GPU nodes with --num-gpus, or set compute.device to cpu",
        )  # fmt: skip
    for node in nodes:
        if node.n_gpus and node.n_gpus > len(node.gpu_names):
            why = node.cuda_trouble or f"torch sees {len(node.gpu_names)}"
            yield Finding(
                severity="error",
                where=node.name,
                what=f"Ray offers {node.n_gpus} GPUs there, and {why}",
                remedy="install the CUDA build of torch for the node's driver; `nvidia-smi` shows what the driver sees",
            )
    if len(kinds := Counter(name for node in nodes for name in node.gpu_names)) > 1:
        yield Finding(
            severity="warning", where="the cluster",
            what="GPUs of several kinds: " + ", ".join(f"{n} x {name}" for name, n in kinds.most_common()),
            remedy="a lane waits for its slowest rank; give each kind nodes of its own, and sizes that fit it",
        )  # fmt: skip


def _room(nodes: Sequence[NodeFacts], shapes: dict[int, LaneShape]) -> Iterator[Finding]:
    for n_params, shape in shapes.items():
        each = shape.n_workers / shape.n_nodes
        cpus, gpus = each * shape.cpus_per_worker, each * shape.gpus_per_worker
        roomy = [node for node in nodes if node.n_cpus >= cpus and node.n_gpus >= gpus]
        if len(roomy) < shape.n_nodes:
            there = ", ".join(f"{node.name} {node.n_cpus:g} CPUs {node.n_gpus:g} GPUs" for node in nodes)
            yield Finding(
                severity="error",
                where="the cluster",
                what=f"a lane for N = {format_count(n_params)} needs {shape.n_nodes} node(s) of {cpus:g} CPUs and "
                f"{gpus:g} GPUs, and {len(roomy)} have them ({there})",
                remedy="add nodes, or change compute.shapes",
            )


def _clocks(nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    for node in nodes:
        if abs(node.clock_skew_seconds) > _SKEW_SECONDS:
            yield Finding(
                severity="warning",
                where=node.name,
                what=f"its clock is {node.clock_skew_seconds:+.0f} s off this one",
                remedy="run chrony or systemd-timesyncd on it",
            )


def _of_one(node: NodeFacts) -> Iterator[Finding]:
    if node.open_files < _OPEN_FILES:
        yield Finding(
            severity="warning", where=node.name, what=f"a process there may open {node.open_files} files",
            remedy=f"raise the limit to {_OPEN_FILES} or more before `ray start` (ulimit -n, LimitNOFILE)",
        )  # fmt: skip
    if node.shared_memory_bytes < _SHARED_MEMORY_SHARE * node.memory_bytes:
        yield Finding(
            severity="warning", where=node.name,
            what=f"/dev/shm holds {format_bytes(node.shared_memory_bytes)}, and Ray keeps objects on the disk instead",
            remedy="give the container --shm-size or an emptyDir of medium Memory of about a third of its memory",
        )  # fmt: skip
    if node.free_bytes < _FREE_BYTES:
        yield Finding(
            severity="warning", where=node.name, what=f"{format_bytes(node.free_bytes)} are free in {node.temp_folder}",
            remedy="Ray keeps logs and spilled objects there; free some, or start Ray with --temp-dir",
        )  # fmt: skip
    if node.missing_interfaces:
        yield Finding(
            severity="error", where=node.name,
            what=f"it has no network interface as its Ray's environment names ({_some(node.missing_interfaces)})",
            remedy="start Ray there without the variable, or with an interface that `ip link` shows",
        )  # fmt: skip
    if node.launcher_variables:
        yield Finding(
            severity="warning", where=node.name,
            what=f"its Ray was started under another launcher ({_some(node.launcher_variables)})",
            remedy="lanes forget these variables; a trainable of your own should too, or start Ray without them",
        )  # fmt: skip


def _some(names: Sequence[str], n_shown: int = 3) -> str:
    more = f" and {len(names) - n_shown} more" if len(names) > n_shown else ""
    return ", ".join(names[:n_shown]) + more
