"""Tokens of other frameworks are read, document by document; files are written here as their formats define them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from raysplit.corpus import Corpus, build_corpus
from raysplit.corpus.sources import TokenDocument, open_source
from raysplit.corpus.tokenized import Vocabulary
from raysplit.corpus.tokenizer import save_bpe, train_bpe
from raysplit.errors import CorpusError
from raysplit.space import CorpusSpec, SourceSpec, TokenizerSpec
from tests.corpus.texts import documents, files_source, write_files

SIDES: tuple[Literal["train", "validation"], ...] = ("train", "validation")
END = 3
VOCABULARY = Vocabulary(tokenizer="made-by", size=5000, end_of_text=END)
TEXTS = documents(60, tag="né")
DOCUMENTS = [[10, 11, 12], [13], [4999, 0, 1, 2], [20] * 300, [7, 8]]
MEGATRON_CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}


def megatron(path: Path, texts: list[list[int]], *, dtype: str = "uint16", **changes: Any) -> None:
    """As Megatron-LM's IndexedDatasetBuilder writes it; a document is two sequences, the second its end."""
    sequences = [part for text in texts for part in (text, [END])]
    sizes = np.array([len(part) for part in sequences], dtype="<i4")
    itemsize = np.dtype(dtype).itemsize
    starts = np.concatenate([[0], np.cumsum(sizes[:-1], dtype=np.int64) * itemsize]).astype("<i8")
    ends = np.arange(0, len(sequences) + 1, 2).astype("<i8")
    head: dict[str, Any] = {"magic": b"MMIDIDX\x00\x00", "version": 1, "code": MEGATRON_CODES[dtype]} | changes
    with path.with_suffix(".idx").open("wb") as file:
        file.write(head["magic"] + struct.pack("<QB", head["version"], head["code"]))
        file.write(struct.pack("<QQ", len(sizes), len(ends)))
        file.write(sizes.tobytes() + starts.tobytes() + ends.tobytes())
    path.write_bytes(np.concatenate([np.array(part, dtype=dtype) for part in sequences]).tobytes())


def flat(texts: list[list[int]]) -> np.ndarray:
    return np.array([token for text in texts for token in (*text, END)], dtype=np.uint16)


def arrow(path: Path, texts: list[list[int]], *, is_file: bool = False, column: str = "input_ids") -> None:
    table = pa.table({"id": list(range(len(texts))), column: pa.array(texts, pa.list_(pa.int32()))})
    with pa.OSFile(str(path), "wb") as sink:
        writer = pa.ipc.new_file if is_file else pa.ipc.new_stream
        with writer(sink, table.schema) as out:
            out.write_table(table, max_chunksize=2)


def mds_array(tokens: list[int], *, dtype: str, is_typed: bool) -> bytes:
    """`ndarray` without a type puts it first (16: uint16, 33: int32); the number of dimensions and the size follow."""
    code = {"uint16": 16, "int32": 33}[dtype]
    shape = bytes([1 << 2 | 1]) + struct.pack("<H", len(tokens))
    return (b"" if is_typed else bytes([code])) + shape + np.array(tokens, dtype=dtype).tobytes()


def mds(folder: Path, texts: list[list[int]], encoding: str = "ndarray:int32", *, version: int = 2) -> None:
    """As MosaicML streaming's MDSWriter does; beside the tokens a number of fixed size and a string."""
    encode: dict[str, Callable[[list[int]], bytes]] = {
        "ndarray": lambda text: mds_array(text, dtype="uint16", is_typed=False),
        "ndarray:int32": lambda text: mds_array(text, dtype="int32", is_typed=True),
        "bytes": lambda text: np.array(text, dtype="<i8").tobytes(),
    }
    folder.mkdir()
    shards = []
    for number, start in enumerate(range(0, len(texts), 3)):
        samples = []
        for text in texts[start : start + 3]:
            name, tokens = b"name", encode[encoding](text)
            samples.append(struct.pack("<II", len(tokens), len(name)) + tokens + np.int64(7).tobytes() + name)
        head = 4 + 4 * (len(samples) + 1)
        ends = head + np.cumsum([0, *map(len, samples)])
        content = struct.pack("<I", len(samples)) + ends.astype("<u4").tobytes() + b"".join(samples)
        (folder / f"shard.{number:05d}.mds").write_bytes(content)
        shards.append({
            "column_encodings": [encoding, "int", "str"], "column_names": ["input_ids", "number", "name"],
            "column_sizes": [None, 8, None], "compression": None, "format": "mds", "hashes": [],
            "raw_data": {"basename": f"shard.{number:05d}.mds", "bytes": len(content), "hashes": {}},
            "samples": len(samples), "size_limit": 1 << 26, "version": 2, "zip_data": None,
        })  # fmt: skip
    (folder / "index.json").write_text(json.dumps({"shards": shards, "version": version}))


MADE: dict[str, Callable[[Path], object]] = {
    "a.bin": lambda path: megatron(path, DOCUMENTS),
    "int64.bin": lambda path: megatron(path, DOCUMENTS, dtype="int64"),
    "a.npy": lambda path: np.save(path, flat(DOCUMENTS)),
    "stream.arrow": lambda path: arrow(path, DOCUMENTS),
    "file.arrow": lambda path: arrow(path, DOCUMENTS, is_file=True),
    "a.parquet": lambda path: pq.write_table(pa.table({"input_ids": DOCUMENTS}), path),
    "mds": lambda path: mds(path, DOCUMENTS),
    "untyped": lambda path: mds(path, DOCUMENTS, "ndarray"),
    "bytes": lambda path: mds(path, DOCUMENTS, "bytes"),
}


def source_of(path: Path, **fields: Any) -> SourceSpec:
    return SourceSpec(kind="tokens", path=str(path), tokenizer="made-by", **fields)


def read(path: Path, **fields: Any) -> list[list[int]]:
    found = open_source(source_of(path, **fields), domain="a", vocabulary=VOCABULARY)
    tokens = [one.tokens.tolist() for one in found.documents if isinstance(one, TokenDocument)]
    found.tally.check()
    return tokens


@pytest.mark.parametrize(("name", "make"), MADE.items())
def test_every_format_gives_its_documents(tmp_path: Path, name: str, make: Callable[[Path], object]) -> None:
    make(tmp_path / name)
    assert read(tmp_path / name) == DOCUMENTS


def test_a_folder_is_read_file_by_file_and_counts_each_once(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    megatron(tmp_path / "text" / "a.bin", DOCUMENTS[:2])
    np.save(tmp_path / "text" / "b.npy", flat(DOCUMENTS[2:]))
    found = open_source(source_of(tmp_path / "text"), domain="a", vocabulary=VOCABULARY)
    assert [path.name for path in found.paths] == ["a.bin", "b.npy"]
    assert found.tally.so_far().n_files == 2
    assert read(tmp_path / "text") == DOCUMENTS
    assert read(tmp_path / "text" / "a.idx") == read(tmp_path / "text" / "a") == DOCUMENTS[:2]


def test_rows_are_documents_and_long_ones_are_cut(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([[5, 6, 7, 8], [9, END, 10, END]], dtype=np.uint32))
    assert read(tmp_path / "rows.npy") == [[5, 6, 7, 8], [9], [10]]
    np.save(tmp_path / "long.npy", np.arange(100, 350))
    assert list(map(len, read(tmp_path / "long.npy", split_on=100))) == [100, 100, 50]


def cut_short(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


def short_tokens(path: Path) -> None:
    megatron(path, DOCUMENTS)
    cut_short(path, 2)


def short_index(path: Path) -> None:
    megatron(path, DOCUMENTS)
    cut_short(path.with_suffix(".idx"), 4)


def short_array(path: Path) -> None:
    np.save(path, flat(DOCUMENTS))
    cut_short(path, 2)


def short_arrow(path: Path) -> None:
    arrow(path, DOCUMENTS)
    cut_short(path, 40)


def short_shard(path: Path) -> None:
    mds(path, DOCUMENTS)
    cut_short(path / "shard.00001.mds", 1)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "short.bin": (short_tokens, r"cut short: it has 628 bytes instead of 630"),
    "index.bin": (short_index, r"index\.idx is cut short"),
    "two.bin": (lambda p: megatron(p, DOCUMENTS, version=2), r"two\.idx is of version 2; version 1 is read"),
    "type.bin": (lambda p: megatron(p, DOCUMENTS, code=9), r"the type 9 of tokens\. Known: 1 uint8, .*8 uint16"),
    "old.bin": (lambda p: megatron(p, DOCUMENTS, magic=b"TNTIDX\0\0\0"), r"begins with b'TNTIDX.*preprocess_data"),
    "float.bin": (lambda p: megatron(p, DOCUMENTS, dtype="float32"), r"holds float32, and tokens are whole numbers"),
    "alone.bin": (lambda p: p.write_bytes(b"\1\0"), r"has no alone\.idx beside it.*numpy\.save"),
    "short.npy": (short_array, r"as \.npy, or is cut short"),
    "float.npy": (lambda p: np.save(p, np.ones(3)), r"holds float64, and tokens are whole numbers"),
    "cube.npy": (lambda p: np.save(p, np.ones((1, 2, 3), dtype=int)), r"has 3 dimensions"),
    "named.arrow": (lambda p: arrow(p, DOCUMENTS, column="tokens"), r"unknown column 'input_ids'.*; set `tokens_col"),
    "text.parquet": (lambda p: pq.write_table(pa.table({"input_ids": ["a"]}), p), r"holds string, not lists of whole"),
    "short.arrow": (short_arrow, r"cannot be read as Arrow, or is cut short"),
    "mds": (short_shard, r"1\.mds: is cut short or changed"),
    "three": (lambda p: mds(p, DOCUMENTS, version=3), r"index\.json is of version 3; version 2 is read"),
    "a.tokens": (lambda p: p.write_bytes(b""), r"unknown format of tokens '\.tokens'.*\.bin"),
    "empty": (lambda p: p.mkdir(), r"holds no file of tokens \(\.bin, \.npy"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "case"), BAD.items())
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, case: tuple[Callable[[Path], object], str]) -> None:
    make, said = case
    make(tmp_path / name)
    with pytest.raises(CorpusError, match=said):
        read(tmp_path / name)


def test_a_token_that_the_tokenizer_does_not_have_ends_the_build(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", flat([[1, 2], [5000]]))
    with pytest.raises(
        CorpusError, match=r"a\.npy: document 1 has the token 5000, and tokenizer 'made-by' .*0 to 4999"
    ):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("missing", [None, []])
def test_a_row_without_tokens_is_counted_and_left_out(tmp_path: Path, missing: list[int] | None) -> None:
    path = tmp_path / "a.arrow"
    arrow(path, [[1], missing, [2]])  # type: ignore[list-item]
    assert read(path) == [[1], [2]]
    arrow(path, [[1], missing, [5000]])  # type: ignore[list-item]
    with pytest.raises(CorpusError, match="document 3 has the token 5000"):
        read(path)


def test_a_null_among_the_tokens_is_named(tmp_path: Path) -> None:
    arrow(tmp_path / "a.arrow", [[1], [], [2, None]])  # type: ignore[list-item]
    with pytest.raises(CorpusError, match="document 3 has a null among its tokens"):
        read(tmp_path / "a.arrow")


def spec_of_tokens(path: Path, tokenizer: Path, **domains: SourceSpec) -> CorpusSpec:
    source = SourceSpec(kind="tokens", path=str(path), tokenizer=str(tokenizer))
    return CorpusSpec(
        domains={"a": source, **domains},
        tokenizer=TokenizerSpec(kind="huggingface", name=str(tokenizer)),
        validation_fraction=0.1,
    )


@pytest.fixture(scope="module")
def made_by(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("made-by") / "tokenizer"
    save_bpe(train_bpe(documents(200, tag="a"), vocab_size=400), folder)
    return folder


def tokens_of(corpus: Corpus, domain: str) -> np.ndarray:
    """Those of both sides, sorted."""
    pieces = [piece for side in SIDES for piece in corpus.token_pieces(domain, side=side, piece_tokens=10**6)]
    return np.sort(np.concatenate(pieces))


@pytest.fixture(scope="module")
def texts_as_tokens(tmp_path_factory: pytest.TempPathFactory, made_by: Path) -> Path:
    """`TEXTS`, and the first of them once more."""
    tokenizer = Tokenizer.from_file(str(made_by / "tokenizer.json"))
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in [*TEXTS, TEXTS[0]]]
    path = tmp_path_factory.mktemp("tokens") / "a.npy"
    np.save(path, np.array([token for text in encoded for token in (*text, 0)], dtype=np.uint16))
    return path


def test_tokens_and_their_text_make_the_same_corpus_but_for_the_order(
    tmp_path: Path, made_by: Path, texts_as_tokens: Path
) -> None:
    of_tokens = spec_of_tokens(texts_as_tokens, made_by)
    of_text = of_tokens.model_copy(update={"domains": {"a": files_source(write_files(tmp_path / "text", TEXTS))}})
    from_tokens, from_text = (
        build_corpus(spec, tmp_path / name) for name, spec in (("tokens", of_tokens), ("again", of_text))
    )
    assert np.array_equal(tokens_of(from_tokens, "a"), tokens_of(from_text, "a"))
    record = from_tokens.manifest.domains["a"]
    assert record.n_duplicates == 1
    assert record.near_duplicates_of == {}
    n_bytes = [side.n_text_bytes or 0 for side in (record.train, record.validation)]
    assert sum(n_bytes) == sum(len(text.encode()) for text in TEXTS)
    assert from_tokens.bytes_per_token("a") == pytest.approx(from_text.bytes_per_token("a"), rel=0.05)


def test_text_that_tokens_hold_out_is_not_trained_on(tmp_path: Path, made_by: Path, texts_as_tokens: Path) -> None:
    """Nor the other way round: what each holds out, the other leaves out, unless it holds it out as well."""
    copies = files_source(write_files(tmp_path / "copies", [*TEXTS, *documents(30, tag="other")]))
    spec = spec_of_tokens(texts_as_tokens, made_by, text=copies)
    tokens, text = build_corpus(spec, tmp_path / "out").manifest.domains.values()
    n_both = tokens.validation.n_documents - (text.near_duplicates_of or {})["a"]
    assert 0 <= n_both < tokens.validation.n_documents
    assert text.train.n_documents + text.validation.n_documents == 90 - tokens.validation.n_documents + n_both


def test_bytes_of_tokens_that_give_no_text_back_are_unknown(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backend = Tokenizer(models.WordLevel({"<end>": 0, "<unk>": 1, "law": 2, "split": 3}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    backend.decoder = decoders.Fuse()
    made_by = tmp_path / "tokenizer"
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(made_by)
    rows = np.random.default_rng(0).integers(1, 4, size=(50, 20)).astype(np.uint16)
    np.save(tmp_path / "a.npy", rows)
    corpus = build_corpus(spec_of_tokens(tmp_path / "a.npy", made_by), tmp_path / "out")
    record = corpus.manifest.domains["a"]
    assert record.train.n_documents + record.validation.n_documents == 50
    assert record.train.n_text_bytes is None
    assert np.isnan(Corpus.open(tmp_path / "out").bytes_per_token("a"))
    assert "training documents that are nearly held-out ones were not looked for" in record.notes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tokenizer": None}, "needs `tokenizer`"),
        ({"split_on": "\n\n"}, "tokens are cut by a number of tokens"),
        ({"encoding": "latin-1"}, r"means nothing to kind 'tokens'"),
        ({"max_bytes": 1000}, r"means nothing to kind 'tokens'"),
    ],
)
def test_a_source_of_tokens_says_what_it_needs(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SourceSpec(**{"kind": "tokens", "path": "a", "tokenizer": "made-by"} | fields)


def test_tokens_of_two_tokenizers_make_no_corpus() -> None:
    one, other = (SourceSpec(kind="tokens", path="a", tokenizer=name) for name in ("gpt2", "llama"))
    given = TokenizerSpec(kind="huggingface", name="gpt2")
    with pytest.raises(ValidationError, match="'a' and 'b' hold tokens of 'gpt2' and 'llama'; a corpus has one"):
        CorpusSpec(domains={"a": one, "b": other}, tokenizer=given)
    with pytest.raises(ValidationError, match=r"set corpus\.tokenizer to \{kind: huggingface, name: llama\}"):
        CorpusSpec(domains={"b": other}, tokenizer=given)
    with pytest.raises(ValidationError, match="domains are found in text, and not in tokens"):
        CorpusSpec.model_validate({"sources": {"a": one}, "discover": {"k": 2}, "tokenizer": given})
