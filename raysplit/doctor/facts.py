"""What one node is like, seen by a process that runs there."""

import os
import re
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from raysplit.train.launchers import forget_launchers

PACKAGES = ("deepspeed", "numpy", "ray", "raysplit", "tokenizers", "torch", "transformers")


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """A node as it was found."""

    name: str
    n_cpus: float
    """That Ray hands out there."""
    n_gpus: float
    versions: dict[str, str]
    gpu_names: tuple[str, ...]
    """That torch sees."""
    cuda_trouble: str
    memory_bytes: int
    shared_memory_bytes: int
    temp_folder: str
    free_bytes: int
    """In the folder for temporary files."""
    open_files: int
    """That a process may have at once."""
    launcher_variables: tuple[str, ...]
    """Of other launchers, in the environment that Ray was started in."""
    missing_interfaces: tuple[str, ...]
    """NAME=INTERFACE of variables that name a network interface which the node does not have."""
    clock_seconds: float
    """Since the epoch, by its own clock."""
    clock_skew_seconds: float = 0.0
    """Against the clock of who asked, beyond what asking took."""


def look_here(name: str, *, n_cpus: float, n_gpus: float, wants_cuda: bool) -> NodeFacts:
    """Gather the facts of this node.

    Args:
        name: of the node.
        n_cpus: that Ray hands out here.
        n_gpus: likewise.
        wants_cuda: whether to load torch and look for GPUs.
    """
    gpu_names, trouble = _gpus() if wants_cuda else ((), "")
    temp, environment = tempfile.gettempdir(), _environment_of_parent()
    return NodeFacts(
        name=name,
        n_cpus=n_cpus,
        n_gpus=n_gpus,
        versions=_versions(),
        gpu_names=gpu_names,
        cuda_trouble=trouble,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        shared_memory_bytes=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0,
        temp_folder=temp,
        free_bytes=shutil.disk_usage(temp).free,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        launcher_variables=tuple(sorted(forget_launchers(environment))),
        missing_interfaces=tuple(_missing_interfaces(environment)),
        clock_seconds=time.time(),
    )


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _gpus() -> tuple[tuple[str, ...], str]:
    import torch

    try:
        names = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    except (RuntimeError, AssertionError) as error:
        return (), str(error).splitlines()[0]
    return names, "" if names else f"torch {torch.__version__} sees none"


def _environment_of_parent() -> dict[str, str]:
    """In a worker, the raylet's, since workers themselves have forgotten what breaks them."""
    try:
        lines = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(line.decode(errors="replace").partition("=")[::2] for line in lines if b"=" in line)


def _missing_interfaces(environment: Mapping[str, str]) -> Iterator[str]:
    """NCCL takes the beginnings of names, gloo whole ones; ``^`` and ``=`` say other things than a name."""
    there = [name for _, name in socket.if_nameindex()]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        for wanted in environment.get(variable, "").split(","):
            if re.match(r"\w", wanted) and not any(name.startswith(wanted) for name in there):
                yield f"{variable}={wanted}"
