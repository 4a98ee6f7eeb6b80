"""Every kind of source gives its documents, and says what is wrong before or while it is read."""

import csv
import gzip
import json
import lzma
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.corpus.not_read import NotRead
from raysplit.corpus.plain_text import cut, lines_of, pieces
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

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ("utf-8-sig", "UTF8"),
            ("utf-16", "utf-16-le"),
            ("utf-16", "utf-8"),
            ("utf-32", "utf-16"),
            ("cp1252", "cp1252"),
            ("gb18030", "GB18030"),
        ],
    )
    def test_text_is_in_the_encoding_that_is_said_and_a_mark_is_no_text(
        self, tmp_path: Path, written: str, said: str
    ) -> None:
        path = tmp_path / "text" / "a.txt"
        path.parent.mkdir()
        path.write_text("née", encoding=written)
        assert read(kind="files", path=str(path.parent), encoding=said) == ["née"]

    @pytest.mark.parametrize(
        ("suffix", "packed"),
        [
            (".txt.lzma", lzma.compress(b"text", format=lzma.FORMAT_ALONE)),
            (".txt.lz4", pa.Codec("lz4").compress(b"text", asbytes=True)),
            # A frame that is skipped comes first, as from pzstd.
            (".txt.zst", b"\x50\x2a\x4d\x18\4\0\0\0size" + pa.Codec("zstd").compress(b"text", asbytes=True)),
        ],
    )
    def test_rarer_compressions_are_read(self, tmp_path: Path, suffix: str, packed: bytes) -> None:
        (tmp_path / f"a{suffix}").write_bytes(packed)
        assert read(kind="files", path=str(tmp_path)) == ["text"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:6652\nsize 14694\n", "`git lfs pull`"),
            (b"/annex/objects/MD5E-s7--a1b2.txt\n", "`git annex get`"),
            (b"PK\x03\x04\x14\0", "is a zip archive or an office document; unpack it"),
            (bytes(257) + b"ustar\x0000", "is an archive; unpack it"),
            (b"%PDF-1.7\nonly ASCII", "is a PDF or RTF document; save it as text"),
            (b"PAR1\x15", "is a table in Parquet; read it with `kind: table`"),
        ],
    )
    def test_what_stands_in_the_place_of_text_is_named(self, tmp_path: Path, content: bytes, said: str) -> None:
        folder = write_files(tmp_path / "text", documents(20, tag="a"))
        (folder / "a.txt").write_bytes(content)
        texts, rest = read_with_rest(kind="files", path=str(folder))
        assert len(texts) == 20
        assert len(rest.bad) == 1
        assert said in rest.bad[0]
        if not content.startswith(b"PAR1"):
            (tmp_path / "t.parquet").write_bytes(content)
            with pytest.raises(CorpusError, match=re.escape(said)):
                read(kind="table", path=str(tmp_path / "t.parquet"))

    def test_utf8_in_a_source_of_another_encoding_is_no_text(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "text", ["naïve café crème"])
        for number in range(20):
            (folder / f"latin{number}.txt").write_bytes(f"{number} naïve café crème".encode("latin-1"))
        texts, rest = read_with_rest(kind="files", path=str(folder), encoding="latin-1")
        assert len(texts) == 20
        assert rest.bad == ("0000.txt: is UTF-8 text, which `encoding: latin-1` would garble",)

    def test_a_table_taken_for_plain_text_is_doubted(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "tables" / "t.jsonl", ROWS)
        with pytest.raises(CorpusError, match=r"t\.jsonl: is a table, .*`kind: table`; .* set `split_on`"):
            read(kind="files", path=str(path))
        assert read(kind="files", path=str(path), split_on="\n") == path.read_text().split("\n")[:-1]
        _, rest = read_with_rest(kind="files", path=str(path.parent), pattern="*.jsonl")
        assert rest.remarks[0].startswith("took 1 of 1 files for plain text that are tables, such as t.jsonl")

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

    @pytest.mark.parametrize("text", ["sep=;\r\nid;text\r\n1;a\r\n", "id,text\r1,a\r", "id\ttext\r1\ta\r"])
    def test_tables_of_excel_and_of_old_macs_are_read(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "t.csv").write_bytes(text.encode())
        assert read(kind="table", path=str(tmp_path / "t.csv")) == ["a"]

    def test_rows_may_lack_the_column_that_others_have(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [{"id": 0}, {"text": 7}, *({"text": text} for text in documents(30, tag="a"))]
        path = write_table(tmp_path / "t.jsonl", rows)
        texts, rest = read_with_rest(kind="table", path=str(path))
        assert len(texts) == 30
        assert rest.bad == ("line 1: has no 'text'", "line 2: column 'text' holds int, not text")
        write_table(path, [{"id": number} for number in range(3)])
        with pytest.raises(CorpusError, match=r"unknown column 'text'\. Known: id"):
            read(kind="table", path=str(path))

    def test_quotes_between_tabs_may_be_but_characters(self, tmp_path: Path) -> None:
        plain, quoted = tmp_path / "plain.tsv", tmp_path / "quoted.tsv"
        plain.write_text('id\ttext\n1\t"Quote" he said\n2\t"and left\n', encoding="utf-8")
        quoted.write_text('id\ttext\n1\t"a ""b""\nc"\n2\td\n', encoding="utf-8")
        assert read(kind="table", path=str(plain)) == ['"Quote" he said', '"and left']
        assert read(kind="table", path=str(quoted)) == ['a "b"\nc', "d"]

    def test_a_table_without_a_header_is_not_listed_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text(",".join(documents(50, tag="a")))
        with pytest.raises(CorpusError, match=r"\(its first line is taken for the header\)") as caught:
            read(kind="table", path=str(path))
        assert len(str(caught.value)) < 2000

    @pytest.mark.parametrize(
        ("header", "said"),
        [(b"titel\n", r"\(its second line is taken for the header\)"), (b"te\xe9xt\n", "line 2 has the byte 0xe9")],
    )
    def test_a_header_below_excel_s_own_line_is_on_the_second(self, tmp_path: Path, header: bytes, said: str) -> None:
        (tmp_path / "t.csv").write_bytes(b"sep=;\r\n" + header)
        with pytest.raises(CorpusError, match=said):
            read(kind="table", path=str(tmp_path / "t.csv"))

    def test_labels_are_compared_without_blanks_and_near_ones_are_named(self, tmp_path: Path) -> None:
        topics = ("law", "law ", "Law", "art")
        path = write_table(tmp_path / "t.csv", [{"text": topic * 3, "topic": topic} for topic in topics])
        texts, rest = read_with_rest(kind="table", path=str(path), label_column="topic", label="law")
        assert texts == ["lawlawlaw", "law law law "]
        assert rest.remarks == ("left out 1 rows with the label 'Law', which is not 'law'",)

    def test_what_datasets_writes_beside_its_tables_is_no_table(self, tmp_path: Path) -> None:
        write_table(tmp_path / "hub" / "data" / "train.parquet", [{"text": "a"}])
        (tmp_path / "hub" / "dataset_infos.json").write_text("{}")
        texts, rest = read_with_rest(kind="table", path=str(tmp_path / "hub"))
        assert (texts, rest.others) == (["a"], ("dataset_infos.json",))

    def test_a_run_within_the_folder_is_none_of_its_text(self, tmp_path: Path) -> None:
        write_table(tmp_path / "t.jsonl", [{"text": "a"}])
        for name in ("run/space.yaml", "run/holder/000001.json"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("{}")
        texts, rest = read_with_rest(kind="table", path=str(tmp_path))
        assert (texts, rest.left_behind) == (["a"], ("run",))

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


class TestNotRead:
    """Whatever lies in a source and is not read is counted and named."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_files(tmp_path / "text", documents(30, tag="a"))

    def test_what_is_beside_the_documents_is_named(self, folder: Path) -> None:
        for name in ("README.md", "a.crc", "._0001.txt", ".DS_Store", "__MACOSX/0.txt", ".ipynb_checkpoints/0.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"\0")
        (folder / "empty.txt").write_bytes(b"")
        texts, rest = read_with_rest(kind="files", path=str(folder))
        assert len(texts) == 30
        assert rest.sentences() == [
            "left out 2 files not asked for: README.md, a.crc",
            "left out 4 files of a system, an editor or raysplit: .DS_Store, ._0001.txt, .ipynb_checkpoints, __MACOSX",
            "left out 1 without text",
        ]

    BAD = (
        ("latin.txt", b"one\ncaf\xe9", "line 2 has the byte 0xe9"),
        ("utf16.txt", "text".encode("utf-16-le"), "line 1 holds NUL bytes"),
        ("odd.txt", "text".encode("utf-16")[:-1], "is not UTF-16 text"),
        ("cut.txt.gz", gzip.compress(b"text" * 1000)[:-9], "ends too early"),
        ("cut.txt.xz", lzma.compress(b"text" * 1000)[:-9], "ends too early"),
    )

    @pytest.mark.parametrize(("name", "content", "why"), BAD, ids=[name for name, _, _ in BAD])
    def test_one_bad_file_of_many_is_left_out(self, folder: Path, name: str, content: bytes, why: str) -> None:
        (folder / name).write_bytes(content)
        texts, rest = read_with_rest(kind="files", path=str(folder))
        assert len(texts) == 30
        (sentence,) = rest.sentences()
        assert sentence.startswith(f"left out 1 of 31 files that cannot be read: {name}: ")
        assert why in sentence
        with pytest.raises(CorpusError, match=rf"text: {name}: .*\n.*on_bad: skip"):
            read(kind="files", path=str(folder), on_bad="fail")

    def test_many_bad_files_are_left_out_on_request_only(self, folder: Path) -> None:
        for number in range(5):
            (folder / f"bad{number}.txt").write_bytes(b"\xff")
        with pytest.raises(
            CorpusError, match=r"5 of 35 files cannot be read, more than one in ten: bad0\.txt, bad1\.txt, .*: line"
        ):
            read(kind="files", path=str(folder))
        texts, rest = read_with_rest(kind="files", path=str(folder), on_bad="skip")
        assert (len(texts), rest.n_bad_files, len(rest.bad)) == (30, 5, 5)

    def test_a_file_that_may_not_be_read_is_left_out(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_path = Path.open

        def refuse(path: Path, *args: Any, **options: Any) -> Any:
            if path.name == "0003.txt":
                raise PermissionError(13, "Permission denied")
            return open_path(path, *args, **options)

        monkeypatch.setattr(Path, "open", refuse)
        texts, rest = read_with_rest(kind="files", path=str(folder))
        assert len(texts) == 29
        assert rest.bad == ("0003.txt: cannot be read: Permission denied",)

    def test_links_are_followed_once(self, folder: Path) -> None:
        (folder / "around").symlink_to(folder)
        (folder / "nowhere.txt").symlink_to(folder / "gone")
        write_files(folder.parent / "far", ["far away"])
        (folder / "far").symlink_to(folder.parent / "far")
        texts, rest = read_with_rest(kind="files", path=str(folder))
        assert len(texts) == 31
        assert rest.bad == ("nowhere.txt: is a link to nothing",)

    def test_a_folder_may_be_called_like_a_file(self, folder: Path) -> None:
        write_files(folder / "more.txt", ["in the folder"])
        os.mkfifo(folder / "pipe.txt")
        texts, rest = read_with_rest(kind="files", path=str(folder))
        assert len(texts) == 31
        assert rest.others == ("pipe.txt",)
        with pytest.raises(CorpusError, match=r"pipe\.txt: is neither a file nor a folder"):
            open_source(SourceSpec(kind="files", path=str(folder / "pipe.txt")), domain="code")

    def test_a_folder_s_name_may_look_like_a_pattern(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "data[1]", ["one", "two"])
        assert read(kind="files", path=str(folder)) == ["one", "two"]
        assert read(kind="files", path=str(folder / "*1.txt")) == ["two"]

    def test_a_glob_names_files_and_folders(self, folder: Path) -> None:
        write_files(folder.parent / "texts", ["other"])
        (folder.parent / "._text").write_bytes(b"")
        assert len(read(kind="files", path=str(folder / "000*.txt"))) == 10
        assert len(read(kind="files", path=str(folder.parent / "text*"))) == 31
        assert len(read(kind="files", path=str(folder.parent / "**" / "*.txt"))) == 31
        assert len(read(kind="files", path=str(folder.parent / "**" / "*"))) == 31
        with pytest.raises(CorpusError, match=r"\*\.md: no file matches"):
            read(kind="files", path=str(folder / "*.md"))
        with pytest.raises(CorpusError, match=r"domain 'code': .*: cannot be read: File name too long"):
            read(kind="files", path=f"/{'a' * 5000}")

    def test_a_folder_that_a_glob_finds_at_any_depth_gives_its_files_once(self, tmp_path: Path) -> None:
        write_files(tmp_path / "a" / "texts", ["one"])
        write_files(tmp_path / "b" / "c" / "texts" / "more" / "texts", ["two"])
        (tmp_path / "a" / "texts" / "photo.png").write_bytes(b"")
        texts, rest = read_with_rest(kind="files", path=str(tmp_path / "**" / "texts"))
        assert (texts, rest.n_files, rest.n_others) == (["one", "two"], 2, 1)

    def test_a_row_that_is_too_long_when_cut_is_a_bad_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_table(tmp_path / "t.parquet", [{"text": "a--b"}, {"text": "c" * 60}, {"text": "d"}])
        monkeypatch.setattr("raysplit.corpus.plain_text.LONGEST", 50)
        source = SourceSpec(kind="table", path=str(path), split_on="--", on_bad="skip")
        documents = open_source(source, domain="code")
        assert list(documents) == ["a", "b", "d"]
        assert documents.tally.so_far().bad == ("row 2: has more than 50 characters without '--'",)

    def test_a_bad_row_is_left_out_by_its_own_line(self, tmp_path: Path) -> None:
        rows = [json.dumps({"text": text}).encode() for text in documents(60, tag="a")]
        for row, why in (
            (b'{"text": "x', "is not JSON: Unterminated string"),
            (b'{"text": "caf\xe9"}', "has the byte 0xe9"),
            (b'{"text": 7}', "column 'text' holds int, not text"),
            (b"[1]", "holds list, not an object"),
            (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "is not JSON: Exceeds the limit"),
            (b'{"text": ' + b"[" * 50_000, "is not JSON: maximum recursion depth"),
        ):
            path = tmp_path / "t.jsonl"
            path.write_bytes(b"\n".join([*rows[:40], row, *rows[40:]]))
            texts, rest = read_with_rest(kind="table", path=str(path))
            assert len(texts) == 60
            assert rest.n_bad_rows == 1
            assert rest.bad[0].startswith(f"line 41: {why}")

    @pytest.mark.parametrize(
        ("row", "named"),
        [
            (b'"a" b,2', ["line 41: is not CSV: ',' expected after '\"'; a quote within quotes is written twice"]),
            (b"a,2,3", ["line 41: has 3 fields, the header has 2"]),
            (b"a", ["line 41: has 1 fields, the header has 2"]),
            (b"caf\xe9,1", ["line 41: has the byte 0xe9, which its encoding does not know"]),
        ],
    )
    def test_a_bad_row_of_csv_is_left_out_by_its_own_line(self, tmp_path: Path, row: bytes, named: list[str]) -> None:
        rows = [f'"{text}",1'.encode() for text in documents(60, tag="a")]
        path = tmp_path / "t.csv"
        path.write_bytes(b"\n".join([b"text,id", *rows[:39], row, *rows[39:]]))
        texts, rest = read_with_rest(kind="table", path=str(path))
        assert len(texts) == 60
        assert list(rest.bad) == named

    def test_a_quote_that_never_closes_is_no_end_of_the_table(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_text("text,id\n" + "a,1\n" * 20 + '"open,1\n' + "b,1\n" * 1000)
        with pytest.raises(CorpusError, match=r"t\.csv: line 22 opens a quote that is never closed"):
            read(kind="table", path=str(path))

    def test_a_fault_deep_in_json_is_named_by_its_line(self, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        path.write_text(json.dumps(ROWS, indent=1).replace('"id": 4', '"id" 4'))
        with pytest.raises(CorpusError, match=r"t\.json: line 18 is not JSON: Expecting ':' delimiter"):
            read(kind="table", path=str(path))
        path.write_text(json.dumps(ROWS, indent=1)[:-2])
        with pytest.raises(CorpusError, match=r"t\.json: line \d+ is not JSON"):
            read(kind="table", path=str(path))

    def test_a_long_value_is_read_over_many_blocks(self, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        texts = ["é" * 3_000_000, "short", "ü" * 1_100_000]
        path.write_text(json.dumps([{"text": text} for text in texts], ensure_ascii=False), encoding="utf-8")
        assert read(kind="table", path=str(path)) == texts

    def test_separators_of_lines_are_text_in_json(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_text(json.dumps({"text": "a\u2028b\u0085c"}, ensure_ascii=False), encoding="utf-8")
        assert read(kind="table", path=str(path)) == ["a\u2028b\u0085c"]

    def test_one_table_of_many_may_be_damaged(self, tmp_path: Path) -> None:
        for number in range(12):
            write_table(tmp_path / "t" / f"{number:02d}.parquet", ROWS)
        last = tmp_path / "t" / "11.parquet"
        last.write_bytes(last.read_bytes()[:-20])
        (tmp_path / "t" / "12.jsonl").write_text("")
        texts, rest = read_with_rest(kind="table", path=str(tmp_path / "t"))
        assert len(texts) == 11 * 3
        assert (rest.n_bad_files, rest.n_files) == (1, 13)
        assert rest.bad[0].startswith("11.parquet: cannot be read as parquet")

    def test_text_of_other_types_is_told_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        binary = pa.array([b"bytes", "é".encode(), b"\xff"] * 20)
        labels = pa.array(["x", "y", "z"] * 20).dictionary_encode()
        pq.write_table(pa.table({"nested": [["a"]] * 60, "binary": binary, "labels": labels}), path)
        with pytest.raises(CorpusError, match=r"column 'nested' holds list<.*>, not text"):
            open_source(SourceSpec(kind="table", path=str(path), text_column="nested"), domain="code")
        texts, rest = read_with_rest(kind="table", path=str(path), text_column="binary", on_bad="skip")
        assert texts == ["bytes", "é"] * 20
        assert rest.bad[0] == "row 3: column 'binary' is not UTF-8 text: invalid start byte"
        assert read(kind="table", path=str(path), text_column="labels") == ["x", "y", "z"] * 20

    def test_a_saved_dataset_is_no_folder_of_tables(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_dict.json").write_text("{}")
        with pytest.raises(CorpusError, match="is a dataset of `save_to_disk`; read it with `kind: huggingface`"):
            open_source(SourceSpec(kind="table", path=str(tmp_path)), domain="code")


class TestCutting:
    @pytest.mark.parametrize("split_on", ["\n\n", r"\n\n", "---\n"])
    def test_a_separator_ends_a_document(self, tmp_path: Path, split_on: str) -> None:
        path = tmp_path / "all.txt"
        texts = documents(5, tag="a")
        path.write_text(split_on.replace(r"\n", "\n").join(texts).replace("\n", "\r\n"), newline="")
        assert read(kind="files", path=str(path), split_on=split_on) == texts

    def test_a_line_of_one_long_file_may_be_bad(self, tmp_path: Path) -> None:
        path = tmp_path / "all.txt"
        path.write_bytes(b"good\n" * 50 + b"caf\xe9\n" + b"text\n" * 49)
        texts, rest = read_with_rest(kind="files", path=str(path))
        assert len(texts) == 1
        assert rest.sentences() == [
            "left out 1 of 100 lines that cannot be read: line 51: has the byte 0xe9, which its encoding does not know"
        ]

    def test_a_line_too_long_for_memory_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("raysplit.corpus.plain_text.LONGEST", 1000)
        path = tmp_path / "all.txt.gz"
        path.write_bytes(gzip.compress(b"x" * 5000))
        with pytest.raises(CorpusError, match=r"all\.txt\.gz: line 1 has more than 1,000 characters"):
            read(kind="files", path=str(path))

    @given(
        lines=st.lists(st.text(alphabet="ab \n\t\r", max_size=40), max_size=30),
        size=st.integers(1, 30),
    )
    def test_pieces_hold_every_word_once(self, lines: list[str], size: int) -> None:
        text = "\n".join(lines)
        found = list(pieces(lines_of(text), size=size))
        assert "".join("".join(found).split()) == "".join(text.split())
        assert all(size <= len(piece) for piece in found[:-1])

    @given(texts=st.lists(st.text(alphabet="abc\n", min_size=1, max_size=9), min_size=1, max_size=9))
    def test_separators_take_nothing_else(self, texts: list[str]) -> None:
        assert list(cut(lines_of("<>".join(texts)), "<>")) == texts


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

    def test_labels_have_the_names_that_the_dataset_gives_them(self, dataset: str, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features(
            {
                "text": datasets.Value("string"),
                "n": datasets.Value("int64"),
                "topic": datasets.ClassLabel(names=["a", "b"]),
            }
        )
        rows = [{"text": text, "n": 1, "topic": topic} for text, topic in (("one", 0), ("two", 1), ("none", -1))]
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "saved" / "it"))
        saved: dict[str, Any] = {"kind": "huggingface", "path": str(tmp_path / "saved" / "it"), "label_column": "topic"}
        assert read("b", **saved) == read("b", **saved, label="1") == ["two"]
        with pytest.raises(CorpusError, match=r"unknown label 'c'\. Known: None, a, b"):
            read("c", **saved)
        with pytest.raises(CorpusError, match=r"column 'n' holds Value\('int64'\), not text; set `text_column`"):
            read("b", **saved, text_column="n")
        with pytest.raises(CorpusError, match=r"is one dataset without splits; leave out split = 'test'"):
            read("b", **saved, split="test")
        with pytest.raises(CorpusError, match=r"it is a dataset of `save_to_disk`; read it with `kind: huggingface`"):
            read(kind="table", path=str(tmp_path / "saved"))
        with pytest.raises(CorpusError, match=r"train\.jsonl: is a file; read it with `kind: table`"):
            read(kind="huggingface", path=f"{dataset}/train.jsonl")
