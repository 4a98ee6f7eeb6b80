"""How much general text to replay: the share p as one more choice beside the base and the tokens of each domain.

The runs at each p are a law of their own (`raysplit.law.shares`). What an expert may lose elsewhere is a limit on its
D', which differs from base to base and from p to p (`raysplit.law.forgetting`).
"""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysplit.errors import SplitError
from raysplit.law import Law
from raysplit.law.forgetting import Forgetting
from raysplit.split.advice import Interval, ReplayAdvice
from raysplit.split.losses import losses_of
from raysplit.split.problem import Array, Problem, Split
from raysplit.split.search import DrawSplits, best_split, best_split_per_draw
from raysplit.split.surface import LawLike

_FURTHEST = 4.0
"""A limit on D' is looked for up to this many times the tokens that the budget pays for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayChoice:
    """The best split of one base at one replayed share."""

    replay_share: float
    law: Law
    """Of the runs at this share."""
    problem: Problem
    """Of this base alone, with the limits on D' that its experts' general loss sets."""
    split: Split
    loss: float
    """Weighted, nats per token, in the mean of the law's draws."""
    rise: Mapping[str, Interval]
    """Of each expert's general loss over its base's, as a share of it; empty where no general loss was measured."""


def has_limit(problem: Problem) -> bool:
    """Whether what experts lose elsewhere is limited."""
    return bool(problem.bases) and min(problem.max_general_rise, problem.max_general_loss) < math.inf


def replay_choices(law: Law, problem: Problem, *, level: float = 0.9) -> tuple[list[ReplayChoice], list[str]]:
    """The best split of every base at every replayed share, the best first, and why the others cannot be used.

    Args:
        law: of one share or of several.
        problem: with the bases to choose from, and the limits on what their experts may lose elsewhere.
        level: of the intervals.

    Raises:
        SplitError: nothing satisfies the constraints, or the law does not know what experts lose on general text.
    """
    found, why = [], []
    refused: SplitError | None = None
    for share, at_share, own in _single_bases(law, problem):
        try:
            split = best_split(at_share, own)
        except SplitError as error:
            refused = error
            [base] = own.bases.values()
            over = bool(problem.domains) and all(own.max_specialize_tokens.get(n) == 0 for n in problem.domains)
            reason = f"any training is beyond {_limits(problem)}" if has_limit(problem) and over else str(error)
            why.append(f"{base.name} at {share:.0%} replayed: {reason}")
            continue
        loss = float(losses_of(at_share, [split], own).mean())
        rise = {} if law.forgetting is None else _rises(law.forgetting, split, share, level)
        found.append(ReplayChoice(replay_share=share, law=at_share, problem=own, split=split, loss=loss, rise=rise))
    if not found and not has_limit(problem) and refused is not None:
        raise refused
    if not found:
        raise SplitError(f"{_limits(problem)}: leaves no base a token to be trained on at any replayed share measured")
    return sorted(found, key=lambda choice: choice.loss), why


def _limits(problem: Problem) -> str:
    """The limits on the general loss that a problem sets."""
    rise, loss = problem.max_general_rise, problem.max_general_loss
    set_ones = ((f"max_general_rise: {rise:.3g}", rise), (f"max_general_loss: {loss:.6g}", loss))
    return ", ".join(written for written, limit in set_ones if limit < math.inf)


def replay_rows(choices: Sequence[ReplayChoice]) -> list[ReplayAdvice]:
    """The choices for an answer, each with the expert that loses most."""
    return [
        ReplayAdvice(
            replay_share=one.replay_share,
            split=one.split,
            loss=one.loss,
            worst_rise=max(one.rise.values(), key=lambda rise: rise.mean) if one.rise else None,
        )
        for one in choices
    ]


def losses_of_best(law: LawLike, problem: Problem) -> tuple[Array, Array]:
    """Losses (B truths, B splits) of each draw's best split under every draw, and each draw's lowest (B,).

    A split may start from any base at any replayed share. The limits on the general loss hold, unless no split meets
    them.

    Raises:
        SplitError: no split satisfies the problem.
    """
    if not (isinstance(law, Law) and (len(law.replay_shares) > 1 or has_limit(problem))):
        best = best_split_per_draw(law, problem)
        return losses_of(law, list(best), problem), best.loss
    offers = _offers(law, problem) if has_limit(problem) and law.forgetting is not None else []
    if not offers:  # without limits, where none is known or nothing meets them: runs may tell more of it
        free = replace(problem, max_general_rise=math.inf, max_general_loss=math.inf)
        offers = [(own, free, best_split_per_draw(own, free)) for own in map(law.at_share, _shares(law))]
    every = np.stack([best.loss for _, _, best in offers])  # (offers, B)
    chosen = every.argmin(axis=0)
    losses = np.empty((law.n_draws, law.n_draws))
    for k, (at_share, own, best) in enumerate(offers):
        if (mine := np.flatnonzero(chosen == k)).size:
            losses[:, mine] = losses_of(at_share, [best[int(draw)] for draw in mine], own)
    return losses, every.min(axis=0)


def _offers(law: Law, problem: Problem) -> list[tuple[Law, Problem, DrawSplits]]:
    """Each base by itself at each share, within its limits; left out where no split meets them."""
    found = []
    for _, at_share, own in _single_bases(law, problem):
        with contextlib.suppress(SplitError):
            found.append((at_share, own, best_split_per_draw(at_share, own)))
    return found


def _single_bases(law: Law, problem: Problem) -> Iterable[tuple[float, Law, Problem]]:
    """Each replayed share with each base, by itself and within its limits."""
    if has_limit(problem) and law.forgetting is None:
        raise SplitError(
            "max_general_rise, max_general_loss: what the experts lose elsewhere is not known: too few runs have told "
            "a general loss"
        )
    for share in _shares(law):
        at_share = law.at_share(share)
        for n_params, base in problem.bases.items():
            own = replace(problem, bases={n_params: base})
            if law.forgetting is not None and has_limit(problem):
                own = _limited(own, law.forgetting, n_params, share)
            yield share, at_share, own


def _shares(law: Law) -> tuple[float, ...]:
    return law.replay_shares or (0.0,)


def _limited(problem: Problem, forgetting: Forgetting, n_params: int, share: float) -> Problem:
    """The problem with each expert's D' capped where its general loss would exceed the limits."""
    pretrain_tokens = problem.bases[n_params].pretrain_tokens
    # Further than the budget goes, as the answer at larger budgets is asked of the same problem.
    most = _FURTHEST * (problem.affordable_tokens(n_params) - problem.paid_pretrain_tokens(n_params))
    caps = dict(problem.max_specialize_tokens)
    for name in problem.domains:
        max_rise = problem.max_general_rise
        if problem.max_general_loss < math.inf:
            of_base = forgetting.of_base.get((n_params, round(pretrain_tokens), name), math.inf)  # not read: not taken
            max_rise = min(max_rise, problem.max_general_loss / of_base - 1.0)
        cap = forgetting.most_tokens(
            name, n_params, share, pretrain_tokens=pretrain_tokens, max_rise=max_rise, most=most
        )
        if cap < most:
            caps[name] = min(caps.get(name, math.inf), cap)
    return replace(problem, max_specialize_tokens=caps)


def _rises(forgetting: Forgetting, split: Split, share: float, level: float) -> dict[str, Interval]:
    rises = {
        name: forgetting.rise(name, split.n_params, tokens, share, pretrain_tokens=split.pretrain_tokens)
        for name, tokens in split.specialize_tokens.items()
    }
    return {name: Interval.of(np.asarray(rise), level) for name, rise in rises.items()}
