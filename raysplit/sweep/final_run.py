"""The final run's losses beside the baselines', as `raysplit train` writes them."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raysplit.errors import RunError
from raysplit.split import Interval

RECOMMENDED = "recommended"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class TrainedVariant(_Record):
    """One way to spend the target budget, trained and measured."""

    pretrain_tokens: int
    specialize_tokens: dict[str, int]
    seeds: Literal["shared", "independent"] = "shared"
    flops: float
    losses: dict[str, float]
    """In the advice's unit: of each domain's expert on its held-out text."""
    bits_per_byte: dict[str, float]
    predicted: dict[str, Interval] = Field(default_factory=dict)
    """The law's prediction before the run, in the same unit, with the interval for one measurement."""
    models: dict[str, str] = Field(default_factory=dict)
    """Folders of its seed and experts, relative to the run folder; empty if the run kept the advised models alone."""


class FinalRun(_Record):
    schema_version: Literal[1]
    seed: int
    budget_flops: float
    n_params: int
    seed_losses: dict[str, float]
    """Loss of the un-branched seed at the recommended D on each domain, and on a general set; in the same unit."""
    variants: dict[str, TrainedVariant]
    wall_seconds: float

    @property
    def recommended(self) -> TrainedVariant | None:
        return self.variants.get(RECOMMENDED)


def read_final(path: Path) -> FinalRun | None:
    """The final run, or None where it has not been trained.

    Raises:
        RunError: the file is damaged or of another schema version.
    """
    try:
        return FinalRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in reason["loc"])
        raise RunError(f"{path}: cannot be read: {where + ': ' if where else ''}{reason['msg']}") from error
