"""Tokenized text: documents as arrays of tokens, from the files of other training frameworks.

    .bin beside .idx    Megatron-LM's indexed dataset, version 1 (megatron/core/datasets/indexed_dataset.py)
    .npy                an array of numpy's; rows of two dimensions are documents
    .arrow, .parquet    a column of lists, such as `datasets` writes
    .mds beside index.json    MosaicML streaming, version 2 (streaming/base/format/mds)

A document ends where its file says, and at each end-of-text token. The token itself is dropped here, because packing
puts it behind every document.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from raysplit.corpus.not_read import Tally
from raysplit.errors import CorpusError, Unreadable, unknown
from raysplit.files import open_bytes
from raysplit.space import SourceSpec

TOKEN_SUFFIXES = (".bin", ".npy", ".arrow", ".parquet", ".mds")
COMPANIONS = (".idx", ".json")
"""Suffixes of files that belong to a file of tokens."""
_BLOCK_TOKENS = 1 << 20
_LONGEST = 1 << 30
"""Most tokens of a document, so that memory suffices."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Vocabulary of the tokenizer that made the tokens."""

    tokenizer: str
    size: int
    end_of_text: int


def token_documents(
    paths: Sequence[Path], source: SourceSpec, vocabulary: Vocabulary, tally: Tally
) -> Iterator[np.ndarray]:
    """(n,) uint32 tokens of each document, without the end of text; documents without tokens are left out.

    Raises:
        CorpusError: a token is not in the vocabulary, or too many files cannot be read.
    """
    for path in paths:
        read = _READERS[token_suffix(path)]
        try:
            for number, tokens in enumerate(read(path, source.tokens_column), start=1):
                _check(tokens, vocabulary, tally, path, number)
                for document in _cut(np.asarray(tokens), vocabulary.end_of_text, source.split_on):
                    if len(document):
                        yield document.astype(np.uint32)
        except Unreadable as error:
            tally.bad_file(path, error)
        except OSError as error:
            tally.bad_file(path, f"cannot be read: {error.strerror or error}")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            tally.bad_file(path, f"is damaged: {error}")


def token_suffix(path: Path) -> str:
    """Suffix that says the format, in lower case: ``.mds`` of ``shard.00000.mds.zstd``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return ".mds" if ".mds" in suffixes else suffixes[-1] if suffixes else ""


def _check(tokens: np.ndarray, vocabulary: Vocabulary, tally: Tally, path: Path, number: int) -> None:
    if tokens.dtype.kind not in "iu":
        raise Unreadable(f"holds {tokens.dtype}, and tokens are whole numbers; save it as uint16 or uint32")
    for start in range(0, len(tokens), _BLOCK_TOKENS):
        block = tokens[start : start + _BLOCK_TOKENS]
        for token in (int(block.min()), int(block.max())):
            if not 0 <= token < vocabulary.size:
                raise CorpusError(
                    f"{tally.where}: {tally.name(path) or path.name}: document {number} has the token {token}, and "
                    f"tokenizer {vocabulary.tokenizer!r} has the tokens 0 to {vocabulary.size - 1}; name the tokenizer "
                    "that made these tokens, in the source and in corpus.tokenizer"
                )


def _cut(tokens: np.ndarray, end_of_text: int, size: int | str | None) -> Iterator[np.ndarray]:
    """Documents between ends of text; where ``size`` is a number, in pieces of so many tokens."""
    start = 0
    for at in range(0, len(tokens), _BLOCK_TOKENS):
        for end in (np.flatnonzero(tokens[at : at + _BLOCK_TOKENS] == end_of_text) + at).tolist():
            yield from _pieces(tokens[start:end], end_of_text, size)
            start = end + 1
    yield from _pieces(tokens[start:], end_of_text, size)


def _pieces(tokens: np.ndarray, end_of_text: int, size: int | str | None) -> Iterator[np.ndarray]:
    if size is None and len(tokens) > _LONGEST:
        raise Unreadable(
            f"has {len(tokens):,} tokens without an end of text (token {end_of_text}); cut it with `split_on: 8k`"
        )
    step = size if isinstance(size, int) else max(1, len(tokens))
    yield from (tokens[at : at + step] for at in range(0, len(tokens), step))


_MEGATRON = b"MMIDIDX\x00\x00"
_MEGATRON_TYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float64", 7: "float32", 8: "uint16",
}  # fmt: skip
_MEGATRON_HEAD = struct.Struct("<9sQBQQ")  # magic, version, type of tokens, sequences, ends of documents


def _megatron(path: Path, column: str) -> Iterator[np.ndarray]:
    index = path.with_suffix(".idx")
    if not index.is_file():
        raise Unreadable(
            f"has no {index.name} beside it, which says where documents end; save a plain array with numpy.save"
        )
    content = index.read_bytes()
    magic, version, code, n_sequences, n_ends = (
        _MEGATRON_HEAD.unpack_from(content) if len(content) >= _MEGATRON_HEAD.size else (b"", 0, 0, 0, 0)
    )
    if magic != _MEGATRON:
        raise Unreadable(
            f"{index.name} begins with {content[:9]!r}, and an index of Megatron with {_MEGATRON!r}; build it again "
            "with Megatron-LM's tools/preprocess_data.py"
        )
    if version != 1:
        raise Unreadable(f"{index.name} is of version {version}; version 1 is read")
    if code not in _MEGATRON_TYPES:
        known = ", ".join(f"{number} {name}" for number, name in _MEGATRON_TYPES.items())
        raise Unreadable(f"{index.name} has the type {code} of tokens. Known: {known}")
    sizes, starts, ends = _megatron_columns(index, content, n_sequences, n_ends)
    dtype = np.dtype(_MEGATRON_TYPES[code]).newbyteorder("<")
    _check_size(path, int(sizes.sum()) * dtype.itemsize)
    data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
    for first, after in pairwise(ends.tolist()):
        start = int(starts[first]) if first < after else 0
        yield data[start : start + int(sizes[first:after].sum()) * dtype.itemsize].view(dtype)


def _megatron_columns(index: Path, content: bytes, n_sequences: int, n_ends: int) -> list[np.ndarray]:
    """Lengths of the sequences in tokens, their starts in bytes, and the sequence with which each document begins."""
    columns, at = [], _MEGATRON_HEAD.size
    for n, dtype in ((n_sequences, "<i4"), (n_sequences, "<i8"), (n_ends, "<i8")):
        wanted = at + n * np.dtype(dtype).itemsize
        if wanted > len(content):
            has = f"it has {len(content):,} bytes of {wanted:,} or more"
            raise Unreadable(f"{index.name} is cut short: {has}; copy it again")
        columns.append(np.frombuffer(content, dtype=dtype, count=n, offset=at))
        at = wanted
    sizes, _, ends = columns
    if (sizes < 0).any() or not n_ends or ends[0] != 0 or ends[-1] != n_sequences or (np.diff(ends) < 0).any():
        raise Unreadable(f"{index.name} is damaged: its documents do not lie one after another")
    return columns


def _check_size(path: Path, wanted: int) -> None:
    found = path.stat().st_size
    if found != wanted:
        state = "is cut short" if found < wanted else "does not fit its index"
        raise Unreadable(f"{state}: it has {found:,} bytes instead of {wanted:,}; copy it again")


def _npy(path: Path, column: str) -> Iterator[np.ndarray]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Unreadable(f"cannot be read as .npy, or is cut short: {error}") from error
    if array.ndim not in (1, 2):
        raise Unreadable(f"has {array.ndim} dimensions; an array of tokens has one, or two with a document in each row")
    yield from array[None] if array.ndim == 1 else array


def _arrow(path: Path, column: str) -> Iterator[np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                _check_column(file.schema_arrow, column)
                yield from _lists(file.iter_batches(columns=[column]), column)
            return
        with pa.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            batches = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            _check_column(batches.schema, column)
            numbered = map(batches.get_batch, range(batches.num_record_batches)) if is_file else iter(batches)
            yield from _lists(numbered, column)
    except pa.ArrowException as error:
        raise Unreadable(f"cannot be read as Arrow, or is cut short: {' '.join(str(error).split())}") from error


def _check_column(schema: Any, column: str) -> None:
    from pyarrow import types

    if column not in schema.names:
        raise Unreadable(f"{unknown('column', column, schema.names)}; set `tokens_column`")
    kind = schema.field(column).type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list or not types.is_integer(kind.value_type):
        raise Unreadable(f"column {column!r} holds {kind}, not lists of whole numbers; set `tokens_column`")


def _lists(batches: Iterator[Any], column: str) -> Iterator[np.ndarray]:
    rows = (row.values for batch in batches for row in batch.column(batch.schema.get_field_index(column)))
    for number, tokens in enumerate(rows, start=1):
        if tokens is None:
            yield np.empty(0, dtype=np.uint32)
        elif tokens.null_count:
            raise Unreadable(f"document {number} has a null among its tokens; write the file without it")
        else:
            yield tokens.to_numpy(zero_copy_only=False)


_MDS_SHAPES = ("uint8", "uint16", "uint32", "uint64")
_MDS_TYPES = {
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32",
    64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip


def _mds(path: Path, column: str) -> Iterator[np.ndarray]:
    shard = _mds_shard(path)
    names, encodings, fixed = shard["column_names"], shard["column_encodings"], shard["column_sizes"]
    if column not in names:
        raise Unreadable(f"{unknown('column', column, names)}; set `tokens_column`")
    place = names.index(column)
    decode = _mds_decoder(encodings[place], column)
    with open_bytes(path) as file:
        content = file.read()
    wanted, n = shard["raw_data"]["bytes"], shard["samples"]
    if len(content) != wanted:
        raise Unreadable(f"is cut short or changed: it has {len(content):,} bytes instead of {wanted:,}; copy it again")
    starts = np.frombuffer(content, dtype="<u4", count=n + 1, offset=4)
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        sample = content[start:end]
        n_free = sum(size is None for size in fixed)
        free = iter(np.frombuffer(sample, dtype="<u4", count=n_free).tolist())
        sizes = [next(free) if size is None else size for size in fixed]
        begin = 4 * n_free + sum(sizes[:place])
        yield decode(sample[begin : begin + sizes[place]])


def _mds_shard(path: Path) -> dict[str, Any]:
    index = path.with_name("index.json")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        shards = {
            data["basename"]: shard
            for shard in content["shards"]
            for data in (shard["raw_data"], shard.get("zip_data"))
            if data
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"has no index.json beside it that lists shards of MosaicML streaming: {error}") from error
    if content.get("version") != 2:
        raise Unreadable(f"index.json is of version {content.get('version')!r}; version 2 is read")
    if path.name not in shards:
        raise Unreadable("is not in the index.json beside it; copy both again")
    return dict(shards[path.name])


def _mds_decoder(encoding: str, column: str) -> Callable[[bytes], np.ndarray]:
    kind, _, rest = encoding.partition(":")
    if kind == "bytes":  # as llm-foundry writes tokens
        return lambda data: np.frombuffer(data, dtype="<i8")
    if kind != "ndarray":
        raise Unreadable(
            f"column {column!r} is encoded as {encoding!r}. Known: ndarray, ndarray:TYPE, ndarray:TYPE:SHAPE, bytes"
        )
    dtype, _, shape = rest.partition(":")
    return lambda data: _mds_array(data, dtype=dtype, has_shape=not shape)


def _mds_array(data: bytes, *, dtype: str, has_shape: bool) -> np.ndarray:
    """An array as MosaicML streaming writes it: its type and its shape come first, unless the index gives them."""
    at = 0
    if not dtype:
        dtype, at = _MDS_TYPES.get(data[0], "a type unknown"), 1
    if has_shape:
        n_dimensions, size = data[at] >> 2, 1 << (data[at] & 3)
        at += 1 + n_dimensions * size
    return np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<"), offset=at)


_READERS: dict[str, Callable[[Path, str], Iterator[np.ndarray]]] = {
    ".bin": _megatron,
    ".npy": _npy,
    ".arrow": _arrow,
    ".parquet": _arrow,
    ".mds": _mds,
}
