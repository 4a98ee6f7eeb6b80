"""What is the matter with a journal, and how it becomes whole again without losing an intact record."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from raysplit.errors import RunError
from raysplit.journal.format import Batch, Damage, Record, batch_bytes, name_of, now
from raysplit.journal.journal import all_batches, batches_after, read_all
from raysplit.journal.storage import Storage, open_storage


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What a journal holds."""

    n_records: int
    n_batches: int
    kinds: Mapping[str, int]
    """Records of each kind."""
    fences: Mapping[int, int]
    """Records of each opening that wrote any, oldest first."""
    damages: Sequence[Damage]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What a repair did."""

    set_aside: Sequence[str]
    """Side files: copies of the damaged batches as they were."""
    lost: Sequence[str]
    n_records: int


def examine(location: str | Path | Storage) -> Examined:
    """Read a journal whole, and change nothing.

    Raises:
        RunError: there is no journal, or it cannot be read.
    """
    batches = read_all(location)
    records = [record for batch in batches for record in batch.records]
    return Examined(
        n_records=len(records),
        n_batches=len(batches),
        kinds=dict(Counter(record.kind for record in records).most_common()),
        fences=dict(sorted(Counter(record.fence for record in records).items())),
        damages=[damage for batch in batches for damage in batch.damages],
    )


def repair(location: str | Path | Storage) -> Repaired:
    """Make a damaged journal one that opens: every intact record stays, each damaged batch is copied aside first.

    Whoever writes the journal can write no more.

    Raises:
        RunError: there is no journal, or the storage refused.
    """
    storage, batches = open_storage(location), read_all(location)
    set_aside: list[str] = []
    lost: list[str] = []
    try:
        if any(batch.damages for batch in batches):
            batches = _taken_over(storage)
            for batch, after in pairwise(batches):  # the last one is the taking over
                if batch.damages:
                    set_aside += _set_aside(storage, batch)
                    storage.replace(name_of(batch.number), _mended(batch, end=max(batch.end, after.first)))
                    lost += _holes(batch.records, batch.first, max(batch.end, after.first))
            batches = all_batches(storage)
    except OSError as error:
        raise RunError(f"{location}: not repaired: {error.strerror or error}") from error
    return Repaired(set_aside=set_aside, lost=lost, n_records=sum(len(batch.records) for batch in batches))


def _taken_over(storage: Storage) -> list[Batch]:
    """Every batch, after which no earlier opening can store anything."""
    batches = all_batches(storage)
    while True:
        fence = max(batch.fence for batch in batches) + 1
        content = batch_bytes(
            len(batches), [], first=batches[-1].end, fence=fence, time=now(), about={"repaired": True}
        )
        if storage.create(name_of(len(batches)), content):
            return all_batches(storage)
        batches += batches_after(batches, storage)


def _set_aside(storage: Storage, batch: Batch) -> list[str]:
    name = name_of(batch.number)
    there = storage.names()
    if name not in there:
        return []
    number = 1
    while (side := f"{name}.damaged-{number}") in there:
        number += 1
    storage.create(side, storage.read([name])[0])
    return [storage.label(side)]


def _mended(batch: Batch, *, end: int) -> bytes:
    return batch_bytes(
        batch.number,
        batch.records,
        first=batch.first,
        end=end,
        fence=batch.fence,
        time=now(),
        about={"repaired": True},
    )


def _holes(kept: Sequence[Record], first: int, end: int) -> list[str]:
    """The seqs of first <= seq < end that are not there, in words."""
    holes, expected = [], first
    for seq in [*(record.seq for record in kept), end]:
        if seq > expected:
            holes.append(f"record {expected}" if seq == expected + 1 else f"records {expected} to {seq - 1}")
        expected = seq + 1
    return holes
