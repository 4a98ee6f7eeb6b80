"""The table of documents that discovery writes and `kind: table` reads, and the counts of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.discover.labelling import Labeller
from raysplit.discover.pile import Pile
from raysplit.discover.record import HELD_OUT_COLUMN


@dataclass(frozen=True, kw_only=True)
class LabelTally:
    """Counts of the clusters of one K. The first axis is the side: 0 training, 1 held out."""

    n_documents: np.ndarray
    """(2, sources, K) int64 documents."""
    n_text_bytes: np.ndarray
    """(2, K) int64 UTF-8 bytes."""


def write_documents(
    piles: Sequence[Pile],
    clusterings: Mapping[str, Sequence[str]],
    clusterers: Sequence[Path],
    path: Path,
    *,
    label: Labeller,
    progress: Callable[[float], None],
) -> list[LabelTally]:
    """Label every document and write it, with its source, its side and its cluster for each K.

    Args:
        piles: the documents.
        clusterings: name of the column for each K, with the names of its clusters.
        clusterers: folders of their clusterers, in the same order.
        path: of the Parquet file, which appears whole or not at all.
        label: how documents are labelled.
        progress: is told the share that is done, in [0, 1].

    Returns:
        The counts for each K.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sources = [pile.source for pile in piles]
    names_of = {"source": sources, **clusterings}
    kinds = {column: pa.dictionary(pa.int32(), pa.string()) for column in names_of}
    schema = pa.schema({"text": pa.string(), "source": kinds["source"], HELD_OUT_COLUMN: pa.bool_(), **kinds})
    tallies = [
        LabelTally(
            n_documents=np.zeros((2, len(sources), len(names)), dtype=np.int64),
            n_text_bytes=np.zeros((2, len(names)), dtype=np.int64),
        )
        for names in clusterings.values()
    ]
    blocks = [(number, block) for number, pile in enumerate(piles) for block in pile.blocks()]
    partial = path.with_name(path.name + ".partial")
    progress(0.0)
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        labelled = label([block for _, block in blocks], clusterers)
        for done, ((source, block), labels) in enumerate(zip(blocks, labelled, strict=True), start=1):
            numbers = {"source": np.full(len(labels), source), **dict(zip(clusterings, labels.T, strict=True))}
            coded = {
                column: pa.DictionaryArray.from_arrays(pa.array(numbers[column], pa.int32()), pa.array(list(names)))
                for column, names in names_of.items()
            }
            documents, is_held_out = block.documents()
            texts = [document.decode() for document in documents]
            columns = {"text": texts, HELD_OUT_COLUMN: is_held_out, **coded}
            writer.write_table(pa.table({name: columns[name] for name in schema.names}, schema=schema))
            sides = is_held_out.astype(np.int64)
            for tally, own in zip(tallies, labels.T, strict=True):
                np.add.at(tally.n_documents, (sides, numbers["source"], own), 1)
                np.add.at(tally.n_text_bytes, (sides, own), list(map(len, documents)))
            progress(done / len(blocks))
    partial.replace(path)
    return tallies
