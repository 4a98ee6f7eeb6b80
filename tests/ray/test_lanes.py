"""Lanes of two workers: the same training, shared out."""

from pathlib import Path
from typing import Any

import pytest

from raysplit.design.tasks import Measured, Task
from raysplit.design.tree import Trial
from raysplit.space import Space, parse_space
from raysplit.sweep.backend import run_all
from raysplit.sweep.lanes import Lanes
from tests.ray.sweeps import records, tiny_space


def measure(space: Space, run_folder: Path, corpus_folder: Path) -> list[dict[str, float]]:
    n_params = space.shape(14_000, 300).n_params_non_embedding
    trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=8192, milestones=(8192,))
    branch = Trial(n_params=n_params, seed=0, domain="code", pretrain_tokens=8192, milestones=(4096,))
    lanes = Lanes(space, run_folder=run_folder, corpus_folder=corpus_folder, law=None)
    try:
        lanes.wait_until_ready()
        outcomes = [run_all(lanes, [Task(trial=t, milestone=t.milestones[0])])[0] for t in (trunk, branch)]
    finally:
        lanes.close()
    return [dict(outcome.losses) for outcome in outcomes if isinstance(outcome, Measured)]


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_two_workers_train_what_one_does(
    zero_stage: int, ray_address: str, uninterrupted: Path, home: Path, tmp_path: Path
) -> None:
    space = parse_space(
        tiny_space(home / "texts", training={"zero_stage": zero_stage}, compute={"lanes": 1, "workers_per_lane": 2}),
        origin="test",
    )
    shared = measure(space, tmp_path, uninterrupted / "corpus")
    alone = {
        (bool(data["trial"]["domain"]), data["milestone"]): data["losses"]
        for data in _measurements(uninterrupted, space)
    }
    for losses, at in zip(shared, ((False, 8192), (True, 4096)), strict=True):
        assert losses == pytest.approx(alone[at], rel=1e-4)


def _measurements(out: Path, space: Space) -> list[dict[str, Any]]:
    n_params = space.shape(14_000, 300).n_params_non_embedding
    return [
        data
        for data in records(out, "measurement")
        if data["trial"]["n_params"] == n_params
        and data["trial"]["domain"] in ("", "code")
        and (not data["trial"]["domain"] or data["trial"]["pretrain_tokens"] == 8192)
    ]
