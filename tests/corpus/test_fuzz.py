"""Whatever bytes lie in a source, they are read or refused in words, and nothing else happens."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.corpus.sources import open_source
from raysplit.errors import CorpusError
from raysplit.space import SourceSpec

ROWS: list[dict[str, Any]] = [
    {"text": f'né "{number}"\u2028, x', "n": number, "more": {"a": [1, None]}} for number in range(9)
]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), out, row_group_size=4)
    return out.getvalue()


WHOLE = {
    ".txt": "\n\n".join(row["text"] for row in ROWS).encode(),
    ".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".csv": b"text;n\r\n" + b"".join(b'"a ""quoted"" text",%d\r\n' % row["n"] for row in ROWS),
    ".tsv": b"n\ttext\n" + b"".join(b"%d\tsome text\n" % row["n"] for row in ROWS),
    ".parquet": _parquet(),
}
STRANGE = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b'"', b"[", b"{", b"]", b"9" * 5000, b"NaN",
    b"[" * 3000, b'\\ud800', b"1e999", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file of which something was cut out, overwritten or put in; or just bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(whole)))
        n_gone = draw(st.sampled_from([0, 0, 1, 4, 60, len(whole)]))
        whole = whole[:at] + draw(st.sampled_from(STRANGE) | st.binary(max_size=6)) + whole[at + n_gone :]
    return whole


@pytest.mark.parametrize("suffix", WHOLE)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    packing = data.draw(st.sampled_from(list(PACKED)))
    content = data.draw(damaged(WHOLE[suffix]))
    if data.draw(st.booleans()):
        content = PACKED[packing](content)
        content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path_factory.mktemp("fuzz") / f"file{suffix}{packing}"
    path.write_bytes(content)
    source = SourceSpec(
        kind="files" if suffix == ".txt" else "table",
        path=str(data.draw(st.sampled_from([path, path.parent]))),
        on_bad=data.draw(st.sampled_from(["few", "skip", "fail"])),
        encoding=data.draw(st.sampled_from([None, None, "latin-1", "utf-16", "utf-8", "ascii"])),
        split_on=data.draw(st.sampled_from([None, None, "\n\n", 100])),
    )
    refused = ""
    texts: list[str] = []
    try:
        documents = open_source(source, domain="web")
        texts = list(documents)
        documents.tally.check()
    except CorpusError as error:
        refused = str(error)
    assert not refused or str(path.parent) in refused
    assert all(text.strip() for text in texts)
