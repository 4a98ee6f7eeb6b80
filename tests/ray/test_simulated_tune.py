"""The loop in which benchmarks/sweep/sweep_baselines.py asks Tune's searchers and schedulers, against Tune's own."""

import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "sweep"))
baselines, simulated = import_module("sweep_baselines"), import_module("sweep_tune")

N_RUNGS = 3
ETA = 3
N_TRIALS = 10
SEED = 1

Decision = tuple[int, int, str]
"""(how many trials came before, reports so far, what the scheduler said)"""


def loss_at(config: dict[str, float], rung: int) -> float:
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.7) ** 2 * (1 + rung) + 1 / (1 + rung)


def space() -> dict[str, Any]:
    return {"x": tune.uniform(0, 1), "y": tune.uniform(0, 1)}


def trainable(config: dict[str, float]) -> None:
    before = tune.get_checkpoint()
    at = 0
    if before:
        with before.as_directory() as folder:
            at = int((Path(folder) / "rung").read_text())
    for rung in range(at, N_RUNGS):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "rung").write_text(str(rung + 1))
            tune.report(
                {"loss": loss_at(config, rung), "resource": ETA**rung},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


class OneLane:
    """Trains nothing; every rung takes one unit of time."""

    n_lanes = 1

    def is_over(self, now: float) -> bool:
        return False

    def n_rungs(self, config: dict[str, float]) -> int:
        return N_RUNGS

    def train(self, now: float, config: dict[str, float], rung: int) -> tuple[float, float]:
        return now + 1.0, loss_at(config, rung)


def in_ray(searcher: Callable | None, scheduler: Any, folder: Path) -> list[Decision]:
    decisions: list[Decision] = []
    names: list[str] = []
    judge, add = scheduler.on_trial_result, scheduler.on_trial_add

    def on_trial_add(controller: Any, trial: Any) -> None:
        names.append(trial.trial_id)
        add(controller, trial)

    def on_trial_result(controller: Any, trial: Any, result: dict[str, Any]) -> str:
        said = judge(controller, trial, result)
        decisions.append((names.index(trial.trial_id), result["training_iteration"], said))
        return said

    scheduler.on_trial_add, scheduler.on_trial_result = on_trial_add, on_trial_result
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 3}),  # all that the cluster has: one at a time
        param_space=None if searcher else space(),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher(space(), SEED), max_concurrent=1)
            if searcher
            else BasicVariantGenerator(random_state=SEED),
            scheduler=scheduler,
            num_samples=N_TRIALS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
    return decisions


def in_simulation(searcher: Callable | None, scheduler: Any) -> list[Decision]:
    controller = simulated.Controller(
        searcher=ConcurrencyLimiter(searcher(space(), SEED), max_concurrent=1)
        if searcher
        else baselines.random_draws(space(), SEED),
        scheduler=scheduler,
        trainer=OneLane(),
        resource=lambda rung: ETA**rung,
        max_pending=1 if searcher else baselines.PENDING_OF_RANDOM,
        num_samples=N_TRIALS,
    )
    controller.run()
    names = [trial.trial_id for trial in controller.get_trials()]
    return [(names.index(name), n_reports, said) for name, n_reports, said in controller.decisions]


@pytest.mark.parametrize(
    ("searcher", "scheduler"),
    [(None, baselines.hyperband), (baselines.tpe, baselines.asha)],
    ids=["HyperBand", "ASHA + TPE"],
)
@pytest.mark.filterwarnings("ignore")  # of the packages, about their own dependencies
def test_the_simulated_loop_decides_as_ray_tune_does(
    searcher: Callable | None, scheduler: Callable, ray_address: str, tmp_path: Path
) -> None:
    with baselines.seeded(SEED):
        real = in_ray(searcher, scheduler(ETA, N_RUNGS), tmp_path)
    with baselines.seeded(SEED):
        assert in_simulation(searcher, scheduler(ETA, N_RUNGS)) == real
    assert {said for _, _, said in real} >= {"CONTINUE", "STOP"}
