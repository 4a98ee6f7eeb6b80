"""How much general text to replay: the share p as one more choice beside the base and the tokens of each domain.

The runs at each p are a law of their own. What an expert may lose elsewhere is a limit on its D', which differs from
base to base and from p to p (`raysplit.law.forgetting`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from raysplit.errors import SplitError
from raysplit.law import Law
from raysplit.law.forgetting import Forgetting
from raysplit.runs import REPLAY_SHARE
from raysplit.split.advice import Interval
from raysplit.split.problem import Problem, Split
from raysplit.split.regret import losses_of
from raysplit.split.search import best_split

SURE = 0.9
"""With what probability an expert stays below the limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayChoice:
    """The best split of one base at one replayed share."""

    replay_share: float
    problem: Problem
    """With the limits on D' that the experts' general loss sets."""
    split: Split
    loss: float
    """Weighted, nats per token, in the mean of the law's draws."""
    rise: Mapping[str, Interval]
    """Of each expert's general loss over its base's, as a share of it; empty where no general loss was measured."""


def runs_at(runs: pd.DataFrame, replay_share: float) -> pd.DataFrame:
    """The rows of one replayed share, and the bases as they are, which replayed nothing."""
    if REPLAY_SHARE not in runs:
        return runs
    as_they_are = runs[runs["specialize_tokens"] == 0].drop_duplicates(
        ["n_params", "pretrain_tokens", "domain", "seed"]
    )
    own = runs[(runs["specialize_tokens"] > 0) & (runs[REPLAY_SHARE] == replay_share)]
    return pd.concat([as_they_are, own], ignore_index=True)


def replay_shares(runs: pd.DataFrame) -> tuple[float, ...]:
    """The shares that the runs replayed, rising; 0 where they do not say."""
    if REPLAY_SHARE not in runs:
        return (0.0,)
    return tuple(sorted(map(float, runs.loc[runs["specialize_tokens"] > 0, REPLAY_SHARE].unique()))) or (0.0,)


def replay_choices(
    laws: Mapping[float, Law],
    problem: Problem,
    forgetting: Forgetting | None,
    *,
    max_rise: float = float("inf"),
    level: float = 0.9,
    tell: Callable[[str], None] | None = None,
) -> list[ReplayChoice]:
    """The best split of every base at every replayed share, the best first.

    Args:
        laws: by replayed share.
        problem: with the bases to choose from.
        forgetting: what experts lose elsewhere; None where that was not measured.
        max_rise: the most that each expert's general loss may be above its base's, as a share of it.
        level: of the intervals.
        tell: is told of each base that cannot be used at a share, and why.

    Raises:
        SplitError: nothing satisfies the limit.
    """
    found, refused = [], SplitError("there is no base to start from")
    for share, law in laws.items():
        for n_params in problem.bases:
            own = replace(problem, bases={n_params: problem.bases[n_params]})
            if forgetting is not None and max_rise < float("inf"):
                own = _limited(own, forgetting, n_params, share, max_rise)
            try:
                split = best_split(law, own)
            except SplitError as error:
                refused = error
                if tell is not None:
                    tell(f"{problem.bases[n_params].name} at {share:.0%} replayed: {error}")
                continue
            rise = {} if forgetting is None else _rises(forgetting, split, share, level)
            loss = float(losses_of(law, [split], own).mean())
            found.append(ReplayChoice(replay_share=share, problem=own, split=split, loss=loss, rise=rise))
    if not found and max_rise == float("inf"):
        raise refused
    if not found:
        raise SplitError(
            f"max_general_rise: {max_rise:.3g} leaves no base a token to be trained on at any replayed share measured"
        )
    return sorted(found, key=lambda choice: choice.loss)


def _limited(problem: Problem, forgetting: Forgetting, n_params: int, share: float, max_rise: float) -> Problem:
    most = problem.affordable_tokens(n_params) - problem.paid_pretrain_tokens(n_params)
    caps = dict(problem.max_specialize_tokens)
    for name in problem.domains:
        cap = forgetting.most_tokens(name, n_params, share, max_rise=max_rise, level=SURE, most=most)
        caps[name] = min(caps.get(name, float("inf")), cap)
    return replace(problem, max_specialize_tokens=caps)


def _rises(forgetting: Forgetting, split: Split, share: float, level: float) -> dict[str, Interval]:
    return {
        name: Interval.of(np.asarray(forgetting.rise(name, split.n_params, tokens, share)), level)
        for name, tokens in split.specialize_tokens.items()
    }
