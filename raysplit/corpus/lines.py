"""Text as lines that were looked at, so that what is no text is found where it lies, and memory stays bounded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from raysplit.corpus.not_read import Unreadable
from raysplit.files import open_text

LONGEST = 10**9
"""Characters of a line, a document or a field: more is not held in memory."""


@contextmanager
def opened(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """A file as text, in which bytes outside the encoding are lone surrogates, for `flaw_in` to find.

    Raises:
        Unreadable: also while reading.
    """
    try:
        with open_text(path, encoding=encoding, errors="surrogateescape") as file:
            yield file
    except UnicodeError as error:
        raise Unreadable(f"is not {encoding or 'UTF-16'} text: {error}") from error
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def flaw_in(text: str) -> str:
    """Why that is no text; empty when it is."""
    if "\0" in text:
        return "holds NUL bytes: it is binary, or UTF-16 without a byte order mark"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has the byte 0x{ord(text[error.start]) & 0xFF:02x}, which its encoding does not know"
    return ""


def numbered_lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1 on; they end at a line feed, or at a carriage return with one, which is dropped.

    Raises:
        Unreadable: the file cannot be read (on), or a line is too long.
    """
    with opened(path, encoding) as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise Unreadable(f"line {number} has more than {LONGEST:,} characters")
            yield number, line[:-2] + "\n" if line.endswith("\r\n") else line


def text_lines(path: Path, encoding: str | None, bad: Callable[[str, str], None]) -> Iterator[str]:
    """Lines that are text; ``bad`` is told the place of each other one, and why.

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
