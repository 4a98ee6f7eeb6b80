"""Repair: every intact record stays, nothing is thrown away, and what was lost is said."""

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.errors import RunError
from raysplit.live.journal import Journal, read_journal
from raysplit.live.journal_repair import examine, repair
from raysplit.live.journal_storage import FileStorage, open_storage
from tests.live.test_journal import memory, numbers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def write(location: str | Path, n_openings: int = 3, n_records: int = 4, compacted: int = -1) -> None:
    """A journal of so many openings, compacted at the end of one of them."""
    for opening in range(n_openings):
        journal = Journal(location)
        for number in range(n_records):
            journal.append("note", {"number": opening * n_records + number})
        if opening == compacted:
            journal.compact()
        journal.close()


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.jsonl"))


def test_a_whole_journal_is_left_alone(path: Path) -> None:
    write(path)
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert repair(path).n_records == 12
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    found = examine(path)
    assert (found.n_records, found.kinds, found.fences) == (12, {"note": 12}, {1: 4, 2: 4, 3: 4})
    assert not found.damages


def test_a_damaged_record_is_set_aside_and_the_others_stay(path: Path) -> None:
    write(path)
    second = segments(path)[1]
    content = bytearray(second.read_bytes())
    lines = bytes(content).splitlines(keepends=True)
    at = sum(map(len, lines[:2])) + 7  # in the second record, number 5
    content[at] ^= 4
    second.write_bytes(content)
    [damage] = examine(path).damages
    assert (damage.segment, damage.byte, damage.n_bytes) == (str(second), at - 7, len(lines[2]))
    done = repair(path)
    assert done.lost == ["record 5"]
    assert done.n_records == 11
    [side] = done.set_aside
    assert side == f"{second}.damaged-1"
    assert Path(side).read_bytes() == content
    expected = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert numbers(path) == expected
    assert [record.seq for record in read_journal(path)] == expected
    journal = Journal(path)
    assert journal.append("note", {"number": 12}).seq == 12
    journal.compact()
    journal.close()
    assert numbers(path) == [*expected, 12]


def test_a_second_repair_has_a_side_file_of_its_own(path: Path) -> None:
    write(path, n_openings=1, compacted=0)
    for number in (1, 2):
        [segment] = segments(path)
        segment.write_bytes(segment.read_bytes().replace(f'"number": {number}'.encode(), b'"number": 7'))
        assert repair(path).set_aside == [f"{segment}.damaged-{number}"]
    assert numbers(path) == [0, 3]


@settings(max_examples=60)
@given(at=st.data(), compacted=st.integers(-1, 2), in_store=st.booleans())
def test_whatever_is_damaged_every_intact_record_stays(
    tmp_path_factory: pytest.TempPathFactory, at: st.DataObject, compacted: int, in_store: bool
) -> None:
    location = memory() if in_store else str(tmp_path_factory.mktemp("damage") / "journal")
    write(location, compacted=compacted)
    storage = open_storage(location)
    name = at.draw(st.sampled_from(sorted(storage.names(), key=str)))
    content = storage.read(name)
    begin = at.draw(st.integers(0, len(content) - 1))
    end = at.draw(st.integers(begin + 1, min(len(content), begin + 300)))
    damaged = content[:begin] + at.draw(st.binary(min_size=end - begin, max_size=end - begin)) + content[end:]
    touched = content[:begin].count(b"\n"), content[: end - 1].count(b"\n")
    hit = [
        line
        for number, line in enumerate(content.splitlines(keepends=True))
        if touched[0] <= number <= touched[1] and line not in damaged.splitlines(keepends=True)
    ]
    before = read_journal(location)
    storage.put(name, damaged)
    done = repair(location)
    after = read_journal(location)
    assert done.n_records == len(after)
    assert len(after) >= len(before) - len(hit)
    assert [record for record in before if record in after] == after
    if damaged != content and hit:
        kept = [storage.read(there) for there in storage.names()]
        sides = [read(side) for side in done.set_aside]
        assert damaged in kept or damaged in sides  # not a byte is lost
    journal = Journal(location)
    journal.append("note", {"number": "next"})
    journal.close()
    assert numbers(location) == [*(record.data["number"] for record in after), "next"]


def read(side: str) -> bytes:
    if "://" not in side:
        return Path(side).read_bytes()
    from pyarrow import fs

    system, path = fs.FileSystem.from_uri(side)
    with system.open_input_stream(path) as stream:
        return bytes(stream.read())


@pytest.mark.parametrize("place", [memory, None])
def test_a_segment_that_is_gone_is_told_of(place: Callable[[], str] | None, tmp_path: Path) -> None:
    location = place() if place else str(tmp_path / uuid4().hex)
    write(location, n_records=1)
    storage = open_storage(location)
    storage.delete(next(name for name in storage.names() if name.first == 1))
    [damage] = examine(location).damages
    assert damage.what == "record 1 is missing before it"
    assert repair(location).lost == ["record 1"]
    assert numbers(location) == [0, 2]


def test_a_journal_of_an_older_raysplit_is_repaired(tmp_path: Path) -> None:
    write(tmp_path / "journal", n_openings=1)
    [segment] = segments(tmp_path / "journal")
    old = tmp_path / "journal.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)[1:]
    damaged = b"".join([lines[0], lines[1].replace(b"note", b"n0te"), lines[2]])
    old.write_bytes(damaged)
    segment.unlink()
    (tmp_path / "journal" / "fence").unlink()
    assert repair(old).lost == ["record 1"]
    assert Path(f"{old}.damaged-1").read_bytes() == damaged
    assert numbers(old) == [0, 2]


def test_a_living_writer_is_not_disturbed(path: Path) -> None:
    journal = Journal(path)
    for number in range(3):
        journal.append("note", {"number": number})
    [segment] = segments(path)
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(b'"number": 1', b'"number": 9'))
    with pytest.raises(RunError, match="a living process writes it"):
        repair(path)
    segment.write_bytes(whole)
    journal.append("note", {"number": 3})
    journal.close()
    assert numbers(path) == [0, 1, 2, 3]


def test_in_a_store_the_writer_writes_no_more(path: Path) -> None:
    location = memory()
    journal = Journal(location)
    for number in range(3):
        journal.append("note", {"number": number})
    storage = open_storage(location)
    name = next(name for name in storage.names() if name.first == 1)
    storage.put(name, storage.read(name).replace(b"note", b"n0te"))
    assert repair(location).lost == ["record 1"]
    with pytest.raises(RunError, match="another writer has taken over"):
        journal.append("note", {"number": 3})


def test_without_locks_a_journal_is_written_taken_over_and_repaired(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    first = Journal(path)
    first.append("note", {"number": 0})
    second = Journal(path)
    second.append("note", {"number": 1})
    with pytest.raises(RunError, match="another writer has taken over"):
        first.append("note", {"number": 2})
    assert numbers(path) == [0, 1]
    second.close()
    [segment] = [found for found in path.glob("*.jsonl") if b'"number": 1' in found.read_bytes()]
    segment.write_bytes(segment.read_bytes().replace(b'"number": 1', b'"number": 7'))
    assert repair(path).lost == ["record 1"]
    assert numbers(path) == [0]


def test_without_locks_two_openings_at_the_same_moment_are_not_both_let_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reads the fence before the first has raised it: both take the same one."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    claim = FileStorage.claim

    def claim_as_if_at_once(storage: FileStorage, above: int) -> int:
        if above == 0:
            (path / "fence").write_bytes(b"")
        return claim(storage, above)

    monkeypatch.setattr(FileStorage, "claim", claim_as_if_at_once)
    monkeypatch.setattr("raysplit.live.journal.read_segments", lambda storage: [])
    first = Journal(path)
    with pytest.raises(RunError, match="cannot be written: File exists"):
        Journal(path)
    first.append("note", {"number": 0})
    first.close()
