"""One table however a spreadsheet, a program or a person wrote it; what cannot be read is named, with what to do."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.tables import columnar, limits, read_table

FRAME = pd.DataFrame(
    {"n_params": [14_000, 36_000], "tokens": [2_000_000, 500_000], "domain": ["law", "code"], "loss": [3.0625, 2.5]}
)
TEXTS = [["14000", "2000000", "law", "3.0625"], ["36000", "500000", "code", "2.5"]]
CSV = FRAME.to_csv(index=False)


def _book(**sheets: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for name, frame in sheets.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    return buffer.getvalue()


def _stored(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _stream() -> bytes:
    table = pyarrow.Table.from_pandas(FRAME)
    buffer = io.BytesIO()
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def _with_a_formula() -> bytes:
    """As a program writes it, which computes nothing."""
    book = openpyxl.Workbook()
    for row in (["n", "loss"], ["=20*10^6", 3.5]):
        book.worksheets[0].append(row)
    return _stored(book.save)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("runs.csv", CSV)
    return buffer.getvalue()


def _padded(separator: str) -> str:
    return "".join(f"{line.replace(',', separator)}\n" for line in CSV.splitlines())


FILES: dict[str, tuple[str, bytes]] = {
    "csv": ("runs.csv", CSV.encode()),
    "upper case": ("RUNS.CSV", CSV.encode()),
    "gzip": ("runs.csv.gz", gzip.compress(CSV.encode())),
    "xz": ("RUNS.CSV.XZ", lzma.compress(CSV.encode())),
    "bzip2": ("runs.csv.bz2", bz2.compress(CSV.encode())),
    "zstd": ("runs.csv.zst", pyarrow.compress(CSV.encode(), codec="zstd", asbytes=True)),
    "compressed, but not by its name": ("runs.csv", gzip.compress(CSV.encode())),
    "with a mark": ("runs.csv", b"\xef\xbb\xbf" + CSV.encode()),
    "Unicode text of Excel": ("runs.txt", _padded("\t").encode("utf-16")),
    "lines of Windows": ("runs.csv", CSV.replace("\n", "\r\n").encode()),
    "lines of an old Mac": ("runs.csv", CSV.replace("\n", "\r").encode()),
    "tabs": ("runs.tsv", _padded("\t").encode()),
    "semicolons": ("runs.csv", _padded(";").encode()),
    "semicolons, said so": ("runs.csv", b"sep=;\r\n" + _padded(";").encode()),
    "pipes": ("runs.txt", _padded("|").encode()),
    "blanks around cells": ("runs.csv", _padded(" , ").encode()),
    "blanks and quotes": ("runs.csv", _padded(", ").replace("law", '"law"').encode()),
    "Markdown": (
        "runs.txt",
        b"| n_params | tokens | domain | loss |\n|---:|---|:-:|---|\n| 14000 | 2000000 | `law` | **3.0625** |\n"
        b"| 36000 | 500000 | code | 2.5 |\n",
    ),
    "empty lines and rows": ("runs.csv", (CSV.replace("\n", "\n\n") + ",,,\n   \n\n").encode()),
    "empty columns of a spreadsheet": ("runs.csv", _padded(",").replace("\n", ",,\n").encode()),
    "decimal commas": ("runs.csv", _padded(";").replace(".", ",").encode()),
    "quoted decimal commas": ("runs.csv", CSV.replace("3.0625", '"3,0625"').replace("2.5", '"2,5"').encode()),
    "points between thousands": (
        "runs.csv",
        _padded(";").replace(".", ",").replace("2000000", "2.000.000").replace("36000", "36.000").encode(),
    ),
    "JSON": ("runs.json", FRAME.to_json(orient="records").encode()),
    "JSON lines": ("runs.jsonl", FRAME.to_json(orient="records", lines=True).encode()),
    "JSON under another name": ("runs.txt", FRAME.to_json(orient="records", lines=True).encode()),
    "Parquet": ("runs.parquet", _stored(FRAME.to_parquet)),
    "Parquet under another name": ("runs.csv", _stored(FRAME.to_parquet)),
    "Feather": ("runs.feather", _stored(FRAME.to_feather)),
    "Feather with batches": ("runs.feather", _stored(lambda buffer: FRAME.to_feather(buffer, chunksize=1))),
    "a stream of Arrow": ("runs.arrow", _stream()),
    "text as bytes": (
        "runs.parquet",
        _stored(FRAME.assign(domain=[name.encode() for name in FRAME["domain"]]).to_parquet),
    ),
    "psql": (
        "runs.txt",
        b" n_params | tokens | domain | loss \n---+---+---+---\n 14000 | 2000000 | law | 3.0625 \n"
        b" 36000 | 500000 | code | 2.5\n",
    ),
    "Excel": ("RUNS.XLSX", _book(runs=FRAME)),
    "Excel, with an empty sheet": ("runs.xlsx", _book(runs=FRAME, Sheet2=pd.DataFrame())),
    "Excel under another name": ("runs.csv", _book(runs=FRAME)),
}


def at(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("layout", FILES)
def test_one_table_however_it_is_written(layout: str, tmp_path: Path) -> None:
    table = read_table(at(tmp_path, *FILES[layout]))
    assert list(table.names) == list(FRAME.columns)
    cells = [[row.cells[name] for name in table.names] for row in table.rows]
    assert [[str(c) for c in row] for row in cells] == TEXTS


def test_places_are_those_that_an_editor_shows(tmp_path: Path) -> None:
    table = read_table(at(tmp_path, "runs.csv", 'n,note\n1,"two\nlines"\n\n2,\n'))
    assert [(row.place, dict(row.cells)) for row in table.rows] == [
        ("row 1 (line 2)", {"n": "1", "note": "two\nlines"}),
        ("row 2 (line 5)", {"n": "2"}),
    ]


def test_says_how_it_read_what_can_be_read_otherwise(tmp_path: Path) -> None:
    table = read_table(at(tmp_path, "runs.csv", "n;loss\n20000;4,073\n60000;3,255\n"))
    assert table.notes == ("columns lie between semicolons", "decimal commas: 4,073 is read as 4.073")
    assert [row.cells["loss"] for row in table.rows] == ["4.073", "3.255"]
    assert not read_table(at(tmp_path, "runs.csv", CSV)).notes


@pytest.mark.parametrize(
    ("text", "losses"),
    [
        ("n;loss\n20,000;4.07\n", ["4.07"]),  # points elsewhere: commas may be thousands
        ("n\tloss\n20\t4,073\n", ["4,073"]),  # nothing tells
        ('n,loss,version\n20,"4,07",1.5\n', ["4.07"]),
        ('n,loss\n20,"4,07"\n60,3.5\n', ["4,07", "3.5"]),  # both in one column: left to be refused as a number
        ('n,loss,shape\n20,4.07,"[64, 64]"\n', ["4.07"]),
        ("n;loss\n8,2M;4,07 nats\n", ["4.07 nats"]),
    ],
)
def test_commas_are_decimal_where_the_table_says_so(text: str, losses: list[str], tmp_path: Path) -> None:
    table = read_table(at(tmp_path, "runs.csv", text))
    assert [row.cells["loss"] for row in table.rows] == losses


def test_nothing_is_told_apart_from_nan(tmp_path: Path) -> None:
    table = read_table(at(tmp_path, "runs.csv", "n,loss\n1,nan\n2,\n3,0\n"))
    assert [row.cells.get("loss") for row in table.rows] == ["nan", None, "0"]
    book = read_table(at(tmp_path, "runs.xlsx", _book(runs=pd.DataFrame({"n": [0, None, 2], "x": [1, 2, 3]}))))
    assert [row.cells.get("n") for row in book.rows] == [0, None, 2]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("runs.csv", "", "cannot be read as a table: it is empty"),
        ("runs.csv", "\n,,\n", "cannot be read as a table: it is empty"),
        ("runs.csv", "n,loss\n1,2\n3\n", r"line 3 has 1 cell, the header 2; delete what is no row"),
        ("runs.csv", "n,loss\n1,4,07\n", r"line 2 has 3 cells, the header 2; .* fraction written with a point"),
        ("runs.csv", "n,loss, n\n1,2,3\n", r"line 1: columns 1 and 3 are both named 'n'"),
        ("runs.csv", 'n,loss\n1,"2\n3,4\n', r"line 2: cannot be read as a row: .* stray quote"),
        (
            "runs.txt",
            "n_params loss\n1 2\n",
            r"neither commas, semicolons, tabs nor pipes lie .* first line, 'n_params loss'",
        ),
        ("runs.csv", "n,domain\n1,Größe\n".encode("cp1252"), r"byte 0xf6: .*--encoding cp1252"),
        ("runs.csv", "n,loss\n1,2\n".encode("utf-16-le"), "is no text; where it is UTF-16, save it as UTF-8"),
        ("runs.csv", "<!DOCTYPE html><html></html>", "is a web page"),
        ("runs.csv", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("runs.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-12], "ends too early"),
        (
            "runs.csv",
            'n,loss,lr,steps\n1,"4,07",0.5,20.000\n',
            r"'steps' writes 20\.000: thousands .* 'loss' has decimal commas \(4,07\), column 'lr' points \(0\.5\)",
        ),
        ("runs.parquet", b"PAR1 and no more", "cannot be read as parquet"),
        ("runs.feather", b"ARROW1 and no more", "cannot be read as feather"),
        ("runs.xlsx", b"PK\x03\x04 and no more", "is no workbook of Excel since 2007, or has a password"),
        ("runs.xlsx", _book(a=FRAME, b=FRAME), "has 2 sheets: 'a', 'b'; say which: raysplit import --sheet NAME"),
        ("runs.xlsx", _with_a_formula(), "formula in cell A2 was never computed; open the book in Excel"),
        ("runs.csv", b"\xd0\xcf\x11\xe0" + bytes(600), "is no workbook of Excel since 2007, or has a password"),
        ("runs.csv", _archive(), r"is an archive \(ZIP\), no workbook; unpack it"),
        ("runs.csv.zip", _archive(), "is an archive; unpack it"),
        (
            "runs.csv",
            ",loss,loss\n,mean,std\n",
            "are both named 'loss'; rename one, and of a header of two rows delete",
        ),
        ("runs.csv", "# by me\nn,loss\n1,2\n", "or delete what stands above the header"),
        ("runs.docx", "", r"unknown table format '\.docx'"),
        ("runs", "", "unknown table format ''"),
    ],
)
def test_says_what_is_wrong_and_what_to_do(name: str, content: bytes | str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=complaint) as refused:
        read_table(at(tmp_path, name, content))
    assert str(tmp_path / name) in str(refused.value)


def test_sheets_and_encodings_as_told(tmp_path: Path) -> None:
    book = at(tmp_path, "runs.xlsx", _book(a=FRAME, b=FRAME.head(1)))
    assert len(read_table(book, sheet="b").rows) == 1
    with pytest.raises(TableError, match="unknown sheet 'c'"):
        read_table(book, sheet="c")
    text = at(tmp_path, "runs.csv", "n,domain\n1,Größe\n".encode("cp1252"))
    assert read_table(text, encoding="cp1252").rows[0].cells["domain"] == "Größe"
    with pytest.raises(TableError, match="has no sheets"):
        read_table(text, sheet="a")


def test_a_book_whose_dimensions_are_wrong_is_read_whole(tmp_path: Path) -> None:
    """As some programs write it: openpyxl by itself would believe that there is one cell."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_book(runs=FRAME))) as book, zipfile.ZipFile(written, "w") as copy:
        for part in book.infolist():
            content = book.read(part).replace(b'<dimension ref="A1:D3"', b'<dimension ref="A1"')
            copy.writestr(part.filename, content)
    assert len(read_table(at(tmp_path, "runs.xlsx", written.getvalue())).rows) == 2


def test_no_more_is_read_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BYTES", 2**20)
    for name, content in (
        ("runs.csv.gz", gzip.compress(b"n,loss\n" + b"1,2\n" * 2**20, mtime=0)),
        ("runs.json.gz", gzip.compress(b"[" + b" " * 2**21, mtime=0)),
        ("runs.parquet", b"PAR1" + bytes(2**21)),
    ):
        with pytest.raises(TableError, match="holds more than 1 MiB"):
            read_table(at(tmp_path, name, content))


def test_no_more_of_a_feather_is_unpacked_than_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "MAX_CELLS", 1000)
    path = tmp_path / "runs.feather"
    pd.DataFrame({"n": [0] * 100_000}).to_feather(path, chunksize=500, compression="zstd")
    with pytest.raises(TableError, match="1500 cells; at most 1000 are read"):
        read_table(path)


def test_an_address_and_a_folder_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="it is an address: download the file"):
        read_table(Path("https://host/runs.csv"))
    with pytest.raises(TableError, match=r"is a folder; `raysplit import .*` reads"):
        read_table(tmp_path)


def test_a_stray_cell_far_off_is_no_million_cells(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["n", "loss"])
    sheet.append([1, 2])
    sheet.cell(row=3, column=16_384, value="x")
    book.save(path := tmp_path / "runs.xlsx")
    with pytest.raises(TableError, match="sheet row 3 has 16,384 cells, the header 2"):
        read_table(path)


SEEDS = [content for _, content in FILES.values()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file of one of the layouts with some bytes changed, put in or cut off; or any bytes."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        content[start : start + draw(st.integers(0, 40))] = draw(st.binary(max_size=20) | st.sampled_from(PIECES))
    return bytes(content)


PIECES = [b'"', b"'", b";", b",,,,", b"\0", b"\r", b"\xff\xfe", b"NaN", b"-Infinity", b"9" * 5000, b"[" * 3000, b"{"]
PIECES += [b"1e999", b"\\ud800", "\u2028\u0085".encode(), b"PK\x03\x04", b"PAR1", b"\x1f\x8b", b"(\xb5/\xfd"]
NAMES = sorted({name for name, _ in FILES.values()})


@settings(max_examples=300)
@given(damaged() | st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(NAMES))
def test_any_file_is_a_table_or_a_table_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = at(tmp_path_factory.getbasetemp(), name, content)
    with suppress(TableError):
        table = read_table(path)
        assert len(set(table.names)) == len(table.names)
        assert all(cell is not None and cell != "" for row in table.rows for cell in row.cells.values())
