"""Write and open checkpoints: every rank takes a share of the files, and none holds the whole of a large model.

A file holds whole parameters, in the model's order: for each its fp32 weight and both of Adam's moments, as
safetensors. Ranks take turns at the files, so each holds 12 bytes for each parameter of its own files, and no more.
Every rank calls each function here together with the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from uuid import uuid4

import safetensors.torch
import torch
import torch.distributed as dist

from raysplit.design.tree import Node
from raysplit.errors import StorageError
from raysplit.train.ahead import done_ahead
from raysplit.train.checkpoints import MANIFEST, CheckpointManifest, Damaged, StoredFile, read_manifest
from raysplit.train.engine import Engine
from raysplit.train.ranks import agree, gathered
from raysplit.train.state import MOMENTS, WEIGHT
from raysplit.train.storage import CheckpointStorage, Missing

_FILE_BYTES = 256 * 2**20
"""Bytes of a file, about, so that a rank that writes or reads one needs little memory beside its share."""
_WHAT = (WEIGHT, *MOMENTS)


class Save:
    """A checkpoint that is being saved: copied off the device, and written by a thread while training goes on.

    It holds the engine's state at the time that it was made; later steps change nothing of it.
    """

    def __init__(
        self, engine: Engine, storage: CheckpointStorage, node: Node, *, passing: bool, writer: Executor
    ) -> None:
        """Copy this rank's share, and begin to write it.

        Args:
            engine: it stands at ``node``.
            storage: of the checkpoints.
            node: the node of the tree.
            passing: as `CheckpointManifest.passing`.
            writer: of one thread.
        """
        self.node, self.passing = node, passing
        self._storage, self._shape, self._adam_steps = storage, engine.shape, engine.adam_steps
        share: dict[int, dict[str, torch.Tensor]] = {}
        for number, parameters in enumerate(_grouped(engine.parameter_shapes)):
            for parameter in parameters:
                whole = {what: engine.whole(parameter, what) for what in _WHAT}
                if number % dist.get_world_size() == dist.get_rank():
                    tensors = share.setdefault(number, {})
                    tensors |= {_key(what, parameter): value.cpu() for what, value in whole.items()}
        self._files: Future[dict[int, StoredFile]] = writer.submit(_write, storage, node.folder, share)

    @property
    def is_written(self) -> bool:
        """Whether this rank's share is written, or has failed."""
        return self._files.done()

    def finish(self) -> CheckpointManifest:
        """Wait for every rank's files, then write the manifest that makes a checkpoint of them.

        Raises:
            StorageError: on every rank, where one of them could not write.
        """
        failure = self._files.exception()
        if failure is not None and not isinstance(failure, StorageError):
            raise failure
        every = gathered(failure or self._files.result())
        shares = []
        for each in every:
            if isinstance(each, StorageError):
                raise each
            shares.append(each)
        return agree(lambda: self._put_manifest(shares))

    def _put_manifest(self, shares: Sequence[Mapping[int, StoredFile]]) -> CheckpointManifest:
        files = {number: file for share in shares for number, file in share.items()}
        manifest = CheckpointManifest(
            node=self.node,
            shape=self._shape,
            adam_steps=self._adam_steps,
            passing=self.passing,
            files=tuple(files[number] for number in sorted(files)),
        )
        folder = self.node.folder
        try:
            replaced = {file.name for file in read_manifest(self._storage, folder).files}
        except Damaged:
            replaced = set()
        self._storage.put(f"{folder}/{MANIFEST}", manifest.to_bytes())
        for name in replaced:
            self._storage.delete(f"{folder}/{name}")
        return manifest


def open_checkpoint(
    engine: Engine, storage: CheckpointStorage, manifest: CheckpointManifest, *, reader: Executor
) -> None:
    """Give an engine the state of a checkpoint. Each file is read by one rank, which sends the others its tensors.

    Args:
        engine: of the same shape, with any number of ranks at any stage.
        storage: of the checkpoints.
        manifest: of the checkpoint; the same on every rank.
        reader: of one thread, which reads this rank's next file meanwhile.

    Raises:
        Damaged: on every rank, where a file is not what was written; the engine's state is then a mixture of two.
        StorageError: on every rank, where one of them could not read.
    """
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    read = partial(_read_or_why_not, storage, manifest.node.folder)
    mine = done_ahead(read, manifest.files[rank::n_ranks], thread=reader)
    for number, file in enumerate(manifest.files):
        owner = number % n_ranks
        found = next(mine) if owner == rank else {}
        failure = gathered(found if isinstance(found, Exception) else None)[owner]
        if failure is not None:
            raise failure
        assert not isinstance(found, Exception)
        for parameter in file.parameters:
            shape = engine.parameter_shapes[parameter]
            values = {what: _sent(found.get(_key(what, parameter)), shape, owner, engine.device) for what in _WHAT}
            engine.assign(parameter, values)
    engine.adam_steps = manifest.adam_steps


def _grouped(shapes: Mapping[str, torch.Size]) -> Iterator[list[str]]:
    """Names of the parameters of each file."""
    group: list[str] = []
    n_bytes = 0
    for parameter, shape in shapes.items():
        own_bytes = 4 * len(_WHAT) * shape.numel()
        if group and n_bytes + own_bytes > _FILE_BYTES:
            yield group
            group, n_bytes = [], 0
        group.append(parameter)
        n_bytes += own_bytes
    yield group


def _key(what: str, parameter: str) -> str:
    return f"{what}/{parameter}"


def _write(storage: CheckpointStorage, folder: str, share: dict[int, dict[str, torch.Tensor]]) -> dict[int, StoredFile]:
    """Write each file under a name that no other save uses; its tensors are freed."""
    written = {}
    for number in sorted(share):
        tensors = share.pop(number)
        parameters = dict.fromkeys(key.partition("/")[2] for key in tensors)
        content = safetensors.torch.save(tensors)
        del tensors
        written[number] = StoredFile.of(f"{number:05d}-{uuid4().hex[:12]}.safetensors", content, parameters)
        storage.put(f"{folder}/{written[number].name}", content)
    return written


def _read_or_why_not(
    storage: CheckpointStorage, folder: str, file: StoredFile
) -> dict[str, torch.Tensor] | Damaged | StorageError:
    try:
        return _read(storage, folder, file)
    except (Damaged, StorageError) as error:
        return error


def _read(storage: CheckpointStorage, folder: str, file: StoredFile) -> dict[str, torch.Tensor]:
    try:
        content = storage.read(f"{folder}/{file.name}")
    except Missing as error:
        raise Damaged(f"{file.name} is missing") from error
    file.check(content)
    tensors: dict[str, torch.Tensor] = safetensors.torch.load(content)
    return tensors


def _sent(value: torch.Tensor | None, shape: torch.Size, owner: int, device: torch.device) -> torch.Tensor:
    """A tensor of the ``owner``, sent to the device of every rank; the others give None for it."""
    here = torch.empty(shape, device=device) if value is None else value.to(device)
    if dist.get_world_size() > 1:
        dist.broadcast(here, src=owner)
    return here
