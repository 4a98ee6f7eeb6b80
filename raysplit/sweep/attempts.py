"""What one trial of a tuning study trains: a trunk of its own, or the branches of all domains from one trunk."""

import math
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysplit.design.hyperparameters import Edge, Optimum, Range, Tried, find_optimum
from raysplit.design.tree import Node, Trial
from raysplit.space import Space, TuningSpec
from raysplit.sweep.folder import RunFolder
from raysplit.sweep.studies import Attempt, Outcome, Parameter, Reading, StudyEnd, TrainingFailed

LEARNING_RATE, BRANCH = "learning_rate", "branch"
TrainAll = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]
"""Carries out lane tasks (see `raysplit.sweep.pool`) at the same time: results in order, ``failed`` where one did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Where hyperparameters are tuned."""

    sizes: tuple[int, ...]
    """Non-embedding parameter counts, rising."""
    pretrain_tokens: tuple[int, ...]
    specialize_tokens: tuple[int, ...]


def section(space: Space) -> TuningSpec:
    assert space.tuning is not None
    return space.tuning


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where attempts are trained."""

    space: Space
    """With what the stages before have chosen."""
    folder: RunFolder
    vocab_size: int
    train_all: TrainAll

    def space_with(self, *, learning_rate: float, **fields: float) -> Space:
        """The space whose every trunk trains at this rate."""
        rate = {"reference": learning_rate, "reference_params": 1, "exponent": 0.0}
        return self.space.with_training(**fields, learning_rate=rate)

    def checkpoints(self, stage: str, place: object) -> Path:
        return self.folder.tuning / stage / str(place)

    def train(
        self, space: Space, trials: Sequence[Trial], milestone: int, *, waypoints: Sequence[int], checkpoints: Path
    ) -> list[dict[str, Any]]:
        """Have trials trained to a milestone at the same time, and measured.

        Raises:
            TrainingFailed: one of them could not be.
        """
        results = self.train_all(
            [
                {
                    "kind": "measure", "trial": asdict(trial), "milestone": milestone, "waypoints": tuple(waypoints),
                    "training": space.training, "checkpoints": str(checkpoints),
                }
                for trial in trials
            ]
        )  # fmt: skip
        for result in results:
            if "failed" in result:
                raise TrainingFailed(result["failed"])
        return results

    def flops(self, n_params: int, results: Sequence[dict[str, Any]]) -> float:
        per_token = self.space.shape(n_params, self.vocab_size).flops_per_token
        return float(per_token * sum(result["tokens"] for result in results))


class Trunk:
    """Trunks of one size; their loss is the weighted mean over the domains."""

    def __init__(self, lab: Lab, n_params: int, milestones: Sequence[int]) -> None:
        self._lab, self._n_params, self.milestones = lab, n_params, tuple(milestones)

    def measure(self, attempt: Attempt, milestone: int) -> Reading:
        lab = self._lab
        space = lab.space_with(**attempt.values)
        grid = tuple(map(space.round_tokens, self.milestones))  # on whole steps of the attempt's own batch
        trial = Trial(
            n_params=self._n_params, seed=section(space).seed, domain="", pretrain_tokens=grid[-1], milestones=grid
        )
        results = lab.train(
            space, [trial], grid[self.milestones.index(milestone)], waypoints=grid,
            checkpoints=lab.checkpoints(attempt.stage, attempt.place),
        )  # fmt: skip
        weights = space.weights()
        loss = math.fsum(weights[name] * value for name, value in results[0]["losses"].items())
        return Reading(loss=loss, flops=lab.flops(self._n_params, results))

    def forget(self, attempt: Attempt) -> None:
        shutil.rmtree(self._lab.checkpoints(attempt.stage, attempt.place), ignore_errors=True)

    def tried(self, outcomes: Sequence[Outcome]) -> list[Tried]:
        """Each attempt at each milestone."""
        return [
            Tried(
                n_params=self._n_params, pretrain_tokens=milestone, learning_rate=outcome.values[LEARNING_RATE],
                loss=outcome.losses.get(milestone, math.inf),
            )
            for outcome in outcomes
            for milestone in self.milestones
        ]  # fmt: skip

    def optima(self, end: StudyEnd) -> list[Optimum]:
        """The best rate at each milestone.

        Raises:
            RunError: no attempt reached one.
        """
        _ = end.best  # refuses a study of failures alone
        return self._optima(end.outcomes, end.parameters[0].range)

    def rate_edges(self, outcomes: Sequence[Outcome], parameters: Sequence[Parameter]) -> dict[str, Edge]:
        """Where the optimum of some milestone lies; lower down when every attempt diverged."""
        optima = self._optima(outcomes, parameters[0].range)
        edges: list[Edge] = [optimum.edge for optimum in optima if optimum.edge] if optima else ["low"]
        return {LEARNING_RATE: edges[0]} if edges else {}

    def _optima(self, outcomes: Sequence[Outcome], tried_range: Range) -> list[Optimum]:
        tried = self.tried(outcomes)
        at = [[t for t in tried if t.pretrain_tokens == milestone] for milestone in self.milestones]
        return [find_optimum(group, tried_range) for group in at if any(math.isfinite(t.loss) for t in group)]


class Branches:
    """The branches of all domains from one trunk; an attempt's loss is the weighted mean over their own domains, and in
    part over all domains where the space gives those a weight.
    """

    def __init__(self, lab: Lab, n_params: int, points: Points, *, rate: float) -> None:
        self._lab, self._n_params, self._rate = lab, n_params, rate
        self._root_tokens = lab.space.round_tokens(points.pretrain_tokens[-1])
        self.milestones = tuple(dict.fromkeys(map(lab.space.round_tokens, points.specialize_tokens)))
        self._one_at_a_time = threading.Lock()

    def measure(self, attempt: Attempt, milestone: int) -> Reading:
        lab, space = self._lab, self._lab.space_with(learning_rate=self._rate, **attempt.values)
        checkpoints = lab.checkpoints(attempt.stage, attempt.place)
        root = self._root()
        checkpoints.mkdir(parents=True, exist_ok=True)
        if not (link := checkpoints / root.name).is_symlink():
            os.symlink(root, link)
        branches = [
            Trial(
                n_params=self._n_params, seed=section(space).seed, domain=domain, pretrain_tokens=self._root_tokens,
                milestones=self.milestones,
            )
            for domain in space.domains
        ]  # fmt: skip
        results = lab.train(space, branches, milestone, waypoints=[self._root_tokens], checkpoints=checkpoints)
        weights, general = space.weights(), section(space).general_weight
        loss = 0.0
        for branch, result in zip(branches, results, strict=True):
            everywhere = math.fsum(weights[name] * value for name, value in result["losses"].items())
            own = result["losses"][branch.domain]
            loss += weights[branch.domain] * ((1 - general) * own + general * everywhere)
        return Reading(loss=loss, flops=lab.flops(self._n_params, results))

    def forget(self, attempt: Attempt) -> None:
        shutil.rmtree(self._lab.checkpoints(attempt.stage, attempt.place), ignore_errors=True)

    def _root(self) -> Path:
        """The trunk's checkpoint that every attempt starts from; trained by the first."""
        seed = section(self._lab.space).seed
        node = Node(n_params=self._n_params, seed=seed, pretrain_tokens=self._root_tokens)
        folder = self._lab.checkpoints(BRANCH, "trunk")
        with self._one_at_a_time:
            if not (folder / node.folder).exists():
                trunk = Trial(
                    n_params=self._n_params, seed=seed, domain="", pretrain_tokens=self._root_tokens,
                    milestones=(self._root_tokens,),
                )  # fmt: skip
                self._lab.train(
                    self._lab.space_with(learning_rate=self._rate), [trunk], self._root_tokens,
                    waypoints=[self._root_tokens], checkpoints=folder,
                )  # fmt: skip
        return folder / node.folder
