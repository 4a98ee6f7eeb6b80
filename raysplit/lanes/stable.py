"""Placement of the actors that a sweep cannot do without: on nodes that stay while others come and go."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysplit import ray_private

STABLE = "raysplit_stable"
"""Resource of nodes that are not taken away, which a cluster file may give them; the smallest amount is enough."""
_A_SHARE = 0.0001
"""Ray's smallest amount of a resource."""


def stable_options() -> dict[str, Any]:
    """Ray's options for an actor without a CPU: it goes to a node with `STABLE`, else to this process's node.

    The head is asked for by its own resource, because an actor that asks for no resource was once put on another node
    than the one it preferred.
    """
    if ray.cluster_resources().get(STABLE):
        return {"num_cpus": 0, "resources": {STABLE: _A_SHARE}}
    here = ray.get_runtime_context().get_node_id()
    if any(node["NodeID"] == here and ray_private.HEAD in node["Resources"] for node in ray.nodes()):
        return {"num_cpus": 0, "resources": {ray_private.HEAD: _A_SHARE}}
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True)}


def stable_share() -> Mapping[str, float]:
    """Resource of a node that stays, for Tune, which takes no strategy and refuses actors that ask for nothing."""
    return {STABLE if ray.cluster_resources().get(STABLE) else ray_private.HEAD: _A_SHARE}
