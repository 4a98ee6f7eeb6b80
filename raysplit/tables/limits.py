"""How much of a file is read as a table: enough for any sweep, and little enough for any machine."""

import re
from pathlib import Path

from raysplit.errors import TableError
from raysplit.files import open_bytes, open_text

MAX_BYTES = 2**26
"""Most bytes of content, decompressed: 64 MiB, as of 20,000 runs with two hundred columns."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/", re.IGNORECASE)
MAX_CELLS = 8_000_000
"""Most cells of a table that are not empty; of Parquet and Arrow empty cells count too."""


def read_content(path: Path) -> bytes:
    """Everything in a file of at most `MAX_BYTES`.

    Raises:
        TableError: the file cannot be read, or holds more.
    """
    try:
        with open_bytes(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise TableError(unreadable(path, error)) from error
    if len(content) > MAX_BYTES:
        raise TableError(_too_much(path))
    return content


def read_characters(path: Path, *, encoding: str | None = None) -> str:
    """The whole text of a file, as `raysplit.files.open_text` opens it, of at most `MAX_BYTES` characters.

    Raises:
        TableError: the file cannot be read, is in another encoding, or holds more; or the encoding is unknown.
    """
    try:
        with open_text(path, encoding=encoding) as file:
            text = file.read(MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}" if error.start < len(error.object) else "its end"
        raise TableError(
            f"{path}: is not {error.encoding.upper()} text ({found}: {error.reason}); save it as UTF-8, or name what "
            "it is in: raysplit import --encoding cp1252 (Excel in western Europe), latin-1, utf-16"
        ) from error
    except LookupError as error:
        raise TableError(f"{path}: {error}; such as cp1252, latin-1 or utf-16") from error
    except (OSError, ValueError) as error:
        raise TableError(unreadable(path, error)) from error
    if len(text) > MAX_BYTES:
        raise TableError(_too_much(path))
    return text


def no_such(path: Path) -> str:
    """The message for a path at which nothing lies."""
    hint = "; it is an address: download the file, and give that" if _ADDRESS.match(str(path)) else ""
    return f"{path}: there is no such file or folder{hint}"


def unreadable(path: Path, error: Exception) -> str:
    """The message for a file that its reader gave up on, with the first line of the reason."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return f"{path}: cannot be read as {path.suffix.lstrip('.').lower() or 'a table'}: {reason.splitlines()[0]}"


def _too_much(path: Path) -> str:
    return f"{path}: holds more than {MAX_BYTES >> 20} MiB; keep one row a measured point, and the columns that count"
