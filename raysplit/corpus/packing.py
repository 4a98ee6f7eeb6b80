"""Documents become tokens, slice by slice in any number of processes; then the tokens are joined into shards."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from raysplit.corpus.runs import write_durably
from raysplit.corpus.shards import Shard, ShardWriter, TokenType
from raysplit.corpus.slices import DocumentBatch, Slice, not_nearly_held_out
from raysplit.corpus.tokenizer import SavedTokenizer

SIDES = ("validation", "train")


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A slice of a domain to be packed."""

    slice: Slice
    near: Path | None
    """Signatures of all held-out texts; None where nearly equal ones are not looked for."""
    tokenizer: SavedTokenizer
    dtype: TokenType
    stem: str
    """Path that the names of its files begin with."""

    def tokens_path(self, side: str) -> Path:
        return Path(f"{self.stem}.{side}.bin")


class SideCount(BaseModel):
    """What one side, training or held out, has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_tokens: int = 0
    n_text_bytes: int | None = 0
    """UTF-8 bytes; None where the tokenizer of its tokens gives no text back."""
    n_documents: int = 0

    def __add__(self, other: "SideCount") -> "SideCount":
        known = self.n_text_bytes is not None and other.n_text_bytes is not None
        return SideCount(
            n_tokens=self.n_tokens + other.n_tokens,
            n_text_bytes=self.n_text_bytes + other.n_text_bytes if known else None,  # type: ignore[operator]
            n_documents=self.n_documents + other.n_documents,
        )


class Packed(BaseModel):
    """What became of a bucket; its file is written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sides: dict[str, SideCount]
    near_of: dict[int, int]
    """Training documents left out because they nearly equal a held-out one, by the number of the domain of that one."""
    held_out_bytes: tuple[int, ...] = ()
    """UTF-8 bytes of each held-out document, in their order; empty for documents that are stored as tokens."""


def pack_bucket(bucket: Bucket) -> Packed:
    """Write the tokens of both sides of a bucket, in key order, unless they are there."""
    record = Path(bucket.stem + ".json")
    if record.exists():
        return Packed.model_validate_json(record.read_bytes())
    held_out, train = bucket.slice.load()
    left_out: Counter[int] = Counter()
    far = not_nearly_held_out(bucket.slice.batches(train), bucket.near, left_out)
    sides = {
        "validation": _pack_side(bucket, "validation", bucket.slice.batches(held_out)),
        "train": _pack_side(bucket, "train", far),
    }
    lengths = tuple(map(len, held_out)) if bucket.slice.tokens_of is None else ()
    packed = Packed(sides=sides, near_of=dict(left_out), held_out_bytes=lengths)
    _write_record(record, packed)
    return packed


def _pack_side(bucket: Bucket, side: str, batches: Iterable[DocumentBatch]) -> SideCount:
    tokenizer = bucket.tokenizer.load()
    count = SideCount()
    parts: list[bytes] = []
    for data, texts in batches:
        is_text = bucket.slice.tokens_of is None
        tokens = tokenizer.encode(texts or []) if is_text else tokenizer.joined(data)
        parts.append(tokens.astype(np.dtype(bucket.dtype).newbyteorder("<")).tobytes())
        n_bytes = None if texts is None else sum(map(len, data if is_text else map(str.encode, texts)))
        count += SideCount(n_tokens=len(tokens), n_text_bytes=n_bytes, n_documents=len(data))
    write_durably(bucket.tokens_path(side), parts)
    return count


class _Finished(BaseModel):
    """Shards of one side that are whole."""

    shards: tuple[Shard, ...] = ()


class Side:
    """The shards of one side of a domain, to which one bucket after the other is appended."""

    def __init__(self, folder: Path, stem: str, *, record: Path, dtype: TokenType, shard_bytes: int) -> None:
        """Go on with the shards that ``record`` says are whole, where it is there."""
        self._record = record
        done = _Finished.model_validate_json(record.read_bytes()) if record.exists() else _Finished()
        self._writer = ShardWriter(
            folder, stem, dtype=dtype, shard_bytes=shard_bytes, finished=done.shards, on_finished=self._save
        )
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._n_tokens = 0
        """Tokens of the buckets so far."""
        self._waiting: list[tuple[int, Path]] = []
        """Files of tokens, each with how many tokens have to be in whole shards before it can go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._writer.__exit__(kind, value, traceback)

    def append(self, path: Path, n_tokens: int) -> None:
        """Append those tokens of the next bucket that are not in a whole shard yet."""
        n_there = self._writer.n_tokens - self._n_tokens
        self._n_tokens += n_tokens
        if n_there < n_tokens:
            self._writer.append(np.fromfile(path, dtype=self._dtype, offset=n_there * self._dtype.itemsize))
        self._waiting.append((self._n_tokens, path))

    def finish(self, *, relative_to: Path) -> tuple[Shard, ...]:
        """Close the last shard; see `ShardWriter.finish`."""
        return self._writer.finish(relative_to=relative_to)

    def _save(self, shards: tuple[Shard, ...]) -> None:
        _write_record(self._record, _Finished(shards=shards))
        n_whole = sum(shard.n_tokens for shard in shards)
        while self._waiting and self._waiting[0][0] <= n_whole:
            self._waiting.pop(0)[1].unlink(missing_ok=True)


def _write_record(path: Path, record: BaseModel) -> None:
    partial = path.with_name(path.name + ".partial")
    write_durably(partial, [record.model_dump_json().encode()])
    partial.replace(path)
