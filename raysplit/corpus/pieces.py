"""Cutting long texts into documents of a sensible size."""

import re
from collections.abc import Iterable, Iterator


def pieces(text: str, *, size: int) -> Iterator[str]:
    """Cut ``text`` at blank lines (at line ends where none is near) into documents of about ``size`` characters."""
    paragraphs = re.split(r"\n[ \t\r]*\n\s*", text)
    units = (line for p in paragraphs for line in (p.split("\n") if len(p) > 2 * size else [p]) if line.strip())
    return grouped(units, size=size, separator="\n\n")


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
