"""docs/text.md says what can be brought and what becomes of it; each row of its table is tried here."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raysplit.corpus.plain_text import cut, lines_of
from raysplit.corpus.sources import open_source
from raysplit.files import read_text
from raysplit.space import SourceSpec
from tests.conftest import REPOSITORY
from tests.corpus.texts import documents

TEXTS = documents(12, tag="né")
ROWS = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
BOOK = "\n\n".join(documents(150, tag="book"))
LINE = " ".join(documents(1200, tag="line"))


def zst(data: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".txt.gz": gzip.compress,
    ".txt.zst": zst,
    ".txt.xz": lzma.compress,
    ".txt.bz2": bz2.compress,
    ".TXT": bytes,
}


def text_files(folder: Path, suffix: str = ".txt", encoding: str = "utf-8") -> None:
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number:02d}{suffix}").write_text(text, encoding=encoding)


def packed(folder: Path) -> None:
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        suffix = list(COMPRESS)[number % len(COMPRESS)]
        (folder / f"{number:02d}{suffix}").write_bytes(COMPRESS[suffix](text.encode()))


def table_text(delimiter: str, column: str = "text") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows(
        [("id", column, "topic"), *((row["id"], row["text"], "law") for row in ROWS), (99, "other", "art")]
    )
    return out.getvalue().encode()


def shards(folder: Path) -> None:
    folder.mkdir()
    lines = LINES.encode().splitlines(keepends=True)
    for number in range(3):
        (folder / f"c4-{number}.json.gz").write_bytes(gzip.compress(b"".join(lines[4 * number : 4 * number + 4])))


def spark(folder: Path) -> None:
    folder.mkdir()
    for number in range(2):
        rows = ROWS[6 * number : 6 * number + 6]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{number}.snappy.parquet")
        (folder / f".part-{number}.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")


def saved(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder))


def saved_dict(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:1])}
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def loaded(folder: Path) -> None:
    folder.mkdir()
    (folder / "train.jsonl").write_text(LINES, encoding="utf-8")


MADE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    # The name that the page gives the text -> how it is made there, and its documents.
    "texts": (text_files, TEXTS),
    "packed": (packed, TEXTS),
    "notes": (lambda path: text_files(path, ".md"), TEXTS),
    "texts/1*.txt": (lambda path: text_files(path.parent), TEXTS[10:]),
    "book.txt": (lambda path: path.write_text(BOOK, encoding="utf-8"), list(cut(lines_of(BOOK), 8000))),
    "all.txt": (lambda path: path.write_text("<|endoftext|>".join(TEXTS), encoding="utf-8"), TEXTS),
    "line.txt": (lambda path: path.write_text(LINE, encoding="utf-8"), list(cut(lines_of(LINE), 64_000))),
    "latin": (lambda path: text_files(path, encoding="latin-1"), TEXTS),
    "utf16": (lambda path: text_files(path, encoding="utf-16"), TEXTS),
    "rows.parquet": (lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path), TEXTS),
    "rows.jsonl": (lambda path: path.write_text(LINES, encoding="utf-8-sig"), TEXTS),
    "shards": (shards, TEXTS),
    "pile.jsonl.zst": (lambda path: path.write_bytes(zst(LINES.encode()[:700]) + zst(LINES.encode()[700:])), TEXTS),
    "rows.json": (lambda path: path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8"), TEXTS),
    "rows.csv": (lambda path: path.write_bytes(table_text(";", "body")), [*TEXTS, "other"]),
    "rows.tsv.gz": (lambda path: path.write_bytes(gzip.compress(table_text("\t"))), [*TEXTS, "other"]),
    "labelled.csv": (lambda path: path.write_bytes(table_text(",")), TEXTS),
    "huge.jsonl": (lambda path: path.write_text(json.dumps({"text": "\n\n".join(TEXTS)}), encoding="utf-8"), TEXTS),
    "spark.parquet": (spark, TEXTS),
    "saved": (saved, TEXTS),
    "saved_dict": (saved_dict, TEXTS),
    "data": (loaded, TEXTS),
}


def sources_on_the_page() -> dict[str, dict[str, Any]]:
    page = read_text(REPOSITORY / "docs" / "text.md")
    rows = re.findall(r"^\| .+ \| `(\{.+\})` \| .+ \|$", page, re.MULTILINE)
    sources = [yaml.safe_load(row.replace(r"\|", "|")) for row in rows]
    return {source["path"]: source for source in sources}


def test_the_page_and_this_test_name_the_same() -> None:
    assert list(sources_on_the_page()) == list(MADE)


@pytest.mark.parametrize(("name", "source"), sources_on_the_page().items())
def test_what_the_page_names_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: dict[str, Any]
) -> None:
    make, expected = MADE[name]
    make(tmp_path / name)
    if source["kind"] == "huggingface":
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        datasets.disable_progress_bars()
    documents = open_source(SourceSpec(**source | {"path": str(tmp_path / name)}), domain="web")
    assert list(documents) == expected
    documents.tally.check()
    not_read = documents.tally.so_far()
    assert not_read.bad == ()
    if name == "spark.parquet":
        assert not_read.others == ("_SUCCESS",)
        assert not_read.n_left_behind == 2
    if name in ("book.txt", "line.txt"):
        size = 64_000 if "split_on" in source else 8000
        assert all(size <= len(text) <= 2 * size for text in expected[:-1])
        assert len(expected) > 2
