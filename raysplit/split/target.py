"""The problem that a search space states."""

import math
from collections.abc import Mapping
from dataclasses import replace

from raysplit.space import Space
from raysplit.split.price import COUNTED, FAMILY
from raysplit.split.problem import Base, Problem


def target_problem(
    space: Space,
    *,
    vocab_size: int,
    domain_tokens: Mapping[str, float] | None = None,
    base_tokens: Mapping[int, Mapping[str, float]] | None = None,
) -> Problem:
    """The target section of a search space as a problem, with the exact FLOPs of its model family.

    Args:
        space: a checked search space; sizes left out of its target are those of its sweep.
        vocab_size: of the tokenizer, which the FLOPs of the output head depend on.
        domain_tokens: training tokens of each domain's corpus; a path may see each ``max_epochs`` times. Unlimited when
            left out.
        base_tokens: the same for each base by its size, in its own tokens, in place of ``domain_tokens``.

    Raises:
        SplitError: the target contradicts itself, as `Problem` says.
    """
    shapes = [space.shape(n_params, vocab_size) for n_params in space.target.model_sizes or space.model.sizes]
    weights = space.weights()
    return Problem(
        budget_flops=space.target.budget_flops,
        sizes={shape.n_params_non_embedding: float(shape.flops_per_token) for shape in shapes},
        domains=space.domains,
        weights=[weights[name] for name in space.domains],
        accounting=space.target.accounting,
        seeds=space.target.seeds,
        available_tokens={} if base_tokens else _available(space, domain_tokens or {}),
        max_epochs=space.corpus.max_epochs,
        mixture=dict.fromkeys(space.domains, 0.0)
        if space.model.checkpoints
        else space.corpus.shares,  # D was read elsewhere
        bases={
            n: replace(base, available_tokens=_available(space, (base_tokens or {}).get(n, {})))
            for n, base in bases_of(space).items()
        },
        max_general_loss=space.target.max_general_loss or math.inf,
        max_general_rise=space.target.max_general_rise or math.inf,
        loss_unit=space.target.loss_unit,
        price=COUNTED if space.model.checkpoints else FAMILY,
    )


def _available(space: Space, domain_tokens: Mapping[str, float]) -> dict[str, float]:
    return {name: space.corpus.max_epochs * tokens for name, tokens in domain_tokens.items()}


def bases_of(space: Space) -> dict[int, Base]:
    """The bases that an answer may start from: of each size the checkpoint that has seen the most tokens."""
    last = {n_params: space.model.revisions(n_params)[-1] for n_params in space.model.sizes if space.model.checkpoints}
    return {n: Base(name=one.name, pretrain_tokens=float(one.trunk_tokens)) for n, one in last.items()}
