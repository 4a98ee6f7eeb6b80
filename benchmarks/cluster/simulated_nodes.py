"""What do more nodes, failures, spot and queueing do to a 7B sweep? A table and a figure, in simulated time.

    python benchmarks/cluster/simulated_nodes.py --out benchmarks/results/2026-11-30-simulated      # minutes

The sweep is search_spaces/cluster_8x8.yaml: "adaptive" is the file as it is, "grid" its whole grid of 530 observations
at once, which needs the most machines. Rates are the defaults of `raysplit simulate`, which says where each is from.
What is done is kept in OUT/simulated_nodes.json, and not done again.

Columns, beside hours and cost (USD):

nodes, lanes  the most at a time
node h        node-hours paid for
trains        share of the paid time that went into training that was kept
lost          share that went into training lost with a node
saves         share that went into saving
failed        machines that failed
taken         machines that were taken back
broker, law, storage  share of what each can take that was asked of it at the busiest moment
look s        seconds of the pool's longest look on this machine; it should stay below one
took s        seconds that the simulation took
"""

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from raysplit.simulation.rates import Rates
from raysplit.simulation.simulate import simulate
from raysplit.space import Space, load_space

REPOSITORY = Path(__file__).parents[2]
USUAL = Rates()
CASES: dict[str, tuple[str, int, Rates, float]] = {
    **{f"adaptive, {n} nodes": ("adaptive", n, USUAL, 10.0) for n in (4, 8, 16, 1000)},
    "adaptive, 8 nodes, 125M on one worker": ("narrow", 8, USUAL, 10.0),
    "adaptive, 8 nodes, lanes twice as wide": ("wide", 8, USUAL, 10.0),
    "adaptive, 8 nodes, all spot for 3 h": ("adaptive", 8, replace(USUAL, spot_share=1.0, spot_hours=3.0), 10.0),
    "adaptive, 8 nodes, an hour of queueing": ("adaptive", 8, replace(USUAL, queue_minutes=60.0), 10.0),
    **{f"grid, {n} nodes": ("grid", n, USUAL, 10.0) for n in (8, 1000, 32)},
    "grid, 1000 nodes, a failure in 63 h": ("grid", 1000, replace(USUAL, mtbf_hours=63.0), 10.0),
    "grid, 1000 nodes, all spot for 24 h": ("grid", 1000, replace(USUAL, spot_share=1.0), 10.0),
    "grid, 1000 nodes, storage of 1 GB/s": ("grid", 1000, replace(USUAL, storage_bytes_per_second=1e9), 10.0),
}
"""Name -> policy (wide: adaptive, every lane of twice the workers; narrow: adaptive, as the file was before this was
simulated), nodes at most, rates, minutes between saves."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after so long; run again, it goes on")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "simulated_nodes.json"
    done: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    began = time.monotonic()
    for name, (policy, nodes, rates, save_minutes) in CASES.items():
        if name in done or time.monotonic() - began > 60 * arguments.minutes:
            continue
        started = time.perf_counter()
        went = asdict(simulate(_space(policy, save_minutes), most_nodes=nodes, rates=rates))
        went |= {"took_seconds": time.perf_counter() - started, "nodes_over_time": _thinned(went["nodes_over_time"])}
        done[name] = went
        kept.write_text(json.dumps(done) + "\n")
        print(_line(name, went), flush=True)
    head = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores\n\n"
    (arguments.out / "simulated_nodes.txt").write_text(
        head + _line(None, None) + "\n" + "\n".join(_line(name, done[name]) for name in CASES if name in done) + "\n"
    )
    _draw(done, arguments.out / "simulated_nodes.png")


def _space(policy: str, save_minutes: float) -> Space:
    space = load_space(REPOSITORY / "search_spaces" / "cluster_8x8.yaml")
    compute = space.compute.model_copy(update={"save_minutes": save_minutes})
    if policy == "wide":
        wide = tuple(each.model_copy(update={"workers": 2 * (each.workers or 1)}) for each in compute.shapes)
        compute = compute.model_copy(update={"shapes": wide})
    if policy == "narrow":
        first, *rest = compute.shapes
        compute = compute.model_copy(update={"shapes": (first.model_copy(update={"workers": 1}), *rest)})
    changes = {"policy": "grid", "budget_flops": None} if policy == "grid" else {}
    return space.model_copy(update={"sweep": space.sweep.model_copy(update=changes), "compute": compute})


def _line(name: str | None, went: dict[str, Any] | None) -> str:
    if went is None:
        return (
            f"{'':56}{'hours':>7}{'nodes':>7}{'lanes':>7}{'node h':>8}{'cost':>11}{'trains':>8}{'lost':>7}{'saves':>7}"
            f"{'failed':>8}{'taken':>7}{'broker':>8}{'law':>7}{'storage':>9}{'look s':>8}{'took s':>8}"
        )
    return (
        f"{name:56}{went['hours']:7.1f}{went['most_nodes']:7}{went['most_lanes']:7}{went['node_hours']:8.0f}"
        f"{went['cost']:11,.0f}{went['trained_share']:8.1%}{went['lost_share']:7.2%}{went['saving_share']:7.1%}"
        f"{went['n_failures']:8}{went['n_taken']:7}{went['broker_share']:8.1%}{went['law_share']:7.2%}"
        f"{went['storage_share']:9.1%}{went['look_seconds']:8.3f}{went['took_seconds']:8.0f}"
    )


def _thinned(over_time: tuple[tuple[float, int, float], ...], n: int = 400) -> list[tuple[float, int, float]]:
    step = max(1, len(over_time) // n)
    return [(round(hours, 3), nodes, round(share, 3)) for hours, nodes, share in over_time[::step]]


def _draw(done: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [
        name
        for name in ("adaptive, 8 nodes", "adaptive, 1000 nodes", "grid, 8 nodes", "grid, 1000 nodes")
        if name in done
    ]
    if not shown:
        return
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(8, 2.1 * len(shown)), sharex=False, squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[:, 0], shown, strict=True):
        hours, nodes, share = zip(*done[name]["nodes_over_time"], strict=True)
        axis.fill_between(hours, nodes, step="post", color="0.85", label="nodes held")
        busy = [n * s for n, s in zip(nodes, share, strict=True)]
        axis.fill_between(hours, busy, step="post", color="tab:blue", label="of them training")
        axis.set_title(f"{name}: {done[name]['hours']:.0f} h, ${done[name]['cost']:,.0f}", loc="left", fontsize=10)
        axis.set_ylabel("nodes")
    axes[-1, 0].set_xlabel("hours")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
