"""Does every number of an answer hold up? Small sweeps are replayed on measured surfaces, and their answers checked.

    python benchmarks/law/promises.py --out DIR              # both surfaces, 20 seeds: hours; goes on where it was
    python benchmarks/law/promises.py --out DIR --fast --seeds 4    # a look, in minutes; see below
    python benchmarks/law/promises.py --out DIR --show before after    # side by side, without running anything
    PYTHONPATH=OTHER python benchmarks/law/promises.py --out DIR --label before    # what other code promises

A surface is smoothed (`measured_truth.py`). Each seed is a world in which single runs and trunks had other luck: the
residuals of whole branches with random signs. Seed 0 sees what was measured. In each world raysplit's own design sweeps
for a share of the grid's FLOPs, the law is fitted as the product fits it, and answers for three budgets.

Then every number of an answer is compared with what training would show there: the smooth loss with the luck of another
run, the same in all domains. Regret and the chance of a size are compared with the smooth loss itself. What lies
outside the measured grid is not compared. A 90 % interval should hold 90 % of what is compared with it.

--fast: even seeds sweep cheapest first and odd ones at random, so that no law is asked on the way. The law is fitted
with its usual forms and pooling, without holding runs out.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parents[1] / "sweep"))

import numpy as np
from measured_truth import MeasuredDomain, left_out_error
from sweep_methods import Way, never, sweep, table
from sweep_truths import Truth, World, _flops_per_token, _spec, _support

from raysplit.design.campaign import whole_grid
from raysplit.design.tree import Trial
from raysplit.design.tree_state import key, price_together
from raysplit.errors import SplitError
from raysplit.law import fit_law
from raysplit.law.form import Array
from raysplit.runs import read_runs
from raysplit.split import Problem, Split, advise, best_split, fit_for_decision

DATA = Path(__file__).parents[1] / "data"
SURFACES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "related": ("surface-2026-11-23.csv", (7.5e11, 1.1e12, 1.6e12)),
    "weak": ("surface-weak-2026-11-30.csv", (4e11, 6e11, 8e11)),
}
"""Table, and the budgets that are asked about (FLOPs)."""
SWEEP_SHARE = 0.05
"""Of the grid's FLOPs."""
STEP_TOKENS = 2048
LEVEL = 0.9


@lru_cache
def smoothed(surface: str) -> tuple[tuple[str, ...], tuple[MeasuredDomain, ...]]:
    """Domains of a surface, and each one's losses."""
    runs = read_runs(DATA / SURFACES[surface][0])
    domains = tuple(sorted(runs["domain"].unique()))
    return domains, tuple(MeasuredDomain.of(runs[runs["domain"] == name]) for name in domains)


def world_of(surface: str, seed: int) -> World:
    """A surface with the luck of one seed."""
    domains, known = smoothed(surface)
    runs = read_runs(DATA / SURFACES[surface][0])
    own = runs[runs["seed"] == 0]
    sizes = {int(n): _flops_per_token(int(n)) for n in sorted(own["n_params"].unique())}
    pretrain, specialize = (
        tuple(int(x) for x in sorted(own[column].unique()) if x) for column in ("pretrain_tokens", "specialize_tokens")
    )
    rng = np.random.default_rng([seed, 15])
    losses: dict[tuple[int, int, int, str], float] = {}
    signs: dict[tuple[int, int, str], float] = {}
    for row in own.itertuples(index=False):
        at = (row.n_params, row.pretrain_tokens, row.specialize_tokens)
        smooth = float(known[domains.index(row.domain)].log_loss(*map(np.array, at)))
        sign = signs.setdefault((row.n_params, row.pretrain_tokens, row.domain), float(rng.choice([-1.0, 1.0])))
        luck = np.log(row.loss) - smooth
        losses[(*at, row.domain)] = float(np.exp(smooth + (luck if seed == 0 else sign * luck)))

    def look_up(trial: Trial, milestone: int) -> Mapping[str, float] | None:
        names = domains if trial.is_trunk else (trial.domain,)
        keys = {name: (trial.n_params, *trial.point(milestone), name) for name in names}
        return {name: losses[at] for name, at in keys.items()} if all(at in losses for at in keys.values()) else None

    def formula(n: Array, d: Array, s: Array) -> Array:
        return np.exp(np.stack([own.log_loss(n[..., k], d[..., k], s[..., k]) for k, own in enumerate(known)], -1))

    problem = Problem(
        budget_flops=1e12,
        sizes=sizes,
        domains=domains,
        max_pretrain_tokens=float(pretrain[-1]),
        max_specialize_tokens=dict.fromkeys(domains, float(specialize[-1])),
    )
    spec = _spec(problem, sizes, pretrain, specialize, step_tokens=STEP_TOKENS, scratch=True)
    truth = Truth(domains=domains, support=_support(sizes, pretrain, specialize), formula=formula)
    return World(name=surface, spec=spec, losses=look_up, truth=truth)


def keep_promises(surface: str, seed: int, share: float, fast: bool) -> dict[str, Any]:
    """One sweep, its answers, and what training would show."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    world = world_of(surface, seed)
    spec = world.spec
    grid_flops = price_together(spec, whole_grid(spec).trials)
    middle = SURFACES[surface][1][1]
    asked = World(
        name=surface, spec=_asking(spec, middle), losses=world.losses, truth=world.truth
    )  # the sweep is for the middle budget
    way = Way(design=("cheapest", "random")[seed % 2], prune=never) if fast else Way()
    measured = sweep(asked, way, seed=seed, budget_flops=share * grid_flops).measured
    swept = time.perf_counter()
    runs = table(spec, {key(trial, m): dict(world.losses(trial, m) or {}) for trial, m in measured})
    # As raysplit itself sweeps, nothing is capped: the caps above keep the design on the grid.
    if fast:
        law = fit_law(runs, pooling=1.0, step_tokens=STEP_TOKENS, seed=seed)
    else:
        law, _ = fit_for_decision(runs, spec.problem, step_tokens=STEP_TOKENS, seed=seed)
    rng = np.random.default_rng([seed, 16])
    answers = [_check(world, law, budget, rng) for budget in SURFACES[surface][1]]
    return {
        "surface": surface,
        "seed": seed,
        "n_runs": len(runs),
        "from_scratch_runs": int((runs["pretrain_tokens"] == 0).sum()),
        "stretch": law.calibration.stretch if law.calibration else None,
        "answers": [answer for answer in answers if answer],
        "sweep_seconds": swept - started,
        "fit_seconds": time.perf_counter() - swept,
    }


def _asking(spec: Any, budget_flops: float) -> Any:
    return replace(spec, problem=replace(spec.problem, budget_flops=budget_flops))


def _check(world: World, law: Any, budget_flops: float, rng: np.random.Generator) -> dict[str, Any] | None:
    problem = _asking(world.spec, budget_flops).problem
    try:
        advice = advise(law, problem, level=LEVEL)
    except SplitError:
        return None
    domains, known = smoothed(world.name)
    weights = np.asarray(problem.weights)

    def smooth(split: Split) -> Array:
        s = np.array([split.specialize_tokens[name] for name in domains])
        n, d = np.array(float(split.n_params)), np.array(float(split.pretrain_tokens))
        return np.array([own.log_loss(n, d, tokens) for own, tokens in zip(known, s, strict=True)])

    runs = sorted(set.intersection(*(set(own.luck) for own in known)))

    def trained(split: Split) -> Array:
        # Branches of one trunk share its luck, so all domains have that of one run.
        lucky = runs[rng.integers(len(runs))]
        return np.exp(smooth(split) + [own.luck[lucky] for own in known])

    best = best_split(world.truth, problem)
    least = float(np.exp(smooth(best)) @ weights)
    sizes_true = {
        size.split.n_params: float(np.exp(smooth(_best_at(world, problem, size.split.n_params))) @ weights)
        for size in advice.sizes
    }
    mine = trained(advice.split)
    out: dict[str, Any] = {
        "budget_flops": budget_flops,
        "n_params": advice.split.n_params,
        "pretrain_share": advice.pretrain_share.mean,
        "regret": float(np.exp(smooth(advice.split)) @ weights) / least - 1.0,
        "claimed_regret": advice.expected_regret,
        "best_size": min(sizes_true, key=sizes_true.__getitem__) == advice.split.n_params,
        "claimed_best_size": advice.probability,
        "losses": [],
        "gains": {},
        "sizes": [],
    }
    for name, loss, quiet in zip(domains, mine, np.exp(smooth(advice.split)), strict=True):
        said = advice.losses[name]
        out["losses"].append(
            {"low": said.low, "mean": said.mean, "high": said.high, "trained": float(loss), "smooth": float(quiet)}
        )
    for gain in advice.gains:
        if _measured(world, gain.split):
            other = trained(gain.split)
            out["gains"][gain.baseline] = {
                "low": gain.gain.low, "mean": gain.gain.mean, "high": gain.gain.high,
                "trained": 1.0 - float(mine @ weights) / float(other @ weights),

                "loss_error": gain.loss.mean / float(np.exp(smooth(gain.split)) @ weights) - 1.0,
            }  # fmt: skip
    for size in advice.sizes:
        if size.split.n_params != advice.split.n_params and _measured(world, size.split):
            other = trained(size.split)
            out["sizes"].append(
                {
                    "low": size.excess.low, "mean": size.excess.mean, "high": size.excess.high,
                    "trained": float(other @ weights) / float(mine @ weights) - 1.0,
                }
            )  # fmt: skip
    return out


def _best_at(world: World, problem: Problem, n_params: int) -> Split:
    return best_split(world.truth, replace(problem, sizes={n_params: problem.sizes[n_params]}))


def _measured(world: World, split: Split) -> bool:
    """Whether a split lies on the measured grid's hull, where the smooth can be read."""
    spec, slack = world.spec, 1.1
    d, experts = split.pretrain_tokens, list(split.specialize_tokens.values())
    in_d = d == 0 or spec.tree.pretrain_grid[0] / slack <= d <= spec.tree.pretrain_grid[-1] * slack
    in_s = all(
        spec.specialize_grid[0] / slack <= s <= spec.specialize_grid[-1] * slack or (s == 0 and d > 0) for s in experts
    )
    return in_d and in_s


def report(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A table a surface: one column for each label."""
    out = []
    for surface in SURFACES:
        columns = {label: [r for r in runs if r["surface"] == surface] for label, runs in found.items()}
        columns = {label: runs for label, runs in columns.items() if runs}
        if not columns:
            continue
        domains, known = smoothed(surface)
        out.append(f"\n{surface}: {', '.join(domains)}; the truth is known to {left_out_error(known):.1%} of the loss")
        out.append(f"{'':42}" + "".join(f"{label:>24}" for label in columns))
        rows = {label: _summary(runs) for label, runs in columns.items()}
        for name in dict.fromkeys(n for row in rows.values() for n in row):
            out.append(f"{name:42}" + "".join(f"{row.get(name, '-'):>24}" for row in rows.values()))
    return "\n".join(out)


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    answers = [a for run in runs for a in run["answers"]]
    rows = {
        "sweeps, answers": f"{len(runs)}, {len(answers)}",
        "runs a sweep, of them from scratch": f"{np.mean([r['n_runs'] for r in runs]):.0f}, "
        f"{np.mean([r['from_scratch_runs'] for r in runs]):.1f}",
        "losses": _coverage([x for a in answers for x in a["losses"]], relative=True),
    }
    for name in dict.fromkeys(n for a in answers for n in a["gains"]):
        rows[f"gain over {name}"] = _coverage([a["gains"][name] for a in answers if name in a["gains"]])
    rows["all gains"] = _coverage([x for a in answers for x in a["gains"].values()])
    rows["how much worse other sizes are"] = _coverage([x for a in answers for x in a["sizes"]])
    errors = [a["gains"]["from scratch"]["loss_error"] for a in answers if "from scratch" in a["gains"]]
    if errors:
        rows["from scratch, mean |error| (error)"] = (
            f"{100 * np.abs(errors).mean():.1f} % ({100 * np.mean(errors):+.1f})"
        )
    claimed, real = (np.array([a[k] for a in answers]) for k in ("claimed_regret", "regret"))
    rows["regret claimed, measured"] = f"{100 * claimed.mean():.2f}, {100 * real.mean():.2f} %"
    rows["advised size best: claimed, measured"] = (
        f"{np.mean([a['claimed_best_size'] for a in answers]):.0%}, {np.mean([a['best_size'] for a in answers]):.0%}"
    )
    error = [abs(np.log(x["mean"] / x["smooth"])) for a in answers for x in a["losses"]]
    rows["losses' mean |error|"] = f"{100 * np.mean(error):.2f} %"
    stretches = [r["stretch"] for r in runs if r["stretch"]]
    rows["stretch, mean (largest)"] = f"{np.mean(stretches):.2f} ({max(stretches):.2f})" if stretches else "-"
    rows["seconds a sweep, a fit with three answers"] = (
        f"{np.mean([r['sweep_seconds'] for r in runs]):.0f}, {np.mean([r['fit_seconds'] for r in runs]):.1f}"
    )
    return rows


def _coverage(numbers: Sequence[Mapping[str, float]], *, relative: bool = False) -> str:
    if not numbers:
        return "-"
    inside = np.mean([x["low"] <= x["trained"] <= x["high"] for x in numbers])
    width = np.mean([(x["high"] - x["low"]) / (x["mean"] if relative else 1.0) for x in numbers])
    return f"{inside:.0%} in +-{50 * width:.1f} % ({len(numbers)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for what was found; what is there is kept")
    parser.add_argument("--label", default="now")
    parser.add_argument("--show", nargs="*", help="labels to put side by side, instead of running")
    parser.add_argument("--surfaces", default=",".join(SURFACES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--share", type=float, default=SWEEP_SHARE, help="of the grid's FLOPs that a sweep may spend")
    parser.add_argument("--fast", action="store_true", help="see above")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.show is not None:
        print(report({label: _read(arguments.out / f"{label}.jsonl") for label in arguments.show}))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{arguments.label}.jsonl"
    done = {(r["surface"], r["seed"]) for r in _read(file)}
    surfaces = [s for s in arguments.surfaces.split(",") if (DATA / SURFACES[s][0]).exists()]
    missing = [(s, i) for i in range(arguments.seeds) for s in surfaces if (s, i) not in done]
    with ProcessPoolExecutor(arguments.processes) as pool:
        same = [(arguments.share,) * len(missing), (arguments.fast,) * len(missing)]
        for found in pool.map(keep_promises, *zip(*missing, strict=True), *same):
            with file.open("a") as out:
                out.write(json.dumps(found) + "\n")
    print(report({arguments.label: _read(file)}))


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
