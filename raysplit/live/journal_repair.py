"""What is the matter with a journal, and how it becomes whole again without losing a byte."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from raysplit.errors import RunError
from raysplit.live.journal import read_segments
from raysplit.live.journal_lines import Damage, Record, line_of
from raysplit.live.journal_segments import Name, Segment, header_of, parts_of, put_together
from raysplit.live.journal_storage import STORAGE_ERRORS, Storage, open_storage


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What a journal holds."""

    n_records: int
    n_segments: int
    kinds: Mapping[str, int]
    """Records of each kind."""
    fences: Mapping[int, int]
    """Records of each opening that wrote any, oldest first."""
    n_superseded: int
    """Stored but never acknowledged, by openings that had been taken over."""
    torn: Mapping[str, int]
    """Bytes of a last line that was being written, by segment; never acknowledged."""
    damages: Sequence[Damage]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What a repair did."""

    set_aside: Sequence[str]
    """Side files: copies of the damaged segments as they were."""
    lost: Sequence[str]
    n_records: int


def examine(location: str | Path) -> Examined:
    """Read a journal whole, and change nothing.

    Raises:
        RunError: there is no journal, or it cannot be read.
    """
    segments = _segments(open_storage(location), location)
    there = put_together(segments)
    return Examined(
        n_records=len(there.records),
        n_segments=len(segments),
        kinds=dict(Counter(record.kind for record in there.records).most_common()),
        fences=dict(sorted(Counter(record.fence for record in there.records).items())),
        n_superseded=there.n_superseded,
        torn={s.label: s.n_torn_bytes for s in segments if s.n_torn_bytes},
        damages=there.damages,
    )


def repair(location: str | Path) -> Repaired:
    """Make a damaged journal one that opens: every intact record stays, each damaged segment is copied aside first.

    Raises:
        RunError: there is no journal, a living process writes it, or the storage refused.
    """
    storage = open_storage(location)
    segments = _segments(storage, location)
    newest = max(s.name.fence for s in segments)
    try:
        if any(s.name.fence == newest and not s.name.old and storage.is_alive(s.name) for s in segments):
            raise RunError(f"{location}: not repaired: a living process writes it; end that first")
        if put_together(segments).damages:
            storage.make()
            with storage.opening():
                storage.claim(newest)  # whoever wrote it, also where nobody can tell whether he lives, writes no more
                return _repair(storage, _segments(storage, location))
    except STORAGE_ERRORS as error:
        raise RunError(f"{location}: not repaired: {getattr(error, 'strerror', None) or error}") from error
    return Repaired(set_aside=[], lost=[], n_records=len(put_together(segments).records))


def _repair(storage: Storage, segments: Sequence[Segment]) -> Repaired:
    parts = parts_of(segments)
    begins = [part.segment.name.first for part in parts[1:]]
    set_aside, lost, next_seq = [], [], 0
    for part, end in zip(parts, [*begins, parts[-1].end], strict=True):
        segment, name = part.segment, part.segment.name
        if name.first > next_seq:
            fence = name.fence if segment.after is None else segment.after
            _put_closed(storage, Name(first=next_seq, end=name.first, fence=fence), None, [])
            lost += _holes([], next_seq, name.first)
        next_seq = part.end
        if not segment.damages:
            continue
        next_seq = end
        set_aside.append(storage.set_aside(name))
        kept = _rising(segment.records[: part.n_kept], name.first)
        closed = replace(name, end=end, old=False) if name.end is None else name
        if name.end is None or segment.n_expected == name.end - name.first:
            lost += _holes(kept, name.first, end)
        else:  # it was folded: which records it held is not known
            n_expected = "an unknown number of" if segment.n_expected is None else segment.n_expected
            lost.append(f"of {n_expected} records between {name.first} and {name.end - 1} all but {len(kept)}")
        if closed.end != closed.first:
            _put_closed(storage, closed, segment.after, kept)
        if closed != name:
            storage.delete(name)
    after = put_together(read_segments(storage))
    if after.damages:
        raise RunError(f"{after.damages[0].segment}: {after.damages[0].what}, also after the repair")
    return Repaired(set_aside=set_aside, lost=lost, n_records=len(after.records))


def _segments(storage: Storage, location: str | Path) -> list[Segment]:
    try:
        segments = read_segments(storage)
    except STORAGE_ERRORS as error:
        raise RunError(f"{location}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not segments:
        raise RunError(f"{location}: no journal; is this a run folder?")
    return segments


def _put_closed(storage: Storage, name: Name, after: int | None, records: Sequence[Record]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    header = header_of(name, after=after, time=now, n_records=len(records))
    storage.put(name, header + b"".join(map(line_of, records)))


def _rising(records: Sequence[Record], first: int) -> list[Record]:
    """Without what is there twice."""
    kept: list[Record] = []
    for record in records:
        if record.seq >= (kept[-1].seq + 1 if kept else first):
            kept.append(record)
    return kept


def _holes(kept: Sequence[Record], first: int, end: int) -> list[str]:
    """The seqs of first <= seq < end that are not there, in words."""
    holes, expected = [], first
    for seq in [*(record.seq for record in kept), end]:
        if seq > expected:
            holes.append(f"record {expected}" if seq == expected + 1 else f"records {expected} to {seq - 1}")
        expected = seq + 1
    return holes
