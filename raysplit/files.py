"""Open any file that people bring: decompressed, in its own encoding, without a byte order mark.

Tables, exports and text are all opened here. Lines end at a line feed and nowhere else: JSON may hold U+2028 and U+0085
as they are, where `str.splitlines` would cut it.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

if TYPE_CHECKING:
    import numpy as np

COMPRESSIONS = (".gz", ".zst", ".xz", ".lzma", ".bz2", ".lz4")
"""Last suffixes of names that tell the compression, and nothing of the content."""
_MAGIC = (
    (re.compile(rb"\x1f\x8b"), "gz"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),  # the second begins what pzstd writes
    (re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"), "xz"),
    (re.compile(rb"BZh"), "bz2"),
    (re.compile(rb"\x04\x22\x4d\x18"), "lz4"),
)
_MARKS = (  # of four bytes first: that of UTF-32 begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")


def suffix_of(path: Path) -> str:
    """A file's suffix in lower case, without that of a compression: ``.jsonl`` for ``A.JSONL.gz``; may be empty."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_left_behind(relative: Path) -> bool:
    """Whether a file is one that a system or an editor left behind: ``._a.txt``, ``@eaDir/a``, ``~$a.txt``.

    Args:
        relative: the path below the folder that the person named.
    """
    parts = [part for part in relative.parts if part not in (".", "..")]
    return any(part.startswith((".", "~$")) or part in _SYSTEM_FOLDERS for part in parts)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file's content, decompressed as it is read; its first bytes tell the compression, whatever its name.

    Raises:
        OSError: the file cannot be read, or its compressed content is damaged or ends too early.
    """
    with path.open("rb") as raw:
        head = raw.peek(8)[:8]  # a pipe cannot go back
        kind = next((kind for magic, kind in _MAGIC if magic.match(head)), "")
        try:
            yield cast(BinaryIO, _decompressed(raw, kind))
        except EOFError as error:
            raise OSError(f"its compressed content ends too early: {error}") from error
        except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise OSError(f"its compressed content is damaged: {error}") from error


@contextmanager
def open_text(path: Path, *, encoding: str | None = None, errors: str = "strict") -> Iterator[TextIO]:
    """Open the text of a file, decompressed as `open_bytes` does.

    Args:
        path: of the file.
        encoding: as Python names it; UTF-8 when None. A byte order mark decides between the kinds of UTF.
        errors: how bytes outside the encoding are handled, as Python names it.

    Raises:
        LookupError: Python knows no such encoding.
        OSError: as `open_bytes`.
        UnicodeDecodeError: while reading, where the text is in another encoding.
    """
    with open_bytes(path) as file:
        buffered = file if hasattr(file, "peek") else io.BufferedReader(cast(io.RawIOBase, file))
        head = buffered.peek(4)[:4]
        if encoding is None or codecs.lookup(encoding).name.startswith(("utf-8", "utf-16", "utf-32")):
            encoding = next((name for mark, name in _MARKS if head.startswith(mark)), encoding or "utf-8")
        with io.TextIOWrapper(buffered, encoding=encoding, errors=errors, newline="\n") as text:
            yield text


def read_text(path: Path, *, encoding: str | None = None) -> str:
    """The whole text of a file; raises what `open_text` does."""
    with open_text(path, encoding=encoding) as file:
        return file.read()


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an npz file by name; nothing is unpickled.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged.
    """
    import numpy as np

    with path.open("rb") as file:  # of a damaged file numpy itself leaves one open
        try:
            with np.load(file) as arrays:
                return {name: arrays[name] for name in arrays.files}
        # zipfile reads what a flipped byte asks for: another version, a method that it lacks, a password, another place
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, AttributeError, TypeError) as error:
            raise ValueError(f"{path.name}: {error or 'it is empty'}") from error


def _decompressed(raw: BinaryIO, kind: str) -> object:
    if kind == "gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if kind == "xz":
        return lzma.LZMAFile(raw, mode="rb")
    if kind == "bz2":
        return bz2.BZ2File(raw, mode="rb")
    if kind in ("zstd", "lz4"):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), kind)
    return raw
