"""Cutting long texts into documents of a sensible size."""

import io
from collections.abc import Iterable, Iterator

from raysplit.corpus.lines import LONGEST
from raysplit.corpus.not_read import Unreadable

_BLOCK_CHARACTERS = 1 << 20
_BLANK = " \t\r\n"


def lines_of(text: str) -> Iterable[str]:
    """With their line feeds, at which alone they end."""
    return io.StringIO(text, newline="\n")


def cut(lines: Iterable[str], split_on: int | str) -> Iterator[str]:
    """Cut a text, given as its lines, at a separator, or into pieces of about so many characters.

    Raises:
        Unreadable: a document between two separators is too long.
    """
    return pieces(lines, size=split_on) if isinstance(split_on, int) else _between(lines, split_on)


def pieces(lines: Iterable[str], *, size: int) -> Iterator[str]:
    """Cut at blank lines, at line ends where none is near, and in long lines at blanks."""
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
    """Paragraphs; the lines of those longer than twice the ``size``; and the parts of lines longer than that."""
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
