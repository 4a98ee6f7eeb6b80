"""What does a trial cost beside its training? Many trials are replayed through real Ray Tune on two cores.

    .venv/bin/python benchmarks/sweep/tune_overhead.py --trials 1000

The trainable trains nothing: it reports the losses of a known (synthetic) law, at three points in each trial. So the
wall time is overhead: Ray Tune's (actors, results, snapshots) and raysplit's own (choosing, storing with fsync,
judging, and one fit of the law at the end). A line is a way to run trials, with seconds a trial, of which the last
column is raysplit's own. Every point of a grid is measured, once each, or the command fails.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from raysplit.design.tree import Trial
from raysplit.sweep.grid_spec import spec_of_grid
from raysplit.sweep.replay import known_law_losses
from raysplit.sweep.tune_plan import TunePlan

DOMAINS = ("code", "law")
SPECIALIZE = (50_000_000, 100_000_000, 200_000_000)
N_SIZES = 5


def known_loss(domain: str, n_params: float, pretrain_tokens: float, specialize_tokens: float) -> float:
    """(synthetic)"""
    gain = {"code": 0.15, "law": 0.1}[domain]
    return 1.4 + 90.0 * n_params**-0.32 + 400.0 * pretrain_tokens**-0.28 * (1 + specialize_tokens / 2e7) ** -gain


LOSSES = known_law_losses(known_loss, DOMAINS, noise=0.01, seed=0)


def report(config: dict[str, Any], point: tuple[int, int]) -> dict[str, Any]:
    trial = Trial.of(config)
    losses = LOSSES(trial, point[0] if trial.is_trunk else point[1])
    assert losses is not None
    at = {"pretrain_tokens": point[0], "specialize_tokens": point[1]}
    return {**at, "losses": dict(losses)} if trial.is_trunk else {**at, "loss": losses[trial.domain]}


def function(config: dict[str, Any]) -> None:
    for point in config["points"]:
        tune.report(report(config, point))


class Class(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config, self._n_done = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        self._n_done += 1
        return report(self._config, self._config["points"][self._n_done - 1])

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...
    def load_checkpoint(self, checkpoint: Any) -> None: ...


WAYS: dict[str, tuple[Any, bool]] = {
    "class, actors used again": (Class, True),
    "function, actors used again": (function, True),
    "function, an actor each": (function, False),
}


class Clock:
    """Sums up the time spent in raysplit's own code."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return run


def search(way: str, *, n_trials: int, lanes: int, folder: Path) -> tuple[int, int, float, float]:
    """(trials, measurements, seconds from first to last trial, seconds of it in raysplit's own code)."""
    trainable, reuse = WAYS[way]
    n_roots = -(-n_trials // (N_SIZES * len(DOMAINS)))
    spec = spec_of_grid(
        flops_per_token=[10_000_000 * 2**i for i in range(N_SIZES)],
        pretrain_tokens=[20_000_000 * (i + 1) for i in range(n_roots)],
        specialize_tokens=SPECIALIZE,
        domains=DOMAINS,
        target_flops=1e19,
        policy="grid",
        lanes=lanes,
    )
    with TunePlan(spec, folder) as plan:
        clock = Clock()
        searcher, scheduler = plan.searcher(), plan.scheduler()
        for part, names in (
            (searcher, ("suggest",)),
            (scheduler, ("on_trial_add", "on_trial_result", "on_trial_complete", "choose_trial_to_run")),
        ):
            for name in names:
                setattr(part, name, clock.timed(getattr(part, name)))
        started = time.perf_counter()
        results = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 1}),
            tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=-1, reuse_actors=reuse),
            run_config=tune.RunConfig(name="tune", storage_path=str(folder), stop=plan.stopper(), verbose=0),
        ).fit()
        seconds = time.perf_counter() - started
        status = plan.law.status()
        n_points = N_SIZES * n_roots * (1 + len(DOMAINS) * len(SPECIALIZE))
        n_measured = len(plan.law.tree_state().losses)
        assert status.finished == "every point of the grid is measured", status
        assert (n_measured, status.n_failed) == (n_points, 0), (n_measured, n_points, status)
        assert not results.errors, results.errors
        return len(results), n_measured, seconds, clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="at least so many, of the first way")
    parser.add_argument("--others", type=int, default=50, help="trials of the other ways")
    parser.add_argument("--lanes", type=int, default=2)
    asked = parser.parse_args()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(num_cpus=asked.lanes, include_dashboard=False, log_to_driver=False)
    print(f"{'':30}{'trials':>8}{'losses':>8}{'s':>8}{'s/trial':>9}{'of it raysplit':>16}")
    for i, way in enumerate(WAYS):
        n_trials = asked.others if i else asked.trials
        with tempfile.TemporaryDirectory() as folder:
            n, n_losses, seconds, own = search(way, n_trials=n_trials, lanes=asked.lanes, folder=Path(folder))
        print(f"{way:30}{n:8}{n_losses:8}{seconds:8.0f}{seconds / n:9.3f}{own / n:16.4f}", flush=True)


if __name__ == "__main__":
    main()
