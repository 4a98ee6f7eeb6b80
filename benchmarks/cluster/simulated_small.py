"""Is the simulated cluster like a real one? A small sweep on raylets of this machine, beside its simulation.

    python benchmarks/cluster/simulated_small.py --out benchmarks/results/2026-11-30-simulated     # some minutes

The real sweep is that of the tests: 24 observations of real text on three nodes of one CPU. The simulation is told how
fast each size trained and how long the first lane took to start, and nothing else.

There is a line for one, two and three lanes. "real s" and "simulated s" are the seconds from the first lane to the last
observation, "difference" is how much longer the simulated sweep took, and the last two columns are the share of lanes
that trained.
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from faults import Cluster, Driver

from raysplit.corpus import build_corpus
from raysplit.journal import Record, read_journal
from raysplit.simulation.rates import Rates
from raysplit.simulation.simulate import Simulated, simulate
from raysplit.space import Space, load_space, parse_space
from raysplit.sweep.plan import FORWARD_SHARE
from tests.ray.sweeps import tiny_space, write_space, write_texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lanes", type=int, action="append", help="repeat for several; 1, 2 and 3 when left out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = [f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores", ""]
    lines.append(
        f"{'lanes':>5}{'start s':>9}{'real s':>8}{'simulated s':>13}{'difference':>12}"
        f"{'real busy':>11}{'simulated':>11}"
    )
    for n_lanes in arguments.lanes or (1, 2, 3):
        lines.append(_compared(n_lanes))
        print(lines[-1], flush=True)
        (arguments.out / "simulated_small.txt").write_text("\n".join(lines) + "\n")


def _compared(n_lanes: int) -> str:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        space, seconds, start_seconds, real_seconds, busy = _real(Path(name), n_lanes)
    went = _simulated(space, n_lanes, seconds, start_seconds)
    simulated_seconds = 3600 * went.hours
    simulated_busy = went.trained_share * went.node_hours / (went.hours * n_lanes)
    return (
        f"{n_lanes:5}{start_seconds:9.1f}{real_seconds:8.1f}{simulated_seconds:13.1f}"
        f"{simulated_seconds / real_seconds - 1:12.0%}{busy:11.0%}{simulated_busy:11.0%}"
    )


def _real(home: Path, n_lanes: int) -> tuple[Space, dict[int, float], float, float, float]:
    """A real sweep.

    Returns:
        The space; seconds a token by size, of the first lane to start, of the sweep; the share of lanes that worked.
    """
    write_texts(home / "texts")
    raw = tiny_space(home / "texts", compute={"lanes": n_lanes})
    build_corpus(parse_space(raw, origin="benchmark").corpus, home / "run" / "corpus")
    file = write_space(home / "space.yaml", raw)
    temp = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    cluster = Cluster(temp)
    try:
        cluster.start()
        driver = Driver(cluster, file, home / "run")
        offset = time.time() - time.monotonic()
        if driver.start().end() != 0:
            raise RuntimeError("\n".join(line for _, line in driver.lines))
    finally:
        cluster.stop()
        shutil.rmtree(temp, ignore_errors=True)
    opened = offset + next(at for at, line in driver.lines if "lanes of DeepSpeed" in line)
    measured = [record for record in read_journal(home / "run" / "journal") if record.kind == "measurement"]
    space = load_space(home / "run" / "space.yaml")
    evaluated = 2 * space.training.validation_tokens * FORWARD_SHARE
    paces: dict[int, list[float]] = {}
    for record in measured:
        paces.setdefault(record.data["trial"]["n_params"], []).append(
            record.data["wall_seconds"] / (record.data["tokens"] + evaluated)
        )
    first = measured[0]
    start_seconds = _at(first) - opened - first.data["wall_seconds"]
    real_seconds = _at(measured[-1]) - opened
    busy = sum(record.data["wall_seconds"] for record in measured) / (n_lanes * real_seconds)
    return space, {n: statistics.mean(found) for n, found in paces.items()}, start_seconds, real_seconds, busy


def _at(record: Record) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(record.time).timestamp()


def _simulated(space: Space, n_lanes: int, seconds: dict[int, float], start_seconds: float) -> Simulated:
    rates = Rates(
        mtbf_hours=1e9, queue_minutes=1e-9, idle_minutes=1e9, start_seconds=start_seconds, node_bytes_per_second=1e12
    )  # fmt: skip
    return simulate(space, most_nodes=n_lanes, most_lanes=n_lanes, rates=rates, seconds_per_token=seconds)


if __name__ == "__main__":
    main()
