"""Repair: every intact record stays, nothing is thrown away, and what was lost is said."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.errors import RunError
from raysplit.journal import Journal, read_journal
from raysplit.journal.format import name_of, number_of
from raysplit.journal.repair import examine, repair
from raysplit.journal.storage import Folder, Storage
from tests.journal.stores import memory
from tests.journal.test_journal import numbers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def write(location: Path | Storage, n_openings: int = 3, n_records: int = 4) -> None:
    """A journal of so many openings, each with one batch."""
    for opening in range(n_openings):
        journal = Journal(location)
        first = opening * n_records
        journal.append_many([("note", {"number": first + number}) for number in range(n_records)])
        journal.close()


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
    second = path / name_of(3)
    content = bytearray(second.read_bytes())
    lines = bytes(content).splitlines(keepends=True)
    at = sum(map(len, lines[:2])) + 7  # in the second record, number 5
    content[at] ^= 4
    second.write_bytes(content)
    [damage] = examine(path).damages
    assert (damage.file, damage.byte, damage.n_bytes) == (str(second), at - 7, len(lines[2]))
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
    journal.close()
    assert numbers(path) == [*expected, 12]


def test_a_second_repair_has_a_side_file_of_its_own(path: Path) -> None:
    write(path, n_openings=1)
    batch = path / name_of(1)
    for number in (1, 2):
        batch.write_bytes(batch.read_bytes().replace(f'"number": {number}'.encode(), b'"number": 7'))
        assert repair(path).set_aside == [f"{batch}.damaged-{number}"]
    assert numbers(path) == [0, 3]


@settings(max_examples=60)
@given(at=st.data(), in_store=st.booleans())
def test_whatever_is_damaged_every_intact_record_stays(
    tmp_path_factory: pytest.TempPathFactory, at: st.DataObject, in_store: bool
) -> None:
    storage: Storage = memory() if in_store else Folder(tmp_path_factory.mktemp("damage") / "journal")
    write(storage)
    name = at.draw(st.sampled_from(storage.names()))
    [content] = storage.read([name])
    begin = at.draw(st.integers(0, len(content) - 1))
    end = at.draw(st.integers(begin + 1, min(len(content), begin + 300)))
    damaged = content[:begin] + at.draw(st.binary(min_size=end - begin, max_size=end - begin)) + content[end:]
    touched = content[:begin].count(b"\n"), content[: end - 1].count(b"\n")
    hit = [
        line
        for number, line in enumerate(content.splitlines(keepends=True))
        if touched[0] <= number <= touched[1] and line not in damaged.splitlines(keepends=True)
    ]
    before = read_journal(storage)
    storage.replace(name, damaged)
    done = repair(storage)
    after = read_journal(storage)
    assert done.n_records == len(after)
    assert len(after) >= len(before) - len(hit)
    assert [record for record in before if record in after] == after
    assert damaged in storage.read(storage.names())  # not a byte is lost
    journal = Journal(storage)
    journal.append("note", {"number": "next"})
    journal.close()
    assert numbers(storage) == [*(record.data["number"] for record in after), "next"]


@pytest.mark.parametrize("in_store", [False, True])
def test_a_batch_that_is_gone_is_told_of(in_store: bool, path: Path) -> None:
    storage: Storage = memory() if in_store else Folder(path)
    write(storage, n_records=1)
    storage.delete(name_of(3))
    [damage] = examine(storage).damages
    assert damage.file == storage.label(name_of(3))
    assert damage.what == "it is missing"
    done = repair(storage)
    assert (done.lost, done.set_aside) == (["record 1"], [])
    assert numbers(storage) == [0, 2]


def test_a_living_writer_writes_no_more(path: Path) -> None:
    journal = Journal(path)
    for number in range(3):
        journal.append("note", {"number": number})
    batch = path / name_of(2)
    batch.write_bytes(batch.read_bytes().replace(b"note", b"n0te"))
    assert repair(path).lost == ["record 1"]
    with pytest.raises(RunError, match="another writer has taken over"):
        journal.append("note", {"number": 3})
    assert numbers(path) == [0, 2]


def test_side_files_are_no_batches(path: Path) -> None:
    assert number_of(f"{name_of(3)}.damaged-1") is None
