"""A trainable that is not raysplit's and its search, in this process or, as a command, in one that can be killed.

python -m tests.ray.own FOLDER RAY_ADDRESS
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Trial
from raysplit.sweep.tune_plan import TunePlan
from tests.design.doubles import spec
from tests.live.doubles import remember_laws, true_losses

ASKED = spec(
    n_domains=1,
    budget_flops=0.5e12,
    lanes=2,
    pretrain_grid=(250_000, 500_000, 1_000_000),
    specialize_grid=(125_000, 250_000),
)
SMALL_GRID = spec(pretrain_grid=(250_000,), specialize_grid=(125_000,), n_domains=1, policy="grid", lanes=3)


def loss_report(config: dict[str, Any], point: tuple[int, int], spec: ResolvedSpec) -> dict[str, Any]:
    asked = Trial.of(config)
    losses = true_losses(spec)(asked, point[0] if asked.is_trunk else point[1])
    at = {"pretrain_tokens": point[0], "specialize_tokens": point[1]}
    return {**at, "losses": losses} if asked.is_trunk else {**at, "loss": losses[asked.domain]}


def train(config: dict[str, Any], spec: ResolvedSpec, diary: str, seconds: float = 0.0) -> None:
    """Report each point once, going on from Tune's checkpoint of the trial where there is one; each start is noted."""
    done = 0
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            done = int((Path(folder) / "done").read_text())
    for i, point in enumerate(config["points"]):
        if i < done:
            continue
        note(diary, {"trial": Trial.of(config).name, "point": list(point)})
        time.sleep(seconds)
        own = Path(tune.get_context().get_trial_dir()) / f"state-{i}"
        own.mkdir(exist_ok=True)
        (own / "done").write_text(str(i + 1))
        tune.report(loss_report(config, point, spec), checkpoint=tune.Checkpoint.from_directory(own))


class Steps(tune.Trainable):
    """The same as a class, whose actors Tune may use again."""

    def setup(self, config: dict[str, Any], spec: ResolvedSpec | None = None) -> None:
        assert spec is not None
        self._asked, self._done = spec, 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self._done = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        self._done += 1
        return loss_report(self.config, self.config["points"][self._done - 1], self._asked)

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...
    def load_checkpoint(self, checkpoint: Any) -> None: ...


def note(diary: str, what: object) -> None:
    with open(diary, "a") as file:
        file.write(json.dumps(what) + "\n")


def notes(diary: Path) -> list[Any]:
    return [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []


def tuner(plan: TunePlan, trainable: Any, *, lanes_cpus: Any = None, **tune_config: Any) -> tune.Tuner:
    resources = lanes_cpus or (lambda config: tune.PlacementGroupFactory([{"CPU": 1}]))
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=plan.searcher(), scheduler=plan.scheduler(), num_samples=-1, **tune_config
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(plan.folder), stop=plan.stopper(), verbose=0),
    )


def main(folder: Path, address: str) -> None:
    """Begin the search, or restore it; ends with what it came to in ``end.json``."""
    ray.init(address, log_to_driver=False)
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "0"  # else there is no snapshot to restore in a test's few seconds
    trainable = tune.with_parameters(train, spec=ASKED, diary=str(folder / "diary"), seconds=0.1)
    with pytest.MonkeyPatch.context() as patch:
        remember_laws(patch)
        if tune.Tuner.can_restore(str(folder / "tune")):
            one_cpu = tune.with_resources(trainable, lambda config: tune.PlacementGroupFactory([{"CPU": 1}]))
            tune.Tuner.restore(str(folder / "tune"), one_cpu).fit()
            plan = TunePlan(ASKED, folder)
        else:
            plan = TunePlan(ASKED, folder)
            tuner(plan, trainable, reuse_actors=True).fit()
        (folder / "end.json").write_text(json.dumps({"finished": plan.finished, "advice": plan.advise().to_json()}))
        plan.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
