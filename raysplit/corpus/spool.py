"""Documents on disk between reading and packing, so that a corpus need not fit in memory.

Each document has a key: a seeded hash of its text, white space normalised. One key does three things: equal keys are
duplicates; the order of keys is the shuffled order of the documents; and the first documents of that order are the
held-out ones. So the side a text is on depends on the text and the seed, not on where or when it was read.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.errors import CorpusError


@dataclass(frozen=True, kw_only=True)
class Spool:
    """The unique documents of one domain, in the order of their keys."""

    path: Path
    starts: np.ndarray
    """(n,) int64 bytes, where each document starts in the file."""
    lengths: np.ndarray
    """(n,) int64 bytes."""
    n_validation: int
    """The first so many documents are held out."""
    duplicates_of: dict[str, int]

    @property
    def n_train_bytes(self) -> int:
        return int(self.lengths[self.n_validation :].sum())

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
    documents: Iterator[str],
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
        owners: key -> domain of every document kept so far, in this and earlier domains; added to.
        progress: called with the share of ``max_bytes`` that has been read, where there is such a limit.

    Raises:
        CorpusError: fewer than two documents are left, so that none can be held out.
    """
    ends: list[int] = []
    keys: list[int] = []
    duplicates_of: dict[str, int] = {}
    n_bytes = 0
    with path.open("wb") as file:
        for text in documents:
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
            if len(ends) % 256 == 0 and max_bytes:
                progress(min(1.0, n_bytes / max_bytes))
            if max_bytes is not None and n_bytes >= max_bytes:
                break
    if len(ends) < 2:
        dropped = f" ({sum(duplicates_of.values())} dropped as duplicates)" if duplicates_of else ""
        raise CorpusError(
            f"domain {domain!r}: {len(ends)} documents with text{dropped}; it needs at least 2, one of them held out"
        )
    starts = np.array([0, *ends[:-1]], dtype=np.int64)
    lengths = np.array(ends, dtype=np.int64) - starts
    order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
    return Spool(
        path=path,
        starts=starts[order],
        lengths=lengths[order],
        n_validation=_held_out(lengths[order], validation_fraction),
        duplicates_of=duplicates_of,
    )


def document_key(text: str, *, seed: int) -> bytes:
    """16 bytes that agree for texts equal up to white space."""
    normalised = " ".join(text.split()).encode("utf-8", errors="replace")
    return hashlib.blake2b(normalised, digest_size=16, key=str(seed).encode()).digest()


def _held_out(lengths: np.ndarray, fraction: float) -> int:
    """How many documents, from the first on, make up ``fraction`` of the text; at least one, and never all."""
    reached = int(np.searchsorted(np.cumsum(lengths), fraction * lengths.sum())) + 1
    return min(reached, len(lengths) - 1)
