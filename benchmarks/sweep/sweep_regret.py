"""How much training finds the right split: with raysplit's sweep, its ablations, classic designs, and today's tools?

    python benchmarks/sweep/sweep_regret.py   # the two measured surfaces, every method, 20 seeds: hours
    python benchmarks/sweep/sweep_regret.py --worlds synthetic   # six known laws, three in none of raysplit's forms
    python benchmarks/sweep/sweep_regret.py --seeds 2 --worlds measured   # a look
    python benchmarks/sweep/sweep_regret.py --methods raysplit --forms law-8+cooldown   # with other forms

Every method spends a share of the FLOPs of the full grid; each token of the tree is paid once, for all methods alike.
The same law is fitted to what a method has measured, and the split that this law recommends at the target budget is
judged by the truth (`sweep_truths.py`). The clairvoyant design (`sweep_clairvoyant.py`) chooses its trials by that
truth. For the baselines there is also what they recommend without a law: the best point seen, its N and D / T carried
to the target.

The tables show, for each method:
- the median regret over the seeds at each share, and its 10 to 90 % range;
- the share from which on the median stays at 0.5 % or less, and how many times raysplit's FLOPs that is;
- the same in runs that share nothing, where each measured point is charged its full path.

Seeds are paired: seed i is the same world for every method. A baseline, whose user names a budget, is run anew for each
share. raysplit and the designs run once.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes, one core each

import numpy as np
from sweep_baselines import BASELINES
from sweep_clairvoyant import clairvoyant
from sweep_methods import FORMS, Losses, Measured, Way, by_rank, fit, never, sweep
from sweep_truths import MEASURED, SYNTHETIC, World, measured_world, synthetic_world

from raysplit.design.campaign import whole_grid
from raysplit.design.tree import Checkpoints, Trial
from raysplit.design.tree_state import key, price_together, tree_state_of
from raysplit.errors import LawError
from raysplit.law import FORMS as LAW_FORMS
from raysplit.split import Split, best_split

SHARES = (0.01, 0.02, 0.03, 0.05, 0.1)
"""Of the grid's FLOPs, at which raysplit and the designs are looked at."""
BASELINE_SHARES = (*SHARES, 0.25)
GOAL = 0.005
_DRAWS = 16

WAYS: dict[str, Way] = {
    "raysplit": Way(),
    "V-optimal": Way(design="v-optimal", prune=never),
    "MSPE-like": Way(design="mspe", prune=never),
    "D-optimal": Way(design="d-optimal", prune=never),
    "cheapest first": Way(design="cheapest", prune=never),
    "random design": Way(design="random", prune=never),
}
ABLATIONS: dict[str, Way] = {
    "without pruning": Way(prune=never),
    "pruned by loss rank": Way(prune=by_rank),
    "law 2 alone": Way(forms=FORMS[:1]),
    "law 8 alone": Way(forms=FORMS[1:]),
    "without the tree": Way(tree=False),
}
CLAIRVOYANT = "clairvoyant"
"""Goes to 3 % of the grid, which is beyond what it needs; each of its steps costs several fits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What a method had found at some share of the grid's FLOPs."""

    share: float
    """Asked for."""
    spent: float
    """Share of the grid's FLOPs, each token once."""
    alone: float
    """The same if every measured point had been a run of its own."""
    n_measured: int
    regret: float
    """Of the split that the law recommends; NaN where there is no law yet."""
    best_seen: float
    """Of the best measured point's N and D / T, carried to the target without any law; NaN where none is complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    world: str
    method: str
    seed: int
    points: tuple[Point, ...]


def run(world_name: str, method: str, seed: int, forms: tuple[str, ...] = FORMS) -> Run:
    """One method on one seed of one world, with the law of some forms."""
    warnings.simplefilter("ignore")
    world = open_world(world_name, seed)
    grid_flops = price_together(world.spec, whole_grid(world.spec).trials)
    if method in BASELINES:
        orders = [
            (share, BASELINES[method](world.spec, world.losses, seed=seed, budget_flops=share * grid_flops))
            for share in BASELINE_SHARES
        ]
    else:
        way = Way() if method == CLAIRVOYANT else {**WAYS, **ABLATIONS}[method]
        if way.forms == FORMS:
            way = replace(way, forms=forms)
        forms = way.forms
        if method == CLAIRVOYANT:
            order = clairvoyant(world, budget_flops=SHARES[2] * grid_flops)
        else:
            order = sweep(world, way, seed=seed, budget_flops=SHARES[-1] * grid_flops).measured
        spent = _spent(world, order, tree=way.tree)
        orders = [(share, order[: int((spent <= share * grid_flops * (1 + 1e-9)).sum())]) for share in SHARES]
    points = tuple(_point(world, share, order, grid_flops, forms) for share, order in orders)
    return Run(world=world_name, method=method, seed=seed, points=points)


def open_world(name: str, seed: int) -> World:
    """A measured surface or a synthetic law, by name."""
    return measured_world(seed, name) if name in MEASURED else synthetic_world(name, seed)


def _spent(world: World, order: Measured, *, tree: bool) -> np.ndarray:
    """(n,) FLOPs after each measurement."""
    nodes = Checkpoints()
    flops = [
        price_together(world.spec, [_alone(trial, milestone)], nodes if tree else Checkpoints())
        for trial, milestone in order
    ]
    return np.cumsum(flops)


def _alone(trial: Trial, milestone: int) -> Trial:
    """A trial of this one measurement."""
    return replace(trial, milestones=(milestone,), pretrain_tokens=trial.pretrain_tokens if trial.domain else milestone)


def _point(world: World, share: float, order: Measured, grid_flops: float, forms: tuple[str, ...] = FORMS) -> Point:
    losses: Losses = {key(trial, milestone): dict(world.losses(trial, milestone) or {}) for trial, milestone in order}
    try:
        regret = world.regret(best_split(fit(world.spec, losses, forms=forms, n_draws=_DRAWS), world.spec.problem))
    except (LawError, IndexError, ValueError):
        regret = float("nan")
    return Point(
        share=share,
        spent=tree_state_of(world.spec, losses).spent_flops / grid_flops,
        alone=float(_spent(world, order, tree=False)[-1:].sum()) / grid_flops,
        n_measured=len(losses),
        regret=regret,
        best_seen=_best_seen(world, losses),
    )


def _best_seen(world: World, losses: Losses) -> float:
    problem = world.spec.problem
    domains = problem.domains
    points: dict[tuple[int, int, int], dict[str, float]] = {}
    for (at, milestone), found in losses.items():
        if at.domain:
            points.setdefault((at.n_params, *at.point(milestone)), {})[at.domain] = found[at.domain]
    whole = {point: sum(found.values()) for point, found in points.items() if len(found) == len(domains)}
    if not whole:
        return float("nan")
    n, d, s = min(whole, key=whole.__getitem__)
    n = min(problem.sizes, key=lambda size: abs(np.log(size / n)))
    tokens = problem.affordable_tokens(n)
    pretrain = min(tokens * d / (d + len(domains) * s), problem.max_pretrain_tokens)
    each = {k: min((tokens - pretrain) / len(domains), problem.max_specialize_tokens.get(k, np.inf)) for k in domains}
    return world.regret(Split(n_params=n, pretrain_tokens=max(pretrain, 1.0), specialize_tokens=each))


def completed(world_name: str, seed: int) -> str:
    """What raysplit's stopped trials would have said, had they been trained to their end."""
    warnings.simplefilter("ignore")
    world = open_world(world_name, seed)
    grid_flops = price_together(world.spec, whole_grid(world.spec).trials)
    swept = sweep(world, WAYS["raysplit"], seed=seed, budget_flops=0.05 * grid_flops)
    nodes = Checkpoints()
    price_together(world.spec, [_alone(*at) for at in swept.measured], nodes)
    rest = price_together(world.spec, [_alone(*at) for at in swept.skipped], nodes)
    before = _point(world, 0.05, swept.measured, grid_flops)
    after = _point(world, 0.05, [*swept.measured, *swept.skipped], grid_flops)
    return (
        f"  seed {seed}: {before.n_measured} points for {100 * before.spent:.1f} % of the grid, regret "
        f"{100 * before.regret:.2f} %; the {len(swept.skipped)} points that stopped trials left out would have cost "
        f"{100 * rest / grid_flops:.1f} % more, and then regret {100 * after.regret:.2f} %"
    )


def reaches_goal(runs: Sequence[Run], *, alone: bool = False, best_seen: bool = False) -> float:
    """Share of the grid's FLOPs from which on the median regret stays at the goal or below; infinite if it never does.

    Between two shares it is read off in the logarithms of both. ``alone`` charges each point its full path,
    ``best_seen`` judges the best point measured instead of the law's split.
    """
    spent = np.median([[p.alone if alone else p.spent for p in r.points] for r in runs], axis=0)
    regret = np.median([[_or_worst(p.best_seen if best_seen else p.regret) for p in r.points] for r in runs], axis=0)
    above = np.flatnonzero(regret > GOAL)
    if not above.size:
        return float(spent[0])
    last = above[-1]
    if last + 1 == len(spent):
        return float("inf")
    x, y = np.log(spent[[last, last + 1]]), np.log(np.maximum(regret[[last, last + 1]], 1e-5))
    return float(np.exp(np.interp(-np.log(GOAL), -y, x)))


def _or_worst(regret: float) -> float:
    return regret if np.isfinite(regret) else 1.0


def report(runs: Sequence[Run]) -> str:
    """Tables of all worlds that were run."""
    out = []
    for world in dict.fromkeys(r.world for r in runs):
        here = [r for r in runs if r.world == world]
        ours = [r for r in here if r.method == "raysplit"]
        seeds = len({r.seed for r in here})
        out.append(f"\n{world}: regret in %, median (10 to 90 %) over {seeds} seeds, at a share of the grid's FLOPs")
        goal = reaches_goal(ours) if ours else float("nan")
        goal_alone = reaches_goal(ours, alone=True) if ours else float("nan")
        for method in dict.fromkeys(r.method for r in here):
            own = [r for r in here if r.method == method]
            cells = []
            for i, point in enumerate(own[0].points):
                regrets = 100 * np.array([_or_worst(r.points[i].regret) for r in own])
                low, middle, high = np.quantile(regrets, (0.1, 0.5, 0.9))
                cells.append(f"{100 * point.share:g} %: {middle:.2f} ({low:.2f} to {high:.2f})")
            shares_nothing = method in ABLATIONS and not ABLATIONS[method].tree
            there, alone = reaches_goal(own, alone=shares_nothing), reaches_goal(own, alone=True)
            out.append(f"  {method:24} " + "   ".join(cells))
            out.append(
                f"  {'':24} 0.5 % from {_share(there)}, raysplit's FLOPs {_ratio(there, goal)}; "
                f"sharing nothing {_share(alone)}, {_ratio(alone, goal_alone)}"
            )
            if method in BASELINES:
                seen = np.median([[_or_worst(p.best_seen) for p in r.points] for r in own], axis=0)
                shown = "   ".join(
                    f"{100 * p.share:g} %: {100 * x:.2f}" for p, x in zip(own[0].points, seen, strict=True)
                )
                from_there = reaches_goal(own, best_seen=True)
                out.append(
                    f"  {'':24} without a law, the best point seen: {shown}; 0.5 % from {_share(from_there)}, "
                    f"{_ratio(from_there, goal)}"
                )
    return "\n".join(out)


def _share(value: float) -> str:
    return "nowhere" if not np.isfinite(value) else f"{100 * value:.2g} %"


def _ratio(value: float, base: float) -> str:
    return "more times than was measured" if not np.isfinite(value) else f"{value / base:.1f} times"


def draw(runs: Sequence[Run], path: Path) -> None:
    """Regret against FLOPs, a panel a world."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    worlds = list(dict.fromkeys(r.world for r in runs))
    methods = [m for m in dict.fromkeys(r.method for r in runs) if m not in ABLATIONS]
    columns = min(3, len(worlds))
    rows = -(-len(worlds) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.2 * columns, 4.6 * rows), squeeze=False, layout="constrained")
    colors = dict(zip([m for m in methods if m != "raysplit"], plt.colormaps["tab20"].colors, strict=False))  # type: ignore[attr-defined]
    for axis, world in zip(axes.flat, worlds, strict=False):
        for method in methods:
            own = [r for r in runs if r.world == world and r.method == method]
            if not own:
                continue
            x = 100 * np.median([[p.spent for p in r.points] for r in own], axis=0)
            y = 100 * np.array([[_or_worst(p.regret) for p in r.points] for r in own])
            ours = method == "raysplit"
            color = "black" if ours else colors[method]
            style = "-" if ours or method not in BASELINES else "--"
            width, order = (2.6, 3) if ours else (1.3, 2)
            axis.plot(x, np.median(y, axis=0), style, color=color, lw=width, label=method, zorder=order)
            if ours:
                axis.fill_between(x, *np.quantile(y, (0.1, 0.9), axis=0), color=color, alpha=0.12, lw=0)
        axis.axhline(100 * GOAL, color="grey", lw=0.8, ls=":")
        axis.set(
            xscale="log", yscale="log", title=world, xlabel="FLOPs, % of the full grid", ylabel="regret of the split, %"
        )
        axis.set_ylim(0.01, 30)
    for axis in list(axes.flat)[len(worlds) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="surfaces", help="surfaces, synthetic, all; or names, semicolons between")
    parser.add_argument("--methods", default="all", help="all, or names with semicolons between")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--forms", default=",".join(FORMS), help="of the law, by name; law 2 and 8 alone keep theirs")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--completed", action="store_true", help="only: what stopped trials would have said")
    parser.add_argument("--out", type=Path, help="a folder for runs.json, the table and the plot; runs there are kept")
    arguments = parser.parse_args()
    kinds = {"surfaces": list(MEASURED), "synthetic": list(SYNTHETIC), "all": [*MEASURED, *SYNTHETIC]}
    worlds = kinds.get(arguments.worlds, arguments.worlds.split(";"))
    every = [*WAYS, *ABLATIONS, *BASELINES, CLAIRVOYANT]
    methods = every if arguments.methods == "all" else arguments.methods.split(";")
    forms = tuple(arguments.forms.split(","))
    asked_for = [(m, every) for m in methods] + [(w, [*MEASURED, *SYNTHETIC]) for w in worlds]
    for name, known in [*asked_for, *((form, list(LAW_FORMS)) for form in forms)]:
        if name not in known:
            parser.error(f"unknown name {name!r}; known: {', '.join(known)}")
    if forms != FORMS and (arguments.out or arguments.completed):
        parser.error("--out and --completed know the default forms only")
    if arguments.completed:
        for world in worlds:
            print(f"{world}: what stopped trials would have said, had they been trained to their end")
            with ProcessPoolExecutor(arguments.processes) as pool:
                print("\n".join(pool.map(completed, [world] * arguments.seeds, range(arguments.seeds))))
        return
    started = time.perf_counter()
    asked = [(w, m, s) for s in range(arguments.seeds) for w in worlds for m in methods]
    done: list[Run] = []
    file = arguments.out / "runs.jsonl" if arguments.out else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            done = [_read(line) for line in file.read_text().splitlines()]
    missing = [a for a in asked if a not in {(r.world, r.method, r.seed) for r in done}]
    with ProcessPoolExecutor(arguments.processes) as pool:
        for found in pool.map(_star, [(*at, forms) for at in missing]):
            done.append(found)
            if file is not None:
                with file.open("a") as out:
                    out.write(json.dumps(asdict(found)) + "\n")
    wanted = [r for r in done if (r.world, r.method, r.seed) in set(asked)]
    text = report(wanted)
    print(text)
    print(f"\n{len(missing)} runs in {time.perf_counter() - started:.0f} s on {arguments.processes} processes")
    if arguments.out:
        (arguments.out / "sweep_regret.txt").write_text(text + "\n")
        draw(wanted, arguments.out / "sweep_regret.png")


def _star(arguments: tuple[str, str, int, tuple[str, ...]]) -> Run:
    return run(*arguments)


def _read(line: str) -> Run:
    raw = json.loads(line)
    return Run(**{**raw, "points": tuple(Point(**p) for p in raw["points"])})


if __name__ == "__main__":
    main()
