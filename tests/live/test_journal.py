"""The journal: what it acknowledged is there whatever happened, and what is damaged is named."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysplit.errors import RunError
from raysplit.live.journal import Journal, ReadJournal, read_journal

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
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def three(path: Path) -> Path:
    """A closed journal of three records."""
    journal = Journal(path)
    for number in range(3):
        journal.append("note", {"number": number, "text": "naïve\nline"})
    journal.close()
    return path


def told(path: Path) -> list[tuple[str, Any]]:
    return [(record.kind, record.data) for record in read_journal(path)]


def reopened(path: Path) -> list[Any]:
    journal = Journal(path)
    try:
        return [record.data for record in journal.records]
    finally:
        journal.close()


@same_folder
@given(notes=st.lists(st.tuples(st.text(max_size=8), data), max_size=6))
def test_what_was_appended_is_read_back(path: Path, notes: list[tuple[str, Any]]) -> None:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for kind, content in notes:
        journal.append(kind, content)
        assert told(path)[-1] == (kind, content)  # readable at once, by another process too
    journal.close()
    assert told(path) == notes
    assert [record.seq for record in read_journal(path)] == list(range(len(notes)))


def test_it_goes_on_where_it_was(three: Path) -> None:
    journal = Journal(three)
    assert journal.append("note", {"number": 3}).seq == 3
    journal.close()
    assert [content["number"] for _, content in told(three)] == [0, 1, 2, 3]


@same_folder
@given(cut=st.integers(1, 400))
def test_a_crash_at_any_byte_loses_only_what_was_not_acknowledged(path: Path, cut: int) -> None:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    ends = []
    for number in range(4):
        journal.append("note", {"number": number})
        ends.append(path.stat().st_size)
    journal.close()
    size = max(0, ends[-1] - cut)
    os.truncate(path, size)
    whole = sum(end <= size for end in ends)
    assert len(read_journal(path)) == whole
    after = Journal(path)
    assert [record.data["number"] for record in after.records] == list(range(whole))
    after.append("note", {"number": whole})
    after.close()
    assert reopened(path) == [{"number": number} for number in range(whole + 1)]


@same_folder
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_names_the_file_and_the_record(path: Path, place: float, bit: int) -> None:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    ends = [0]
    for number in range(3):
        journal.append("note", {"number": number, "text": "some words"})
        ends.append(path.stat().st_size)
    journal.close()
    content = bytearray(path.read_bytes())
    at = int(place * (len(content) - 1))  # a flip of the very last byte looks like a line cut short
    content[at] ^= 1 << bit
    path.write_bytes(content)
    damaged = next(number for number in range(3) if at < ends[number + 1])
    for opening in (Journal, read_journal):
        with pytest.raises(RunError, match=f"record {damaged} is damaged") as refused:
            opening(path)
        assert str(path) in str(refused.value)
    assert path.read_bytes() == bytes(content)  # nothing was "repaired" away


def test_a_line_that_is_not_there_is_missed(three: Path) -> None:
    first, _, third = three.read_bytes().splitlines(keepends=True)
    three.write_bytes(first + third)
    with pytest.raises(RunError, match="record 1 is damaged"):
        read_journal(three)


def test_a_full_disk_leaves_nothing_half_written(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(three)
    before = three.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"record 3 not stored: No space left"):
            journal.append("note", {"number": 3})
    assert three.read_bytes() == before
    assert len(journal.records) == 3
    assert journal.append("note", {"number": "3, again"}).seq == 3
    journal.close()
    assert reopened(three)[-1] == {"number": "3, again"}


class HalfWritten:
    """A file on a disk that fills up in the middle of a line."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._room = 10

    def write(self, view: memoryview) -> int:
        if self._room == 0:
            raise OSError(28, "No space left on device")
        n_bytes = self._file.write(view[: self._room])
        self._room -= n_bytes
        return n_bytes

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def test_a_disk_that_fills_up_within_a_line(three: Path) -> None:
    journal = Journal(three)
    before = three.read_bytes()
    journal._file.close()
    journal._file = HalfWritten(three)  # type: ignore[assignment]
    with pytest.raises(RunError, match="record 3 not stored"):
        journal.append("note", {"number": 3})
    journal.close()
    assert three.read_bytes() == before


def test_what_is_not_json_is_refused_before_it_is_written(three: Path) -> None:
    journal = Journal(three)
    before = three.read_bytes()
    with pytest.raises(TypeError):
        journal.append("note", {"object": object()})
    journal.close()
    assert three.read_bytes() == before


def test_a_reader_does_not_touch_a_line_that_is_being_written(three: Path) -> None:
    with three.open("ab") as file:
        file.write(b'{"seq": 3, "ti')
    before = three.read_bytes()
    assert len(read_journal(three)) == 3
    assert three.read_bytes() == before


def test_a_read_journal_stores_nothing() -> None:
    with pytest.raises(RunError, match="measurement"):
        ReadJournal([]).append("measurement", {})


def test_no_journal_and_no_place_for_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no journal"):
        read_journal(tmp_path / "journal.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl")


def test_the_format_is_one_json_object_a_line(three: Path) -> None:
    for line in three.read_text(encoding="ascii").splitlines():
        assert set(json.loads(line)) == {"seq", "time", "kind", "data", "crc"}
