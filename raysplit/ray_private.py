"""Every name of Ray's that it does not promise, with why none that it promises will do.

`tests/test_private_names.py` tells when another version than `TRIED_WITH` is installed, and that no other module of the
package has such names.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ray._private import services
from ray._private.state import available_resources_per_node, state
from ray._raylet import AuthenticationMode, Config, GcsClient, get_authentication_mode  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

TRIED_WITH = "2.60.0"

HEAD = "node:__internal_head__"
"""Resource that every cluster's head has, and no other node."""

WRAPPINGS = ("cause", "_base_exc", "controller_failure", "health_check_failure")
"""Attributes by which Ray's exceptions lead to the one that they are about, which a user is to read."""


@contextmanager
def own_process_groups() -> Iterator[None]:
    """Have Ray start its processes outside this command's process group, for which `ray.init` has no option.

    A job manager's SIGTERM to the whole group then reaches the command alone, which ends them in order. Had they got it
    too, Ray's C++ code would leave this process with status 1 as soon as it misses the object store.
    """
    known = getattr(services, "ConsolePopen", subprocess.Popen)
    services.ConsolePopen = partial(known, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = known


def address_of_this_node() -> str:
    """HOST:PORT of the head of the cluster that runs on this node; `ray.init("auto")` would join it to tell.

    Raises:
        ConnectionError: none does.
    """
    found: str = services.get_ray_address_from_environment("auto", None)
    return found


def n_nodes(address: str) -> int:
    """Nodes of the cluster whose head is at HOST:PORT, without joining it as `ray.nodes` wants, which takes seconds."""
    nodes = GcsClient(address=address).get_all_node_info(timeout=10.0)
    return sum(node.state == GcsNodeInfo.ALIVE for node in nodes.values())


def shows_a_token() -> bool:
    """Whether this process tells clusters a token; what Ray makes of the environment is nowhere else to be read."""
    return bool(get_authentication_mode() == AuthenticationMode.TOKEN)


def read_environment_again() -> None:
    """Have this process see a changed RAY_AUTH_MODE: Ray reads it once, when it is imported."""
    Config.initialize("")


def put_in_cluster(key: bytes, value: bytes, *, namespace: str) -> None:
    """Have the cluster remember a value for longer than an actor's process lives; Ray's public stores end with it."""
    _internal_kv_put(key, value, namespace=namespace)


def kept_in_cluster(key: bytes, *, namespace: str) -> bytes | None:
    """What `put_in_cluster` left."""
    kept: bytes | None = _internal_kv_get(key, namespace=namespace)
    return kept


def free_by_node() -> dict[str, dict[str, float]]:
    """Node id -> what nobody has taken there; `ray.available_resources` has only the sum."""
    free: dict[str, dict[str, float]] = available_resources_per_node()
    return free


def leaving_nodes() -> set[str]:
    """Ids of the nodes that are being drained, of which `ray.nodes` says nothing."""
    return set(state.get_draining_nodes())
