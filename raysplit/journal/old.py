"""Journals of raysplit before format 3, read once to be upgraded.

Format 1 was one file beside the folder, format 2 a folder of segments ``FIRST[-END].fFENCE.jsonl``; their rules are at
the end of JOURNAL.md.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysplit.errors import RunError
from raysplit.journal.format import HEADER, Record, batch_bytes, is_intact, name_of, now, number_of, read_batches
from raysplit.journal.storage import Folder, Storage, open_storage
from raysplit.strict_json import finite

_SEGMENT = re.compile(r"(\d{12})(?:-(\d{12}))?\.f(\d{6,})\.jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segment:
    name: str
    first: int
    end: int | None
    """Of a closed segment, which stands for all older ones of first <= seq < end."""
    fence: int
    after: int | None
    """The fence of the segment that it goes on from."""
    records: Sequence[Record]

    def covers(self, other: "_Segment") -> bool:
        if self.end is None or self is other or other.fence > self.fence or other.first < self.first:
            return False
        return other.first < self.end if other.end is None else other.end <= self.end


def is_old(storage: Storage, names: Iterable[str]) -> bool:
    """Whether a journal of these files is of format 1 or 2."""
    names = list(names)
    if any(_SEGMENT.fullmatch(name) for name in names):
        return True
    return not any(number_of(name) is not None for name in names) and _first_format(storage) is not None


def upgrade(location: str | Path | Storage) -> int:
    """Make a journal of format 1 or 2 one of format 3; end who writes it before. Returns its number of records.

    Its files are deleted when the new one has been read back.

    Raises:
        RunError: it is none of an older format, it is damaged, or the storage refused.
    """
    storage = open_storage(location)
    try:
        names = storage.names()
        if not is_old(storage, names):
            raise RunError(f"{location}: is no journal of an older format")
        records = _old_records(storage, names)
        content = batch_bytes(
            0, records, first=0, fence=max((record.fence for record in records), default=0) + 1,
            time=now(), about={"upgraded": True},
        )  # fmt: skip
        storage.create(name_of(0), content)  # it is there already where an upgrade was interrupted
        [batch] = read_batches([(0, storage.label(name_of(0)), storage.read([name_of(0)])[0])])
        if list(batch.records) != records:
            raise RunError(f"{location}: not upgraded: {batch.label} is there and holds other records")
        for name in names:
            if _SEGMENT.fullmatch(name) or name == "fence":
                storage.delete(name)
        if (single := _first_format(storage)) is not None:
            single.unlink()
    except OSError as error:
        raise RunError(f"{location}: not upgraded: {error.strerror or error}") from error
    return len(records)


def _first_format(storage: Storage) -> Path | None:
    if not isinstance(storage, Folder):
        return None
    single = storage.path.with_name(storage.path.name + ".jsonl")
    return single if single.is_file() else None


def _old_records(storage: Storage, names: Sequence[str]) -> list[Record]:
    segments = []
    if (single := _first_format(storage)) is not None:
        records = _records(single.read_bytes(), str(single))
        segments.append(_Segment(name=single.name, first=0, end=None, fence=0, after=None, records=records))
    found = [name for name in names if _SEGMENT.fullmatch(name)]
    segments += [_segment(name, content, storage) for name, content in zip(found, storage.read(found), strict=True)]
    in_force = [segment for segment in segments if not any(other.covers(segment) for other in segments)]
    kept: list[Record] = []
    limit: int | None = None
    newest: int | None = None
    # From the newest fence down: where an opening began, what older ones stored later was never acknowledged.
    for segment in sorted(in_force, key=lambda s: (s.fence, s.first, s.end is None), reverse=True):
        if (newest is not None and segment.fence > newest) or (limit is not None and segment.first >= limit):
            continue
        kept = [record for record in segment.records if limit is None or record.seq < limit] + kept
        limit = segment.first
        newest = segment.fence if segment.after is None else segment.after
    return kept


def _segment(name: str, content: bytes, storage: Storage) -> _Segment:
    match = _SEGMENT.fullmatch(name)
    assert match is not None
    records = _records(content, storage.label(name))
    header = records.pop(0) if records else None
    if header is not None and header.kind != HEADER:
        raise RunError(f"{storage.label(name)}: is damaged; repair it with the raysplit that wrote it")
    return _Segment(
        name=name, first=int(match[1]), end=None if match[2] is None else int(match[2]), fence=int(match[3]),
        after=header.data.get("after") if header else None, records=records,
    )  # fmt: skip


def _records(content: bytes, label: str) -> list[Record]:
    """Every record, null for what Python wrote as Infinity or NaN; a last line that was being written was never
    acknowledged.
    """
    *lines, _ = content.split(b"\n")
    if not all(map(is_intact, lines)):
        raise RunError(f"{label}: is damaged; repair it with the raysplit that wrote it")
    bodies = (json.loads(line) for line in lines)
    return [
        Record(seq=b["seq"], time=b["time"], kind=b["kind"], data=finite(b["data"]), fence=b.get("fence", 0))
        for b in bodies
    ]
