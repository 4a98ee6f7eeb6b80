"""The answer to a problem, with how sure it is: what `raysplit advise` prints and writes; answer.py makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from raysplit.errors import SplitError
from raysplit.law import Calibration
from raysplit.runs import LossUnit
from raysplit.split.problem import Array, Split

SCHEMA_VERSION: Literal[1] = 1
FLAT_TOLERANCE = 0.005
"""Splits within this share of the best loss count as equally good."""
MODEL_SIZE, SHARE, EXPERTS, GAINS, ALL = (
    "model size", "pretrain share", "specialize tokens", "gains", "everything"
)  # fmt: skip
"""Names of what may be withheld; ``specialize tokens of DOMAIN`` is one domain's."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over the law's draws and the central interval at the advice's level."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, draws: Array, level: float) -> "Interval":
        """The interval of draws (n_draws,) at this level."""
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
        return cls(mean=float(draws.mean()), low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class SizeAdvice:
    """The best split at one size."""

    split: Split
    loss: Interval
    """Weighted, nats per token."""
    excess: Interval
    """How far the loss is above that of the advised split, as a share of it."""
    probability: float
    """Share of the draws in which this size is the best."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the advised split gains over a rule of thumb at the same size and budget."""

    baseline: str
    split: Split
    loss: Interval
    gain: Interval
    """How far the advised split's loss is below the baseline's, as a share of the baseline's."""


@dataclass(frozen=True, kw_only=True)
class BudgetAdvice:
    """What would be advised at another budget."""

    budget_flops: float
    split: Split
    pretrain_share: float


@dataclass(frozen=True, kw_only=True)
class ReplayAdvice:
    """The best split of one base at one replayed share."""

    replay_share: float
    split: Split
    loss: float
    """Weighted, nats per token."""
    worst_rise: Interval | None
    """Of the expert that loses most on general text; None where that was not measured."""


@dataclass(frozen=True, kw_only=True)
class FormAdvice:
    """One form of the law behind the advice."""

    weight: float
    fits: Mapping[str, str]
    """How the fit of each domain ended, a name of `raysplit.law.FitStatus`."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A split, what it is expected to reach, and what else would have done as well."""

    schema_version: Literal[1] = SCHEMA_VERSION
    budget_flops: float
    accounting: Literal["shared", "per-expert"]
    seeds: Literal["shared", "independent"] = "shared"
    weights: Mapping[str, float]
    split: Split
    pretrain_share: Interval
    """D / T: the advised one as the mean, and the interval of the draws' own best ones at the advised size."""
    unspent_flops: float
    """Left over because the data caps leave nothing to spend it on."""
    level: float
    """Of every interval."""
    n_draws: int
    losses: Mapping[str, Interval]
    """Loss of each domain's expert, nats per token; the interval is for one measurement, its noise included."""
    loss: Interval
    """Weighted; as all intervals of losses and of what lies between two, for models that are trained, luck included."""
    flat: tuple[float, float]
    """Lowest and highest D / T at the advised size whose mean loss is within `FLAT_TOLERANCE` of the best."""
    indistinguishable: tuple[float, float]
    """Lowest and highest D / T at the advised size that the draws cannot tell from the best at the level."""
    sizes: Sequence[SizeAdvice]
    """The best split at every size that meets the constraints."""
    gains: Sequence[Gain]
    """Over the rules of thumb that meet the constraints; they have one seed."""
    other_seeds: Gain | None = None
    """Over the best split with the other kind of `seeds` at this size and budget; None where that is no other split."""
    expected_regret: float
    """Mean over the draws, as a share of the loss, of what better knowledge would have saved."""
    budgets: Sequence[BudgetAdvice]
    """The advice at other budgets, for its sensitivity."""
    calibration: Calibration | None = None
    """How the law's intervals did on runs held out, and how much the forms' misfit was widened for it."""
    forms: Mapping[str, FormAdvice] = field(default_factory=dict)
    loss_unit: LossUnit = "nats/token"
    """Of every loss."""
    price: str = ""
    """Where the FLOPs a token are from; empty where who asked gave them."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """What the runs do not tell -> why (`raysplit.split.telling`): a number of that name is a prior's."""
    bases: Mapping[int, str] = field(default_factory=dict)
    """n_params -> name of the bases that the answer chose from; empty where its seed is to be pretrained."""
    replay_share: float = 0.0
    """p, the share of the experts' tokens that are general text; of runs that say it (`raysplit.split.replay`)."""
    general_rise: Mapping[str, Interval] = field(default_factory=dict)
    """By how much each expert's loss on general text is above its base's, as a share of it; empty if not measured."""
    replayed: Sequence[ReplayAdvice] = field(default_factory=list)
    """Each base at each replayed share, the best first; empty where there was one share and no limit."""
    exponents: Mapping[str, Interval] = field(default_factory=dict)
    """Of the compute-optimal n_params and pretrain_tokens in the budget, where D' was never measured; else empty."""
    extrapolation: Mapping[str, float | None] = field(default_factory=dict)
    """By which factor the split lies outside what the runs span, by quantity; 1 inside, None for an unmeasured zero."""
    warnings: Sequence[str] = ()

    @property
    def probability(self) -> float:
        """Share of the draws in which the advised size is the best."""
        return next(size.probability for size in self.sizes if size.split.n_params == self.split.n_params)

    def to_json(self) -> str:
        """The advice as JSON; `from_json` reads it back to an equal one."""
        return _ADAPTER.dump_json(self, indent=2).decode()

    @staticmethod
    def from_json(text: str) -> "Advice":
        """Read what `to_json` wrote.

        Raises:
            SplitError: the text is not the JSON of an advice of this schema version.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "advice"
            raise SplitError(f"not an advice of schema version {SCHEMA_VERSION}: {where}: {first['msg']}") from error


_ADAPTER: TypeAdapter[Advice] = TypeAdapter(Advice)
