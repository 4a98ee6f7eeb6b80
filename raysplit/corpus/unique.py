"""Which documents are kept: the first that was read of those with one key, up to a source's limit of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from raysplit.corpus.parallel import in_parallel
from raysplit.corpus.runs import KeyRange, Run, key_ranges

_ROWS_AT_ONCE = 1 << 20


class End(NamedTuple):
    """The last document that is taken of a source with a limit."""

    run: int
    """Number of the run within the domain."""
    number: int
    """Number of the document within the run, in the order of reading."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of one domain."""

    n_documents: int = 0
    n_bytes: int = 0
    longest: int = 0
    """Bytes of the longest document."""
    duplicates_of: Mapping[str, int]
    """Documents that were dropped, by the domain that keeps their text."""


Runs = Mapping[str, Sequence[Run]]
"""Runs of each domain, in the order in which they were read."""


def keep_unique(runs: Runs, ends: Mapping[str, End], *, n_processes: int) -> dict[str, Kept]:
    """Write for each run which of its documents are kept, and count them.

    Args:
        runs: of every domain. Of documents with one key, that of the earliest domain is kept, and within a domain the
            one that was read first.
        ends: of the domains with a limit; documents after them do not count, as if they had not been read.
        n_processes: how many processes work at it, at most.
    """
    for run in (run for each in runs.values() for run in each):
        np.memmap(run.kept_path, dtype=bool, mode="w+", shape=(run.n_documents,)).flush()
    n_documents = sum(run.n_documents for each in runs.values() for run in each)
    if not n_documents:
        return {name: Kept(duplicates_of={}) for name in runs}
    ranges = key_ranges(1 + n_documents // _ROWS_AT_ONCE)
    found = in_parallel(partial(_keep_in_range, runs, ends), ranges, n_processes=min(n_processes, len(ranges)))
    totals = {name: Kept(duplicates_of={}) for name in runs}
    for each in found:
        totals = {name: _sum(totals[name], each[name]) for name in runs}
    return totals


def _sum(one: Kept, other: Kept) -> Kept:
    owners = {name: one.duplicates_of.get(name, 0) + n for name, n in other.duplicates_of.items()}
    return Kept(
        n_documents=one.n_documents + other.n_documents,
        n_bytes=one.n_bytes + other.n_bytes,
        longest=max(one.longest, other.longest),
        duplicates_of={**one.duplicates_of, **owners},
    )


def _keep_in_range(runs: Runs, ends: Mapping[str, End], keys: KeyRange) -> dict[str, Kept]:
    places = [
        _Place(domain, run, run.between(keys), _end_in(ends.get(name), number))
        for domain, (name, each) in enumerate(runs.items())
        for number, run in enumerate(each)
    ]
    table = np.concatenate([place.table(order) for order, place in enumerate(places)])
    order = np.lexsort((table["number"], table["run"], ~table["is_taken"], table["rest"], table["key"]))
    table = table[order]
    is_first = np.append(True, (table["key"][1:] != table["key"][:-1]) | (table["rest"][1:] != table["rest"][:-1]))[
        : len(table)
    ]
    owners = table["domain"][is_first][np.cumsum(is_first) - 1]
    is_kept = is_first & table["is_taken"]

    mask = np.empty(len(table), dtype=bool)
    mask[order] = is_kept
    sizes = [place.where.stop - place.where.start for place in places]
    for place, part in zip(places, np.split(mask, np.cumsum(sizes)[:-1]), strict=True):
        np.memmap(place.run.kept_path, dtype=bool, mode="r+")[place.where] = part
    names = list(runs)
    is_dropped = table["is_taken"] & ~is_kept
    return {
        name: _counted(table["length"][is_kept & own], np.bincount(owners[is_dropped & own]), names)
        for domain, name in enumerate(names)
        for own in [table["domain"] == domain]
    }


_TABLE = np.dtype(
    [
        ("key", "<u8"),
        ("rest", "<u8"),
        ("domain", "<i8"),
        ("run", "<i8"),
        ("number", "<i8"),
        ("length", "<i8"),
        ("is_taken", "?"),
    ]
)


class _Place(NamedTuple):
    """Documents of a run in one range of keys."""

    domain: int
    run: Run
    where: slice
    last: int | None
    """The last number that is taken; None for all."""

    def table(self, order: int) -> np.ndarray:
        rows = self.run.rows()[self.where]
        table = np.empty(len(rows), dtype=_TABLE)
        for column in ("key", "rest", "number"):
            table[column] = rows[column]
        table["domain"], table["run"] = self.domain, order
        table["length"] = self.run.lengths(self.where.start, self.where.stop)
        table["is_taken"] = True if self.last is None else rows["number"] <= self.last
        return table


def _end_in(end: End | None, run: int) -> int | None:
    if end is None or run < end.run:
        return None
    return end.number if run == end.run else -1


def _counted(lengths: np.ndarray, dropped: np.ndarray, names: Sequence[str]) -> Kept:
    return Kept(
        n_documents=len(lengths),
        n_bytes=int(lengths.sum()),
        longest=int(lengths.max(initial=0)),
        duplicates_of={names[owner]: int(n) for owner, n in enumerate(dropped) if n},
    )


class Reached(NamedTuple):
    """Where a domain's kept text reaches its limit."""

    end: End
    counts: np.ndarray
    """(4,) `numbers` of `not_read.Counts` at that document."""


def end_of(runs: Sequence[Run], *, max_bytes: int) -> Reached | None:
    """Where the kept documents, in the order of reading, reach ``max_bytes`` together; None where they never do."""
    n_bytes = 0
    for number, run in enumerate(runs):
        rows = run.rows()
        as_read = np.argsort(rows["number"])
        kept = run.kept()[as_read]
        sums = n_bytes + np.cumsum(np.where(kept, run.lengths()[as_read], 0))
        if sums[-1] >= max_bytes:
            at = as_read[int(np.argmax(sums >= max_bytes))]
            return Reached(End(number, int(rows["number"][at])), np.array(rows["counts"][at]))
        n_bytes = int(sums[-1])
    return None
