"""What is found wrong, from facts alone."""

import re
from dataclasses import replace

import pytest

from raysplit.design.lane_shapes import LaneShape
from raysplit.doctor.facts import NodeFacts
from raysplit.doctor.findings import Finding, exit_status, findings_of, in_order

GOOD = NodeFacts(
    name="a",
    n_cpus=16,
    n_gpus=2,
    versions={"ray": "2.60.0", "torch": "2.13.0"},
    gpu_names=("H100", "H100"),
    cuda_trouble="",
    memory_bytes=64 * 2**30,
    shared_memory_bytes=32 * 2**30,
    temp_folder="/tmp",
    free_bytes=100 * 2**30,
    open_files=65536,
    launcher_variables=(),
    missing_interfaces=(),
    clock_seconds=0.0,
)
OTHER = replace(GOOD, name="b")
SHAPE = LaneShape(
    n_workers=4, n_nodes=2, cpus_per_worker=4, gpus_per_worker=1, zero_stage=3, micro_batch_sequences=1,
    activation_checkpointing=False,
)  # fmt: skip


def found(*nodes: NodeFacts, device: str = "cuda", shapes: dict[int, LaneShape] | None = None) -> list[Finding]:
    return findings_of(nodes, device=device, shapes=shapes or {7_000: SHAPE})


def test_good_machines_have_no_findings() -> None:
    assert found(GOOD, OTHER) == []
    assert exit_status([]) == 0


@pytest.mark.parametrize(
    ("changes", "severity", "where", "said"),
    [
        ({"versions": {"ray": "2.59.0", "torch": "2.13.0"}}, "error", "the cluster", "ray is not the same everywhere"),
        ({"versions": {"ray": "2.60.0"}}, "error", "the cluster", "none on b"),
        ({"gpu_names": (), "cuda_trouble": "torch 2.13.0+cpu sees none"}, "error", "b", "torch 2.13.0\\+cpu sees none"),
        ({"gpu_names": ("H100",)}, "error", "b", "offers 2 GPUs there, and torch sees 1"),
        ({"gpu_names": ("H100", "A100")}, "warning", "the cluster", "3 x H100, 1 x A100"),
        ({"n_cpus": 4.0}, "error", "the cluster", r"needs 2 node\(s\) of 8 CPUs and 2 GPUs, and 1 have them"),
        ({"clock_skew_seconds": -90.0}, "warning", "b", "-90 s off"),
        ({"open_files": 1024}, "warning", "b", "may open 1024 files"),
        ({"shared_memory_bytes": 64 * 2**20}, "warning", "b", "/dev/shm holds 67.1 MB"),
        ({"free_bytes": 2**30}, "warning", "b", "are free in /tmp"),
        ({"missing_interfaces": ("GLOO_SOCKET_IFNAME=ib0",)}, "error", "b", "no network interface.*ib0"),
        ({"launcher_variables": ("OMPI_COMM_WORLD_RANK",)}, "warning", "b", "OMPI_COMM_WORLD_RANK"),
    ],
)
def test_each_fault_is_found_where_it_is_and_has_a_remedy(
    changes: dict[str, object], severity: str, where: str, said: str
) -> None:
    [finding] = found(GOOD, replace(OTHER, **changes))  # type: ignore[arg-type]
    assert (finding.severity, finding.where) == (severity, where)
    assert re.search(said, finding.what)
    assert finding.remedy
    assert exit_status([finding]) == {"warning": 1, "error": 2}[severity]


def test_without_any_gpu_that_is_said_once() -> None:
    node = replace(GOOD, n_gpus=0, gpu_names=())
    assert [finding.what for finding in found(node, shapes={1: replace(SHAPE, n_nodes=1, gpus_per_worker=0)})] == [
        "compute.device is cuda, and no node offers Ray a GPU"
    ]
    assert found(node, device="cpu", shapes={1: replace(SHAPE, gpus_per_worker=0, n_nodes=1)}) == []


def test_errors_come_first() -> None:
    both = found(replace(GOOD, open_files=1024), replace(OTHER, n_gpus=0, gpu_names=()))
    assert [finding.severity for finding in in_order(both)] == ["error", "warning"]
