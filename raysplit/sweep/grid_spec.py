"""The spec of a search over plain grids, for users who train with their own program, without a search space file."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Tree
from raysplit.errors import SpaceError, unknown
from raysplit.section import Count, PositiveCount, PositiveQuantity, Quantity, Share
from raysplit.space import CooldownStart, DesignName, explain
from raysplit.split import Problem


def _rising(grid: tuple[int, ...]) -> tuple[int, ...]:
    if list(grid) != sorted(set(grid)):
        raise ValueError(f"must rise without repeats, got {list(grid)}")
    return grid


def _flops_of(sizes: object) -> dict[Any, Any]:
    """F(N) of each size; sizes alone train at F(N) = 6N FLOPs a token (Kaplan 2001.08361, section 2.1)."""
    if isinstance(sizes, Mapping):
        return dict(sizes)
    return {size: 6.0 * size for size in _Sizes(sizes=sizes).sizes}


def _as_list(grid: object) -> object:
    """A NumPy array as a list; anything else as it is."""
    return grid.tolist() if hasattr(grid, "tolist") else grid


_Grid = (BeforeValidator(_as_list), AfterValidator(_rising), Field(min_length=1))


class _Sizes(BaseModel):
    sizes: Annotated[tuple[PositiveCount, ...], *_Grid]


_Flops = Annotated[dict[PositiveCount, PositiveQuantity], BeforeValidator(_flops_of), Field(min_length=1)]


class _Asked(BaseModel):
    """What `spec_of_grid` is given, checked; numbers as people write them."""

    model_config = ConfigDict(frozen=True)

    flops_per_token: _Flops
    target_flops_per_token: _Flops | None
    pretrain_tokens: Annotated[tuple[Annotated[Count, Field(ge=0)], ...], *_Grid]
    specialize_tokens: Annotated[tuple[PositiveCount, ...], *_Grid]
    domains: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list), Field(min_length=1)]
    target_flops: Quantity
    accounting: Literal["shared", "per-expert"]
    weights: dict[str, Quantity] | None
    cooldown_fraction: Share
    budget_flops: Annotated[Quantity, Field(gt=0)]
    regret_tolerance: Share
    policy: Literal["adaptive", "grid"]
    design: DesignName
    lanes: PositiveCount
    step_tokens: PositiveCount
    seed: Annotated[Count, Field(ge=0)]
    fills_idle_lanes: bool
    shares_trunks: bool

    @model_validator(mode="after")
    def _is_a_search(self) -> Self:
        if max(self.pretrain_tokens) == 0:
            raise ValueError("pretrain_tokens: at least one D must be above 0, got [0]")
        for name in self.weights or {}:
            if name not in self.domains:
                raise ValueError("weights: " + unknown("domain", name, self.domains))
        return self


def spec_of_grid(
    *,
    flops_per_token: Mapping[int, float] | Sequence[int],
    pretrain_tokens: Sequence[int],
    specialize_tokens: Sequence[int],
    domains: Sequence[str],
    target_flops: float,
    target_flops_per_token: Mapping[int, float] | Sequence[int] | None = None,
    accounting: Literal["shared", "per-expert"] = "shared",
    weights: Mapping[str, float] | None = None,
    cooldown_fraction: float = 0.0,
    budget_flops: float = math.inf,
    regret_tolerance: float = 0.002,
    policy: Literal["adaptive", "grid"] = "adaptive",
    design: DesignName = "value",
    lanes: int = 1,
    step_tokens: int = 1,
    seed: int = 0,
    fills_idle_lanes: bool = False,
    shares_trunks: bool = True,
) -> ResolvedSpec:
    """Resolve the question and the grid of runs that may be trained to answer it.

    Prices are those of the tree: a branch goes on from its trunk's checkpoint (unless trunks are not shared), and a
    trunk or branch that was stopped from its own.

    Args:
        flops_per_token: F(N) of each size of the runs, or the sizes alone, rising, for F(N) = 6N.
        pretrain_tokens: grid of D, rising; 0 is training from scratch on the domain.
        specialize_tokens: grid of D' > 0, rising.
        domains: names; what a trunk reports the losses of.
        target_flops: the budget whose best split is asked for.
        target_flops_per_token: likewise of the sizes that the answer may choose between; the runs' own when left out.
        accounting: shared: the target pays for one seed and all experts; per-expert: for the seed and one of them.
        weights: how much a domain's loss counts; 1 for those not named.
        cooldown_fraction: share of a point's tokens that are trained for its measurement alone, beside the path that
            others go on from; 0 where the loss is read in passing.
        budget_flops: most FLOPs that the search itself may train; its opening round is run whatever that costs.
        regret_tolerance: the search ends when the expected regret is below this share of the loss.
        policy: adaptive, or grid: every point.
        design: by what an adaptive search ranks its trials, see `raysplit.design.designs`.
        lanes: most trials that run at the same time.
        step_tokens: tokens in one optimizer step.
        seed: of the design's own draws.
        fills_idle_lanes: whether a lane that would wait for a round's last trials gets one more, which makes the search
            depend on how fast each trial is.
        shares_trunks: whether a branch goes on from the checkpoint of its trunk. Where the trainable cannot, every
            branch pretrains by itself: it is charged D + D', waits for no trunk, and fewer but longer runs pay.

    Raises:
        SpaceError: a grid or number is impossible; the message names it.
        SplitError: the target is.
    """
    try:
        asked = _Asked(**locals())  # the arguments, before there is anything else
    except ValidationError as error:
        raise SpaceError("\n".join(explain(problem, "spec_of_grid") for problem in error.errors())) from error
    target = asked.target_flops_per_token
    as_given: dict[str, Any] = {name: value for name, value in asked if name in ResolvedSpec.__dataclass_fields__}
    return ResolvedSpec(
        **as_given,
        problem=Problem(
            budget_flops=asked.target_flops,
            sizes=asked.flops_per_token if target is None else target,
            domains=asked.domains,
            weights=[(asked.weights or {}).get(name, 1.0) for name in asked.domains],
            accounting=asked.accounting,
        ),
        tree=Tree(
            cooldown_start=CooldownStart(fraction=asked.cooldown_fraction),
            pretrain_grid=tuple(d for d in asked.pretrain_tokens if d),
            shares_trunks=asked.shares_trunks,
        ),
        specialize_grid=asked.specialize_tokens,
        scratch=0 in asked.pretrain_tokens,
        repeats=(),
    )
