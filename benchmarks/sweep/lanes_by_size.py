"""How busy are machines in a real sweep whose sizes take different machines?

    python benchmarks/sweep/lanes_by_size.py --out benchmarks/results/DATE-lanes       # about 6 minutes

It starts a Ray cluster of unequal nodes on this machine (by default of 2, 2 and 1 CPUs), and sweeps a small space in
which the smallest size takes one CPU and the largest two nodes of two. From the journal it reads how many CPU-seconds
lanes were at work: the sum over measurements of wall seconds times CPUs. "Share" is that sum over all CPU-seconds of
the cluster from the first measurement's beginning until the last measurement. Lanes that start, save, load or wait for
others count as idle, and so do machines for which the sweep has nothing to do. "Utilization" is what the sweep itself
said last: the share of the time with tasks waiting.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from ray.cluster_utils import Cluster

from raysplit.journal import Record, read_journal

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY))

from tests.ray.sweeps import tiny_space, write_texts  # noqa: E402

SMALL_CPUS, LARGE_CPUS = 1, 4
LARGE_PARAMS = 20_000


def space_of(home: Path, *, tokens: int) -> dict[str, Any]:
    """An adaptive sweep of two sizes that gives idle lanes something to do."""
    space = tiny_space(
        home / "texts",
        sweep={
            "pretrain_tokens": [tokens, 2 * tokens, 4 * tokens],
            "specialize_tokens": [tokens // 2, tokens],
            "policy": "adaptive",
            "idle_lanes": "fill",
        },
        compute={
            "lanes": 5,
            "shapes": [
                {"up_to": "14k", "workers": 1},
                {"up_to": "28k", "workers": 2, "nodes": 2, "cpus_per_worker": 2},
            ],
        },
    )
    space["corpus"]["max_epochs"] = 100
    return space


def busy_of(records: list[Record], *, n_cpus: int, until: float) -> dict[str, float]:
    """CPU-seconds at work, and their share of all from the first task's beginning to ``until`` seconds after it."""
    ends = [(_seconds(r.time), r.data) for r in records if r.kind == "measurement"]
    began = min(end - data["wall_seconds"] for end, data in ends)
    stop = min(began + until, max(end for end, _ in ends))
    busy = dict.fromkeys(("small", "large"), 0.0)
    for end, data in ends:
        name = "large" if data["trial"]["n_params"] > LARGE_PARAMS else "small"
        inside = max(0.0, min(end, stop) - max(began, end - data["wall_seconds"]))
        busy[name] += inside * (LARGE_CPUS if name == "large" else SMALL_CPUS)
    seconds = stop - began
    return {**busy, "seconds": seconds, "share": sum(busy.values()) / (n_cpus * seconds), "n_measured": len(ends)}


def _seconds(time_: str) -> float:
    return datetime.fromisoformat(time_).timestamp()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--cpus", type=int, nargs="+", default=[2, 2, 1], help="Of each node.")
    options.add_argument("--tokens", type=int, default=131_072, help="The smallest D; tasks are as long as that takes.")
    options.add_argument("--seconds", type=float, default=400.0, help="Stop the sweep after so long.")
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_texts(home / "texts")
        (home / "space.yaml").write_text(yaml.safe_dump(space_of(home, tokens=arguments.tokens)))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for n_cpus in arguments.cpus:
            cluster.add_node(num_cpus=n_cpus)
        command = [sys.executable, "-m", "raysplit", "sweep", str(home / "space.yaml"), "--out", str(home / "run")]
        began = time.monotonic()
        log = home / "sweep.txt"
        with log.open("w") as file:
            sweep = subprocess.Popen([*command, "--ray-address", cluster.address], cwd=home, stdout=file)
        try:
            sweep.wait(timeout=arguments.seconds)
        except subprocess.TimeoutExpired:
            sweep.terminate()
            sweep.wait(timeout=60)
        wall_seconds = time.monotonic() - began
        cluster.shutdown()
        records = read_journal(home / "run" / "journal")
        n_cpus = sum(arguments.cpus)
        found = busy_of(records, n_cpus=n_cpus, until=float("inf"))
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {_n_cores()} cores for {n_cpus} CPUs of Ray's",
            "nodes": arguments.cpus,
            "tokens": arguments.tokens,
            "command_seconds": round(wall_seconds, 1),
            "status": sweep.returncode,
            "utilization": int(re.findall(r"machines (\d+)% busy", log.read_text())[-1]) / 100,
            **{name: round(value, 3) for name, value in found.items()},
        }
        (arguments.out / "lanes_by_size.json").write_text(json.dumps(result, indent=1) + "\n")
        sys.stdout.write(json.dumps(result, indent=1) + "\n")


def _n_cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
