"""Documents on disk between reading and packing: sorted runs, so that memory holds neither texts nor keys of all.

Each document has a key: a seeded hash of its text, white space normalised. The key does three things. Documents with
equal keys are duplicates. The order of keys is the shuffled order of the documents. The first documents in that order
are held out, but for those so large that they alone would be most of the held-out text. So the side of a document,
training or held out, depends on the texts and the seed, not on where or when they were read. No document is on both.

A run is a stretch of documents as they were read, up to some size, sorted by key. Documents with keys in one range lie
together in every run, so a corpus is worked through by ranges of keys (an external merge sort: Knuth, The Art of
Computer Programming 3, section 5.4).

    a-00000-0000.data    the documents, one after another
    a-00000-0000.rows    a row of `ROW` for each
    a-00000-0000.kept    whether each is kept, once duplicates are known
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROW = np.dtype(
    [
        ("key", "<u8"),  # the first half of the document's, which decides the order
        ("rest", "<u8"),
        ("number", "<i8"),  # in the run, as it was read
        ("end", "<i8"),  # of the document, in bytes from the start of the data
        ("side", "i1"),
        ("counts", "<i8", (4,)),  # of what was not read so far; see `not_read.Counts`
    ]
)
UNSAID, TRAIN, HELD_OUT = -1, 0, 1
"""Sides of a document as its source gives them; UNSAID where the source does not say."""
_KEYS = 1 << 64


class KeyRange(NamedTuple):
    """Keys from ``first`` to ``last``, both included."""

    first: int
    last: int


def key_ranges(n: int) -> list[KeyRange]:
    """All keys in ``n`` equal ranges, in rising order."""
    cuts = [_KEYS * number // n for number in range(n + 1)]
    return [KeyRange(first, after - 1) for first, after in pairwise(cuts)]


class Entry(NamedTuple):
    """A document on its way into a run."""

    key: bytes
    """16 bytes."""
    data: bytes
    side: int
    counts: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Documents that were read one after another, in the order of their keys."""

    stem: str
    """Path without a suffix."""
    n_documents: int
    n_bytes: int

    @property
    def kept_path(self) -> Path:
        return Path(self.stem + ".kept")

    def kept(self, where: slice = slice(None)) -> np.ndarray:
        """(n,) bool, memory-mapped: which of the documents ``where`` in key order are kept."""
        return np.memmap(self.kept_path, dtype=bool, mode="r")[where]

    def rows(self) -> np.ndarray:
        """(n,) of `ROW`, memory-mapped, in key order."""
        return np.memmap(self.stem + ".rows", dtype=ROW, mode="r")

    def lengths(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n,) bytes of each of the documents ``start`` to ``stop`` in key order."""
        ends = self.rows()["end"]
        before = int(ends[start - 1]) if start else 0
        return np.diff(ends[start:stop], prepend=before)

    def between(self, keys: KeyRange) -> slice:
        """Which documents have keys in that range."""
        column = self.rows()["key"]
        start = int(np.searchsorted(column, np.uint64(keys.first), side="left"))
        stop = int(np.searchsorted(column, np.uint64(keys.last), side="right"))
        return slice(start, stop)

    def is_whole(self) -> bool:
        """Whether its files have the sizes that were written."""
        sizes = {".data": self.n_bytes, ".rows": self.n_documents * ROW.itemsize}
        paths = {Path(self.stem + suffix): size for suffix, size in sizes.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def document_key(text: str, *, seed: int) -> bytes:
    """16 bytes, the same for texts that are equal up to white space."""
    return data_key(" ".join(text.split()).encode("utf-8", errors="replace"), seed=seed)


def data_key(data: bytes, *, seed: int) -> bytes:
    """16 bytes: a BLAKE2b hash of ``data``, keyed by the seed."""
    return hashlib.blake2b(data, digest_size=16, key=str(seed).encode()).digest()


def write_run(stem: str, entries: Sequence[Entry]) -> Run:
    """Sort the entries, which come as they were read, and write them; on disk when this returns."""
    keys = np.frombuffer(b"".join(entry.key for entry in entries), dtype=">u8").reshape(-1, 2)
    order = np.argsort(keys[:, 0], kind="stable")
    rows = np.empty(len(entries), dtype=ROW)
    rows["key"], rows["rest"] = keys[order, 0], keys[order, 1]
    rows["number"] = order
    rows["end"] = np.cumsum([len(entries[number].data) for number in order], dtype=np.int64)
    rows["side"] = [entries[number].side for number in order]
    rows["counts"] = [entries[number].counts for number in order]
    write_durably(Path(stem + ".data"), (entries[number].data for number in order))
    write_durably(Path(stem + ".rows"), [rows.tobytes()])
    return Run(stem=stem, n_documents=len(entries), n_bytes=int(rows["end"][-1]))


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that is on disk when this returns."""
    with path.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


class Loaded(NamedTuple):
    """Kept documents of a domain with keys in one range, in the order of their keys."""

    keys: np.ndarray
    """(n,) uint64."""
    data: list[bytes]


def load_documents(runs: Sequence[Run], keys: KeyRange) -> Loaded:
    """The kept documents of ``runs`` in that range; each run is read in one piece."""
    found_keys: list[np.ndarray] = [np.empty(0, dtype=np.uint64)]
    data: list[bytes] = []
    for run in runs:
        where = run.between(keys)
        kept = np.flatnonzero(run.kept(where))
        if not len(kept):
            continue
        rows = run.rows()[where]
        lengths = run.lengths(where.start, where.stop)
        begin = int(rows["end"][0] - lengths[0])
        with open(run.stem + ".data", "rb") as file:
            file.seek(begin)
            block = file.read(int(rows["end"][-1]) - begin)
        ends = rows["end"] - begin
        data += [block[end - length : end] for end, length in zip(ends[kept], lengths[kept], strict=True)]
        found_keys.append(rows["key"][kept])
    joined = np.concatenate(found_keys)
    order = np.argsort(joined, kind="stable")
    return Loaded(keys=joined[order], data=[data[number] for number in order])
