"""Documents without labels on disk: read once, training or held out, in blocks that can be labelled one by one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.corpus.manifest import duplicates_sentence
from raysplit.corpus.parallel import cores, enough_processes
from raysplit.corpus.slices import Slice
from raysplit.corpus.sources import open_source
from raysplit.corpus.spool import Reader, Report, Spooled, spool_sources
from raysplit.space import SourceSpec

Progress = Callable[[str, float], None]
"""Called with the name of the step and the share of it that is done, in [0, 1]."""

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Pile:
    """The unique documents of one source."""

    source: str
    spooled: Spooled
    notes: tuple[str, ...]
    """Sentences on what was not read."""

    @property
    def n_bytes(self) -> int:
        return self.spooled.kept.n_bytes

    @property
    def n_documents(self) -> int:
        return self.spooled.kept.n_documents

    @property
    def n_duplicates(self) -> int:
        return sum(self.spooled.kept.duplicates_of.values())

    @property
    def n_train(self) -> int:
        return self.n_documents - len(self.spooled.held_out.keys)

    def blocks(self) -> list[Slice]:
        """All documents in the order of their hashes, in blocks; no block is empty."""
        return [block for block in self.spooled.slices(slice_bytes=_BLOCK_BYTES) if block.n_documents]

    def training_documents(self) -> Iterator[bytes]:
        for block in self.blocks():
            yield from block.load()[1]


def read_piles(
    sources: dict[str, SourceSpec], folder: Path, *, seed: int, validation_fraction: float, progress: Progress
) -> list[Pile]:
    """Read every source once into ``folder``, copies left out.

    Which documents are held out is decided here, before any clustering, by their hash, for each source as if it were a
    domain of a corpus.

    Raises:
        CorpusError: a source is unusable, or too much of it cannot be read.
    """

    @contextmanager
    def step(name: str) -> Iterator[Report]:
        progress(name, 0.0)
        yield lambda done: progress(name, done)
        progress(name, 1.0)

    opened = {name: open_source(source, domain=name) for name, source in sources.items()}
    n_bytes = sum(path.stat().st_size for documents in opened.values() for path in documents.paths)
    reader = Reader(sources, opened, folder, seed=seed, n_processes=enough_processes(n_bytes, at_most=cores()))
    spooled = spool_sources(reader, sources, fraction=validation_fraction, step=step)
    return [
        Pile(
            source=name,
            spooled=one,
            notes=(
                *opened[name].tally.so_far().sentences(),
                *filter(None, [duplicates_sentence(one.kept.duplicates_of)]),
            ),
        )
        for name, one in spooled.items()
    ]


def training_sample(
    piles: Sequence[Pile], *, sample_bytes: int, excerpt_bytes: int | None = None
) -> tuple[list[str], np.ndarray]:
    """Training documents, from each source in proportion to its text, drawn by the order of their hashes.

    Args:
        piles: the sources' documents.
        sample_bytes: size of the sample, about; where documents are cut, their beginnings count.
        excerpt_bytes: how much of each document's beginning counts; None for all of it. Texts are cut to as many
            characters, which is at least so many bytes.

    Returns:
        The texts, and (n,) int64 bytes of each whole document.
    """
    total = sum(pile.n_bytes for pile in piles)
    texts: list[str] = []
    lengths: list[int] = []
    for pile in piles:
        room = sample_bytes * pile.n_bytes / max(total, 1)
        for document in pile.training_documents():
            text = document.decode()
            texts.append(text if excerpt_bytes is None else text[:excerpt_bytes])
            lengths.append(len(document))
            room -= min(len(document), excerpt_bytes or len(document))
            if room <= 0:
                break
    return texts, np.array(lengths, dtype=np.int64)
