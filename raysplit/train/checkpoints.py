"""The checkpoints of a location, read from their manifests alone: neither torch nor DeepSpeed is needed.

A checkpoint is a folder of files with the state of every parameter, whole and in fp32, which any number of ranks at
any ZeRO stage can open. Its manifest names each file with its size and SHA-256, and is written last: a folder without
one holds no checkpoint. A file that does not agree with its manifest is never opened, nor is a manifest that does not
agree with its own hash.
"""

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysplit.design.tree import Node
from raysplit.errors import CheckpointError, StorageError
from raysplit.ladder import ModelShape
from raysplit.space import Space
from raysplit.train.storage import CheckpointStorage, Missing

MANIFEST = "raysplit.json"
MARK = "raysplit-checkpoints.json"
"""File beside the folders, which a run writes and its lanes look for, to see that their machines share the place."""


class Damaged(Exception):
    """A checkpoint, or a file of one, is not what was written; it is passed over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """One file of a checkpoint: what it must be, and which parameters it holds."""

    name: str
    n_bytes: int
    sha256: str
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, name: str, content: bytes, parameters: Iterable[str]) -> "StoredFile":
        digest = hashlib.sha256(content).hexdigest()
        return cls(name=name, n_bytes=len(content), sha256=digest, parameters=tuple(parameters))

    def check(self, content: bytes) -> None:
        """Refuse what is not the file.

        Raises:
            Damaged: saying how it differs.
        """
        if len(content) != self.n_bytes:
            raise Damaged(f"{self.name} has {len(content)} of {self.n_bytes} bytes")
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise Damaged(f"{self.name} has changed since it was written")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointManifest:
    """All that is known of a checkpoint without its tensors."""

    node: Node
    shape: ModelShape
    adam_steps: int
    """Optimizer steps since Adam's moments were zero; the same for every parameter."""
    passing: bool
    """Whether it was saved within a segment, against faults alone; no other trial starts from it."""
    files: tuple[StoredFile, ...]
    """In the order of the model's parameters."""

    def to_bytes(self) -> bytes:
        content = asdict(self)
        return json.dumps({**content, "sha256": _digest(content)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "CheckpointManifest":
        """Read it back.

        Raises:
            Damaged: it is not what was written.
        """
        try:
            content: dict[str, Any] = json.loads(raw)
            if content.pop("sha256") != _digest(content):
                raise Damaged(f"{MANIFEST} has changed since it was written")
            return cls(
                node=Node(**content.pop("node")),
                shape=ModelShape(**content.pop("shape")),
                files=tuple(_file(**each) for each in content.pop("files")),
                **content,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{MANIFEST} cannot be read ({error})") from error


def _file(*, parameters: Iterable[str], **fields: Any) -> StoredFile:
    return StoredFile(parameters=tuple(parameters), **fields)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(storage: CheckpointStorage, folder: str) -> CheckpointManifest:
    """The manifest of a checkpoint.

    Raises:
        Damaged: there is none, it is not what was written, or it is of another folder.
        CheckpointError: an earlier raysplit wrote it, for one number of ranks.
        StorageError: it cannot be read.
    """
    try:
        raw = storage.read(f"{folder}/{MANIFEST}")
    except Missing as error:
        raise Damaged("no complete checkpoint") from error
    if _is_of_old(raw):
        raise CheckpointError(
            f"{storage.label(folder)}: an earlier raysplit wrote this checkpoint, which this one cannot open; finish "
            "the run with that version, or delete the checkpoints to train again what goes on from them"
        )
    manifest = CheckpointManifest.from_bytes(raw)
    if manifest.node.folder != folder:
        raise Damaged(f"{MANIFEST} is of {manifest.node.folder}")
    return manifest


def _is_of_old(raw: bytes) -> bool:
    """Whether a manifest is of the format before 2026-11-30: DeepSpeed's own files of one world size, not hashed."""
    try:
        content = json.loads(raw)
    except ValueError:
        return False
    return isinstance(content, dict) and "n_workers" in content and "sha256" not in content


def stored(storage: CheckpointStorage) -> tuple[dict[Node, CheckpointManifest], list[str]]:
    """Node -> manifest of every checkpoint; and the folders that hold none, of a save under way or a killed one.

    Raises:
        CheckpointError: an earlier raysplit wrote one of them.
        StorageError: the storage cannot be read.
    """
    found, torn = {}, []
    for folder in storage.folders():
        try:
            manifest = read_manifest(storage, folder)
            found[manifest.node] = manifest
        except Damaged:
            torn.append(folder)
    return found, torn


def stored_nodes(checkpoints: str | Path) -> set[Node]:
    """The nodes whose checkpoints a location holds.

    Raises:
        CheckpointError, StorageError: as `stored`.
    """
    return set(stored(CheckpointStorage(checkpoints))[0])


def check_checkpoints(checkpoints: str | Path, space: Space, *, vocab_size: int) -> None:
    """Check, before anything starts, that the lanes of this space can continue from the checkpoints that are there.

    Raises:
        CheckpointError: naming the folder, the model it holds and the one that the space has.
        StorageError: the storage cannot be read.
    """
    storage = CheckpointStorage(checkpoints)
    for node, manifest in stored(storage)[0].items():
        check_fits(storage.label(node.folder), manifest, space.shape(node.n_params, vocab_size))


def mark_shared(checkpoints: str | Path) -> None:
    """Leave the mark that `check_shared` looks for.

    Raises:
        StorageError: the storage cannot be written.
    """
    CheckpointStorage(checkpoints).put(MARK, b"{}")


def check_shared(checkpoints: str | Path) -> None:
    """Check, before anything is trained, that this machine sees the place where the run keeps its checkpoints.

    Raises:
        StorageError: naming the machine and the place.
    """
    storage = CheckpointStorage(checkpoints)
    try:
        storage.read(MARK)
    except Missing as error:
        raise StorageError(
            f"{storage.label(MARK)}: the machine {socket.gethostname()} does not see what the run has put there; "
            "checkpoints need a folder that every node shares, or a URL in compute.storage"
        ) from error


def check_fits(label: str, manifest: CheckpointManifest, shape: ModelShape) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        CheckpointError: naming both.
    """
    saved = manifest.shape
    if saved != shape:
        raise CheckpointError(
            f"{label}: holds a model of {saved.n_params_non_embedding} non-embedding parameters "
            f"({saved}), this run needs {shape.n_params_non_embedding} ({shape})"
        )
