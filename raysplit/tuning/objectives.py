"""What one trial of a tuning study trains: a trunk of its own, or the branches of all domains from one trunk."""

import math
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysplit.design.hyperparameters import Edge, Optimum, Range, Tried, find_optimum
from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Node, Trial
from raysplit.space import GENERAL, Space, TuningSpec
from raysplit.tuning.studies import Hyperparameter, Reading, StudyEnd, StudyResult, StudyTrial, TrainingFailed

LEARNING_RATE, BRANCH = "learning_rate", "branch"
TrainAll = Callable[[Sequence[Task]], Sequence[Outcome]]
"""Carries out tasks at the same time, and gives their outcomes in the order of the tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """The sizes and tokens at which hyperparameters are tuned."""

    sizes: tuple[int, ...]
    """Non-embedding parameter counts, rising."""
    pretrain_tokens: tuple[int, ...]
    """D, rising; from bases the sweep's largest alone, at which rates are read."""
    specialize_tokens: tuple[int, ...]
    """D', rising."""


def section(space: Space) -> TuningSpec:
    """The section ``tuning`` of a space that has one."""
    assert space.tuning is not None
    return space.tuning


@dataclass(frozen=True, kw_only=True)
class StudyTrainer:
    """Trains the trials of studies: it knows the space, the folder and what carries out tasks."""

    space: Space
    """The search space, with what earlier stages have chosen."""
    folder: Path
    """Folder for the checkpoints of the trials under way."""
    vocab_size: int
    train_all: TrainAll

    def space_with(self, *, learning_rate: float, **fields: float) -> Space:
        """The space whose every trunk trains at this rate."""
        rate = {"reference": learning_rate, "reference_params": 1, "exponent": 0.0}
        return self.space.with_training(**fields, learning_rate=rate)

    def checkpoints(self, stage: str, index: object) -> Path:
        return self.folder / stage / str(index)

    def train(
        self, space: Space, trials: Sequence[Trial], milestone: int, *, waypoints: Sequence[int], checkpoints: Path
    ) -> list[Measured]:
        """Have trials trained to a milestone at the same time, and measured; outcomes in the order of the trials.

        Raises:
            TrainingFailed: one of them could not be.
        """
        outcomes = self.train_all(
            [
                Task(
                    trial=trial, milestone=milestone, waypoints=tuple(waypoints), training=space.training,
                    checkpoints=str(checkpoints),
                )
                for trial in trials
            ]
        )  # fmt: skip
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                raise TrainingFailed(outcome.why)
        return [outcome for outcome in outcomes if isinstance(outcome, Measured)]

    def flops(self, n_params: int, measured: Sequence[Measured]) -> float:
        """FLOPs trained for these outcomes at one size."""
        per_token = self.space.shape(n_params, self.vocab_size).flops_per_token
        return float(per_token * sum(each.tokens for each in measured))


class Trunk:
    """The objective of a study of trunks of one size: the mean loss over the domains, by the space's weights."""

    def __init__(self, trainer: StudyTrainer, n_params: int, milestones: Sequence[int]) -> None:
        self._trainer, self._n_params, self.milestones = trainer, n_params, tuple(milestones)

    def measure(self, trial: StudyTrial, milestone: int) -> Reading:
        trainer = self._trainer
        space = trainer.space_with(**trial.values)
        grid = tuple(map(space.round_tokens, self.milestones))  # on whole steps of the trial's own batch
        trunk = Trial(
            n_params=self._n_params, seed=section(space).seed, domain="", pretrain_tokens=grid[-1], milestones=grid
        )
        measured = trainer.train(
            space, [trunk], grid[self.milestones.index(milestone)], waypoints=grid,
            checkpoints=trainer.checkpoints(trial.stage, trial.index),
        )  # fmt: skip
        weights = space.weights()
        loss = math.fsum(weights[name] * value for name, value in measured[0].losses.items())
        return Reading(loss=loss, flops=trainer.flops(self._n_params, measured))

    def forget(self, trial: StudyTrial) -> None:
        shutil.rmtree(self._trainer.checkpoints(trial.stage, trial.index), ignore_errors=True)

    def tried(self, results: Sequence[StudyResult]) -> list[Tried]:
        """Each trial at each milestone."""
        return [
            Tried(
                n_params=self._n_params, pretrain_tokens=milestone, learning_rate=result.values[LEARNING_RATE],
                loss=result.losses.get(milestone, math.inf),
            )
            for result in results
            for milestone in self.milestones
        ]  # fmt: skip

    def optima(self, end: StudyEnd) -> list[Optimum]:
        """The best rate at each milestone.

        Raises:
            RunError: no trial reached one.
        """
        _ = end.best  # refuses a study of failures alone
        return self._optima(end.results, end.parameters[0].range)

    def rate_edges(self, results: Sequence[StudyResult], parameters: Sequence[Hyperparameter]) -> dict[str, Edge]:
        """The end of the range at which the best rate of some milestone lies; the low end when every trial diverged."""
        optima = self._optima(results, parameters[0].range)
        edges: list[Edge] = [optimum.edge for optimum in optima if optimum.edge] if optima else ["low"]
        return {LEARNING_RATE: edges[0]} if edges else {}

    def _optima(self, results: Sequence[StudyResult], tried_range: Range) -> list[Optimum]:
        tried = self.tried(results)
        at = [[t for t in tried if t.pretrain_tokens == milestone] for milestone in self.milestones]
        return [find_optimum(group, tried_range) for group in at if any(math.isfinite(t.loss) for t in group)]


def judged(space: Space, domain: str, losses: Mapping[str, float]) -> float:
    """What a branch of a domain with these losses counts by, as `Branches` says."""
    weights, general = space.weights(), section(space).general_weight
    everywhere = math.fsum(weight * losses[name] for name, weight in weights.items())
    of_general = losses[GENERAL] if space.corpus.general else everywhere
    return (1 - general) * losses[domain] + general * of_general


class Branches:
    """The objective of a study of branches: one of every domain, all from one trunk.

    A trial's loss is the mean over the branches, by the space's weights. A branch counts by the loss on its own domain.
    Where the space sets ``general_weight`` w, it counts by (1 - w) of that and w of its loss on the general set, or of
    its mean loss over all domains where there is no general set.

    The trunk is the last revision of a base where there are bases. Else the first trial trains it, at ``rate``.
    """

    def __init__(self, trainer: StudyTrainer, n_params: int, points: Points, *, rate: float) -> None:
        self._trainer, self._n_params, self._rate = trainer, n_params, rate
        revisions = trainer.space.model.revisions(n_params)
        self._has_base = bool(revisions)
        self._root_tokens = (
            revisions[-1].trunk_tokens if revisions else trainer.space.round_tokens(points.pretrain_tokens[-1])
        )
        self.milestones = tuple(dict.fromkeys(map(trainer.space.round_tokens, points.specialize_tokens)))
        self._one_at_a_time = threading.Lock()

    def measure(self, trial: StudyTrial, milestone: int) -> Reading:
        trainer, space = self._trainer, self._trainer.space_with(**{LEARNING_RATE: self._rate, **trial.values})
        checkpoints = trainer.checkpoints(trial.stage, trial.index)
        checkpoints.mkdir(parents=True, exist_ok=True)
        if not self._has_base:
            root = self._root()
            if not (link := checkpoints / root.name).is_symlink():
                os.symlink(root, link)
        branches = [
            Trial(
                n_params=self._n_params, seed=section(space).seed, domain=domain, pretrain_tokens=self._root_tokens,
                milestones=self.milestones,
            )
            for domain in space.domains
        ]  # fmt: skip
        measured = trainer.train(space, branches, milestone, waypoints=[self._root_tokens], checkpoints=checkpoints)
        loss = 0.0
        for domain, each in zip(space.domains, measured, strict=True):
            loss += space.weights()[domain] * judged(space, domain, each.losses)
        return Reading(loss=loss, flops=trainer.flops(self._n_params, measured))

    def forget(self, trial: StudyTrial) -> None:
        shutil.rmtree(self._trainer.checkpoints(trial.stage, trial.index), ignore_errors=True)

    def tried(self, results: Sequence[StudyResult]) -> list[Tried]:
        """Each trial's loss at the last milestone, entered at the D at which the sweep reads all its rates."""
        return [
            Tried(
                n_params=self._n_params, pretrain_tokens=self._trainer.space.horizon_tokens,
                learning_rate=result.values[LEARNING_RATE],
                loss=result.losses.get(self.milestones[-1], math.inf),
            )
            for result in results
        ]  # fmt: skip

    def optima(self, end: StudyEnd) -> list[Optimum]:
        """The best rate.

        Raises:
            RunError: no trial reached the last milestone.
        """
        _ = end.best  # refuses a study of failures alone
        return [find_optimum(self.tried(end.results), end.parameters[0].range)]

    def rate_edges(self, results: Sequence[StudyResult], parameters: Sequence[Hyperparameter]) -> dict[str, Edge]:
        """The end of the range at which the best rate lies; the low end when every trial diverged."""
        tried = [each for each in self.tried(results) if math.isfinite(each.loss)]
        edge: Edge = find_optimum(tried, parameters[0].range).edge if tried else "low"
        return {LEARNING_RATE: edge} if edge else {}

    def _root(self) -> Path:
        """The trunk's checkpoint that every trial starts from; trained by the first."""
        seed = section(self._trainer.space).seed
        node = Node(n_params=self._n_params, seed=seed, pretrain_tokens=self._root_tokens)
        folder = self._trainer.checkpoints(BRANCH, "trunk")
        with self._one_at_a_time:
            if not (folder / node.folder).exists():
                trunk = Trial(
                    n_params=self._n_params, seed=seed, domain="", pretrain_tokens=self._root_tokens,
                    milestones=(self._root_tokens,),
                )  # fmt: skip
                self._trainer.train(
                    self._trainer.space_with(learning_rate=self._rate), [trunk], self._root_tokens,
                    waypoints=[self._root_tokens], checkpoints=folder,
                )  # fmt: skip
        return folder / node.folder
