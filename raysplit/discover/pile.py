"""Documents without labels on disk: read once, each on its side, in blocks that can be labelled one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from raysplit.corpus.manifest import duplicates_sentence
from raysplit.corpus.sources import open_source
from raysplit.corpus.spool import Spool, spool_documents
from raysplit.space import SourceSpec

Progress = Callable[[str, float], None]
"""Called with the name of the step and the share of it that is done, in [0, 1]."""

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Block:
    """Documents that lie together in a file."""

    path: Path
    starts: np.ndarray
    """(n,) int64 bytes, each the end of the one before."""
    lengths: np.ndarray
    """(n,) int64 bytes."""

    def texts(self) -> list[str]:
        """(n,) the documents."""
        with self.path.open("rb") as file:
            file.seek(int(self.starts[0]))
            data = file.read(int(self.lengths.sum()))
        ends = np.cumsum(self.lengths)
        return [data[end - length : end].decode() for end, length in zip(ends, self.lengths, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Pile:
    """The unique documents of one source."""

    source: str
    spool: Spool
    notes: tuple[str, ...]
    """What was not read."""

    @property
    def n_bytes(self) -> int:
        return int(self.spool.lengths.sum())

    @property
    def n_train(self) -> int:
        return len(self.spool.lengths) - self.spool.n_validation

    def blocks(self) -> Iterator[tuple[Block, np.ndarray]]:
        """All documents in the order in which they were read, and (n,) whether each is held out."""
        as_read = np.argsort(self.spool.starts, kind="stable")
        starts, lengths = self.spool.starts[as_read], self.spool.lengths[as_read]
        is_held_out = as_read < self.spool.n_validation
        numbers = (starts + lengths - 1) // _BLOCK_BYTES
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(starts)]
        for first, last in pairwise(cuts):
            if first < last:
                block = Block(path=self.spool.path, starts=starts[first:last], lengths=lengths[first:last])
                yield block, is_held_out[first:last]


def read_piles(
    sources: dict[str, SourceSpec], folder: Path, *, seed: int, validation_fraction: float, progress: Progress
) -> list[Pile]:
    """Read every source once into ``folder``, copies left out.

    Which documents are held out is decided here, for each source as if it were a domain of a corpus: by their hash, and
    before any clustering.

    Raises:
        CorpusError: a source is unusable, or too much of it cannot be read.
    """
    opened = {name: open_source(source, domain=name) for name, source in sources.items()}
    owners: dict[bytes, str] = {}
    piles = []
    for name, documents in opened.items():
        step = f"read {name}"
        progress(step, 0.0)
        spool = spool_documents(
            documents.documents,
            folder / f"{name}.txt",
            domain=name,
            seed=seed,
            owners=owners,
            max_bytes=sources[name].max_bytes,
            validation_fraction=validation_fraction,
            progress=lambda done, step=step: progress(step, done),  # type: ignore[misc]
        )
        documents.tally.check()
        progress(step, 1.0)
        notes = [*documents.tally.so_far().sentences(), *filter(None, [duplicates_sentence(spool.duplicates_of)])]
        piles.append(Pile(source=name, spool=spool, notes=tuple(notes)))
    return piles


def training_sample(
    piles: Sequence[Pile], *, sample_bytes: int, excerpt_bytes: int | None = None
) -> tuple[list[str], np.ndarray]:
    """Training documents, from each source in proportion to its text, drawn by the order of their hashes.

    Args:
        piles: the sources.
        sample_bytes: of text, about; of the documents' beginnings where they are cut.
        excerpt_bytes: keep so much of each document's beginning; None for all of it.

    Returns:
        The texts, and (n,) int64 bytes of each whole document.
    """
    total = sum(pile.n_bytes for pile in piles)
    texts: list[str] = []
    lengths: list[int] = []
    for pile in piles:
        spool = pile.spool
        taken = np.minimum(spool.lengths[spool.n_validation :], excerpt_bytes or np.iinfo(np.int64).max)
        n = int(np.searchsorted(np.cumsum(taken), sample_bytes * pile.n_bytes / max(total, 1))) + 1
        stop = min(spool.n_validation + n, len(spool.lengths))
        for batch in spool.texts(start=spool.n_validation, stop=stop, batch_bytes=1):
            texts += [text if excerpt_bytes is None else text[:excerpt_bytes] for text in batch]
        lengths += spool.lengths[spool.n_validation : stop].tolist()
    return texts, np.array(lengths, dtype=np.int64)
