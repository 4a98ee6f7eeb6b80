"""raysplit as Ray Tune components: what to try next (`LawSearcher`) and what to stop (`LawScheduler`).

Both only pass questions on to the law, whose journal is the sweep's whole memory: Tune's own snapshots are not needed
to take a sweep up again.
"""

from dataclasses import asdict
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raysplit.design.tree import Trial
from raysplit.live.state import trial_from_dict
from raysplit.sweep.law_client import LawClient

METRIC = "loss"
MILESTONE = "milestone_tokens"


class LawSearcher(Searcher):
    """Hands out the trials of the current round; a trial's config is that of `raysplit.design.tree.Trial`."""

    def __init__(self, law: LawClient) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._law = law
        self._running: dict[str, Trial] = {}
        self.finished = ""
        """Why the sweep has ended, once it has."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial's config; None while every open trial waits for another; FINISHED at the end of the sweep."""
        claim = self._law.claim(self._running.values())
        if claim.finished:
            self.finished = claim.finished
            finished: str = Searcher.FINISHED
            return finished
        if claim.trial is None:
            return None
        self._running[trial_id] = claim.trial
        return asdict(claim.trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """However the trial ended, what it measured is in the journal already."""
        self._running.pop(trial_id, None)


class LawScheduler(TrialScheduler):
    """Stops a trial after a milestone when the law says that its rest cannot change the decision for its price."""

    def __init__(self, law: LawClient) -> None:
        super().__init__()
        self._law = law
        self.n_stopped = 0

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if self._law.judge(trial_from_dict(trial.config), result[MILESTONE]).go_on:
            return TrialScheduler.CONTINUE
        self.n_stopped += 1
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Tune comes here straight away with a result that is done, as that of a failure is."""
        if failed := result.get("failed"):
            self._law.record_failure(trial_from_dict(trial.config), result[MILESTONE], failed)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """First come, first served: the searcher hands out trials in the order that matters."""
        for trial in tune_controller.get_trials():
            if trial.status in ("PENDING", "PAUSED"):
                return trial
        return None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None: ...
    def on_trial_error(self, tune_controller: Any, trial: Any) -> None: ...
    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...

    def debug_string(self) -> str:
        return f"LawScheduler: {self.n_stopped} trials stopped"


class NoLanesLeft(tune.Stopper):
    """Ends the experiment once no lane can train anything, instead of handing out trials that all fail."""

    def __init__(self, broker: ActorHandle) -> None:
        self._broker = broker

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(ray.get(self._broker.hopeless.remote()))


class TrialRunner(tune.Trainable):
    """A thin trainable: each step has some lane of the pool train the trial to its next milestone."""

    def setup(self, config: dict[str, Any], broker: ActorHandle | None = None) -> None:
        assert broker is not None
        self._broker = broker
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = trial_from_dict(new_config)
        self._n_done = 0
        return True

    def step(self) -> dict[str, Any]:
        trial = self._trial
        milestone = trial.milestones[self._n_done]
        self._n_done += 1
        body = {"kind": "measure", "trial": asdict(trial), "milestone": milestone}
        result = ray.get(self._broker.run.remote(body))
        return result_of(trial, milestone, result)

    # Its state is checkpoints and journal, which need no help from Tune.
    def save_checkpoint(self, checkpoint_dir: str) -> None: ...
    def load_checkpoint(self, checkpoint: Any) -> None: ...


def result_of(trial: Trial, milestone: int, result: dict[str, Any]) -> dict[str, Any]:
    """What Tune, and through it TensorBoard, W&B or MLflow, is told of a measurement."""
    pretrain, specialize = trial.point(milestone)
    out = {
        "n_params": trial.n_params,
        "pretrain_tokens": pretrain,
        "specialize_tokens": specialize,
        "domain": trial.domain,
        "seed": trial.seed,
        MILESTONE: milestone,
        "done": "failed" in result or milestone == trial.milestones[-1],
    }
    if "failed" in result:
        return {**out, "failed": result["failed"], METRIC: float("nan")}
    losses = result["losses"]
    own = losses[trial.domain] if trial.domain else sum(losses.values()) / len(losses)
    return {
        **out,
        METRIC: own,
        "trained_tokens": result["tokens"],
        **{f"loss_on_{name}": loss for name, loss in losses.items()},
    }
