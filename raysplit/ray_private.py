"""Every private name of Ray that raysplit uses, each with the reason why no public one will do.

`tests/test_private_names.py` fails where another version than `TRIED_WITH` is installed, or where another module of the
package uses such names.
"""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ray._private import services, worker
from ray._private.state import actors, available_resources_per_node, state
from ray._raylet import AuthenticationMode, Config, GcsClient, get_authentication_mode  # type: ignore[attr-defined]
from ray.actor import ActorHandle
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

TRIED_WITH = "2.60.0"

HEAD = "node:__internal_head__"
"""A resource that the head of every cluster has, and no other node."""

WRAPPINGS = ("cause", "_base_exc", "controller_failure", "health_check_failure")
"""Attributes of Ray's exceptions that hold the exception inside, which is the one for the user to read."""

TELLS_OF_SOCKETS = "ray.dashboard.modules.job.sdk"
"""A logger that sets its own level, and logs how the connection for a job's output ended."""


@contextmanager
def own_process_groups() -> Iterator[None]:
    """Have Ray start its processes outside this command's process group, for which `ray.init` has no option.

    A job manager's SIGTERM to the whole group then reaches the command alone, which ends Ray's processes in order. If
    they got it too, Ray's C++ code would end this process with status 1 as soon as it misses the object store.
    """
    known = getattr(services, "ConsolePopen", subprocess.Popen)
    services.ConsolePopen = partial(known, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = known


@contextmanager
def told_of_machines(tell: Callable[[str], object]) -> Iterator[None]:
    """Give ``tell`` what Ray says of raylets and actors that died; it can only print that, a screen full at a time."""
    known = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, **_: tell("\n".join(data["lines"]))
    try:
        yield
    finally:
        worker.print_to_stdstream = known


def address_of_this_node() -> str:
    """HOST:PORT of the head of the cluster that runs on this node; `ray.init("auto")` tells it only by joining.

    Raises:
        ConnectionError: no cluster runs on this node.
    """
    found: str = services.get_ray_address_from_environment("auto", None)
    return found


def n_nodes(address: str) -> int:
    """Number of living nodes of the cluster at HOST:PORT; `ray.nodes` would have to join it, which takes seconds."""
    nodes = GcsClient(address=address).get_all_node_info(timeout=10.0)
    return sum(node.state == GcsNodeInfo.ALIVE for node in nodes.values())


def shows_a_token() -> bool:
    """Whether this process sends clusters a token; Ray shows nowhere else how it read the environment."""
    return bool(get_authentication_mode() == AuthenticationMode.TOKEN)


def read_environment_again() -> None:
    """Make Ray read RAY_AUTH_MODE again; by itself it does so once, when it is imported."""
    Config.initialize("")


def put_in_cluster(key: bytes, value: bytes, *, namespace: str) -> None:
    """Store a value in the cluster beyond the life of an actor's process, with which Ray's public stores end."""
    _internal_kv_put(key, value, namespace=namespace)


def kept_in_cluster(key: bytes, *, namespace: str) -> bytes | None:
    """The value that `put_in_cluster` stored; None where there is none."""
    kept: bytes | None = _internal_kv_get(key, namespace=namespace)
    return kept


def free_by_node() -> dict[str, dict[str, float]]:
    """Free resources by node id; `ray.available_resources` has only their sum."""
    free: dict[str, dict[str, float]] = available_resources_per_node()
    return free


def leaving_nodes() -> set[str]:
    """Ids of the nodes that are being drained, which `ray.nodes` does not tell."""
    return set(state.get_draining_nodes())


def starts_again(actor: ActorHandle) -> bool:
    """Whether the actor lost its process or node, and no other one runs it yet; `ray.util.state` needs a dashboard."""
    return bool(actors(actor._actor_id.hex()).get("State") == "RESTARTING")


def trainer_in_this_process() -> "type[TorchTrainer]":
    """Ray Train's trainer of torch, with its controller in the calling actor, and without two actors of no use here.

    Ray Train 2.60 starts a process each for the controller, for datasets (there are none) and for one that removes the
    placement group if the controller dies (the broker does). Each imports for 2 to 4 s of processor time.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController

    class InThisProcess(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            known = super()._create_default_callbacks()
            return [c for c in known if not isinstance(c, (DatasetsCallback, PlacementGroupCleanerCallback))]

        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            controller = TrainController(**settings)
            asyncio.run(controller.run())
            return controller.get_result()

    return InThisProcess
