"""Really trained: what does an adaptive sweep save of a grid?

    python benchmarks/sweep/adaptive_vs_grid.py --out runs/adaptive-vs-grid      # half an hour on two CPU cores

One sweep trains raysplit's choice of trials, the other every point of the same grid. Both have the same text, space,
seeds and target. Both recommended splits are then trained at the target under a seed that neither law has seen, and
measured. Run again, it continues. It prints FLOPs and time of both sweeps, and the measured losses of both splits.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

from raysplit.sweep.launch import read_service

SPACE = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"
CHANGES = {
    "model": {"sizes": ["14k", "28k", "56k"]},
    "sweep": {
        "pretrain_tokens": ["250k", "500k", "1M", "2M"],
        "specialize_tokens": ["125k", "250k", "500k", "1M"],
        "budget_flops": None,
        "regret_tolerance": 0.001,
    },
    "target": {"budget_flops": "7.5e11"},
}
"""What is smaller than in the quickstart, so that the whole grid can be paid for."""


def write_space(path: Path, policy: str) -> None:
    """The quickstart with `CHANGES`, by one policy."""
    space = yaml.safe_load(SPACE.read_text())
    for section, fields in CHANGES.items():
        space[section] |= fields
    space["name"] = f"{policy}"
    space["sweep"]["policy"] = policy
    space["sweep"] = {name: value for name, value in space["sweep"].items() if value is not None}
    path.write_text(yaml.safe_dump(space))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptive-vs-grid"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for policy in ("adaptive", "grid"):
        space, run = out / f"{policy}.yaml", out / policy
        timing = out / f"{policy}.json"
        write_space(space, policy)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "raysplit", "sweep", str(space), "--out", str(run)], check=True)
        if not timing.exists():  # a run that was interrupted counts from its last start, and says so by its length
            timing.write_text(json.dumps({"wall_seconds": time.perf_counter() - started}))
        if not (run / "final.json").exists():
            subprocess.run(
                [sys.executable, "-m", "raysplit", "train", "--advice", str(run / "advice.json")], check=True
            )
        rows.append(_row(policy, run, json.loads(timing.read_text())["wall_seconds"]))
    print(
        f"\n{'':10}{'points':>8}{'FLOPs':>10}{'wall s':>8}{'N':>8}{'D':>9}{'D / T':>7}{'predicted':>11}{'measured':>10}"
    )
    for policy, n_points, flops, seconds, split, predicted, measured in rows:
        tokens = split["pretrain_tokens"] + sum(split["specialize_tokens"].values())
        print(
            f"{policy:10}{n_points:8}{flops:10.2e}{seconds:8.0f}{split['n_params']:8}{split['pretrain_tokens']:9.0f}"
            f"{split['pretrain_tokens'] / tokens:7.2f}{predicted:11.4f}{measured:10.4f}"
        )
    (_, _, fewer, less, *_, ours), (_, _, whole, full, *_, theirs) = rows
    print(
        f"\nadaptive took {fewer / whole:.0%} of the grid's FLOPs and {less / full:.0%} of its time; "
        f"its split's measured loss is {100 * (ours / theirs - 1):+.2f} % of the grid's"
    )


def _row(policy: str, run: Path, seconds: float) -> tuple[str, int, float, float, dict, float, float]:
    service = read_service(run)
    status = service.status()
    final = json.loads((run / "final.json").read_text())["variants"]["recommended"]
    advice = json.loads((run / "advice.json").read_text())
    weights = advice["weights"]
    measured = sum(weights[name] * loss for name, loss in final["losses"].items())
    return (
        policy,
        status.n_observations,
        status.spent_flops,
        seconds,
        advice["split"],
        advice["loss"]["mean"],
        measured,
    )


if __name__ == "__main__":
    main()
