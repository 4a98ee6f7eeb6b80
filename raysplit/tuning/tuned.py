"""What tuning found, with its evidence, as a file; and the search space with those hyperparameters."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raysplit import strict_json
from raysplit.design.hyperparameters import Edge, Optimum, RateRule, Tried
from raysplit.errors import RunError
from raysplit.space import Space


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """One hyperparameter beside the learning rate: the value in the best trial of its study."""

    name: str
    """Its field in the search space's section ``training``."""
    study: str
    value: float
    own: float
    """The search space's own value."""
    low: float
    high: float
    """The range that was tried."""
    edge: Edge
    """The end of that range at which the value lies, even one that cannot be moved: zero, or one forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySummary:
    """One study in a line: its trials, and its best loss beside that of its first trial."""

    name: str
    n_trials: int
    n_pruned: int
    n_failed: int
    best_loss: float
    """Nats per token, mean over the milestones."""
    own_loss: float
    """The loss of the study's first trial, nats per token. It tries the search space's own values, moved into the range
    where they lie outside it; a rate study has the batch and warm-up already chosen. Infinite where that trial diverged
    or was pruned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """The hyperparameters of a run and where they come from: what `hyperparameters.json` holds."""

    schema_version: int
    storage: str
    """URL of Optuna's database, the password masked."""
    rule: RateRule
    prior_exponent: float
    """The exponent of N that the search space gave, to which the rule is drawn."""
    horizon_tokens: int
    """The D at which the rule is read for every trunk: the largest of the sweep's grid."""
    optima: tuple[Optimum, ...]
    """The best learning rate at each (N, D)."""
    tried: tuple[Tried, ...]
    """Every loss that the optima were found from."""
    chosen: tuple[Chosen, ...]
    """The hyperparameters beside the learning rate."""
    studies: tuple[StudySummary, ...]
    trained_flops: float
    """FLOPs of all studies."""

    def rate(self, n_params: float) -> float:
        """Peak learning rate of a size."""
        return self.rule.rate(n_params, self.horizon_tokens)

    def apply(self, space: Space) -> Space:
        """The search space with these hyperparameters, and without its section ``tuning``."""
        whole = {"batch_tokens", "warmup_tokens", "branch_warmup_tokens"}
        fields: dict[str, Any] = {c.name: round(c.value) if c.name in whole else c.value for c in self.chosen}
        rule = {
            name: getattr(self.rule, name)
            for name in ("reference", "reference_params", "exponent", "reference_tokens", "token_exponent")
        }
        return space.with_training(**fields, learning_rate=rule).model_copy(update={"tuning": None})

    def to_json(self) -> str:
        return strict_json.dumps(asdict(self), indent=1)


def read_tuned(path: Path) -> Tuned | None:
    """Read ``hyperparameters.json``; None where there is no such file, since nothing was tuned.

    Raises:
        RunError: the file cannot be read, is damaged, or is of another schema version.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = TypeAdapter(Tuned).validate_python(_with_infinities(raw))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RunError(f"{path}: cannot be read: {reason}") from error
    if found.schema_version != 1:
        raise RunError(f"{path}: schema version {found.schema_version} is not 1")
    return found


def _with_infinities(value: Any) -> Any:
    """The same value with infinity for every null, which stands for the loss of a run that has none."""
    if isinstance(value, dict):
        return {key: _with_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_infinities(item) for item in value]
    return math.inf if value is None else value
