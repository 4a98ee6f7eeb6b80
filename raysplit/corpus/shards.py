"""Token shards: raw little-endian integers in one or more files, written in one pass and read through memory maps."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

TokenType = Literal["uint16", "uint32"]
SHARD_BYTES = 1 << 30


class Shard(BaseModel):
    """One file of tokens, as the manifest records it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Relative to the corpus folder."""
    n_tokens: int
    n_bytes: int
    sha256: str


def token_type(vocab_size: int) -> TokenType:
    """The smallest type that holds every token."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class ShardWriter:
    """Appends tokens to `<stem>-00000.bin`, `<stem>-00001.bin`, ... and starts a new file at ``shard_bytes``."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        *,
        dtype: TokenType,
        shard_bytes: int = SHARD_BYTES,
        finished: tuple[Shard, ...] = (),
        on_finished: Callable[[tuple[Shard, ...]], None] = lambda shards: None,
    ) -> None:
        """Go on after the files that are ``finished``; after each new one ``on_finished`` is told of all of them."""
        self._folder, self._stem = folder, stem
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shard_tokens = max(1, shard_bytes // self._dtype.itemsize)
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._room = 0
        self._finished = list(finished)
        self._on_finished = on_finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def n_tokens(self) -> int:
        """Tokens that were written so far, with those of finished files."""
        in_file = self._shard_tokens - self._room if self._file is not None else 0
        return sum(shard.n_tokens for shard in self._finished) + in_file

    def append(self, tokens: np.ndarray) -> None:
        """Write ``tokens`` (n,), over as many files as they need."""
        tokens = tokens.astype(self._dtype)
        while len(tokens):
            if self._room == 0:
                self._finish_file()
                name = f"{self._stem}-{len(self._finished):05d}.bin"
                self._file = (self._folder / name).open("wb")
                self._digest, self._room = hashlib.sha256(), self._shard_tokens
            assert self._file is not None
            data = tokens[: self._room].tobytes()
            self._file.write(data)
            self._digest.update(data)
            self._room -= len(data) // self._dtype.itemsize
            tokens = tokens[len(data) // self._dtype.itemsize :]

    def finish(self, *, relative_to: Path) -> tuple[Shard, ...]:
        """Close the last file and describe all of them, their paths ``relative_to`` the corpus folder."""
        self._finish_file()
        place = self._folder.relative_to(relative_to)
        return tuple(shard.model_copy(update={"file": str(place / shard.file)}) for shard in self._finished)

    def _finish_file(self) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        n_tokens = self._shard_tokens - self._room
        self._finished.append(
            Shard(
                file=Path(self._file.name).name,
                n_tokens=n_tokens,
                n_bytes=n_tokens * self._dtype.itemsize,
                sha256=self._digest.hexdigest(),
            )
        )
        self._file, self._room = None, 0
        self._on_finished(tuple(self._finished))


class ShardReader:
    """The tokens of one side of one domain as one long sequence over its shard files."""

    def __init__(self, folder: Path, shards: tuple[Shard, ...], *, dtype: TokenType) -> None:
        little_endian = np.dtype(dtype).newbyteorder("<")
        self._maps = [np.memmap(folder / shard.file, dtype=little_endian, mode="r") for shard in shards]
        self._ends = np.cumsum([shard.n_tokens for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, length: int) -> np.ndarray:
        """(length,) int64 tokens from ``start`` on."""
        first = int(np.searchsorted(self._ends, start, side="right"))
        offset = start - (int(self._ends[first - 1]) if first else 0)
        parts = []
        for tokens in self._maps[first:]:
            parts.append(tokens[offset : offset + length])
            length -= len(parts[-1])
            offset = 0
            if length == 0:
                break
        return np.concatenate(parts).astype(np.int64)

    def windows(self, numbers: np.ndarray, *, context_length: int) -> np.ndarray:
        """(n, context_length + 1) int64; window w starts at token w * context_length, its last one is only a target."""
        out = np.empty((len(numbers), context_length + 1), dtype=np.int64)
        for row, number in enumerate(numbers):
            out[row] = self.read(int(number) * context_length, context_length + 1)
        return out
