"""Opening what people bring: any file decompressed, without a byte order mark, in the encoding it is in.

The one opener of tables, exports and text. Lines end at a line feed and nowhere else: JSON may hold U+2028 and U+0085
as they are, at which `str.splitlines` would cut it.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
"""Last suffixes of names that say nothing of the content."""
_MAGIC = ((b"\x1f\x8b", "gz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bz2"))
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def suffix_of(path: Path) -> str:
    """What a file holds by its name, in lower case and without its compression: ``.jsonl`` of ``A.JSONL.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_left_behind(relative: Path) -> bool:
    """Whether a system or an editor left the file beside what a person wrote: ``._a.txt``, ``.ipynb_checkpoints/a``.

    Args:
        relative: the path below the folder that the person named.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in relative.parts if part not in (".", ".."))


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, decompressed as it is read; its first bytes say how, whatever its name.

    Raises:
        OSError: it cannot be read, or its compressed content is damaged or ends too early.
    """
    with path.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")
        try:
            yield cast(BinaryIO, _decompressed(raw, kind))
        except EOFError as error:
            raise OSError(f"its compressed content ends too early: {error}") from error
        except (lzma.LZMAError, zlib.error) as error:
            raise OSError(f"its compressed content is damaged: {error}") from error


@contextmanager
def open_text(path: Path, *, encoding: str | None = None, errors: str = "strict") -> Iterator[TextIO]:
    """The text of a file, as `open_bytes` gives its bytes.

    Args:
        path: of the file.
        encoding: as Python names it; UTF-8 when None. A byte order mark decides between UTF-8 and the kinds of UTF-16.
        errors: what becomes of bytes outside the encoding, as Python names it.

    Raises:
        OSError: as `open_bytes`.
        UnicodeDecodeError: while reading, where the text is in another encoding.
    """
    with open_bytes(path) as file:
        buffered = file if hasattr(file, "peek") else io.BufferedReader(cast(io.RawIOBase, file))
        head = buffered.peek(4)[:4]
        if encoding is None or codecs.lookup(encoding).name.startswith(("utf-8", "utf-16")):
            encoding = next((name for mark, name in _MARKS if head.startswith(mark)), encoding or "utf-8")
        with io.TextIOWrapper(buffered, encoding=encoding, errors=errors, newline="\n") as text:
            yield text


def read_text(path: Path, *, encoding: str | None = None) -> str:
    """The whole text of a file; see `open_text`."""
    with open_text(path, encoding=encoding) as file:
        return file.read()


def _decompressed(raw: BinaryIO, kind: str) -> object:
    if kind == "gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if kind == "xz":
        return lzma.LZMAFile(raw, mode="rb")
    if kind == "bz2":
        return bz2.BZ2File(raw, mode="rb")
    if kind == "zst":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
    return raw
