"""Runs at several replayed shares p: the law takes each domain at each share as a domain of its own.

So a domain borrows from itself at other shares as it does from other domains, and no form need say what p does. A base
before any training has replayed nothing, and counts at every share.
"""

from collections.abc import Sequence

import pandas as pd

from raysplit.runs import REPLAY_SHARE


def name_at(domain: str, share: float) -> str:
    """The name that a law of several shares gives to a domain at one of them."""
    return f"{domain} at {share:g}"


def domain_at(name: str) -> str:
    """The domain of `name_at`."""
    return name.rpartition(" at ")[0]


def is_at(name: str, share: float) -> bool:
    """Whether `name_at` made a name for this share."""
    return name == name_at(domain_at(name), share)


def replay_shares(runs: pd.DataFrame) -> tuple[float, ...]:
    """The shares that the runs replayed, rising; (0.0,) where they do not say."""
    if REPLAY_SHARE not in runs:
        return (0.0,)
    return tuple(sorted(map(float, runs.loc[runs["specialize_tokens"] > 0, REPLAY_SHARE].unique()))) or (0.0,)


def runs_at(runs: pd.DataFrame, share: float) -> pd.DataFrame:
    """The rows of one replayed share, and the bases as they are."""
    as_it_is = runs["specialize_tokens"] == 0
    replayed = runs[REPLAY_SHARE] if REPLAY_SHARE in runs else pd.Series(0.0, index=runs.index)
    once = ~runs.duplicated(["n_params", "pretrain_tokens", "domain", "seed", "specialize_tokens"])
    return runs[(as_it_is & once) | (~as_it_is & (replayed == share))].reset_index(drop=True)


def at_every_share(runs: pd.DataFrame, shares: Sequence[float]) -> pd.DataFrame:
    """The rows with each domain named for its share (`name_at`); unchanged where there is one share."""
    if len(shares) < 2:
        return runs
    parts = [runs_at(runs, share) for share in shares]
    named = [
        part.assign(domain=[name_at(name, share) for name in part["domain"]])
        for part, share in zip(parts, shares, strict=True)
    ]
    return pd.concat(named, ignore_index=True)
