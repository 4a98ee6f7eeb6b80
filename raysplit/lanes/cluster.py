"""Joining a Ray cluster: one that runs already, or one on this machine for as long as the command runs."""

import logging
import math
import os
import secrets
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from raysplit import ray_private
from raysplit.errors import RunError
from raysplit.lanes.environment import set_up_worker
from raysplit.lanes.own_raylet import tied_to_own_raylet
from raysplit.lanes.socket_folder import choose_socket_folder
from raysplit.live.addresses import check_address, in_a_line, join_error
from raysplit.live.client import NAMESPACE
from raysplit.machines import ComputeSpec
from raysplit.train.launchers import forget_launchers

from_raylets = logging.getLogger("raysplit.raylets")
"""What Ray tells of machines. Users are told in words of raysplit's own; a command that has a log has this in it."""
from_raylets.propagate = False
from_raylets.addHandler(logging.NullHandler())
_FEW_PROCESSES = 64
_STARTS, _TOO_SLOW = 3, "timed out during startup"
"""Ray 2.60 gives its node 30 s to start and has no option for it; a machine that is busy elsewhere needs longer."""
_RUNTIME_ENV: dict[str, object] = {"worker_process_setup_hook": set_up_worker}


def check_cluster(address: str | None) -> str:
    """Check, before anything expensive starts, what `joined_cluster` needs; a sentence on what was chosen, or "".

    Raises:
        RunError: no cluster answers at the address, or Ray finds no place for its sockets on this machine.
    """
    if address is None:
        return choose_socket_folder()[1]
    _head(address)
    return ""


@contextmanager
def joined_cluster(compute: ComputeSpec | None, *, address: str | None) -> Iterator[None]:
    """Connect to Ray for the length of a ``with`` block.

    Args:
        compute: what a cluster on this machine must have room for; None for the CPUs that Ray finds.
        address: of a running cluster (``auto`` for this node's own); None starts one on this machine.

    Raises:
        RunError: the cluster cannot be reached, or Ray cannot be started here.
        CutOff: this process's own node of the cluster was lost meanwhile.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        _start_here(compute)
    else:
        head = _head(address)
        try:
            _init(address=head, runtime_env=dict(_RUNTIME_ENV))  # Ray writes into it, and a command may join twice
        except Exception as error:  # Ray raises many kinds
            raise join_error(address, error) from error
    if on_sigterm is not signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        # Ray's own handler, set by init, ends the process with status 15 and no message.
        signal.signal(signal.SIGTERM, on_sigterm)
    with tied_to_own_raylet() as tie:
        try:
            with ray_private.told_of_machines(from_raylets.warning):
                yield
        finally:
            tie.let_go()
            ray.shutdown()


def _head(address: str) -> str:
    """HOST:PORT of a running cluster's head.

    Raises:
        RunError: none answers there, or the address is for Ray's client, through which lanes cannot be driven.
    """
    if "://" in address:
        raise RunError(
            f"--ray-address {address}: only `raysplit.connect` goes through Ray's client; run this command on the "
            "cluster (`ray exec`, `ray job submit`) with --ray-address auto, or give HOST:PORT of its head"
        )
    return check_address(address)


def _init(**options: object) -> None:
    """Connect to Ray quietly; a failure leaves nothing behind, and what workers print stays in their logs."""
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, namespace=NAMESPACE, **options)
    except Exception:
        ray.shutdown()
        raise


def _start_here(compute: ComputeSpec | None) -> None:
    """Start a cluster on this machine that ends with this process."""
    folder, _ = choose_socket_folder()
    _prepare_environment()
    runtime_env = dict(_RUNTIME_ENV)
    if shlex.quote(sys.executable) != sys.executable:
        # Ray 2.60 starts workers through `bash -c "exec PYTHON ..."` and does not quote a path with spaces.
        runtime_env["py_executable"] = shlex.quote(sys.executable)
    options = {
        "num_cpus": _cpus_here(compute) if compute else None, "include_dashboard": False, "_temp_dir": str(folder),
        "runtime_env": runtime_env,
    }  # fmt: skip
    for n_left in reversed(range(_STARTS)):
        try:
            with ray_private.own_process_groups():
                return _init(address="local", **options)
        except Exception as error:  # Ray raises many kinds
            if n_left and _TOO_SLOW in str(error):
                continue
            logs = folder / "session_latest" / "logs"
            raise RunError(f"Ray cannot be started on this machine: {in_a_line(error)} (its logs: {logs})") from error


def _prepare_environment() -> None:
    """Set the environment that Ray's processes on this machine inherit, from the first on."""
    forget_launchers()
    # The variable would show warnings of Ray's and torch's own imports, which no user can help.
    os.environ.pop("PYTHONWARNINGS", None)
    # Ray's 15 leaves but four steps to 19, the lowest: too few for the law's fits to give way to its answers.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Broker, lane hosts and law take no CPU, so there are more processes than Ray expects and warns of.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(_FEW_PROCESSES))
    # Only a dashboard would show task events, and handing them in to a cluster that is gone takes 5 s.
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    # Every worker has an environment of its own, so the ones that Ray starts beforehand would stay idle.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    if not _token_can_be_kept():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _token_can_be_kept() -> bool:
    """Whether Ray finds in the home folder, or can make there, the token that its processes know each other by."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    folder = Path("~/.ray").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return (folder / "auth_token").exists() or os.access(folder, os.W_OK)


def _cpus_here(compute: ComputeSpec) -> int:
    """CPUs that a cluster on this machine claims: enough for all lanes of the usual shape, and for the largest lane."""
    largest = max(
        (
            (s.workers or compute.workers_per_lane) * (s.cpus_per_worker or compute.cpus_per_worker)
            for s in compute.shapes
        ),
        default=0.0,
    )
    return math.ceil(max(compute.n_workers * compute.cpus_per_worker, largest))
