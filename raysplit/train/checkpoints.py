"""What lies in a folder of checkpoints, read from their manifests alone: neither torch nor DeepSpeed is needed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysplit.design.tree import Node
from raysplit.errors import CheckpointError
from raysplit.ladder import ModelShape
from raysplit.space import Space

MANIFEST = "raysplit.json"
"""Written last, so that a folder without it holds no complete checkpoint."""


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What a checkpoint folder says of itself.

    Raises:
        CheckpointError: there is no complete checkpoint.
    """
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: no complete checkpoint ({error})") from error
    return found


def stored_nodes(checkpoints: Path) -> set[Node]:
    """The checkpoints that lie complete in a folder; what an interrupted save left is skipped."""
    return {Node(**manifest["node"]) for _, manifest in _complete(checkpoints)}


def check_checkpoints(checkpoints: Path, space: Space, *, vocab_size: int) -> None:
    """Refuse, before anything starts, checkpoints that the lanes of this space could not continue from.

    Raises:
        CheckpointError: naming the folder, the model it holds and the one that the space has.
    """
    for folder, manifest in _complete(checkpoints):
        shape = space.shape(manifest["node"]["n_params"], vocab_size)
        check_fits(folder, manifest, shape=shape, n_workers=space.compute.workers_per_lane)


def check_fits(folder: Path, manifest: dict[str, Any], *, shape: ModelShape, n_workers: int) -> None:
    """Refuse a checkpoint of another model or world size.

    Raises:
        CheckpointError: naming both.
    """
    saved = ModelShape(**manifest["shape"])
    if saved != shape:
        raise CheckpointError(
            f"{folder}: holds a model of {saved.n_params_non_embedding} non-embedding parameters "
            f"({saved}), this run needs {shape.n_params_non_embedding} ({shape})"
        )
    if manifest["n_workers"] != n_workers:
        raise CheckpointError(
            f"{folder}: was saved by {manifest['n_workers']} workers, this lane has "
            f"{n_workers}; set compute.workers_per_lane to {manifest['n_workers']}"
        )


def _complete(checkpoints: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for manifest in sorted(checkpoints.glob(f"*/{MANIFEST}")):
        if not manifest.parent.name.endswith(".partial"):
            # Another lane may delete one that it has passed between the listing and the reading.
            try:
                found = read_checkpoint(manifest.parent)
            except CheckpointError:
                continue
            yield manifest.parent, found
