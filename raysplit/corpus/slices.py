"""A slice: documents of a domain with keys in one range, which a process works on at a time, within its memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raysplit.corpus.near import held_out_texts
from raysplit.corpus.runs import KeyRange, Run, key_ranges, load_documents
from raysplit.corpus.tokenizer import SavedTokenizer

SLICE_BYTES = 32 << 20
_MOST_SLICES = 2048
"""Most slices of a domain; with more, a tiny piece of each run would be read at a time."""
_BATCH_BYTES = 1 << 19
"""Bytes of text that are compared, or encoded, at once."""


class DocumentBatch(NamedTuple):
    """A few documents."""

    data: list[bytes]
    """The documents as they are stored."""
    texts: list[str] | None
    """The same documents as text; None for tokens whose tokenizer gives no text back."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Kept documents with keys in one range."""

    runs: tuple[Run, ...]
    keys: KeyRange
    held_out: np.ndarray
    """(n,) uint64 keys, rising, of its documents that are held out."""
    tokens_of: SavedTokenizer | None = None
    """The tokenizer of documents that are stored as tokens; None for text."""

    @property
    def n_documents(self) -> int:
        return sum(int(run.kept(run.between(self.keys)).sum()) for run in self.runs)

    def documents(self) -> tuple[list[bytes], np.ndarray]:
        """Its documents in the order of their keys, as they are stored, and (n,) whether each is held out."""
        loaded = load_documents(self.runs, self.keys)
        return loaded.data, np.isin(loaded.keys, self.held_out)

    def texts(self) -> list[str]:
        """Its documents as text, held-out and training ones, in the order of their keys; for sources of text."""
        return [document.decode() for document in self.documents()[0]]

    def load(self) -> tuple[list[bytes], list[bytes]]:
        """Its held-out documents and the others, each in the order of their keys."""
        sides: tuple[list[bytes], list[bytes]] = [], []
        for document, is_held_out in zip(*self.documents(), strict=True):
            sides[0 if is_held_out else 1].append(document)
        return sides

    def batches(self, documents: Sequence[bytes]) -> Iterator[DocumentBatch]:
        """Some of its documents with their texts, a few at a time."""
        batch: list[bytes] = []
        n_bytes = 0
        for document in documents:
            batch.append(document)
            n_bytes += len(document)
            if n_bytes >= _BATCH_BYTES:
                yield DocumentBatch(batch, self._texts(batch))
                batch, n_bytes = [], 0
        if batch:
            yield DocumentBatch(batch, self._texts(batch))

    def _texts(self, data: list[bytes]) -> list[str] | None:
        if self.tokens_of is None:
            return [document.decode() for document in data]
        tokenizer = self.tokens_of.load()
        return tokenizer.decode(data) if tokenizer.gives_text_back else None


def slices_of(
    runs: tuple[Run, ...],
    *,
    n_bytes: int,
    held_out: np.ndarray,
    slice_bytes: int,
    tokens_of: SavedTokenizer | None = None,
) -> list[Slice]:
    """All kept documents of a domain, in slices of about ``slice_bytes``, in the order of their keys.

    Args:
        runs: of the domain.
        n_bytes: size of all kept documents.
        held_out: (n,) uint64 keys, rising, of the documents that are held out.
        slice_bytes: size of a slice, about.
        tokens_of: the tokenizer of documents that are stored as tokens; None for text.
    """
    n = max(1, min(_MOST_SLICES, round(n_bytes / slice_bytes)))
    return [
        Slice(
            runs=runs,
            keys=each,
            held_out=held_out[(held_out >= each.first) & (held_out <= each.last)],
            tokens_of=tokens_of,
        )
        for each in key_ranges(n)
    ]


def not_nearly_held_out(
    batches: Iterable[DocumentBatch], near: Path | None, left_out: Counter[int]
) -> Iterator[DocumentBatch]:
    """The batches without the documents that nearly equal a held-out one.

    Args:
        batches: of training documents.
        near: the signatures of all held-out texts; None where near-duplicates are not looked for.
        left_out: counts the documents that are left out, by the number of the domain of the held-out one.
    """
    for batch in batches:
        if near is None or batch.texts is None:
            yield batch
            continue
        owners = held_out_texts(near).owners_of(batch.texts)
        left_out.update(owners[owners >= 0].tolist())
        kept = np.flatnonzero(owners < 0)
        yield DocumentBatch([batch.data[number] for number in kept], [batch.texts[number] for number in kept])
