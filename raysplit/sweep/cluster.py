"""Joining a Ray cluster: the one that is there, or one on this machine for as long as the command runs."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import ray
from ray._private import services

from raysplit.errors import RunError
from raysplit.space import ComputeSpec

_SPARE_CPUS = 1.0
"""For Tune's trial actors, which claim a sliver each while the lanes have the rest."""


_FEW_PROCESSES = 64


@contextmanager
def joined_cluster(compute: ComputeSpec | None, *, address: str | None) -> Iterator[None]:
    """Connect to Ray for the length of a ``with`` block.

    Args:
        compute: what a cluster on this machine must have room for; None to join only.
        address: of a running cluster (``auto`` for this node's own); None starts one on this machine.

    Raises:
        RunError: the cluster cannot be reached, or has too few CPUs or GPUs for the lanes.
    """
    # Workers answer through actors; their standard output would bury the live table.
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    options: dict[str, object] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "raysplit"}
    try:
        if address is None:
            n_cpus = compute.n_workers * compute.cpus_per_worker + _SPARE_CPUS if compute else None
            # Broker, lane hosts and law take no CPU, so there are more processes than Ray expects and warns of.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(_FEW_PROCESSES))
            # Only a dashboard would show task events, and handing them in to a cluster that is gone takes 5 s.
            os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
            if shlex.quote(sys.executable) != sys.executable:
                # Ray 2.60 starts workers through `bash -c "exec PYTHON ..."` and does not quote a path with spaces.
                options["runtime_env"] = {"py_executable": shlex.quote(sys.executable)}
            with _groups_of_their_own():
                ray.init(
                    address="local", num_cpus=int(n_cpus) + 1 if n_cpus else None, include_dashboard=False, **options
                )  # fmt: skip
        else:
            ray.init(address=address, **options)
    except Exception as error:  # Ray raises many kinds
        raise RunError(f"Ray cluster {address or 'on this machine'}: cannot be joined: {error}") from error
    if on_sigterm is not signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        # Ray's own handler, set by init, leaves with status 15 and no word.
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        if compute is not None:
            _check_room(compute)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Have Ray start its processes outside this command's process group, for which Ray 2.60 has no option.

    A job manager's SIGTERM to the whole group then reaches the command alone, which ends them in order. Had they got it
    too, Ray's C++ code would leave this process with status 1 as soon as it misses the object store.
    """
    known = getattr(services, "ConsolePopen", subprocess.Popen)
    services.ConsolePopen = partial(known, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = known


def _check_room(compute: ComputeSpec) -> None:
    there = ray.cluster_resources()
    needed = {"CPU": compute.n_workers * compute.cpus_per_worker}
    if compute.device == "cuda":
        needed["GPU"] = float(compute.n_workers)
    for name, amount in needed.items():
        if there.get(name, 0.0) < amount:
            raise RunError(
                f"compute: {compute.lanes} lanes of {compute.workers_per_lane} workers need {amount:g} {name}s, "
                f"the Ray cluster has {there.get(name, 0.0):g}; lower compute.lanes or compute.workers_per_lane"
            )
