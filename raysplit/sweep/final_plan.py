"""What a final run trains, on which machines, and what that costs, before any of it starts."""

import heapq
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raysplit.design.lane_shapes import LaneShape, widest_lane_shape
from raysplit.design.tasks import Task
from raysplit.design.tree import Trial
from raysplit.quantities import counted, format_count, format_flops, format_seconds
from raysplit.space import SEED_FOLDER, Space
from raysplit.split import Advice, Split, baselines, target_problem
from raysplit.split.problem import Accounting, Seeds
from raysplit.sweep.final_run import RECOMMENDED
from raysplit.sweep.speed import speed_of

BASELINES = ("pretraining only", "80/20", "from scratch")
UNION = "union of domains"
"""One model that goes on with the mixture of all domains, for as many tokens as the advised experts together."""
OF_BASES = ("no training", "equal tokens", "one pass", UNION)
"""Baselines where the experts start from a base, instead of `BASELINES`."""
INDEPENDENT = "independent seeds"
"""The best split with the other kind of seeds, as the advice names it."""
VARIANTS_FOLDER = "variants"
"""Folder of the baselines' models, beside the folder of the advised split's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One split to train, on whole optimizer steps."""

    name: str
    pretrain_tokens: int
    specialize_tokens: Mapping[str, int]
    seeds: Seeds = "shared"
    starts_from_base: bool = False
    """Whether its pretraining exists already, and costs nothing."""
    replay_share: float = 0.0
    """That of its branches, as `Trial.replay_share`. At 1 they are one model, of the union of the domains."""

    def n_seeds(self, accounting: Accounting) -> int:
        """How often D is paid for."""
        return len(self.specialize_tokens) if self.seeds == "independent" and accounting == "shared" else 1

    def paid_tokens(self, accounting: Accounting) -> int:
        """Tokens that the budget pays for: D + sum_k D'_k, or D + max_k D'_k where each expert is reckoned alone.

        With independent seeds D counts once for each; from a base it does not count.
        """
        experts = self.specialize_tokens.values()
        own = sum(experts) if accounting == "shared" and not self.is_union else max(experts)
        return own if self.starts_from_base else self.n_seeds(accounting) * self.pretrain_tokens + own

    @property
    def is_union(self) -> bool:
        """Whether all domains have one model, which is trained on their mixture."""
        return self.replay_share == 1.0

    def trunk_seeds(self, seed: int) -> dict[str, int]:
        """Domain -> seed of the trunk that its expert leaves, for initialisation and order of its data."""
        if self.seeds == "shared":
            return dict.fromkeys(self.specialize_tokens, seed)
        return {domain: seed + number for number, domain in enumerate(self.specialize_tokens, start=1)}


def variants_of(space: Space, advice: Advice, rules: Mapping[str, Split], *, with_union: bool = False) -> list[Variant]:
    """The advised split and the baselines beside it, on whole steps, at the same cost to the token.

    Only the variant with independent seeds may leave a few steps unused: its D is paid for several times.
    """
    batch, shared = space.training.batch_tokens, advice.accounting == "shared"
    splits = {RECOMMENDED: advice.split, **rules}
    seeds = {RECOMMENDED: advice.seeds, **{name: _seeds_of(name) for name in rules}}
    whole = Variant(
        name="", pretrain_tokens=round(advice.split.pretrain_tokens),
        specialize_tokens={name: round(tokens) for name, tokens in advice.split.specialize_tokens.items()},
        seeds=advice.seeds, starts_from_base=bool(space.model.checkpoints),
    )  # fmt: skip
    n_steps = max(1, round(whole.paid_tokens(advice.accounting) / batch))
    if space.model.checkpoints:
        found = [
            replace(
                _from_base(name, split, n_steps=n_steps if shared else None, batch_tokens=batch),
                replay_share=advice.replay_share if space.sweep.replay_shares else 0.0,
            )
            for name, split in splits.items()
        ]
        return [*found, _union(found[0], advice.accounting)] if with_union else found
    return [
        _on_steps(name, split, seeds[name], n_steps=n_steps, batch_tokens=batch, shared=shared)
        for name, split in splits.items()
    ]


def _union(advised: Variant, accounting: Accounting) -> Variant:
    """One model that trains on as many tokens as the advised experts take, all of the mixture."""
    tokens = advised.paid_tokens(accounting)
    return replace(
        advised, name=UNION, specialize_tokens=dict.fromkeys(advised.specialize_tokens, tokens), replay_share=1.0
    )


def _seeds_of(name: str) -> Seeds:
    """The kind of seeds of a variant beside the advised one; rules of thumb have one seed."""
    return "independent" if name == INDEPENDENT else "shared"


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalPlan:
    """A final run before it starts, or the rest of one that was interrupted."""

    variants: tuple[Variant, ...]
    """The advised split first."""
    parts: tuple["FinalPart", ...]
    """Everything that is measured, with what has been measured already."""
    left: tuple["FinalPart", ...]
    """What is not trained yet."""
    seed_lane: LaneShape
    expert_lane: LaneShape
    n_at_once: int
    """Experts that train side by side."""
    flops_per_token: float
    left_flops: float
    left_seconds: float | None
    """Time until the last of them is trained; None where the speed is not known."""


def plan_final(
    space: Space,
    advice: Advice,
    *,
    vocab_size: int,
    seed: int,
    baseline_names: Sequence[str],
    experts: Path,
    done: Collection[str] = (),
    seconds_per_token: Mapping[int, float] | None = None,
    domain_tokens: Mapping[str, float] | None = None,
) -> FinalPlan:
    """Plan a final run: the seed on all machines of the space, then the experts side by side, each on its part of them.

    Args:
        advice: what to train; it may be about a size that the space does not name.
        seed: of weights and data order.
        baseline_names: rules of thumb to train as well, out of `BASELINES`, or of `OF_BASES`.
        experts: folder of the exported models.
        done: names of the parts that are trained.
        seconds_per_token: of one worker by size, as far as sizes were timed.
        domain_tokens: training tokens of each domain's text, for the baseline of one pass.

    Raises:
        SpaceError: the model does not fit on the machines.
    """
    n_params = advice.split.n_params
    model = space.shape(n_params, vocab_size)
    variants = _wanted(space, advice, vocab_size=vocab_size, baseline_names=baseline_names, domain_tokens=domain_tokens)
    n_experts = max(1, sum(tokens > 0 for tokens in variants[0].specialize_tokens.values()))
    n_workers = space.compute.n_workers
    seed_lane = widest_lane_shape(space, n_params, n_workers=n_workers, vocab_size=vocab_size)
    each = n_workers // min(n_experts, space.compute.lanes)
    expert_lane = widest_lane_shape(space, n_params, n_workers=each, vocab_size=vocab_size)
    n_at_once = max(1, min(space.compute.lanes, int(n_workers / (expert_lane.n_workers * _devices(expert_lane)))))
    parts = parts_of(
        variants,
        n_params=n_params,
        seed=seed,
        experts=experts,
        seed_lane=seed_lane,
        expert_lane=expert_lane,
    )
    left = tuple(part for part in parts if part.name not in done)
    tokens = {part.name: _tokens_of(space, part, parts) for part in left}
    timed = seconds_per_token or {}
    seed_speed, expert_speed = (speed_of(space, model, lane, timed) for lane in (seed_lane, expert_lane))
    seconds = None
    if seed_speed is not None and expert_speed is not None:
        seed_tokens = sum(tokens[part.name] for part in left if part.task.trial.is_trunk)
        branches = [tokens[part.name] / expert_speed.of_lane(expert_lane) for part in left if part.task.trial.domain]
        seconds = seed_tokens / seed_speed.of_lane(seed_lane) + _side_by_side(branches, n_at_once)
    return FinalPlan(
        variants=tuple(variants),
        parts=tuple(parts),
        left=left,
        seed_lane=seed_lane,
        expert_lane=expert_lane,
        n_at_once=n_at_once,
        flops_per_token=float(model.flops_per_token),
        left_flops=float(model.flops_per_token) * sum(tokens.values()),
        left_seconds=seconds,
    )


def _wanted(
    space: Space,
    advice: Advice,
    *,
    vocab_size: int,
    baseline_names: Sequence[str],
    domain_tokens: Mapping[str, float] | None,
) -> list[Variant]:
    n_params = advice.split.n_params
    problem = replace(
        target_problem(space, vocab_size=vocab_size, domain_tokens=domain_tokens),
        budget_flops=advice.budget_flops,
        accounting=advice.accounting,
        sizes={n_params: float(space.shape(n_params, vocab_size).flops_per_token)},
    )
    rules = baselines(problem, n_params=n_params)
    wanted = {name: rules[name] for name in baseline_names if name in rules}
    if wanted and advice.other_seeds is not None:
        wanted[advice.other_seeds.baseline] = advice.other_seeds.split
    return variants_of(space, advice, wanted, with_union=UNION in baseline_names)


def final_notes(plan: FinalPlan, *, sweep_flops: float | None) -> list[str]:
    """The plan in sentences: machines, cost against what the sweep has spent (None: no sweep is known), time."""
    on = "GPU" if plan.seed_lane.gpus_per_worker else "worker"
    trial = plan.parts[0].task.trial
    cost = f"it trains {format_flops(plan.left_flops)}"
    if sweep_flops:
        cost += f", {plan.left_flops / sweep_flops:.2g} times what the sweep has spent"
    hours = "" if plan.left_seconds is None else f"; about {format_seconds(plan.left_seconds)} if nothing waits"
    return [
        f"final run of {format_count(trial.n_params)}: the seed on {counted(plan.seed_lane.n_workers, on)} together, "
        f"then {plan.n_at_once} at a time of the experts, each on {counted(plan.expert_lane.n_workers, on)}",
        f"{cost} in {counted(len(plan.left), 'part')} of {len(plan.parts)}{hours}",
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalPart:
    """One measurement of the final run."""

    after: str
    """Name of the part that leaves the checkpoint this one starts from; empty where it starts from nothing."""
    task: Task

    @property
    def name(self) -> str:
        """What is trained, in words, so that a final run of another split or seed does not take over its result."""
        return f"{self.task.trial.name} at {self.task.milestone}" + (", exported" if self.task.export_to else "")


def parts_of(
    variants: Sequence[Variant],
    *,
    n_params: int,
    seed: int,
    experts: Path,
    seed_lane: LaneShape | None = None,
    expert_lane: LaneShape | None = None,
) -> list[FinalPart]:
    """The parts of the variants: one trunk through every D of one seed, then branches; each waits for its own D alone.

    The advised split, the first of ``variants``, is exported to the folder ``experts``, the others beside it. A model
    that several variants have is exported once, as the first one's.
    """
    homes = {variant.name: home_of(variant, variants, experts) for variant in reversed(variants)}
    waypoints = tuple(sorted({v.pretrain_tokens for v in variants if v.pretrain_tokens}))
    seed_homes = {v.pretrain_tokens: homes[v.name] for v in reversed(variants) if v.seeds == "shared"}
    untrained = {
        trunk_seed: homes[variant.name] / domain
        for variant in variants
        if variant.seeds == "independent"
        for domain, trunk_seed in variant.trunk_seeds(seed).items()
        if not variant.specialize_tokens[domain]
    }
    trunks: dict[tuple[int, int], FinalPart] = {}
    last = ""
    for trunk_seed, tokens in sorted(_trunks_of(variants, seed)):
        is_shared = trunk_seed == seed
        trunks[trunk_seed, tokens] = FinalPart(
            after=last if is_shared else "",
            task=Task(
                trial=_trunk(n_params, trunk_seed, tokens),
                milestone=tokens,
                waypoints=waypoints,
                export_to=str(seed_homes[tokens] / SEED_FOLDER if is_shared else untrained.get(trunk_seed, "")),
                lane_shape=seed_lane,
            ),
        )
        last = trunks[trunk_seed, tokens].name if is_shared else last
    branches: dict[tuple[Trial, int], FinalPart] = {}
    for variant in variants:
        for domain in variant.specialize_tokens:
            branch, tokens = expert_of(variant, domain, n_params=n_params, seed=seed)
            if branch.domain and (branch, tokens) not in branches:
                branches[branch, tokens] = FinalPart(
                    after=trunks[branch.seed, variant.pretrain_tokens].name if variant.pretrain_tokens else "",
                    task=Task(
                        trial=branch,
                        milestone=tokens,
                        waypoints=waypoints,
                        export_to=str(homes[variant.name] / (SEED_FOLDER if variant.is_union else domain)),
                        lane_shape=expert_lane,
                    ),
                )
    return [*trunks.values(), *branches.values()]


def home_of(variant: Variant, variants: Sequence[Variant], experts: Path) -> Path:
    """Folder of a variant's models: ``experts`` for the advised one, a folder of its own beside that for each other."""
    if variant is variants[0]:
        return experts
    return experts.parent / VARIANTS_FOLDER / re.sub(r"[^A-Za-z0-9]+", "-", variant.name)


def models_of(variant: Variant, parts: Sequence[FinalPart], *, n_params: int, seed: int) -> dict[str, Path]:
    """Folders of a variant's models: its seed, where it has one, and each domain's expert that has tokens."""
    exports = {(part.task.trial.name, part.task.milestone): Path(part.task.export_to) for part in parts}
    found = {}
    if variant.pretrain_tokens and variant.seeds == "shared" and not variant.is_union:
        found[SEED_FOLDER] = exports[_trunk(n_params, seed, variant.pretrain_tokens).name, variant.pretrain_tokens]
    for domain in variant.specialize_tokens:
        trial, milestone = expert_of(variant, domain, n_params=n_params, seed=seed)
        if trial.domain or (variant.seeds == "independent" and variant.pretrain_tokens):
            found[domain] = exports[trial.name, milestone]
    return found


def expert_of(variant: Variant, domain: str, *, n_params: int, seed: int) -> tuple[Trial, int]:
    """The trial that gives a domain's expert, and after how many tokens: a branch, or the trunk if it has no tokens.

    The union's is one branch, whose own domain has no effect.
    """
    trunk_seed, pretrain, tokens = variant.trunk_seeds(seed)[domain], variant.pretrain_tokens, variant.specialize_tokens
    if not tokens[domain]:
        return _trunk(n_params, trunk_seed, pretrain), pretrain
    branch = Trial(
        n_params=n_params,
        seed=trunk_seed,
        domain=min(tokens) if variant.is_union else domain,
        pretrain_tokens=pretrain,
        milestones=(tokens[domain],),
        replay_share=variant.replay_share,
    )
    return branch, tokens[domain]


def _trunk(n_params: int, seed: int, tokens: int) -> Trial:
    return Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=tokens, milestones=(tokens,))


def _trunks_of(variants: Sequence[Variant], seed: int) -> set[tuple[int, int]]:
    """(seed, D) of every trunk to be trained."""
    return {
        (trunk_seed, variant.pretrain_tokens)
        for variant in variants
        for trunk_seed in variant.trunk_seeds(seed).values()
        if variant.pretrain_tokens
    }


def _tokens_of(space: Space, part: FinalPart, parts: Sequence[FinalPart]) -> int:
    """Tokens trained for a part: a branch's D'; a trunk's from the D of the part before it on.

    From the start of its cooldown on a trunk trains twice, at the constant rate and in the cooldown.
    """
    trial, milestone = part.task.trial, part.task.milestone
    if trial.domain:
        return milestone
    if space.model.checkpoints:  # which exist
        return 0
    before = next((other.task.milestone for other in parts if other.name == part.after), 0)
    return milestone - before + milestone - max(before, space.cooldown_start(milestone))


def _side_by_side(seconds: Sequence[float], n_at_once: int) -> float:
    """Seconds until all have ended, the longest first, each as soon as a lane is free."""
    free = [0.0] * n_at_once
    for duration in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def _devices(lane: LaneShape) -> float:
    return lane.gpus_per_worker or 1.0


def _on_steps(name: str, split: Split, seeds: Seeds, *, n_steps: int, batch_tokens: int, shared: bool) -> Variant:
    """A split in ``n_steps`` whole steps: parts are rounded down, and the steps left go to those that lost most."""
    experts = split.specialize_tokens
    if shared and seeds == "independent":
        n_seeds = len(experts)
        tokens = n_seeds * split.pretrain_tokens + math.fsum(experts.values())
        pretrain = min(n_steps // n_seeds, round(n_steps * split.pretrain_tokens / tokens))
        has_experts = any(experts.values())
        own = _apportioned(n_steps - n_seeds * pretrain, list(experts.values())) if has_experts else [0] * n_seeds
    elif shared:
        pretrain, *own = _apportioned(n_steps, [split.pretrain_tokens, *experts.values()])
    else:
        longest = max(experts.values())
        pretrain, most = _apportioned(n_steps, [split.pretrain_tokens, longest])
        own = [round(most * tokens / longest) if longest else 0 for tokens in experts.values()]
    return Variant(
        name=name,
        pretrain_tokens=pretrain * batch_tokens,
        specialize_tokens={domain: steps * batch_tokens for domain, steps in zip(experts, own, strict=True)},
        seeds=seeds,
    )


def _from_base(name: str, split: Split, *, n_steps: int | None, batch_tokens: int) -> Variant:
    """The experts' tokens in whole steps, at most ``n_steps`` in all; the base's D stays as it is."""
    experts = split.specialize_tokens
    steps = [round(tokens / batch_tokens) for tokens in experts.values()]
    if n_steps is not None and any(steps):
        steps = _apportioned(min(n_steps, round(math.fsum(experts.values()) / batch_tokens)), list(experts.values()))
    return Variant(
        starts_from_base=True,
        name=name,
        pretrain_tokens=round(split.pretrain_tokens),
        specialize_tokens={domain: n * batch_tokens for domain, n in zip(experts, steps, strict=True)},
    )


def _apportioned(n_steps: int, tokens: Sequence[float]) -> list[int]:
    """Whole steps in proportion to tokens, ``n_steps`` in all, by largest remainders."""
    exact = [n_steps * part / math.fsum(tokens) for part in tokens]
    steps = [math.floor(part) for part in exact]
    short = sorted(range(len(exact)), key=lambda i: steps[i] - exact[i])
    for i in short[: n_steps - sum(steps)]:
        steps[i] += 1
    return steps
