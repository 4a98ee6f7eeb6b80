"""Is the simulated cluster like a real one? A small sweep on raylets of this machine, beside its simulation.

    python benchmarks/cluster/simulated_small.py --out /var/tmp/simulated_small     # six minutes on two quiet cores

The real sweep is that of the tests with eight times as many tokens: 24 observations of real text, on three nodes of one
CPU. Each real sweep is a line of OUT/simulated_small.jsonl, so that the script goes on where it was ended; the table is
made of all of them, and can be made again of the same sweeps after the simulation has changed (with --lanes of those
that are there).

The simulation is told of a sweep how long each size took for a token in it, so that what else the machine did is in
both. It is told how long a lane took to start where it was alone, in the sweep of one lane. By the time that each
command took to get so far, which is the same work in all of them, that start is scaled to what else the machine did.
How starts share the machine's cores, and everything else, is the simulation's own.

alone s       what the simulation was told of a lane's start
start s       what the first lane took to start
real s        from the first lane to the last observation
simulated s   likewise; "difference" is how much longer the simulation took
busy          share of the lanes that trained, in the real sweep and in the simulation
load          load average of the machine in the five minutes before the end
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from faults import Cluster, Driver

from raysplit.corpus import build_corpus
from raysplit.journal import Record, read_journal
from raysplit.simulation.rates import Rates
from raysplit.simulation.simulate import Simulated, simulate
from raysplit.space import Space, parse_space
from raysplit.split.problem import FORWARD_SHARE
from tests.ray.sweeps import tiny_space, write_space, write_texts

LONGER = {"pretrain_tokens": [65_536, 131_072], "specialize_tokens": [32_768, 65_536]}
CORES = os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lanes", type=int, action="append", help="repeat for several; 1 and 3 when left out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "simulated_small.jsonl"
    sweeps = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for n_lanes in arguments.lanes or (1, 3):
        if not any(sweep["lanes"] == n_lanes for sweep in sweeps):
            with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
                sweeps.append(_real(Path(name), n_lanes))
            with file.open("a") as lines:
                lines.write(json.dumps(sweeps[-1]) + "\n")
        (arguments.out / "simulated_small.txt").write_text(_table(sweeps))
    print(_table(sweeps))


def _space(texts: Path, n_lanes: int) -> dict[str, Any]:
    return tiny_space(texts, sweep=LONGER, compute={"lanes": n_lanes})


def _real(home: Path, n_lanes: int) -> dict[str, Any]:
    """What a real sweep took."""
    write_texts(home / "texts")
    raw = _space(home / "texts", n_lanes)
    build_corpus(parse_space(raw, origin="benchmark").corpus, home / "run" / "corpus")
    file = write_space(home / "space.yaml", raw)
    temp = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    cluster = Cluster(temp)
    try:
        cluster.start()
        driver = Driver(cluster, file, home / "run")
        offset, begun = time.time() - time.monotonic(), time.monotonic()
        if driver.start().end() != 0:
            raise RuntimeError("\n".join(line for _, line in driver.lines))
    finally:
        cluster.stop()
        shutil.rmtree(temp, ignore_errors=True)
    opened = next(at for at, line in driver.lines if "lanes of DeepSpeed" in line)
    measured = [record for record in read_journal(home / "run" / "journal") if record.kind == "measurement"]
    first, last = measured[0], measured[-1]
    evaluated = 2 * raw["training"]["validation_tokens"] * FORWARD_SHARE
    trained: dict[int, list[tuple[float, float]]] = {}
    for record in measured:
        taken = (record.data["wall_seconds"], record.data["tokens"] + evaluated)
        trained.setdefault(record.data["trial"]["n_params"], []).append(taken)
    return {
        "lanes": n_lanes,
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{platform.machine()}, {CORES} cores",
        "seconds_per_token": {
            n_params: sum(seconds for seconds, _ in each) / sum(tokens for _, tokens in each)
            for n_params, each in trained.items()
        },
        "command_seconds": opened - begun,
        "start_seconds": _at(first) - (offset + opened) - first.data["wall_seconds"],
        "real_seconds": _at(last) - (offset + opened),
        "trained_seconds": sum(record.data["wall_seconds"] for record in measured),
        "load": os.getloadavg()[1],
    }


def _at(record: Record) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(record.time).timestamp()


def _table(sweeps: list[dict[str, Any]]) -> str:
    """A line for each real sweep, beside what the simulation makes of it."""
    lines = [
        f"{sweeps[-1]['time']}, {sweeps[-1]['machine']}",
        "",
        f"{'lanes':>5}{'alone s':>9}{'start s':>9}{'real s':>8}{'simulated s':>13}{'difference':>12}"
        f"{'real busy':>11}{'simulated':>11}{'load':>6}",
    ]
    for sweep in sorted(sweeps, key=lambda each: each["lanes"]):
        n_lanes, alone_seconds = sweep["lanes"], _start_alone(sweep, sweeps)
        went = _simulated(sweep, alone_seconds)
        simulated_seconds = 3600 * went.hours
        busy = sweep["trained_seconds"] / (n_lanes * sweep["real_seconds"])
        lines.append(
            f"{n_lanes:5}{alone_seconds:9.1f}{sweep['start_seconds']:9.1f}{sweep['real_seconds']:8.1f}"
            f"{simulated_seconds:13.1f}{simulated_seconds / sweep['real_seconds'] - 1:12.0%}{busy:11.0%}"
            f"{went.trained_share:11.0%}{sweep['load']:6.1f}"
        )
    return "\n".join(lines) + "\n"


def _start_alone(sweep: dict[str, Any], sweeps: list[dict[str, Any]]) -> float:
    """Seconds that a lane would have taken to start alone while this sweep ran."""
    alone = [each for each in sweeps if each["lanes"] == 1] or [sweep]
    return statistics.mean(each["start_seconds"] * sweep["command_seconds"] / each["command_seconds"] for each in alone)


def _simulated(sweep: dict[str, Any], alone_seconds: float) -> Simulated:
    """The sweep's simulation: its nodes are one there, since they share the cores of one machine."""
    n_lanes = sweep["lanes"]
    space: Space = parse_space(_space(Path("texts"), n_lanes), origin="benchmark")
    rates = Rates(
        mtbf_hours=1e9, queue_minutes=1e-9, idle_minutes=1e9, start_seconds=alone_seconds, starts_at_once=CORES,
        node_bytes_per_second=1e12,
    )  # fmt: skip
    seconds_per_token = {int(n_params): seconds for n_params, seconds in sweep["seconds_per_token"].items()}
    return simulate(
        space, most_nodes=1, most_lanes=n_lanes, rates=rates, seconds_per_token=seconds_per_token,
        node={"CPU": float(n_lanes)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
