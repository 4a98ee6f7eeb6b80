"""The files of a journal, format 3: batches of records, numbered without a gap, each a line of JSON with its checksum.

JOURNAL.md describes it.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raysplit.errors import RunError

FORMAT = 3
HEADER = "journal"
"""Kind of the first line of a batch, which is no record."""
_NAME = re.compile(r"(\d{10})\.jsonl")
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
    """Of the opening that wrote it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Bytes of a file that are not what was written."""

    file: str
    byte: int
    n_bytes: int
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What could be read of one file."""

    number: int
    label: str
    """Its path or URL."""
    first: int
    """The seq that it begins with."""
    end: int
    """The seq after its last record."""
    fence: int
    records: Sequence[Record]
    damages: Sequence[Damage] = ()


def now() -> str:
    """The time as a record has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def name_of(number: int) -> str:
    return f"{number:010d}.jsonl"


def number_of(name: str) -> int | None:
    """Which batch a file holds; None for another file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def batch_bytes(
    number: int,
    records: Sequence[Record],
    *,
    first: int,
    end: int | None = None,
    fence: int,
    time: str,
    about: Mapping[str, Any],
) -> bytes:
    """A batch as it is stored.

    Args:
        number: of the batch.
        records: its records; none where an opening only takes the right to write.
        first: seq of the first of them, or of the next that will be.
        end: seq after the last that was stored here, where records were lost; that of the last of ``records`` if None.
        fence: of the opening that writes.
        time: as in a record.
        about: who writes.

    Raises:
        TypeError: data that is not JSON.
    """
    if end is None:
        end = records[-1].seq + 1 if records else first
    says = {"format": FORMAT, "batch": number, "records": len(records), "end": end, **about}
    header = Record(seq=first, time=time, kind=HEADER, data=says, fence=fence)
    return b"".join(map(_line_of, (header, *records)))


def read_batches(files: Iterable[tuple[int, str, bytes]]) -> list[Batch]:
    """Batches in the order given, as (number, label, content).

    Raises:
        RunError: a newer raysplit wrote one.
    """
    found = [(number, label, *_intact_lines(content)) for number, label, content in files]
    # One call of the parser is twice as fast as one a line.
    bodies = json.loads(b"[" + b",".join(line for *_, lines, _ in found for _, line in lines) + b"]")
    records = iter(map(_record, bodies))
    batches: list[Batch] = []
    for number, label, lines, holes in found:
        read = [(byte, next(records)) for byte, _ in lines]
        batches.append(_batch(number, label, read, holes, first=batches[-1].end if batches else 0))
    return batches


def _batch(
    number: int, label: str, lines: list[tuple[int, Record]], holes: list[tuple[int, int]], *, first: int
) -> Batch:
    header = lines.pop(0)[1] if lines and lines[0][0] == 0 and lines[0][1].kind == HEADER else None
    damages = [
        Damage(file=label, byte=byte, n_bytes=n_bytes, what="these bytes are damaged") for byte, n_bytes in holes
    ]
    records = [record for _, record in lines]
    if header is None:
        damages = damages or [Damage(file=label, byte=0, n_bytes=0, what="it has no header")]
        end = records[-1].seq + 1 if records else first
        return Batch(number=number, label=label, first=first, end=end, fence=0, records=records, damages=damages)
    says = header.data
    if says.get("format") != FORMAT:
        raise RunError(f"{label}: is of format {says.get('format')}; this raysplit reads format {FORMAT}")
    if says["batch"] != number:
        raise RunError(f"{label}: holds batch {says['batch']}; was it renamed?")
    if not damages and len(records) != says["records"]:
        what = f"it holds {len(records)} of {says['records']} records"
        damages.append(Damage(file=label, byte=0, n_bytes=0, what=what))
    return Batch(
        number=number, label=label, first=header.seq, end=says["end"], fence=header.fence, records=records,
        damages=damages,
    )  # fmt: skip


def _line_of(record: Record) -> bytes:
    body = json.dumps(
        {"seq": record.seq, "time": record.time, "fence": record.fence, "kind": record.kind, "data": record.data}
    )
    return f'{body[:-1]}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def _intact_lines(content: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]]]:
    """(byte, line) of the lines that are as they were written, and (byte, n_bytes) of what lies between them."""
    lines: list[tuple[int, bytes]] = []
    holes: list[tuple[int, int]] = []
    begin = 0
    while begin < len(content):
        end = content.find(b"\n", begin)
        end = len(content) if end < 0 else end
        line = content[begin:end]
        if is_intact(line) and end < len(content):
            lines.append((begin, line))
        elif is_intact(line[:-1]):  # the last line's own end is damaged
            lines.append((begin, line[:-1]))
            holes.append((end - 1, 1))
        elif (after := _intact_after(line)) and is_intact(line[: after - 1]):  # the end between two lines is damaged
            lines += [(begin, line[: after - 1]), (begin + after, line[after:])]
            holes.append((begin + after - 1, 1))
        else:
            holes.append((begin, (after or len(line) + 1)))
            lines += [(begin + after, line[after:])] if after else []
        begin = end + 1
    return lines, holes


def _intact_after(line: bytes) -> int:
    """Where an intact line begins within a damaged one; 0 where none does."""
    begin = line.find(_BEGIN, 1)
    while begin > 0 and not is_intact(line[begin:]):
        begin = line.find(_BEGIN, begin + 1)
    return max(0, begin)


def is_intact(line: bytes) -> bool:
    body, end = line[:-_CRC_BYTES], line[-_CRC_BYTES:]
    return end == b', "crc": "%08x"}' % zlib.crc32(b"}", zlib.crc32(body))


def _record(body: dict[str, Any]) -> Record:
    return Record(seq=body["seq"], time=body["time"], kind=body["kind"], data=body["data"], fence=body["fence"])
