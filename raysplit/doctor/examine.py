"""Ask every node of the cluster that this process has joined, or this machine alone."""

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysplit.design.lane_shapes import LaneShape
from raysplit.doctor.facts import NodeFacts, look_here
from raysplit.doctor.findings import Finding, findings_of, in_order
from raysplit.doctor.ranks import address_of_first, sum_over_ranks
from raysplit.doctor.storage import check_folder, check_readable

_ANSWER_SECONDS = 120.0
"""For a first worker process on a busy node, with its imports."""

Nodes = dict[str, dict[str, Any]]
"""Name -> what Ray says of the node."""


def examine_cluster(
    *,
    device: str,
    shapes: dict[int, LaneShape],
    folder: Path | None,
    needed_bytes: float = 0.0,
    readable: tuple[Path, ...] = (),
    ranks: bool,
) -> list[Finding]:
    """What is wrong with the nodes of the cluster that this process has joined, errors first.

    Args:
        device: that is trained on.
        shapes: the lane that trains each size.
        folder: of the run; None to leave storage out.
        needed_bytes: that the run is to write there.
        readable: what every node must be able to read.
        ranks: whether to let a rank on each node find the others, which takes some seconds.
    """
    nodes = _nodes()
    found: list[Finding] = []
    facts: list[NodeFacts] = []
    asked = time.time()
    looks = {
        name: partial(
            look_here, name, n_cpus=node["Resources"].get("CPU", 0.0), n_gpus=node["Resources"].get("GPU", 0.0),
            wants_cuda=device == "cuda",
        )
        for name, node in nodes.items()
    }  # fmt: skip
    for name, seen in _on_nodes(nodes, looks):
        if isinstance(seen, NodeFacts):
            facts.append(replace(seen, clock_skew_seconds=_skew(seen.clock_seconds, asked, time.time())))
        else:
            found.append(_no_answer(name, seen))
    found += findings_of(facts, device=device, shapes=shapes)
    answering = {fact.name: nodes[fact.name] for fact in facts}

    def on_each(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, object]]:
        return _on_nodes(answering, {name: partial(function, name, *arguments) for name in answering})

    if folder is not None:
        found += check_folder(folder.absolute(), on_each, marker=secrets.token_hex(4), needed_bytes=needed_bytes)
    if readable:
        found += check_readable([path.absolute() for path in readable], on_each)
    training = {n: node for n, node in answering.items() if device == "cpu" or node["Resources"].get("GPU")}
    if ranks and len(training) > 1:
        found += _check_ranks(training, backend="nccl" if device == "cuda" else "gloo")
    return in_order(found)


def examine_here(*, device: str, folder: Path | None, needed_bytes: float = 0.0) -> list[Finding]:
    """What is wrong with this machine, without Ray; arguments as `examine_cluster` takes them."""
    facts = look_here(socket.gethostname(), n_cpus=os.cpu_count() or 1, n_gpus=0, wants_cuda=device == "cuda")
    # A cluster that a command starts here by itself is started without them.
    facts = replace(facts, launcher_variables=())

    def on_each(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, object]]:
        return [(facts.name, function(facts.name, *arguments))]

    found = findings_of([facts], device="cpu", shapes={})
    if device == "cuda" and not facts.gpu_names:
        found.append(
            Finding(
                severity="error",
                where=facts.name,
                what=f"compute.device is cuda, and {facts.cuda_trouble}",
                remedy="install the CUDA build of torch for this driver, or set compute.device to cpu",
            )
        )
    if folder is not None:
        found += check_folder(folder.absolute(), on_each, marker=secrets.token_hex(4), needed_bytes=needed_bytes)
    return in_order(found)


def _check_ranks(nodes: Nodes, *, backend: str) -> Iterator[Finding]:
    first = _on_nodes(nodes, {next(iter(nodes)): address_of_first})
    if not first or not isinstance(first[0][1], tuple):
        return
    host, port = first[0][1]
    calls = {
        name: partial(sum_over_ranks, rank, len(nodes), host, port, backend=backend) for rank, name in enumerate(nodes)
    }
    sums = _on_nodes(nodes, calls, gpus=1.0 if backend == "nccl" else 0.0)
    if len(sums) < len(nodes):
        return  # one has left, and the others waited for it in vain
    for name, seen in sums:
        if seen != float(len(nodes)):
            why = " ".join(str(seen).split())[:300]
            yield Finding(
                severity="error",
                where=name,
                what=f"a rank there does not reach the others by {backend} (the first is at {host}:{port}): {why}",
                remedy="let nodes reach each other at every port (security group, firewall); set "
                "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME where there are several networks",
            )


def _no_answer(name: str, seen: object) -> Finding:
    return Finding(
        severity="error", where=name, what=f"gives no answer: {' '.join(str(seen).split())[:300]}",
        remedy="look at its Ray logs (/tmp/ray/session_latest/logs), or take it out of the cluster",
    )  # fmt: skip


def _skew(there: float, asked: float, answered: float) -> float:
    """Seconds by which a clock lies outside the time that asking took."""
    return min(0.0, there - asked) + max(0.0, there - answered)


def _nodes() -> Nodes:
    """Every node that is there, by its host's name, or that and its number where several share a host."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    return {
        host if hosts[host := node["NodeManagerHostname"]] == 1 else f"{host}-{node['NodeID'][:6]}": node
        for node in alive
    }


def _on_nodes(nodes: Nodes, calls: Mapping[str, Callable[[], Any]], *, gpus: float = 0.0) -> list[tuple[str, object]]:
    """Call a function on each node; its result, or the exception that kept it from one.

    A node that has left meanwhile is not among them: machines come and go, and what is gone cannot be wrong.
    """
    task = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0)(_call)
    references = {
        name: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[name]["NodeID"], soft=False)
        ).remote(call)
        for name, call in calls.items()
    }
    deadline = time.monotonic() + _ANSWER_SECONDS
    found: list[tuple[str, object]] = []
    for name, reference in references.items():
        try:
            found.append((name, ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))))
        except ray.exceptions.GetTimeoutError:
            with suppress(Exception):
                ray.cancel(reference, force=True)
            found.append((name, TimeoutError(f"nothing within {_ANSWER_SECONDS:g} s")))
        except Exception as error:  # of Ray's many kinds, or the function's own
            found.append((name, getattr(error, "cause", None) or error))
    if any(isinstance(seen, Exception) for _, seen in found):
        there = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        found = [(name, seen) for name, seen in found if nodes[name]["NodeID"] in there]
    return found


def _call(function: Callable[[], Any]) -> Any:
    return function()
