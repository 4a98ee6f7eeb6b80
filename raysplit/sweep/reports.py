"""What a trainable that is not raysplit's own is told, and how its reports are read.

A trial's config holds ``n_params``, ``seed``, ``domain`` (empty for a trunk) and ``points``, the (pretrain_tokens,
specialize_tokens) at which the held-out loss is wanted, rising. At each of them the trainable reports those two numbers
and ``loss``; a trunk reports ``losses``, one for each domain. Reports without the two numbers, or between the points,
are its own affair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from raysplit.design.tree import Trial
from raysplit.errors import RunError

LOSS, LOSSES = "loss", "losses"
PRETRAIN, SPECIALIZE = "pretrain_tokens", "specialize_tokens"


def config_of(trial: Trial) -> dict[str, Any]:
    """The config of a trial, as a trainable gets it."""
    return {**asdict(trial), "points": [trial.point(milestone) for milestone in trial.milestones]}


def read_report(trial: Trial, result: Mapping[str, Any], domains: Sequence[str]) -> tuple[int, dict[str, float]] | None:
    """Milestone and losses in a flat result of Tune's; None when it is not at one of the trial's points.

    Losses are of every domain for a trunk, of its own for a branch; nats per token.

    Raises:
        RunError: a loss is missing at a point, or is not a number.
    """
    if PRETRAIN not in result or SPECIALIZE not in result:
        return None
    points = {trial.point(milestone): milestone for milestone in trial.milestones}
    milestone = points.get((result[PRETRAIN], result[SPECIALIZE]))
    if milestone is None:
        return None
    wanted = tuple(domains) if trial.is_trunk else (trial.domain,)
    losses: dict[str, float] = {}
    for domain in wanted:
        given = result.get(f"{LOSSES}/{domain}", result.get(LOSS) if len(wanted) == 1 else None)
        try:
            losses[domain] = float(given)
        except (TypeError, ValueError):
            what = f"{LOSSES}[{domain!r}]" if trial.is_trunk else LOSS
            raise RunError(
                f"{trial.name}: its report at {PRETRAIN} = {result[PRETRAIN]}, {SPECIALIZE} = {result[SPECIALIZE]} has "
                f"{what} = {given!r}; {_how(trial, wanted)}"
            ) from None
    return milestone, losses


def _how(trial: Trial, wanted: Sequence[str]) -> str:
    if trial.is_trunk:
        return f"a trunk reports {LOSSES}={{domain: loss}} of {', '.join(wanted)}"
    return f"a branch reports {LOSS}, a number"


def points_reported(result: Mapping[str, Any]) -> str:
    """The point that a result is about, in words for messages."""
    if PRETRAIN in result and SPECIALIZE in result:
        return f"{PRETRAIN} = {result[PRETRAIN]}, {SPECIALIZE} = {result[SPECIALIZE]}"
    return f"no point ({PRETRAIN} and {SPECIALIZE} are not both in it)"
