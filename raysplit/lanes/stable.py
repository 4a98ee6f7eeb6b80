"""Where what a sweep cannot do without is put: on nodes that stay while others come and go."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysplit import ray_private

STABLE = "raysplit_stable"
"""Resource of nodes that are not taken away, as a cluster file may give them; the smallest amount does."""
_A_SHARE = 0.0001
"""Ray's smallest."""


def stable_options() -> dict[str, Any]:
    """Options of Ray's for an actor without a CPU: on a node with `STABLE`, else on this process's while it lives.

    On the head by its own resource: an actor that asks for nothing was once put on another node than it preferred.
    """
    if ray.cluster_resources().get(STABLE):
        return {"num_cpus": 0, "resources": {STABLE: _A_SHARE}}
    here = ray.get_runtime_context().get_node_id()
    if any(node["NodeID"] == here and ray_private.HEAD in node["Resources"] for node in ray.nodes()):
        return {"num_cpus": 0, "resources": {ray_private.HEAD: _A_SHARE}}
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=True)}


def stable_share() -> Mapping[str, float]:
    """Resources for Tune, which takes no strategy and refuses an actor that asks for nothing: of a node that stays."""
    return {STABLE if ray.cluster_resources().get(STABLE) else ray_private.HEAD: _A_SHARE}
