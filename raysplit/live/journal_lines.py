"""Lines of a journal: one record each, as JSON that ends in its own checksum."""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from raysplit import strict_json

FORMAT = 2
"""1: one file, records without a fence. 2: a folder of segments; see JOURNAL.md."""
HEADER = "journal"
"""Kind of the first line of a segment, which is no record."""
_BEGIN = b'{"seq": '
_CRC_BYTES = len(', "crc": "00000000"}')


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    seq: int
    """Counts the journal's records from 0, over restarts; the order of things, which no clock decides."""
    time: str
    """UTC, ISO 8601."""
    kind: str
    data: Mapping[str, Any]
    fence: int = 0
    """Of the opening that wrote it; 0 in format 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes of a segment that are not what was written."""

    segment: str
    byte: int
    n_bytes: int
    what: str


def line_of(record: Record) -> bytes:
    """A record as a line; an infinite number in it is null.

    Raises:
        TypeError: its data is not JSON.
    """
    body = strict_json.dumps(
        {"seq": record.seq, "time": record.time, "fence": record.fence, "kind": record.kind, "data": record.data}
    )
    return f'{body[:-1]}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def read_lines(content: bytes) -> tuple[list[tuple[int, Record]], list[tuple[int, int]], int]:
    """Every record that is intact.

    Returns:
        The records with their byte offsets; the damaged stretches as (byte, n_bytes); and how many bytes at the end
        are a line that was being written.
    """
    lines = content.split(b"\n")
    tail = lines.pop()
    offsets = [0, *accumulate(len(line) + 1 for line in lines)]
    good: list[tuple[int, bytes]] = []
    damaged: list[tuple[int, int]] = []
    for offset, line in zip(offsets, lines, strict=False):
        if _is_intact(line):
            good.append((offset, line))
        else:
            _salvage(offset, line, good, damaged)
    if tail and _is_intact(tail[:-1]):  # a line cut short ends before its last byte, not in another one
        good.append((offsets[-1], tail[:-1]))
        damaged.append((offsets[-1] + len(tail) - 1, 1))
        tail = b""
    # One call of the parser is twice as fast as one a line.
    bodies = json.loads(b"[" + b",".join(line for _, line in good) + b"]")
    return [(offset, _record(body)) for (offset, _), body in zip(good, bodies, strict=True)], damaged, len(tail)


def damages_of(segment: str, damaged: Iterable[tuple[int, int]], what: str) -> list[Damage]:
    return [Damage(segment=segment, byte=byte, n_bytes=n_bytes, what=what) for byte, n_bytes in damaged]


def _salvage(offset: int, line: bytes, good: list[tuple[int, bytes]], damaged: list[tuple[int, int]]) -> None:
    """Sort out a damaged line: an intact one may follow where its line end, or more before it, was damaged."""
    begin = line.find(_BEGIN, 1)
    while begin > 0 and not _is_intact(line[begin:]):
        begin = line.find(_BEGIN, begin + 1)
    if begin < 0:
        damaged.append((offset, len(line) + 1))
        return
    if _is_intact(line[: begin - 1]):
        good.append((offset, line[: begin - 1]))
        damaged.append((offset + begin - 1, 1))
    else:
        damaged.append((offset, begin))
    good.append((offset + begin, line[begin:]))


def _is_intact(line: bytes) -> bool:
    body, end = line[:-_CRC_BYTES], line[-_CRC_BYTES:]
    return end == b', "crc": "%08x"}' % zlib.crc32(b"}", zlib.crc32(body))


def _record(body: dict[str, Any]) -> Record:
    return Record(seq=body["seq"], time=body["time"], kind=body["kind"], data=body["data"], fence=body.get("fence", 0))
