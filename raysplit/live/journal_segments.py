"""Segments of a journal, and how they make up one sequence of records. The rules are in JOURNAL.md."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysplit.errors import RunError
from raysplit.live.journal_lines import FORMAT, HEADER, Damage, Record, damages_of, line_of, read_lines

_NAME = re.compile(r"(\d{12})(?:-(\d{12}))?\.f(\d{6,})\.jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """What a segment's file name says of it."""

    first: int
    """The seq it begins with."""
    fence: int
    end: int | None = None
    """Of a closed segment, which compaction or repair wrote: it holds all there is of first <= seq < end."""
    old: bool = False
    """The one file of format 1, which lies beside the folder."""

    def __str__(self) -> str:
        end = "" if self.end is None else f"-{self.end:012d}"
        return f"{self.first:012d}{end}.f{self.fence:06d}.jsonl"

    def covers(self, other: "Name") -> bool:
        """Whether this closed segment stands for the other, which then need not be there."""
        if self.end is None or self == other or other.fence > self.fence or other.first < self.first:
            return False
        return other.first < self.end if other.end is None else other.end <= self.end


OLD = Name(first=0, fence=0, old=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """What could be read of a segment."""

    name: Name
    label: str
    """The segment's path or URL, for messages."""
    records: Sequence[Record]
    damages: Sequence[Damage]
    n_bytes: int
    n_torn_bytes: int
    """Of a last line that was being written; never acknowledged."""
    end: int
    """The seq after the last one that it accounts for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """A journal's records, put together."""

    records: list[Record]
    next_seq: int
    damages: Sequence[Damage]
    n_superseded: int
    """Records of an older fence that came after a newer one had taken over; they do not count."""


def name_of(text: str) -> Name | None:
    """The name of a segment, or None for another file."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    first, end, fence = match.groups()
    return Name(first=int(first), end=None if end is None else int(end), fence=int(fence))


def header_of(name: Name, *, time: str, data: Mapping[str, Any]) -> bytes:
    """The first line of a segment."""
    about = {"format": FORMAT, **({} if name.end is None else {"end": name.end}), **data}
    return line_of(Record(seq=name.first, time=time, kind=HEADER, data=about, fence=name.fence))


def in_force(names: Iterable[Name]) -> list[Name]:
    """The names, oldest first, without those that a closed segment covers."""
    every = set(names)
    closed = [name for name in every if name.end is not None]
    return sorted(
        (name for name in every if not any(c.covers(name) for c in closed)),
        key=lambda name: (name.fence, name.first, name.end is None),
    )


def read_segment(name: Name, content: bytes, label: str) -> Segment:
    """The records of a segment, and its damage.

    Raises:
        RunError: a newer raysplit wrote it.
    """
    lines, damaged, n_torn = read_lines(content)
    damages: list[Damage] = []
    header: Mapping[str, Any] = {}
    if not name.old:
        if lines and lines[0][0] == 0:
            header = _header(lines.pop(0)[1], name, label)
        elif damaged and damaged[0][0] == 0:
            damages += damages_of(label, [damaged.pop(0)], "the header is damaged")
        elif name.end is not None:
            damages += damages_of(label, [(0, len(content))], "it was cut short")
    records = [record for _, record in lines]
    expected = name.first
    holes = iter([*damaged, (len(content) + 1, 0)])
    hole = next(holes)
    for byte, record in lines:
        n_bad = 0
        while hole[0] < byte:
            damages += damages_of(label, [hole], f"record {expected + n_bad} is damaged")
            hole, n_bad = next(holes), n_bad + 1
        if record.seq < expected or (name.end is None and record.seq != expected and not n_bad):
            what = "is missing" if record.seq > expected else f"is record {record.seq} again"
            damages += damages_of(label, [(byte, 0)], f"record {expected} {what}")
        expected = max(expected, record.seq + 1)
    while hole[0] <= len(content):
        damages += damages_of(label, [hole], f"record {expected} is damaged")
        hole, expected = next(holes), expected + 1
    if name.end is not None and not damages and (n_torn or len(records) != header["records"]):
        where = (len(content) - n_torn, n_torn)
        damages += damages_of(label, [where], f"it holds {len(records)} of {header['records']} records")
    return Segment(
        name=name, label=label, records=records, damages=damages, n_bytes=len(content), n_torn_bytes=n_torn,
        end=expected if name.end is None else name.end,
    )  # fmt: skip


def put_together(segments: Sequence[Segment]) -> Assembled:
    """The journal that segments in force make up.

    Where a newer fence begins, records of older ones with the same seq or a later one end: their writer had lost its
    fence by then, and so acknowledged none of them.
    """
    limit, n_superseded = None, 0
    kept: list[tuple[Segment, Sequence[Record], int]] = []
    for segment in reversed(segments):
        n_kept, end = len(segment.records), segment.end
        if limit is not None and end > limit:
            n_kept = bisect_left(segment.records, limit, key=lambda record: record.seq)
            end = limit
        n_superseded += len(segment.records) - n_kept
        if limit is None or segment.name.first < limit:
            kept.append((segment, segment.records[:n_kept], end))
            limit = segment.name.first
    records: list[Record] = []
    damages: list[Damage] = []
    next_seq = 0
    for segment, part, end in reversed(kept):
        damages += segment.damages
        if segment.name.first > next_seq:
            damages += damages_of(segment.label, [(0, 0)], f"record {next_seq} is missing before it")
        records += part
        next_seq = end
    return Assembled(records=records, next_seq=next_seq, damages=damages, n_superseded=n_superseded)


def _header(header: Record, name: Name, label: str) -> Mapping[str, Any]:
    form = header.data.get("format")
    if header.kind != HEADER or (header.seq, header.fence) != (name.first, name.fence):
        raise RunError(f"{label}: is not the segment that its name says; was it renamed?")
    if form != FORMAT:
        raise RunError(f"{label}: is of format {form}; this raysplit reads formats 1 and {FORMAT}")
    return header.data
