"""Work for a lane and what comes of it: a task is one trial up to one milestone, its outcome a loss or a failure."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysplit.design.lane_shapes import LaneShape
from raysplit.design.tree import Trial
from raysplit.space import TrainingSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Train what the tree lacks of a trial up to a milestone, and measure there."""

    trial: Trial
    milestone: int
    waypoints: tuple[int, ...] = ()
    """The D at which its trunk keeps checkpoints to branch from; those of the sweep's grid when empty."""
    export_to: str = ""
    """Folder for the model as it was measured; empty where nobody wants it."""
    training: TrainingSpec | None = None
    """Hyperparameters of its own, as a study's trials have; None for the space's."""
    checkpoints: str = ""
    """Folder of its own for checkpoints; empty for the run's."""
    lane_shape: LaneShape | None = None
    """A lane shape of its own, as the final run's tasks have; None for the size's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A trial's milestone was reached."""

    losses: Mapping[str, float]
    """Held-out, nats per token, after the cooldown: of every domain for a trunk, at least its own for a branch."""
    tokens: int
    """Tokens trained for it, beyond what the tree had."""
    wall_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """Training itself went wrong, as when it diverged: a verdict on the trial, which is not tried again.

    What a machine did to a task (its lanes died, a disk was full) is no outcome but a `RaysplitError`, and the trial
    stays open.
    """

    why: str


Outcome = Measured | Failed
