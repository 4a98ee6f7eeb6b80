"""How long does it take to propose the next trials? With 1,000 observations, 10,000 candidates, a law of 64 draws.

    python benchmarks/sweep/propose.py

Losses are those of a known law (synthetic). The parts are those of `raysplit.design.campaign.next_round`. "Belief" is
what each of the law's draws takes for the best split, and foresees of every point of the grid. "Candidates" are the
trials and their prices. "In all" has both, and the choice of a round. Seconds are of one core's processor time, the
median of five.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")


from sweep_methods import table
from sweep_truths import synthetic_world

from raysplit.design.campaign import Round, next_round, whole_grid
from raysplit.design.candidates import CandidateGrid, believe, candidates_of
from raysplit.design.tree_state import key, tree_state_of
from raysplit.law import FORMS, Law, fit_law

N_OBSERVATIONS = 1000


def seconds(of: Callable[[], object], *, n: int = 5) -> float:
    """Median processor seconds."""
    took = []
    for _ in range(n):
        started = time.process_time()
        of()
        took.append(time.process_time() - started)
    return statistics.median(took)


def main() -> None:
    world = synthetic_world("law-8+cooldown", 0)
    sizes = {14_000 * 2**i: 6.0 * 14_000 * 2**i for i in range(8)}
    pretrain = tuple(int(250_000 * 1.4**i) for i in range(16))
    specialize = tuple(int(62_500 * 1.5**i) for i in range(13))
    spec = replace(
        world.spec,
        flops_per_token=sizes,
        tree=replace(world.spec.tree, pretrain_grid=pretrain),
        specialize_grid=specialize,
        lanes=8,
    )
    points = [(trial, m) for trial in whole_grid(spec).trials for m in trial.milestones]
    points.sort(key=lambda at: at[0].n_params * (at[0].pretrain_tokens + at[1]))
    losses = {key(t, m): dict(world.losses(t, m) or {}) for t, m in points[:N_OBSERVATIONS]}
    law: Law = fit_law(table(spec, losses), forms=[FORMS["law-8+cooldown"]], pooling=1.0, n_draws=64)
    tree_state = tree_state_of(spec, losses)
    grid = CandidateGrid.of(spec)
    n_candidates = len(candidates_of(spec, grid, tree_state).every)
    decision = next_round(spec, tree_state, believe(spec, law))
    n_trials = len(decision.planned) if isinstance(decision, Round) else 0
    print(f"{N_OBSERVATIONS} measurements, {n_candidates} candidates, {law.n_draws} draws, {n_trials} trials proposed")
    print(f"  belief      {seconds(lambda: believe(spec, law)):.3f} s")
    print(f"  candidates  {seconds(lambda: candidates_of(spec, grid, tree_state)):.3f} s")
    print(f"  in all      {seconds(lambda: next_round(spec, tree_state, believe(spec, law))):.3f} s")


if __name__ == "__main__":
    main()
