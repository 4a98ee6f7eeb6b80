"""Doubts about a checked table of runs, values that can hardly be right; and its gaps, what it says nothing of.

A doubt is about what the numbers mean: millions written as units, a perplexity or an accuracy in the loss's column,
every step of one run. An impossible table is refused, unless the user says that it is right (``--as-is``). A doubtful
one is taken with a warning.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.errors import TableError
from raysplit.quantities import counted, format_count
from raysplit.runs import BASE, KEY, REPLAY_SHARE, UNTOLD_TOKENS

FEWEST = 1_000
"""Fewer parameters are no language model, and fewer tokens no training: the unit was millions or billions."""
MOST_TOKENS_A_PARAMETER = 1e6
"""Sixteen times what the smallest published models saw (0.6B parameters, 36T tokens)."""
FEWEST_TOKENS_A_PARAMETER = 1e-4
LARGEST_VOCABULARY = 262_144
"""The largest vocabulary in use. A model that knows nothing has its logarithm as loss, in nats per token."""
UNTRAINED = 1.05
"""A loss may be this many times the logarithm of the vocabulary: early on a model is worse than one knowing nothing."""
RISING = 0.75
"""Losses rise where the longer or larger run is the worse one in more than this share of comparisons."""
_MANY_COMPARISONS, _FEW_COMPARISONS = 15, 6
"""Fewest comparisons that count, and fewest where the loss rises in every one."""
_FEWEST_EQUAL = 5
"""So many rows do not have one and the same loss."""
_MOST_COMPARED = 400
"""Most rows of a domain that are compared with one another."""
_MANY_POINTS, _EVEN_POINTS = 50, 12
"""So many points along one run, or so many at even distances, are its history. Published grids have eight of them."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """One thing in a table that can hardly be right."""

    sentence: str
    """What is doubted: it names the values, and the remedy."""
    is_impossible: bool
    """Whether the table is refused."""


def warnings_about(runs: pd.DataFrame, *, origin: str, as_is: bool = False, vocab_size: int | None = None) -> list[str]:
    """The doubts about a table, as sentences for the user.

    Args:
        runs: as `raysplit.runs.check_runs` gives it.
        origin: what errors call the table.
        as_is: whether what seems impossible is a warning instead of an error.
        vocab_size: of the tokenizer, where it is known; `LARGEST_VOCABULARY` stands for it where not.

    Raises:
        TableError: something in the table is impossible, and ``as_is`` is false.
    """
    doubts = doubts_about(runs, vocab_size=vocab_size)
    impossible = [doubt.sentence for doubt in doubts if doubt.is_impossible]
    if impossible and not as_is:
        raise TableError(f"{origin}: {'; '.join(impossible)}; if the numbers are right, take them with --as-is")
    return [f"{origin}: {doubt.sentence}" for doubt in doubts]


def doubts_about(runs: pd.DataFrame, *, vocab_size: int | None = None) -> list[Doubt]:
    """The doubts about a checked table, the impossible first; see `warnings_about`."""
    scores = list(_rising(runs))
    # Where a score in per cent stands for the loss, to say that it is above a loss's bound would mislead.
    heights = [] if any(doubt.is_impossible for doubt in scores) else _heights(runs["loss"], vocab_size)
    found = [
        *_too_few(runs), *_tokens_a_parameter(runs), *scores, *heights, *_spellings(runs), *_histories(runs)
    ]  # fmt: skip
    return sorted(found, key=lambda doubt: not doubt.is_impossible)


def gaps_in(runs: pd.DataFrame) -> list[str]:
    """Sentences on what no row of a table tells: an answer about it rests on no run."""
    gaps = []
    if (runs["specialize_tokens"] == 0).all():
        gaps.append(
            "specialize_tokens is 0 in every row: nothing is known of D', of what a domain's own tokens are worth, and "
            "what an answer says of specialization rests on no run"
        )
    else:
        bare = [str(name) for name, most in runs.groupby("domain")["specialize_tokens"].max().items() if most == 0]
        if bare:
            gaps.append(f"specialize_tokens is 0 in every row of {_named(bare)}: its specialization rests on no run")
    if (runs["pretrain_tokens"] == 0).all():
        gaps.append(
            "pretrain_tokens is 0 in every row: nothing is known of D, of what pretraining is worth, and what an "
            "answer says of it rests on no run"
        )
    if runs["n_params"].nunique() == 1:
        gaps.append(f"one size, {format_count(runs['n_params'].iloc[0])}: what other sizes would reach rests on no run")
    if BASE in runs:
        measured = set(runs.loc[runs["specialize_tokens"] == 0, [BASE, "domain"]].itertuples(index=False, name=None))
        pairs = product(sorted(runs[BASE].unique()), sorted(runs["domain"].unique()))
        if unread := [f"{base} on {domain}" for base, domain in pairs if (base, domain) not in measured]:
            gaps.append(
                f"no row with specialize_tokens = 0 of {_named(unread)}: what training gains there rests on no run"
            )
    lone = [str(name) for name, n_rows in runs["domain"].value_counts(sort=False).items() if n_rows == 1]
    if lone:
        gaps.append(f"one row of {_named(sorted(lone))}: one loss tells no slope")
    return gaps


def _too_few(runs: pd.DataFrame) -> Iterator[Doubt]:
    for name in ("n_params", "pretrain_tokens", "specialize_tokens"):
        least = UNTOLD_TOKENS if BASE in runs and name == "pretrain_tokens" else 0
        few = runs.loc[(runs[name] > least) & (runs[name] < FEWEST), name]
        if len(few):
            values = sorted(int(value) for value in few.unique())
            example = f"{values[0]}M or {values[0]}B"
            yield Doubt(
                sentence=f"{name} = {_named(values)} in {counted(len(few), 'row')}: fewer than {FEWEST:,} "
                f"{'parameters' if name == 'n_params' else 'tokens'}; where millions or billions are meant, write "
                f"{example}",
                is_impossible=True,
            )


def _tokens_a_parameter(runs: pd.DataFrame) -> Iterator[Doubt]:
    known = runs[runs["n_params"] >= FEWEST]
    if BASE in runs:
        known = known[known["pretrain_tokens"] > UNTOLD_TOKENS]
    ratio = (known["pretrain_tokens"] + known["specialize_tokens"]) / known["n_params"]
    for bad, what, is_impossible in (
        (ratio[ratio > MOST_TOKENS_A_PARAMETER], f"more than {MOST_TOKENS_A_PARAMETER:,.0f} tokens a parameter", True),
        (
            ratio[ratio < FEWEST_TOKENS_A_PARAMETER],
            f"fewer than one token for {1 / FEWEST_TOKENS_A_PARAMETER:,.0f} parameters",
            False,
        ),
    ):
        if len(bad):
            row = known.loc[bad.index[0]]
            point = ", ".join(f"{name} = {row[name]}" for name in ("n_params", "pretrain_tokens", "specialize_tokens"))
            yield Doubt(
                sentence=f"{point} (one of {counted(len(bad), 'row')}): {what}; see whether both are in single "
                "parameters and tokens",
                is_impossible=is_impossible,
            )


def _rising(runs: pd.DataFrame) -> Iterator[Doubt]:
    """Losses that rise with training: over all domains, in some, or along D or D' alone."""
    losses = runs["loss"]
    rise = {str(name): _share_rising(rows) for name, rows in runs.groupby("domain")}
    n_up, n_all = sum(up for up, _ in rise.values()), sum(n for _, n in rise.values())
    if _is_clear(n_up, n_all):
        yield Doubt(
            sentence=f"losses rise with parameters and tokens, in {n_up / n_all:.0%} of {n_all} comparisons: "
            f"{_score(losses)}? What is fitted is a loss in nats per token, which falls",
            is_impossible=True,
        )
        return
    rising = [name for name, counts in rise.items() if _is_clear(*counts)]
    if rising:
        yield Doubt(
            sentence=f"losses of {_named(rising)} rise with parameters and tokens, as no other domain's do: "
            f"{_score(losses[runs['domain'].isin(rising)])}?",
            is_impossible=False,
        )
    for name in ("pretrain_tokens", "specialize_tokens"):
        worse = [str(d) for d, rows in runs.groupby("domain") if str(d) not in rising and _rises_along(rows, name)]
        if worse:
            yield Doubt(
                sentence=f"losses of {_named(worse)} rise with {name} where all else is equal: an accuracy, a run past "
                "its best, or columns exchanged?",
                is_impossible=False,
            )


def _heights(losses: "pd.Series[float]", vocab_size: int | None) -> Iterator[Doubt]:
    """Losses above that of a model that knows nothing, or all equal."""
    nothing = math.log(vocab_size or LARGEST_VOCABULARY)
    high = losses[losses > UNTRAINED * nothing]
    if len(high):
        of = f"a vocabulary of {vocab_size or LARGEST_VOCABULARY:,}{'' if vocab_size else ', the largest in use,'}"
        yield Doubt(
            sentence=f"loss = {high.max():g} (the highest of {counted(len(high), 'row')}): a model that knows nothing "
            f"of {of} has {nothing:.2f} nats per token; where it is a perplexity, bring its logarithm; where it is a "
            "sum over tokens, divide by their number",
            is_impossible=True,
        )
    if len(losses) >= _FEWEST_EQUAL and losses.nunique() == 1:
        yield Doubt(
            sentence=f"loss = {losses.iloc[0]:g} in all {len(losses)} rows: is this the column?", is_impossible=True
        )


def _score(losses: "pd.Series[float]") -> str:
    """What a column of rising losses may hold instead."""
    if losses.max() <= 1:
        return "an accuracy"
    if losses.max() > math.log(LARGEST_VOCABULARY) and losses.max() <= 100:
        return "an accuracy in per cent"
    return "an accuracy or another score, or a likelihood"


def _share_rising(rows: pd.DataFrame) -> tuple[int, int]:
    """(n_up, n_all) over the pairs of one domain's runs in which one has more N, D or D', and less of none.

    That one is the worse in ``n_up`` of ``n_all`` pairs. Pairs with equal losses are not counted.
    """
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_COMPARED)).astype(int))]
    spent = rows[["n_params", "pretrain_tokens", "specialize_tokens"]].to_numpy()
    more = np.ones((len(rows), len(rows)), dtype=bool)
    some = np.zeros_like(more)
    for column in spent.T:
        more &= column[:, None] >= column
        some |= column[:, None] > column
    return _count(more & some, rows["loss"].to_numpy())


def _rises_along(rows: pd.DataFrame, name: str) -> bool:
    """Whether losses of one domain rise with one column, where the run's other columns are equal."""
    others = _columns_of_run(rows, without=name)
    n_up = n_all = 0
    for _, group in rows[rows.duplicated(others, keep=False)].groupby(others):
        if len(group) <= _MOST_COMPARED:
            column = group[name].to_numpy()
            up, n = _count(column[:, None] > column, group["loss"].to_numpy())
            n_up, n_all = n_up + up, n_all + n
    return _is_clear(n_up, n_all)


def _columns_of_run(runs: pd.DataFrame, *, without: str) -> list[str]:
    """The columns that say which run a row measured, as far as the table has them, but for one."""
    return [name for name in (*KEY, REPLAY_SHARE) if name in runs and name != without]


def _is_clear(n_up: int, n_all: int) -> bool:
    """Whether so many rises among so many comparisons are no chance: most of many, or each of a few."""
    return n_up > RISING * n_all and n_all >= (_FEW_COMPARISONS if n_up == n_all else _MANY_COMPARISONS)


def _count(more: NDArray[np.bool_], losses: NDArray[np.float64]) -> tuple[int, int]:
    difference = (losses[:, None] - losses)[more]
    return int((difference > 0).sum()), int((difference != 0).sum())


def _spellings(runs: pd.DataFrame) -> Iterator[Doubt]:
    """Domains whose names differ only in case, blanks, hyphens and underscores, or in how Unicode composes letters."""
    alike: dict[str, list[str]] = {}
    for name in sorted(runs["domain"].unique()):
        alike.setdefault(re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            yield Doubt(
                sentence=f"domains {' and '.join(map(repr, names))} are taken as {len(names)}; where they are one, "
                "spell it alike",
                is_impossible=False,
            )


def _histories(runs: pd.DataFrame) -> Iterator[Doubt]:
    """Runs with so many points along them that they look like histories; only points after a cooldown compare."""
    for name in ("pretrain_tokens", "specialize_tokens"):
        others = _columns_of_run(runs, without=name)
        grown = runs[runs[name] > 0]
        grown = grown[grown.groupby(others)[name].transform("size") >= _EVEN_POINTS]
        along = [rows[name].to_numpy() for _, rows in grown.groupby(others)]
        of_steps = [tokens for tokens in along if len(tokens) >= _MANY_POINTS or _even(np.sort(tokens))]
        if of_steps:
            longest = max(map(len, of_steps))
            yield Doubt(
                sentence=f"{longest} points of one run along {name}, as in its history"
                f"{f' (and {len(of_steps) - 1} more such runs)' if len(of_steps) > 1 else ''}: only losses after a "
                "cooldown compare; where the learning rate had not fallen at each, keep the last of each run",
                is_impossible=False,
            )


def _even(tokens: NDArray[np.int64]) -> bool:
    """Whether sorted positions lie at equal distances, but for a first or last one."""
    steps = np.diff(tokens)
    return bool((np.abs(steps - np.median(steps)) <= 0.02 * np.median(steps)).mean() >= 0.75)


def _named(values: Sequence[object]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more
