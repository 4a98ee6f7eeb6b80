"""One grid, two kinds of target: one that lies within it, and one to be extrapolated to. The truth is synthetic."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.split import Problem, best_split, losses_of
from raysplit.sweep.replay import replay
from tests.design.doubles import PRETRAIN, SIZES, spec
from tests.live.doubles import open_service, true_losses
from tests.split.doubles import known_law

GRID = spec(sizes=(*SIZES, 90_000), budget_flops=1.2e12, regret_tolerance=0.001)
WITHIN = replace(GRID.problem, budget_flops=4e11, sizes={n: 6.0 * n for n in (36_000, 90_000)})
BEYOND = replace(GRID.problem, budget_flops=2e13, sizes={n: 6.0 * n for n in (180_000, 360_000)})


@pytest.mark.parametrize("target", [WITHIN, BEYOND], ids=["direct", "ladder"])
def test_a_sweep_finds_the_split_of_its_target(tmp_path: Path, target: Problem) -> None:
    asked = replace(GRID, problem=target)
    service = open_service(asked, tmp_path)
    replay(service, true_losses(asked))
    split = service.advise().advice.split
    service.journal.close()  # type: ignore[union-attr]
    assert (split.pretrain_tokens > max(PRETRAIN)) == (split.n_params not in GRID.sizes) == (target is BEYOND)
    truth = known_law(n_domains=len(asked.domains))
    mine, least = losses_of(truth, [split, best_split(truth, target)], target).mean(axis=0)
    assert mine / least - 1 < 0.003
    assert service.status().spent_flops <= asked.budget_flops
