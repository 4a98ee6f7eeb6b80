"""Labels for all documents, block by block: on this machine, or on a Ray cluster that shares its file system."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raysplit.corpus.slices import Slice
from raysplit.discover.clusterer import Clusterer

Labeller = Callable[[Sequence[Slice], Sequence[Path]], Iterator[np.ndarray]]
"""Takes blocks of documents and folders of clusterers with the same features, and gives for each block, in order,
(documents, clusterers) int64 labels."""


def label_here(blocks: Sequence[Slice], clusterers: Sequence[Path]) -> Iterator[np.ndarray]:
    """Label one block after the other, in this process."""
    label = _BlockLabeller(clusterers)
    for block in blocks:
        yield label(block)


def label_with_ray(blocks: Sequence[Slice], clusterers: Sequence[Path]) -> Iterator[np.ndarray]:
    """Label blocks in parallel with Ray Data, on the cluster that this process is connected to.

    No text is sent: workers read their blocks from the file system, which all nodes must share, and send labels back.
    """
    import ray

    rows = ray.data.from_items([{"block": number} for number in range(len(blocks))])
    n_workers = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)
    labelled = rows.map_batches(
        _RayLabeller,
        fn_constructor_args=(ray.put(list(blocks)), list(clusterers)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=n_workers),
        num_cpus=1,
    ).to_pandas()
    ordered = labelled.sort_values(["block", "document"])
    columns = [f"labels_{number}" for number in range(len(clusterers))]
    for _, block in ordered.groupby("block"):
        yield block[columns].to_numpy(dtype=np.int64)


class _BlockLabeller:
    def __init__(self, clusterers: Sequence[Path]) -> None:
        self._clusterers = [Clusterer.load(folder) for folder in clusterers]

    def __call__(self, block: Slice) -> np.ndarray:
        vectors = self._clusterers[0].vectors(block.texts())
        return np.stack([clusterer.nearest(vectors) for clusterer in self._clusterers], axis=1)


class _RayLabeller:
    """A worker of Ray Data, which loads the clusterers once."""

    def __init__(self, blocks: Any, clusterers: Sequence[Path]) -> None:
        import ray

        self._blocks: list[Slice] = ray.get(blocks) if isinstance(blocks, ray.ObjectRef) else blocks
        self._label = _BlockLabeller(clusterers)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A row for each document of the one block of a batch."""
        (number,) = batch["block"]
        labels = self._label(self._blocks[number])
        n_documents, n_clusterings = labels.shape
        return {
            "block": np.full(n_documents, number),
            "document": np.arange(n_documents),
            **{f"labels_{clustering}": labels[:, clustering] for clustering in range(n_clusterings)},
        }
