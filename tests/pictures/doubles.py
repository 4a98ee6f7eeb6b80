"""What pictures are drawn of, without a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysplit.split import Interval


@dataclass(frozen=True, kw_only=True)
class DrawnTrial:
    """A trunk where no domain is given."""

    name: str = "trial"
    n_params: int = 14_000
    seed: int = 1
    domain: str = ""
    pretrain_tokens: int = 250_000
    milestones: tuple[int, ...] = (250_000,)
    state: str = "planned"
    why: str = ""
    losses: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recommended:
    n_observations: int
    n_params: int = 14_000
    pretrain_share: Interval
    expected_regret: float = 0.001
