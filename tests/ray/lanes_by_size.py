"""Lanes of two sizes on a cluster of unequal nodes, one of which is lost and one of which joins; prints what it saw.

``python -m tests.ray.lanes_by_size HOME``, where HOME holds texts and a corpus of `tiny_space`. A driver of its own,
since the tests' own cluster is another.
"""

import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from raysplit.design.tasks import Measured, Task
from raysplit.design.tree import Trial
from raysplit.errors import RunError
from raysplit.lanes.cluster import joined_cluster
from raysplit.lanes.lanes import Lanes
from raysplit.pool.pool_report import PoolReport
from raysplit.space import parse_space
from tests.ray.sweeps import tiny_space

SMALL, LARGE = 14_000, 28_000
SHAPES = [{"up_to": "14k", "workers": 1}, {"up_to": "28k", "workers": 2, "nodes": 2, "cpus_per_worker": 2}]


def trunk(n_params: int, seed: int, tokens: int) -> Task:
    trial = Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=tokens, milestones=(tokens,))
    return Task(trial=trial, milestone=tokens)


def report(lanes: Lanes) -> PoolReport:
    told: PoolReport = ray.get(lanes.broker.report.remote())
    return told


def main() -> None:
    home = Path(sys.argv[1])
    raw = tiny_space(home / "texts", compute={"lanes": 4, "shapes": SHAPES})
    space = parse_space(raw, origin="test")
    small, large = (space.shape(n, 300).n_params_non_embedding for n in (SMALL, LARGE))
    # By default Ray takes up to half a minute to believe that a node is gone.
    health = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 500}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "_system_config": {**health, "health_check_failure_threshold": 3}},
    )
    try:
        with joined_cluster(space.compute, address=cluster.address):
            began = time.monotonic()
            try:
                Lanes(space, run_folder=home / "run", corpus_folder=home / "corpus", law=None)
            except RunError as error:
                say(f"after {time.monotonic() - began:.0f} s: {error}")
            one = cluster.add_node(num_cpus=1)
            for _ in range(2):
                cluster.add_node(num_cpus=2)
            lanes = Lanes(space, run_folder=home / "run", corpus_folder=home / "corpus", law=None, wait_seconds=60)
            try:
                first = lanes.submit(trunk(small, 0, 8192))
                assert isinstance(first.result(timeout=200), Measured)
                spanning = lanes.submit(trunk(large, 0, 8192))
                assert isinstance(spanning.result(timeout=200), Measured)
                say(f"measured by {' and '.join(sorted(str(lane.footprint) for lane in report(lanes).lanes))}")
                long = lanes.submit(trunk(small, 1, 8192 * 40))
                while not any(lane.tokens for lane in report(lanes).lanes if lane.task is not None):
                    time.sleep(0.2)
                cluster.remove_node(one)  # the smallest lane is where no large one can be
                cluster.add_node(num_cpus=1)
                lost = time.monotonic()
                while not report(lanes).notices:
                    time.sleep(0.2)
                say(f"{report(lanes).notices[0]}, as was known after {time.monotonic() - lost:.0f} s")
                assert isinstance(long.result(timeout=300), Measured)
                say("measured elsewhere")
            finally:
                lanes.close()
    finally:
        cluster.shutdown()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
