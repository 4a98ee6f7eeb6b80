"""Whether ranks on different nodes reach each other: one on each sums a number over all of them."""

import socket
from datetime import timedelta

_SECONDS = 60.0


def address_of_first() -> tuple[str, int]:
    """Where the other ranks find the first one: an address of this node, and a port that is free now."""
    import ray

    host = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind(("", 0))
        return host, probe.getsockname()[1]


def sum_over_ranks(rank: int, n_ranks: int, host: str, port: int, *, backend: str) -> float:
    """The sum of 1 over all ranks, by this one.

    Raises:
        RuntimeError: it was not reached, or does not reach the others, within a minute.
    """
    import torch
    import torch.distributed as dist

    store = dist.TCPStore(host, port, n_ranks, is_master=rank == 0, timeout=timedelta(seconds=_SECONDS))  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=n_ranks, timeout=timedelta(seconds=_SECONDS))
    try:
        one = torch.ones(1, device="cuda" if backend == "nccl" else "cpu")
        dist.all_reduce(one)
        return float(one.item())
    finally:
        dist.destroy_process_group()
