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
from raysplit.journal import Journal, ReadJournal, has_journal, read_journal, storage
from raysplit.journal import format as journal_format
from raysplit.journal.format import name_of
from raysplit.journal.storage import Folder, Storage, open_storage
from raysplit.strict_json import finite
from tests.journal.stores import Faulty, memory

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
kind = st.text(max_size=8).filter(lambda text: text != journal_format.HEADER)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
Place = Callable[[], Storage]


@pytest.fixture(params=["folder", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Locations that nobody used before, on each kind of storage."""
    return memory if request.param == "object store" else lambda: Folder(tmp_path / uuid4().hex / "journal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def three(path: Path) -> Path:
    """The one file with records of a closed journal of three, and of `path`."""
    journal = Journal(path)
    journal.append_many([("note", {"number": number, "text": "naïve\nline"}) for number in range(3)])
    journal.close()
    return path / name_of(1)


def told(location: str | Path | Storage) -> list[tuple[str, Any]]:
    return [(record.kind, record.data) for record in read_journal(location)]


def numbers(location: str | Path | Storage) -> list[Any]:
    return [record.data["number"] for record in read_journal(location)]


@same_folder
@given(batches=st.lists(st.lists(st.tuples(kind, data), max_size=3), max_size=4))
def test_what_was_appended_is_read_back(place: Place, batches: list[list[tuple[str, Any]]]) -> None:
    location = place()
    journal = Journal(location)
    notes: list[tuple[str, Any]] = []
    for batch in batches:
        stored = journal.append_many(batch)
        kept = [(kind, finite(data)) for kind, data in batch]
        notes += kept
        assert [(record.kind, record.data) for record in stored] == kept
        assert told(location) == notes  # readable at once, by another process too
    journal.close()
    assert read_journal(location) == list(journal.records)
    again = Journal(location)
    assert [(record.seq, record.kind, record.data) for record in again.records] == [
        (seq, *note) for seq, note in enumerate(notes)
    ]
    again.close()


def test_it_goes_on_where_it_was(place: Place) -> None:
    location = place()
    for number in range(4):
        journal = Journal(location)
        assert journal.append("note", {"number": number}).seq == number
        journal.close()
    assert numbers(location) == [0, 1, 2, 3]


def test_the_order_is_that_of_storing_whatever_the_clock_says(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(
        ["2026-11-24T12:00:00.000+00:00", "1970-01-01T00:00:00.000+00:00", "2999-01-01T00:00:00.000+00:00"] * 9
    )
    monkeypatch.setattr("raysplit.journal.journal._now", lambda: next(times))
    location = place()
    for number in range(0, 6, 2):
        journal = Journal(location)
        journal.append("note", {"number": number})
        journal.append("note", {"number": number + 1})
        journal.close()
    assert numbers(location) == [0, 1, 2, 3, 4, 5]


# Crashes and damage.


def test_any_flipped_bit_is_found_and_named(three: Path, path: Path) -> None:
    content = three.read_bytes()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        three.write_bytes(flipped)
        begin = content.rfind(b"\n", 0, at) + 1
        byte = at if content[at] == ord("\n") else begin
        with pytest.raises(RunError, match=re.escape(f"{three}: these bytes are damaged (byte {byte})")) as refused:
            read_journal(path)
        assert f"raysplit journal repair {path}" in str(refused.value)
    with pytest.raises(RunError, match="are damaged"):
        Journal(path)
    assert three.read_bytes() == bytes(flipped)  # nothing was "repaired" away


@pytest.mark.parametrize("n_bytes", [0, 1, 100, -1])
def test_a_file_cut_short_is_damaged(three: Path, path: Path, n_bytes: int) -> None:
    """No crash leaves one: a file appears in the folder when it is whole."""
    three.write_bytes(three.read_bytes()[:n_bytes])
    with pytest.raises(RunError, match=r"damaged|no header"):
        read_journal(path)


def test_a_line_that_is_not_there_is_missed(three: Path, path: Path) -> None:
    header, first, second, third = three.read_bytes().splitlines(keepends=True)
    for lines, what in (
        ([header, first, third], "it holds 2 of 3 records"),
        ([header, first, second, second, third], "it holds 4 of 3 records"),
        ([first, second, third], "it has no header"),
    ):
        three.write_bytes(b"".join(lines))
        with pytest.raises(RunError, match=what):
            read_journal(path)


def test_a_batch_that_is_not_there_is_missed(place: Place) -> None:
    location = place()
    journal = Journal(location)
    for number in range(3):
        journal.append("note", {"number": number})
    location.delete(name_of(2))
    with pytest.raises(RunError, match=rf"{name_of(2)}: it is missing"):
        read_journal(location)


def test_a_batch_under_another_name_is_no_batch_of_it(three: Path, path: Path) -> None:
    three.rename(path / name_of(2))
    (path / name_of(1)).write_bytes((path / name_of(2)).read_bytes())
    with pytest.raises(RunError, match="holds batch 1; was it renamed"):
        read_journal(path)


def test_a_newer_format_is_left_alone(three: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.journal.format.FORMAT", 2)
    with pytest.raises(RunError, match=r"is of format 3; this raysplit reads"):
        read_journal(path)


# A full disk and a failing one.


class Disk:
    """Stands for `os` in the storage: a disk that is full, or fails when it is synced."""

    def __init__(self, *failing: str) -> None:
        self.failing = list(failing)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        if self.failing:
            number = self.failing.pop(0)
            if number:
                raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
        os.fsync(fd)


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
def test_a_full_or_failing_disk_leaves_nothing_half_written(
    three: Path, path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    journal = Journal(path)
    before = sorted(path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(storage, "os", Disk(fault))
        with pytest.raises(RunError, match=r"journal: record 3 to 5 not stored: (No space left|Input/output error)"):
            journal.append_many([("note", {"number": number}) for number in range(3, 6)])
        assert numbers(path) == [0, 1, 2]
        assert sorted(path.iterdir()) == before
    assert len(journal.records) == 3
    assert journal.append("note", {"number": "3, again"}).seq == 3  # there is room again
    journal.close()
    assert numbers(path) == [0, 1, 2, "3, again"]


def test_a_disk_that_may_have_lost_a_name_stops_the_writer_until_it_is_opened_again(
    three: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "os", Disk("", "EIO"))
        with pytest.raises(RunError, match=r"record 3 not acknowledged: .*the disk may have lost"):
            journal.append("note", {"number": 3})
    with pytest.raises(RunError, match="not known whether record 3 was stored; open the journal anew"):
        journal.append("note", {"number": "3, again"})
    journal.close()
    journal = Journal(path)
    journal.append("note", {"number": 4})
    journal.close()
    assert numbers(path) == [0, 1, 2, 3, 4]


def test_a_file_system_without_hard_links_is_refused_with_the_remedy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(RunError, match=r"no hard links.* set sweep\.journal to a URL"):
        Journal(path)


def test_what_is_not_json_is_refused_before_it_is_written(three: Path, path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(TypeError):
        journal.append_many([("note", {"number": 3}), ("note", {"object": object()})])
    with pytest.raises(ValueError, match="begin a batch"):
        journal.append("journal", {})
    journal.append("note", {"number": 3})
    journal.close()
    assert numbers(path) == [0, 1, 2, 3]


# An object store's answers get lost.


def test_what_was_stored_though_its_answer_was_lost_is_acknowledged_once(place: Place) -> None:
    location = Faulty(place())
    journal = Journal(location)
    location.fault = "repeated"
    assert journal.append("note", {"number": 0}).seq == 0
    assert journal.append("note", {"number": 1}).seq == 1
    assert numbers(location) == [0, 1]


@pytest.mark.parametrize(("fault", "after"), [("lost", [0, 1, 2]), ("late", [0, 2])])
def test_what_may_have_been_stored_stops_the_writer(place: Place, fault: str, after: list[int]) -> None:
    location = Faulty(place())
    journal = Journal(location)
    journal.append("note", {"number": 0})
    location.fault = fault
    with pytest.raises(RunError, match="record 1 not acknowledged"):
        journal.append("note", {"number": 1})
    with pytest.raises(RunError, match="not known whether record 1 was stored"):
        journal.append("note", {"number": 1})
    again = Journal(location)
    if fault == "late":
        assert not location.arrive()  # the new opening has its place
    again.append("note", {"number": 2})
    assert numbers(location) == after


# Two writers, and readers.


def test_a_newer_opening_takes_over(place: Place) -> None:
    location = place()
    old = Journal(location)
    old.append("note", {"number": 0})
    new = Journal(location)
    assert new.fence > old.fence
    for _ in range(2):
        with pytest.raises(RunError, match="record 1 not stored: another writer has taken over"):
            old.append("note", {"number": "1, by the old one"})
    new.append("note", {"number": 1})
    old.close()
    new.append("note", {"number": 2})
    new.close()
    assert numbers(location) == [0, 1, 2]


def test_an_opening_reads_what_was_stored_while_it_read(place: Place) -> None:
    inner = place()
    old = Journal(inner)
    old.append("note", {"number": 0})

    class Slow(Faulty):
        def create(self, name: str, content: bytes) -> bool:
            if len(old.records) == 1:
                old.append("note", {"number": 1})  # acknowledged, so the new one must know of it
            return super().create(name, content)

    new = Journal(Slow(inner))
    assert [record.data["number"] for record in new.records] == [0, 1]
    with pytest.raises(RunError, match="taken over"):
        old.append("note", {"number": 2})
    new.append("note", {"number": 2})
    assert numbers(inner) == [0, 1, 2]


def test_a_reader_takes_nothing_and_touches_nothing(three: Path, path: Path) -> None:
    writer = Journal(path)
    (path / ".0000000009.jsonl.abc").write_bytes(b'{"seq": 3, "ti')  # what a killed writer left
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert numbers(path) == [0, 1, 2]
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    writer.append("note", {"number": 3})
    writer.close()


def test_a_listing_that_lags_is_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    location = place()
    journal = Journal(location)
    for number in range(3):
        journal.append("note", {"number": number})

    class Lagging(Faulty):
        lags = 2

        def names(self) -> list[str]:
            self.lags -= 1
            return [name for name in super().names() if self.lags < 0 or name != name_of(1)]

    assert numbers(Lagging(location)) == [0, 1, 2]


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
    for url in ("ftp://host/journal", "nosuch://x/journal"):
        with pytest.raises(RunError, match=r"cannot be opened: .*s3://"):
            Journal(url)


def test_a_file_url_is_a_path(path: Path) -> None:
    journal = Journal(f"file://{path}")
    journal.append("note", {"number": 0})
    journal.close()
    assert isinstance(open_storage(f"file://{path}"), Folder)
    assert numbers(path) == [0]


# The format.


def test_the_format_is_one_json_object_a_line(three: Path) -> None:
    for line in three.read_text(encoding="ascii").splitlines():
        assert set(json.loads(line)) == {"seq", "time", "fence", "kind", "data", "crc"}


def test_pandas_and_duckdb_read_it(three: Path, path: Path) -> None:
    for number in range(3, 6):
        journal = Journal(path)
        journal.append("observation", {"rows": [{"loss": 2.5 + number, "n_params": 7}]})
        journal.close()
    with duckdb.connect() as db:
        read = f"from read_json('{path}/*.jsonl') where kind = 'observation' order by seq"
        assert db.execute(f"select seq, data.rows[1].loss {read}").fetchall() == [(3, 5.5), (4, 6.5), (5, 7.5)]
    frame = pd.read_json(three, lines=True)
    assert frame[frame["kind"] == "note"]["data"].tolist() == [record.data for record in read_journal(path)[:3]]
