"""A cluster of three raylets on this machine; the one that holds the law actor is killed while it is reported to."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray.actor import ActorHandle
from ray.cluster_utils import Cluster
from ray.exceptions import RayActorError

from raysplit import ray_private
from raysplit.live import actor as live_actor
from raysplit.live.client import LiveLaw, sent
from raysplit.live.questions import Observe
from tests.ray import live

N_ROWS = 96


def wait_until_moved(actor: ActorHandle, before: int, *, patience_seconds: float = 60.0) -> None:
    """A worker may outlive its raylet for a moment, and answer."""
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        with suppress(RayActorError):
            if live.pid_of(actor) != before:
                return
        time.sleep(0.2)
    raise AssertionError(f"the law actor is still process {before}")


def kill_raylet(node: Node) -> None:
    os.kill(node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid, signal.SIGKILL)


def made_anew(actor: ActorHandle, journal: Path) -> ActorHandle:
    """As a later command does it, whose law may live anywhere."""
    until = time.monotonic() + 60
    while not ray_private.starts_again(actor):
        assert time.monotonic() < until, "Ray has not missed its node"
        time.sleep(0.2)
    live_actor._SURVIVOR_SECONDS = 2.0
    again = live.start("raylets", journal)
    assert len(live.stored(again)) == N_ROWS
    return again


def main() -> None:
    journal = Path(sys.argv[1])
    # By default Ray takes up to half a minute to believe that a node is gone.
    health = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 500}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "include_dashboard": False,
            "_system_config": {**health, "health_check_failure_threshold": 3},
        },
    )  # fmt: skip
    nodes = [cluster.add_node(num_cpus=1, resources={"storage": 1}) for _ in range(2)]
    ray.init(address=cluster.address, namespace="raysplit", log_to_driver=False, logging_level="ERROR")
    try:
        actor = live.start("raylets", journal, options={"resources": {"storage": 0.01}})
        client, rows = LiveLaw(actor), live.observations(N_ROWS)
        client.observe(rows[:60])
        before = live.pid_of(actor)
        home = ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
        [node] = [node for node in nodes if node.node_id == home]
        pending = sent(actor, Observe(rows[60:70]))
        kill_raylet(node)
        killed = time.monotonic()
        client.observe(rows[70:])
        back_seconds = time.monotonic() - killed
        sys.stdout.write(f"serves again after {back_seconds:.1f} s\n")
        assert back_seconds < 20, "3 s on a quiet machine"
        ray.get(pending, timeout=60)
        wait_until_moved(actor, before)
        sys.stdout.write(f"from another node after {time.monotonic() - killed:.1f} s\n")
        there = live.stored(actor)
        assert sorted(row.identity for row in there) == sorted(row.identity for row in rows)
        assert live.settled(actor, N_ROWS) == live.undisturbed(rows)
        sys.stdout.write("the same law\n")
        [other] = [node for node in nodes if node.node_id != home]
        kill_raylet(other)
        ray.kill(again := made_anew(actor, journal))
        assert again != actor
        sys.stdout.write("made anew where no node could hold it\n")
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
