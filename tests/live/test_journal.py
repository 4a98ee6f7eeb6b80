"""The journal: what it acknowledged is there whatever happened, what is damaged is named, and one opening writes."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysplit.errors import RunError
from raysplit.live import journal_lines, journal_tail
from raysplit.live.journal import Journal, ReadJournal, Record, has_journal, read_journal
from raysplit.live.journal_lines import line_of
from raysplit.live.journal_segments import Name, header_of
from raysplit.live.journal_storage import FileStorage, open_storage
from raysplit.strict_json import finite

data = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.lists(st.floats(allow_nan=False), max_size=3),
    max_size=4,
)
kind = st.text(max_size=8).filter(lambda text: text != journal_lines.HEADER)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def memory() -> str:
    """A prefix of an object store that nobody used before: fsspec's in memory, through pyarrow."""
    return f"fsspec+memory://bucket/{uuid4().hex}/journal"


@pytest.fixture(params=["folder", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Locations that nobody used before, on each kind of storage."""
    return memory if request.param == "object store" else lambda: str(tmp_path / uuid4().hex / "journal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def three(path: Path) -> Path:
    """The one segment of a closed journal of three records, and of `path`."""
    journal = Journal(path)
    for number in range(3):
        journal.append("note", {"number": number, "text": "naïve\nline"})
    journal.close()
    [segment] = path.glob("*.jsonl")
    return segment


def told(location: str | Path) -> list[tuple[str, Any]]:
    return [(record.kind, record.data) for record in read_journal(location)]


def numbers(location: str | Path) -> list[int]:
    return [record.data["number"] for record in read_journal(location)]


@same_folder
@given(batches=st.lists(st.lists(st.tuples(kind, data), max_size=3), max_size=4))
def test_what_was_appended_is_read_back(place: Callable[[], str], batches: list[list[tuple[str, Any]]]) -> None:
    location = place()
    journal = Journal(location)
    notes: list[tuple[str, Any]] = []
    for batch in batches:
        stored = journal.append_many(batch)
        kept = [(kind, finite(data)) for kind, data in batch]
        notes += kept
        assert [(record.kind, record.data) for record in stored] == kept
        if notes:
            assert told(location) == notes  # readable at once, by another process too
    journal.close()
    if notes:
        assert read_journal(location) == list(journal.records)
    again = Journal(location)
    assert [(record.seq, record.kind, record.data) for record in again.records] == [
        (seq, *note) for seq, note in enumerate(notes)
    ]
    again.close()


def test_it_goes_on_where_it_was(place: Callable[[], str]) -> None:
    location = place()
    for number in range(4):
        journal = Journal(location)
        assert journal.append("note", {"number": number}).seq == number
        journal.close()
    assert numbers(location) == [0, 1, 2, 3]


def test_the_order_is_that_of_storing_whatever_the_clock_says(
    place: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(
        ["2026-11-24T12:00:00.000+00:00", "1970-01-01T00:00:00.000+00:00", "2999-01-01T00:00:00.000+00:00"] * 9
    )
    monkeypatch.setattr("raysplit.live.journal._now", lambda: next(times))
    location = place()
    for number in range(0, 6, 2):
        journal = Journal(location)
        journal.append("note", {"number": number})
        journal.append("note", {"number": number + 1})
        journal.compact()
        journal.close()
    assert numbers(location) == [0, 1, 2, 3, 4, 5]


def test_a_journal_of_an_older_raysplit_goes_on(tmp_path: Path) -> None:
    lines = [
        '{"seq": 0, "time": "2026-11-24T19:38:00.968+00:00", "kind": "note", "data": {"number": 0}, "crc": "4a4e8007"}',
        '{"seq": 1, "time": "2026-11-24T19:38:00.970+00:00", "kind": "note", "data": {"number": 1}, "crc": "3b4b44c7"}',
    ]
    old = tmp_path / "journal.jsonl"
    old.write_text("\n".join(lines) + "\n" + '{"seq": 2, "ti')  # it crashed
    before = old.read_bytes()
    for location in (old, tmp_path / "journal"):
        assert numbers(location) == [0, 1]
    journal = Journal(old)
    journal.append("note", {"number": 2})
    assert old.read_bytes() == before
    assert numbers(old) == [0, 1, 2]
    journal.compact()
    journal.close()
    assert not old.exists()
    assert numbers(old) == [0, 1, 2]


# Crashes and damage.


@same_folder
@given(n_torn=st.integers(1, 600), batch=st.booleans())
def test_a_crash_at_any_byte_loses_only_what_was_not_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, n_torn: int, batch: bool
) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal"
    journal = Journal(path)
    notes = [("note", {"number": number}) for number in range(4)]
    if batch:
        journal.append_many(notes)
    else:
        for note in notes:
            journal.append(*note)
    journal.close()
    [segment] = path.glob("*.jsonl")
    content = segment.read_bytes()
    size = max(0, len(content) - n_torn)
    segment.write_bytes(content[:size])
    whole = max(0, content[:size].count(b"\n") - 1)
    assert numbers(path) == list(range(whole))
    after = Journal(path)
    assert [record.data["number"] for record in after.records] == list(range(whole))
    after.append("note", {"number": whole})
    after.close()
    assert numbers(path) == list(range(whole + 1))


def test_a_cut_at_every_byte_of_the_last_record(three: Path, path: Path) -> None:
    content = three.read_bytes()
    begin = content.rindex(b"\n", 0, -1) + 1
    for size in range(begin, len(content)):
        three.write_bytes(content[:size])
        assert numbers(path) == [0, 1]
    journal = Journal(path)
    assert journal.append("note", {"number": "2, again"}).seq == 2
    journal.close()
    assert numbers(path) == [0, 1, "2, again"]


def test_any_flipped_bit_is_found_and_named(three: Path, path: Path) -> None:
    content = three.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        three.write_bytes(flipped)
        number = sum(at >= end for end in ends)
        what = f"record {number - 1} is damaged" if number else "the header is damaged"
        if content[at] == ord("\n"):
            what = "a line end is damaged"
        with pytest.raises(RunError, match=re.escape(f"{three}: {what}")) as refused:
            read_journal(path)
        assert f"raysplit journal repair {path}" in str(refused.value)
    with pytest.raises(RunError, match="is damaged"):
        Journal(path)
    assert three.read_bytes() == bytes(flipped)  # nothing was "repaired" away


def test_a_line_that_is_not_there_is_missed(three: Path, path: Path) -> None:
    header, first, second, third = three.read_bytes().splitlines(keepends=True)
    for lines, what in (
        ([header, first, third], "record 1 is missing"),
        ([header, first, second, second, third], "record 2 is record 1 again"),
        ([first, second, third], "is not the segment that its name says"),
    ):
        three.write_bytes(b"".join(lines))
        with pytest.raises(RunError, match=what):
            read_journal(path)


def test_a_segment_that_is_not_there_is_missed(place: Callable[[], str]) -> None:
    location = place()
    for number in range(3):
        journal = Journal(location)
        journal.append("note", {"number": number})
        journal.close()
    storage = open_storage(location)
    storage.delete(sorted(storage.names(), key=lambda name: name.first)[1])
    with pytest.raises(RunError, match="record 1 is missing before it"):
        read_journal(location)


def test_a_newer_format_is_left_alone(three: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.live.journal_segments.FORMAT", 1)
    with pytest.raises(RunError, match=r"is of format 2; this raysplit reads"):
        read_journal(path)


# A full disk and a failing one.


class Disk:
    """Stands for `os` in the tail of a journal: a disk with little room, or one that fails."""

    def __init__(self, room: int = 1 << 30, failing: str = "") -> None:
        self.room, self.failing = room, failing

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, content: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        n_bytes = os.write(fd, content[: self.room])
        self.room -= n_bytes
        return n_bytes

    def fsync(self, fd: int) -> None:
        if "fsync" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    def ftruncate(self, fd: int, size: int) -> None:
        if "ftruncate" in self.failing:
            raise OSError(errno.EIO, "Input/output error")
        os.ftruncate(fd, size)


def test_a_full_disk_leaves_nothing_half_written(three: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    with monkeypatch.context() as patched:
        patched.setattr(journal_tail, "os", Disk(room=200))
        with pytest.raises(RunError, match=r"journal: record 3 to 5 not stored: No space left"):
            journal.append_many([("note", {"number": number}) for number in range(3, 6)])
        assert numbers(path) == [0, 1, 2]
        assert sum(file.stat().st_size for file in path.glob("*.jsonl")) == three.stat().st_size
    assert len(journal.records) == 3
    assert journal.append("note", {"number": "3, again"}).seq == 3  # there is room again
    journal.close()
    assert numbers(path) == [0, 1, 2, "3, again"]


@pytest.mark.parametrize(("disk", "what"), [
    (Disk(failing="fsync"), "the disk may have lost what was written"),
    (Disk(room=100, failing="ftruncate"), "what was half written could not be cut off"),
])  # fmt: skip
def test_a_failing_disk_stops_the_writer_until_it_is_opened_again(
    three: Path, path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, what: str
) -> None:
    journal = Journal(path)
    with monkeypatch.context() as patched:
        patched.setattr(journal_tail, "os", disk)
        with pytest.raises(RunError, match="record 3 not stored"):
            journal.append("note", {"number": 3})
    with pytest.raises(RunError, match=what):
        journal.append("note", {"number": "3, again"})
    assert numbers(path) == [0, 1, 2]
    journal.close()
    journal = Journal(path)
    journal.append("note", {"number": "3, at last"})
    journal.close()
    assert numbers(path) == [0, 1, 2, "3, at last"]


def test_what_is_not_json_is_refused_before_it_is_written(three: Path, path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(TypeError):
        journal.append_many([("note", {"number": 3}), ("note", {"object": object()})])
    with pytest.raises(ValueError, match="begin a segment"):
        journal.append("journal", {})
    journal.close()
    assert numbers(path) == [0, 1, 2]


# Two writers, and readers.


def test_a_newer_opening_takes_over(place: Callable[[], str]) -> None:
    location = place()
    old = Journal(location)
    old.append("note", {"number": 0})
    new = Journal(location)
    assert new.fence > old.fence
    with pytest.raises(RunError, match="record 1 not stored: another writer has taken over"):
        old.append("note", {"number": "1, by the old one"})
    with pytest.raises(RunError, match="not compacted: another writer has taken over"):
        old.compact()
    new.append("note", {"number": 1})
    old.close()
    new.append("note", {"number": 2})
    new.close()
    assert numbers(location) == [0, 1, 2]


def test_an_old_writer_that_was_writing_is_not_acknowledged(
    place: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = place()
    old = Journal(location)
    old.append("note", {"number": 0})
    news = []
    write = old._tail.write

    def late(first: int, header: bytes, lines: bytes) -> Any:
        news.append(Journal(location))  # reads what is there now
        return write(first, header, lines)

    with monkeypatch.context() as patched:
        patched.setattr(old._tail, "write", late)
        with pytest.raises(RunError, match="record 1 not acknowledged: another writer has taken over"):
            old.append("note", {"number": "1, by the old one"})
    [new] = news
    new.append("note", {"number": 1})
    new.compact()
    new.append("note", {"number": 2})
    assert numbers(location) == [0, 1, 2]
    new.close()
    old.close()


def test_a_late_batch_of_an_opening_in_between_counts_for_nothing(place: Callable[[], str]) -> None:
    """The third opening goes on from what the first stored late, unless the second had begun before it came."""
    location = place()
    first = Journal(location)
    first.append("note", {"number": 0})
    second = Journal(location)
    send(first, "by the first")
    third = Journal(location)
    known = [record.data["number"] for record in third.records]
    send(second, "by the second")
    assert numbers(location) == known == [0]
    third.append("note", {"number": "by the third"})
    assert numbers(location) == [0, "by the third"]
    for journal in (first, second, third):
        journal.close()


def test_an_opening_that_dawdled_displaces_nothing() -> None:
    """In a store, where nothing keeps openings apart, its own first segment may come after a later opening's."""
    location = memory()
    first = Journal(location)
    first.append("note", {"number": 0})
    storage = open_storage(location)
    dawdling = storage.claim(0)
    send(first, "late")
    third = Journal(location)
    assert [record.data["number"] for record in third.records] == [0, "late"]
    name = Name(first=1, fence=dawdling)
    storage.put(name, header_of(name, after=first.fence, time=""))
    assert numbers(location) == [0, "late"]
    third.append("note", {"number": 2})
    third.compact()
    third.close()
    assert numbers(location) == [0, "late", 2]


def send(journal: Journal, number: str) -> None:
    """What an opening writes that has been taken over since it looked; it gets no acknowledgement."""
    record = Record(seq=journal._next_seq, time="", kind="note", data={"number": number}, fence=journal.fence)
    journal._tail.write(record.seq, journal._header(""), line_of(record))


def test_a_reader_takes_nothing_and_touches_nothing(three: Path, path: Path) -> None:
    writer = Journal(path)
    with three.open("ab") as file:
        file.write(b'{"seq": 3, "ti')
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert numbers(path) == [0, 1, 2]
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    writer.append("note", {"number": 3})
    writer.close()


def test_a_read_journal_stores_nothing() -> None:
    with pytest.raises(RunError, match="measurement"):
        ReadJournal([]).append("measurement", {})
    with pytest.raises(RunError, match="measurement"):
        ReadJournal([]).append_many([("measurement", {})])


def test_no_journal_and_no_place_for_one(tmp_path: Path) -> None:
    for location in (tmp_path / "journal", memory()):
        assert not has_journal(location)
        with pytest.raises(RunError, match="no journal"):
            read_journal(location)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal")
    for url in ("ftp://host/journal", "fsspec+nosuch://x/journal"):
        with pytest.raises(RunError, match=r"cannot be opened: .*s3://"):
            Journal(url)


def test_a_file_url_is_a_path(path: Path) -> None:
    journal = Journal(f"file://{path}")
    journal.append("note", {"number": 0})
    journal.close()
    assert isinstance(journal._storage, FileStorage)
    assert numbers(path) == [0]


# Compaction.


def test_compaction_changes_nothing_that_is_read(place: Callable[[], str]) -> None:
    location = place()
    for number in range(5):
        journal = Journal(location)
        journal.append("note", {"number": number})
    before = read_journal(location)
    journal.compact()
    assert read_journal(location) == before == list(journal.records)
    assert len(open_storage(location).names()) <= 2  # the closed one, and in a folder the one that grows
    assert journal.append("note", {"number": 5}).seq == 5
    journal.close()
    assert numbers(location) == [0, 1, 2, 3, 4, 5]


def test_what_is_superseded_can_be_folded(place: Callable[[], str]) -> None:
    location = place()
    journal = Journal(location)
    for number in range(6):
        journal.append("note", {"number": number})

    def last_two(records: Any) -> list[Record]:
        return list(records[-2:])

    journal.compact(last_two)
    assert [record.seq for record in journal.records] == [4, 5]
    journal.append("note", {"number": 6})
    journal.close()
    assert [(record.seq, record.data["number"]) for record in read_journal(location)] == [(4, 4), (5, 5), (6, 6)]
    again = Journal(location)
    with pytest.raises(ValueError, match="seqs"):
        again.compact(lambda records: [*records, *records])
    again.compact()
    assert again.append("note", {"number": 7}).seq == 7
    again.close()
    assert numbers(location) == [4, 5, 6, 7]


def test_many_openings_and_batches_leave_few_segments(place: Callable[[], str]) -> None:
    location = place()
    for number in range(0, 120, 3):
        journal = Journal(location)  # and the one before was killed
        for i in range(3):
            journal.append("note", {"number": number + i})
    assert numbers(location) == list(range(120))
    assert len(open_storage(location).names()) <= 34


# The format.


def test_the_format_is_one_json_object_a_line(three: Path) -> None:
    for line in three.read_text(encoding="ascii").splitlines():
        assert set(json.loads(line)) == {"seq", "time", "fence", "kind", "data", "crc"}


def test_pandas_and_duckdb_read_it(three: Path, path: Path) -> None:
    for number in range(3, 6):
        journal = Journal(path)
        journal.append("observation", {"rows": [{"loss": 2.5 + number, "n_params": 7}], "rate": float("inf")})
        journal.close()
    with duckdb.connect() as db:
        read = f"from read_json('{path}/*.jsonl') where kind = 'observation' order by seq"
        assert db.execute(f"select seq, data.rows[1].loss {read}").fetchall() == [(3, 5.5), (4, 6.5), (5, 7.5)]
    frame = pd.read_json(three, lines=True)
    assert frame[frame["kind"] == "note"]["data"].tolist() == [record.data for record in read_journal(path)[:3]]
