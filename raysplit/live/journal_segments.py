"""Segments of a journal, and how they make up one sequence of records. The rules are in JOURNAL.md."""

import re
from bisect import bisect_left
from collections import deque
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
    """Of a closed segment, which compaction or repair wrote: it says what all of first <= seq < end did, whose newest
    segment had its fence."""
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
    n_expected: int | None
    """Records that a closed segment should hold; None for others, or when its header is damaged."""
    after: int | None
    """The fence of the segment that it goes on from; None without a header."""


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


def header_of(name: Name, *, after: int | None, time: str, n_records: int | None = None) -> bytes:
    """The first line of a segment.

    Args:
        name: of the segment.
        after: the fence of the segment that it goes on from.
        time: as in a record.
        n_records: what it holds, of a closed segment.
    """
    about = {"format": FORMAT, "after": after}
    if name.end is not None:
        about |= {"end": name.end, "records": n_records}
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
    holes = deque(damaged)
    for byte, record in [*lines, (len(content) + 1, None)]:
        n_bad = 0
        while holes and holes[0][0] < byte:
            is_line_end = holes[0][1] == 1
            what = "a line end is damaged" if is_line_end else f"record {expected + n_bad} is damaged"
            damages += damages_of(label, [holes.popleft()], what)
            n_bad += not is_line_end
        if record is None:
            expected += n_bad
        elif record.seq < expected or (name.end is None and record.seq != expected and not n_bad):
            what = "is missing" if record.seq > expected else f"is record {record.seq} again"
            damages += damages_of(label, [(byte, 0)], f"record {expected} {what}")
            expected = max(expected, record.seq + 1)
        else:
            expected = record.seq + 1
    if name.end is not None and not damages and (n_torn or len(records) != header["records"]):
        where = (len(content) - n_torn, n_torn)
        damages += damages_of(label, [where], f"it holds {len(records)} of {header['records']} records")
    return Segment(
        name=name, label=label, records=records, damages=damages, n_bytes=len(content), n_torn_bytes=n_torn,
        end=expected if name.end is None else name.end, n_expected=header.get("records"),
        after=header.get("after"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A segment, and how far it counts."""

    segment: Segment
    n_kept: int
    """Of its records, from the first."""
    end: int
    """The seq after the last one that it accounts for here."""


def parts_of(segments: Sequence[Segment]) -> list[Part]:
    """The segments in force that count, oldest first, each as far as it does.

    Where an opening began, records of older ones with the same seq or a later one end, as do openings between it and
    the one that it went on from: it had taken the fence from them before it read, so they acknowledged none of those.
    """
    parts: list[Part] = []
    limit: int | None = None
    newest: int | None = None
    for segment in reversed(segments):
        name, n_kept, end = segment.name, len(segment.records), segment.end
        if (newest is not None and name.fence > newest) or (limit is not None and name.first >= limit):
            continue
        if limit is not None and end > limit:
            n_kept = bisect_left(segment.records, limit, key=lambda record: record.seq)
            end = limit
        parts.append(Part(segment=segment, n_kept=n_kept, end=end))
        limit = name.first
        newest = name.fence if segment.after is None else segment.after
    return parts[::-1]


def put_together(segments: Sequence[Segment]) -> Assembled:
    """The journal that segments in force make up."""
    records: list[Record] = []
    damages: list[Damage] = []
    next_seq = 0
    for part in parts_of(segments):
        segment = part.segment
        damages += segment.damages
        if segment.name.first > next_seq:
            damages += damages_of(segment.label, [(0, 0)], f"record {next_seq} is missing before it")
        records += segment.records[: part.n_kept]
        next_seq = part.end
    n_read = sum(len(segment.records) for segment in segments)
    return Assembled(records=records, next_seq=next_seq, damages=damages, n_superseded=n_read - len(records))


def _header(header: Record, name: Name, label: str) -> Mapping[str, Any]:
    form = header.data.get("format")
    if header.kind != HEADER or (header.seq, header.fence) != (name.first, name.fence):
        raise RunError(f"{label}: is not the segment that its name says; was it renamed?")
    if form != FORMAT:
        raise RunError(f"{label}: is of format {form}; this raysplit reads formats 1 and {FORMAT}")
    return header.data
