"""Every kind of source gives its documents, and says what is wrong before or while it is read."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raysplit.corpus.not_read import NotRead
from raysplit.corpus.sources import open_source
from raysplit.errors import CorpusError
from raysplit.space import SourceSpec
from tests.corpus.texts import documents, write_files

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": "if x: pass", "topic": "code"},
    {"id": 2, "text": 'He said "no",\nand left.', "topic": "prose"},
    {"id": 3, "text": "   ", "topic": "code"},
    {"id": 4, "text": "return Ünïcode", "topic": "code"},
    {"id": 5, "text": None, "topic": "code"},
]
TABLE_FORMATS = ("parquet", "jsonl", "csv")


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(domain: str = "code", **source: Any) -> list[str]:
    return read_with_rest(domain, **source)[0]


def read_with_rest(domain: str = "code", **source: Any) -> tuple[list[str], NotRead]:
    """The documents, and what was not read."""
    documents = open_source(SourceSpec(**source), domain=domain)
    texts = list(documents)
    documents.tally.check()
    return texts, documents.tally.so_far()


class TestFiles:
    def test_a_file_is_a_document_and_blank_ones_are_left_out(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "text", ["one", " \n", "two"])
        (folder / "notes.md").write_text("not asked for")
        (folder / "deep").mkdir()
        (folder / "deep" / "three.txt").write_text("three")
        assert read(kind="files", path=str(folder)) == ["one", "two", "three"]
        assert read(kind="files", path=str(folder), pattern="*.md") == ["not asked for"]

    def test_a_single_file_is_cut_at_blank_lines(self, tmp_path: Path) -> None:
        paragraphs = documents(200, tag="a")
        path = tmp_path / "all.txt"
        path.write_text("\n\n\n".join(paragraphs))
        found = read(kind="files", path=str(path))
        assert len(found) > 3
        assert "\n\n".join(found).split("\n\n") == paragraphs

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CorpusError, match=r"domain 'code': .*nowhere: no such file or folder"):
            open_source(SourceSpec(kind="files", path=str(tmp_path / "nowhere")), domain="code")
        with pytest.raises(CorpusError, match=r"domain 'code': .* no file matches '\*\*/\*\.txt'"):
            open_source(SourceSpec(kind="files", path=str(tmp_path)), domain="code")

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "text", ["one"])
        (folder / "picture.txt").write_bytes(b"text\xff\xd8")
        with pytest.raises(
            CorpusError, match=r"1 of 2 files cannot be read, .*: picture\.txt: line 1 has the byte 0xff"
        ):
            read(kind="files", path=str(folder))


class TestTables:
    @pytest.mark.parametrize("suffix", TABLE_FORMATS)
    def test_rows_with_the_label_are_the_documents(self, tmp_path: Path, suffix: str) -> None:
        path = str(write_table(tmp_path / f"t.{suffix}", ROWS))
        assert read(kind="table", path=path) == [ROWS[i]["text"] for i in (0, 1, 3)]
        assert read(kind="table", path=path, label_column="topic") == ["if x: pass", "return Ünïcode"]
        assert read(kind="table", path=path, label_column="topic", label="prose") == [ROWS[1]["text"]]
        assert read(kind="table", path=path, label_column="id", label="4") == ["return Ünïcode"]

    def test_a_folder_of_tables_is_read_in_order(self, tmp_path: Path) -> None:
        for number, suffix in enumerate(TABLE_FORMATS):
            write_table(tmp_path / "tables" / f"{number}.{suffix}", [{"text": f"from {suffix}"}])
        assert read(kind="table", path=str(tmp_path / "tables")) == [f"from {suffix}" for suffix in TABLE_FORMATS]

    @pytest.mark.parametrize("suffix", TABLE_FORMATS)
    def test_unknown_columns_are_named_at_once_with_the_choices(self, tmp_path: Path, suffix: str) -> None:
        path = str(write_table(tmp_path / f"t.{suffix}", ROWS))
        wrong: list[dict[str, Any]] = [{"text_column": "texts"}, {"label_column": "texts"}]
        for source in wrong:
            with pytest.raises(CorpusError, match=r"unknown column 'texts' \(did you mean 'text'\?\).*id, text, topic"):
                open_source(SourceSpec(kind="table", path=path, **source), domain="code")

    def test_an_unknown_label_is_named_with_the_choices(self, tmp_path: Path) -> None:
        path = str(write_table(tmp_path / "t.jsonl", ROWS))
        with pytest.raises(CorpusError, match=r"domain 'law': .*column 'topic': unknown label 'law'.*code, prose"):
            read("law", kind="table", path=path, label_column="topic")

    @pytest.mark.parametrize("suffix", TABLE_FORMATS)
    def test_a_file_that_is_no_table_is_named_at_once(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"t.{suffix}"
        path.write_bytes(b"\xff\xfe\x00 not a table")
        with pytest.raises(CorpusError, match=rf"t\.{suffix}: .*(cannot be read as parquet|is not UTF-16 text)"):
            open_source(SourceSpec(kind="table", path=str(path)), domain="code")

    def test_a_parquet_file_cut_short_is_named(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.parquet", ROWS)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(CorpusError, match=r"t\.parquet: cannot be read as parquet"):
            open_source(SourceSpec(kind="table", path=str(path)), domain="code")

    def test_a_broken_line_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_text('{"text": "fine"}\n{"text": \n')
        with pytest.raises(
            CorpusError, match=r"1 of 2 rows cannot be read, .*: line 2: is not JSON: Expecting value \(character 10\)"
        ):
            read(kind="table", path=str(path))

    def test_a_column_of_numbers_is_no_text(self, tmp_path: Path) -> None:
        path = str(write_table(tmp_path / "t.parquet", ROWS))
        with pytest.raises(CorpusError, match="column 'id' holds int64, not text"):
            read(kind="table", path=path, text_column="id")

    def test_other_formats_and_missing_tables_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t.xlsx").write_bytes(b"")
        with pytest.raises(CorpusError, match=r"unknown table format '\.xlsx'"):
            open_source(SourceSpec(kind="table", path=str(tmp_path / "t.xlsx")), domain="code")
        with pytest.raises(CorpusError, match="holds no table"):
            open_source(SourceSpec(kind="table", path=str(tmp_path)), domain="code")
        with pytest.raises(CorpusError, match="no such file or folder"):
            open_source(SourceSpec(kind="table", path=str(tmp_path / "t.csv")), domain="code")


class TestHuggingFace:
    @pytest.fixture
    def dataset(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        datasets.disable_progress_bars()
        write_table(tmp_path / "data" / "train.jsonl", [row | {"text": row["text"] or ""} for row in ROWS])
        return str(tmp_path / "data")

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_local_dataset_gives_its_rows(self, dataset: str, streaming: bool) -> None:
        source: dict[str, Any] = {"kind": "huggingface", "path": dataset, "streaming": streaming}
        assert read(**source) == [ROWS[i]["text"] for i in (0, 1, 3)]
        assert read(**source, label_column="topic", label="prose") == [ROWS[1]["text"]]
        with pytest.raises(CorpusError, match=r"unknown column 'txt'.*id, text, topic"):
            open_source(SourceSpec(**source, text_column="txt"), domain="code")
        with pytest.raises(CorpusError, match=r"unknown label 'law'.*code, prose"):
            read("law", **source, label_column="topic")

    def test_an_unknown_split_or_dataset_is_named(self, dataset: str) -> None:
        with pytest.raises(CorpusError, match=r"domain 'code': .*load_dataset failed: .*tset"):
            open_source(SourceSpec(kind="huggingface", path=dataset, split="tset"), domain="code")
        with pytest.raises(CorpusError, match=r"nobody/nothing: datasets\.load_dataset failed"):
            open_source(SourceSpec(kind="huggingface", path="nobody/nothing"), domain="code")
