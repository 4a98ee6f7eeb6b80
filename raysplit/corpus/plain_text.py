"""Plain text: its lines, each checked to be text, and the documents that are cut from them.

Memory stays bounded whatever a file holds.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from raysplit.errors import Unreadable
from raysplit.files import open_text

LONGEST = 10**9
"""Most characters of a line, a document or a field, so that memory suffices."""
_NO_TEXT = (
    (
        re.compile(rb"version https://git-lfs\.github\.com"),
        "is a pointer of Git LFS; fetch its content: `git lfs pull`",
    ),
    (re.compile(rb"/annex/objects/"), "is a pointer of git-annex; fetch its content: `git annex get`"),
    (re.compile(rb"PK[\x03\x05]"), "is a zip archive or an office document; unpack it, or save it as text"),
    (re.compile(rb"(?s).{257}ustar|7z\xbc\xaf\x27\x1c|Rar!\x1a"), "is an archive; unpack it"),
    (re.compile(rb"\x1f\x9d"), "is compressed by `compress`; unpack it"),
    (re.compile(rb"%PDF-|\{\\rtf"), "is a PDF or RTF document; save it as text"),
    (re.compile(rb"PAR1"), "is a table in Parquet; read it with `kind: table`"),
    (re.compile(rb"SQLite format 3"), "is a database of SQLite; write its rows to a table"),
)
"""First bytes of files that are no text, with what they are and what to do about it."""
_HEAD_BYTES = 8192
_MOST_STRANGE = 2
"""Most characters beyond ASCII that bytes of another encoding may give by chance as UTF-8."""
_BLOCK_CHARACTERS = 1 << 20
_BLANK = " \t\r\n"


@contextmanager
def opened(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """A file as text, in which bytes outside the encoding are lone surrogates, for `flaw_in` to find.

    Raises:
        Unreadable: the file cannot be opened, is no text, or cannot be read to its end, which shows while reading.
    """
    try:
        with open_text(path, encoding=encoding, errors="surrogateescape") as file:
            head = cast(io.BufferedReader, file.buffer).peek(_HEAD_BYTES)[:_HEAD_BYTES]
            if why := _not_text(head, encoding):
                raise Unreadable(why)
            if b"\r" in head and b"\n" not in head:  # lines as old Macs end them
                cast(io.TextIOWrapper, file).reconfigure(newline=None)
            yield file
    except UnicodeError as error:
        raise Unreadable(f"is not {encoding or 'UTF-16'} text: {error}") from error
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def content_of(path: Path) -> str:
    """What a file is that is neither text nor a table, and what to do about it; empty where that is not known."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return "" if head.startswith(b"PAR1") else _not_text(head, None)


def _not_text(head: bytes, encoding: str | None) -> str:
    """Why a file that begins so is not read as text in that encoding; empty where it is."""
    if why := next((why for magic, why in _NO_TEXT if magic.match(head)), ""):
        return why
    if encoding is None or codecs.lookup(encoding).name.startswith("utf"):
        return ""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its end may be within a character
    except UnicodeDecodeError:
        return ""
    is_utf8 = sum(character > "\x7f" for character in text) > _MOST_STRANGE
    return f"is UTF-8 text, which `encoding: {encoding}` would garble" if is_utf8 else ""


def flaw_in(text: str) -> str:
    """Why ``text`` is no text; empty when it is."""
    if "\0" in text:
        return "holds NUL bytes: it is binary, or UTF-16 or UTF-32 without a byte order mark"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has the byte 0x{ord(text[error.start]) & 0xFF:02x}, which its encoding does not know"
    return ""


def numbered_lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1 on.

    A line ends at a line feed; a carriage return before it is dropped. In a file without line feeds a line ends at a
    carriage return.

    Raises:
        Unreadable: as `opened`, or a line is too long.
    """
    with opened(path, encoding) as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise Unreadable(f"line {number} has more than {LONGEST:,} characters")
            yield number, line[:-2] + "\n" if line.endswith("\r\n") else line


def text_lines(path: Path, encoding: str | None, bad: Callable[[str, str], None]) -> Iterator[str]:
    """Lines that are text; ``bad`` is told the place of each other line, and the reason.

    Raises:
        Unreadable: as `numbered_lines`.
    """
    for number, line in numbered_lines(path, encoding):
        if flaw := flaw_in(line):
            bad(f"line {number}", flaw)
        else:
            yield line


def whole_text(path: Path, encoding: str | None) -> str:
    """A file as one text.

    Raises:
        Unreadable: it cannot be read, is no text, or is too long for one document.
    """
    with opened(path, encoding) as file:
        text = file.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise Unreadable(f"has more than {LONGEST:,} characters; cut it with `split_on`")
    if flaw := flaw_in(text):
        number = next(number for number, line in enumerate(text.split("\n"), start=1) if flaw_in(line))
        raise Unreadable(f"line {number} {flaw}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> Iterable[str]:
    """Lines with their line feeds, at which alone they end."""
    return io.StringIO(text, newline="\n")


def cut(lines: Iterable[str], split_on: int | str) -> Iterator[str]:
    """Cut a text, given as its lines, at a separator, or into pieces of about so many characters.

    Raises:
        Unreadable: a document between two separators is too long.
    """
    return pieces(lines, size=split_on) if isinstance(split_on, int) else _between(lines, split_on)


def pieces(lines: Iterable[str], *, size: int) -> Iterator[str]:
    """Cut into pieces of about ``size`` characters: at blank lines, else at line ends, in long lines at blanks."""
    return grouped(_units(lines, size), size=size, separator="\n\n")


def grouped(texts: Iterable[str], *, size: int, separator: str) -> Iterator[str]:
    """Join neighbouring ``texts`` into documents of at least ``size`` characters; the last one may be shorter."""
    group: list[str] = []
    length = 0
    for text in texts:
        group.append(text)
        length += len(text)
        if length >= size:
            yield separator.join(group)
            group, length = [], 0
    if group:
        yield separator.join(group)


def _units(lines: Iterable[str], size: int) -> Iterator[str]:
    """Paragraphs; lines where a paragraph is longer than twice the ``size``; parts where a line is longer than that."""
    paragraph: list[str] = []
    length, is_long, follows_blank = 0, False, False
    for line in lines:
        if follows_blank:
            line = line.lstrip()
        if line.strip(_BLANK):
            paragraph.append(line)
            length += len(line)
            is_long = is_long or length - 1 > 2 * size
            follows_blank = False
            if is_long:  # not held until its end, which may be far
                for part in paragraph:
                    yield from _parts(part.removesuffix("\n"), size)
                paragraph = []
        else:
            if paragraph:
                yield "".join(paragraph).removesuffix("\n")
            paragraph, length, is_long, follows_blank = [], 0, False, True
    if paragraph:
        yield "".join(paragraph)


def _parts(line: str, size: int) -> Iterator[str]:
    start = 0
    while len(line) - start > 2 * size:
        blank = line.find(" ", start + size, start + 2 * size)
        end = start + size if blank < 0 else blank
        yield line[start:end]
        start = end if blank < 0 else end + 1
    if not line[start:].isspace():
        yield line[start:]


def _between(lines: Iterable[str], separator: str) -> Iterator[str]:
    rest = ""
    for block in grouped(lines, size=_BLOCK_CHARACTERS, separator=""):
        *whole, rest = (rest + block).split(separator)
        yield from whole
        if len(rest) > LONGEST:
            raise Unreadable(f"has more than {LONGEST:,} characters without {separator!r}")
    yield rest
