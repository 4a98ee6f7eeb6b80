"""Which documents of a domain are held out: the first in the order of their keys, those that are too long left out."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from raysplit.corpus.runs import HELD_OUT, Run, key_ranges
from raysplit.corpus.unique import Kept

HELD_OUT_TOLERANCE = 0.25
"""Share of the wanted held-out text by which the real one may miss it; a larger miss is noted in the manifest."""
_ORDINARY = 0.5
"""Share of the held-out text; a larger document would decide the domain's loss alone."""
_MOST_DOCUMENTS = 0.75
_ROWS_AT_ONCE = 1 << 18

Chunks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Gives keys (n,) and lengths (n,) in bytes of documents, in the order of keys, some at a time."""


class HeldOut(NamedTuple):
    """What a domain holds out."""

    keys: np.ndarray
    """(n,) uint64, rising: keys of the documents that are held out."""
    n_bytes: int


def hold_out(runs: Sequence[Run], kept: Kept, *, fraction: float | None) -> HeldOut:
    """Which documents of a domain are held out.

    Args:
        runs: of one domain, in which it is known what is kept.
        kept: how much that is.
        fraction: of the domain's text; None where the source says itself what is held out.
    """
    if not kept.n_documents:
        return HeldOut(np.empty(0, dtype=np.uint64), 0)
    if fraction is None:
        keys, n_bytes = [np.empty(0, dtype=np.uint64)], 0
        for own, lengths, sides in _kept(runs):
            keys.append(own[sides == HELD_OUT])
            n_bytes += int(lengths[sides == HELD_OUT].sum())
        return HeldOut(np.concatenate(keys), n_bytes)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((keys, lengths) for keys, lengths, _ in _kept(runs))

    return drawn(chunks, fraction, n_documents=kept.n_documents, n_bytes=kept.n_bytes)


def _kept(runs: Sequence[Run]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Keys, lengths and sides of the kept documents, by ranges of keys."""
    for keys in key_ranges(1 + sum(run.n_documents for run in runs) // _ROWS_AT_ONCE):
        columns = []
        for run in runs:
            where = run.between(keys)
            kept = run.kept(where)
            rows = run.rows()[where][kept]
            columns.append((rows["key"], run.lengths(where.start, where.stop)[kept], rows["side"]))
        own, lengths, sides = map(np.concatenate, zip(*columns, strict=True))
        order = np.argsort(own, kind="stable")
        yield own[order], lengths[order], sides[order]


def drawn(chunks: Chunks, fraction: float, *, n_documents: int, n_bytes: int) -> HeldOut:
    """Which documents make up about ``fraction`` of the text.

    Documents of at most half the wanted text are taken first, in the order of their keys; where these do not suffice,
    larger ones follow, the smallest first. A document that would take the whole to more than a quarter above the wanted
    text is passed over, unless it would be the only one. At least one is taken where there are two or more, and at most
    three quarters of them (or ``fraction``, where that is more). Otherwise all small documents beside a huge one would
    be held out, and nothing like them would be trained on.

    Args:
        chunks: gives all documents each time it is called.
        fraction: of all bytes, in (0, 1).
        n_documents, n_bytes: of all documents.
    """
    wanted = fraction * n_bytes
    most = min(n_documents - 1, max(1, math.ceil(max(_MOST_DOCUMENTS, fraction) * n_documents)))
    chosen: list[int] = []
    reached = 0
    for key, length in _small_then_large(chunks, longest_small=_ORDINARY * wanted):
        if reached >= wanted or len(chosen) >= most:
            break
        if not chosen or reached + length <= (1 + HELD_OUT_TOLERANCE) * wanted:
            chosen.append(key)
            reached += length
    return HeldOut(np.array(sorted(chosen), dtype=np.uint64), reached)


def _small_then_large(chunks: Chunks, *, longest_small: float) -> Iterator[tuple[int, int]]:
    """Keys and lengths: of small documents in the order of keys, then of large ones, of which there are few."""
    for keys, lengths in chunks():
        small = lengths <= longest_small
        yield from zip(keys[small].tolist(), lengths[small].tolist(), strict=True)
    large: list[tuple[int, int]] = []
    for keys, lengths in chunks():
        is_large = lengths > longest_small
        large += zip(keys[is_large].tolist(), lengths[is_large].tolist(), strict=True)
    yield from sorted(large, key=lambda one: one[1])
