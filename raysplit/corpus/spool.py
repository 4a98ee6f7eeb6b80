"""Documents on disk between reading and packing, so that a corpus need not fit in memory.

Each document has a key: a seeded hash of its text, white space normalised. One key does three things: equal keys are
duplicates; the order of keys is the shuffled order of the documents; and the first documents of that order are the
held-out ones, but for those so large that they alone would decide what the held-out text is. So the side a text is on
depends on the texts and the seed, not on where or when they were read; and all of a document is on one side.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from raysplit.corpus.sources import Document

HELD_OUT_TOLERANCE = 0.25
"""The share of held-out text may miss what is wanted by this much of it; more is said."""
_ORDINARY = 0.5
"""A document of more than this part of the held-out text would decide what the losses of the domain say."""
_MOST_DOCUMENTS = 0.75


@dataclass(frozen=True, kw_only=True)
class Spool:
    """The unique documents of one domain: those held out, then those to train on, each in the order of their keys."""

    path: Path
    starts: np.ndarray
    """(n,) int64 bytes, where each document starts in the file."""
    lengths: np.ndarray
    """(n,) int64 bytes."""
    n_validation: int
    """The first so many documents are held out."""
    duplicates_of: dict[str, int]

    @property
    def validation_share(self) -> float:
        """Of the text, in bytes."""
        return float(self.lengths[: self.n_validation].sum() / self.lengths.sum())

    def texts(self, *, start: int, stop: int, batch_bytes: int) -> Iterator[list[str]]:
        """Documents ``start`` to ``stop`` of the key order, in lists of about ``batch_bytes``."""
        if start == stop:
            return
        data = np.memmap(self.path, dtype=np.uint8, mode="r")
        batch: list[str] = []
        n_bytes = 0
        for begin, length in zip(self.starts[start:stop], self.lengths[start:stop], strict=True):
            batch.append(data[begin : begin + length].tobytes().decode("utf-8"))
            n_bytes += int(length)
            if n_bytes >= batch_bytes:
                yield batch
                batch, n_bytes = [], 0
        if batch:
            yield batch


def spool_documents(
    documents: Iterator[Document],
    path: Path,
    *,
    domain: str,
    seed: int,
    owners: dict[bytes, str],
    max_bytes: int | None,
    validation_fraction: float,
    progress: Callable[[float], None],
) -> Spool:
    """Write the unique documents of one domain to ``path``, in the order read, up to ``max_bytes`` of text.

    Args:
        documents: held out as they say, and where they say nothing as ``validation_fraction`` asks.
        owners: key -> domain of every document kept so far, in this and earlier domains; added to.
        progress: called with the share of ``max_bytes`` that has been read, where there is such a limit.

    """
    ends: list[int] = []
    keys: list[int] = []
    said: list[bool | None] = []
    duplicates_of: dict[str, int] = {}
    n_bytes = 0
    with path.open("wb") as file:
        for text, is_held_out in documents:
            key = document_key(text, seed=seed)
            owner = owners.get(key)
            if owner is not None:
                duplicates_of[owner] = duplicates_of.get(owner, 0) + 1
                continue
            owners[key] = domain
            data = text.encode("utf-8", errors="replace")  # JSON can spell half of a surrogate pair
            file.write(data)
            n_bytes += len(data)
            ends.append(n_bytes)
            keys.append(int.from_bytes(key[:8], "big"))
            said.append(is_held_out)
            if len(ends) % 256 == 0 and max_bytes:
                progress(min(1.0, n_bytes / max_bytes))
            if max_bytes is not None and n_bytes >= max_bytes:
                break
    starts = np.array([0, *ends[:-1]], dtype=np.int64)
    lengths = np.array(ends, dtype=np.int64) - starts
    by_key = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
    if None in said or not said:
        held_out = _held_out(lengths[by_key], validation_fraction)
    else:
        held_out = np.flatnonzero(np.array(said)[by_key])
    order = by_key[np.concatenate([held_out, np.setdiff1d(np.arange(len(by_key)), held_out)])]
    return Spool(
        path=path,
        starts=starts[order],
        lengths=lengths[order],
        n_validation=len(held_out),
        duplicates_of=duplicates_of,
    )


def document_key(text: str, *, seed: int) -> bytes:
    """16 bytes that agree for texts equal up to white space."""
    normalised = " ".join(text.split()).encode("utf-8", errors="replace")
    return hashlib.blake2b(normalised, digest_size=16, key=str(seed).encode()).digest()


def _held_out(lengths: np.ndarray, fraction: float) -> np.ndarray:
    """Which documents make up about ``fraction`` of the text, in rising order.

    From the first on, those of at most half the wanted text; where these do not suffice larger ones too, the smallest
    first. None that would take the whole to more than a quarter above what is wanted, unless it is the only one. And at
    least one, but of several no more than three quarters (or ``fraction``): else small documents beside a huge one
    would all be held out, and nothing like them be trained on.

    Args:
        lengths: (n,) bytes of the documents, in the order of their keys.
        fraction: of all bytes, in (0, 1).
    """
    wanted = fraction * lengths.sum()
    most = min(len(lengths) - 1, max(1, math.ceil(max(_MOST_DOCUMENTS, fraction) * len(lengths))))
    small = np.flatnonzero(lengths <= _ORDINARY * wanted)
    large = np.flatnonzero(lengths > _ORDINARY * wanted)
    chosen: list[int] = []
    reached = 0
    for document in chain(small, large[np.argsort(lengths[large], kind="stable")]):
        if reached >= wanted or len(chosen) >= most:
            break
        if not chosen or reached + lengths[document] <= (1 + HELD_OUT_TOLERANCE) * wanted:
            chosen.append(document)
            reached += int(lengths[document])
    return np.array(sorted(chosen), dtype=np.int64)
