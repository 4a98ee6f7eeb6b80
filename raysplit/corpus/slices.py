"""Documents of a domain with keys in one range: what a process works on at a time, small enough for its memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.corpus.near import held_out_texts
from raysplit.corpus.runs import KeyRange, Run, key_ranges, load_documents
from raysplit.corpus.spool import Spooled

SLICE_BYTES = 32 << 20
_MOST_SLICES = 2048
"""So that of no run a tiny piece is read at a time."""
_BATCH_BYTES = 1 << 19
"""Of text that is looked at, or encoded, at once."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Kept documents with keys in one range."""

    runs: tuple[Run, ...]
    keys: KeyRange
    held_out: np.ndarray
    """(n,) uint64 keys, rising, of the documents in it that are held out."""

    @property
    def n_documents(self) -> int:
        return sum(int(run.kept(run.between(self.keys)).sum()) for run in self.runs)

    def documents(self) -> tuple[list[bytes], np.ndarray]:
        """Its documents in the order of their keys, and (n,) whether each is held out."""
        loaded = load_documents(self.runs, self.keys)
        return loaded.data, np.isin(loaded.keys, self.held_out)

    def texts(self) -> list[str]:
        """(n,) the documents, those that are held out with the others."""
        return [document.decode() for document in self.documents()[0]]

    def load(self) -> tuple[list[bytes], list[bytes]]:
        """Its held-out documents and the others, each in the order of their keys."""
        sides: tuple[list[bytes], list[bytes]] = [], []
        for document, is_held_out in zip(*self.documents(), strict=True):
            sides[0 if is_held_out else 1].append(document)
        return sides


def slices_of(spooled: Spooled, *, slice_bytes: int) -> list[Slice]:
    """All kept documents of a domain, in slices of about so many bytes, in the order of their keys."""
    n = max(1, min(_MOST_SLICES, round(spooled.kept.n_bytes / slice_bytes)))
    keys = spooled.held_out.keys
    return [
        Slice(runs=spooled.runs, keys=each, held_out=keys[(keys >= each.first) & (keys <= each.last)])
        for each in key_ranges(n)
    ]


def texts_of(documents: Sequence[bytes]) -> Iterator[list[str]]:
    """The documents as texts, a few at a time."""
    batch: list[str] = []
    n_bytes = 0
    for document in documents:
        batch.append(document.decode())
        n_bytes += len(document)
        if n_bytes >= _BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def training_texts(documents: Sequence[bytes], near: Path | None, left_out: Counter[int]) -> Iterator[list[str]]:
    """Those documents that are not nearly held-out ones, as texts, a few at a time.

    Args:
        documents: to train on, but for that.
        near: the signatures of all held-out texts; None where nearly equal ones are not looked for.
        left_out: counts the others, by the number of the domain that holds out what they are near to.
    """
    for texts in texts_of(documents):
        if near is None:
            yield texts
            continue
        owners = held_out_texts(near).owners_of(texts)
        left_out.update(owners[owners >= 0].tolist())
        yield [text for text, owner in zip(texts, owners, strict=True) if owner < 0]
