"""Does it pay to give an idle lane one more trial, instead of letting it wait for its round to end?

    .venv/bin/python benchmarks/sweep/idle_lanes.py            # some minutes on two cores

The measured surface is replayed through the sweep's own searcher, scheduler and law service, in simulated time that
passes as the FLOPs of a step are trained. Figures are medians over paired seeds.

busy     share of the time for which lanes trained
spent    share of the grid's FLOPs
time     1 is what one lane would need for the whole budget of the sweep
regret   that of the split recommended at the end, by the smooth truth of `sweep_truths.py`
"""

import argparse
import os
import statistics
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sweep_truths import measured_world

from raysplit.design.campaign import whole_grid
from raysplit.design.tree_state import price_together
from raysplit.journal import Journal
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.sweep.replay import replay

LANES = (2, 4, 8, 16)
SHARE = 0.05
"""Of the grid's FLOPs, that each sweep may spend."""


def one(lanes: int, fills: bool, seed: int) -> tuple[float, float, float]:
    """Busy share of the lanes, share of the grid's FLOPs spent, and regret at the end."""
    warnings.simplefilter("ignore")
    world = measured_world(seed)
    grid_flops = price_together(world.spec, whole_grid(world.spec).trials)
    spec = replace(world.spec, lanes=lanes, fills_idle_lanes=fills, budget_flops=SHARE * grid_flops, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 1.0))
        service = LawService(run, Journal(Path(folder) / "journal"))
        done = replay(service, world.losses)
        regret = world.regret(service.advise().advice.split)
        return done.busy_share, service.tree_state().spent_flops / grid_flops, regret


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    print(f"median over {seeds} paired seeds, {SHARE:.0%} of the grid's FLOPs at most")
    print(f"{'lanes':>5} {'idle ones':>10} {'busy':>6} {'spent':>7} {'time':>6} {'regret':>8}")
    with ProcessPoolExecutor(2) as pool:
        ways = list(product(LANES, (False, True)))
        tasks = {(*way, seed): pool.submit(one, *way, seed) for way in ways for seed in range(seeds)}
        for lanes, fills in ways:
            found = [tasks[lanes, fills, seed].result() for seed in range(seeds)]
            busy, spent, regret = (statistics.median(column) for column in zip(*found, strict=True))
            time = statistics.median(s / (SHARE * lanes * b) for b, s, _ in found)
            name = "filled" if fills else "wait"
            print(f"{lanes:5} {name:>10} {busy:6.0%} {spent:7.2%} {time:6.2f} {regret:8.2%}", flush=True)


if __name__ == "__main__":
    main()
