"""Journals of formats 1 and 2: they are recognised, and upgraded without losing or adding a record."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from raysplit.errors import RunError
from raysplit.journal import Journal, has_journal, read_journal
from raysplit.journal.old import upgrade
from tests.journal.test_journal import numbers


def line(seq: int, kind: str, data: dict[str, Any], fence: int | None = None) -> str:
    """As formats 1 and 2 wrote it."""
    fields: dict[str, Any] = {"seq": seq, "time": "2026-11-24T19:38:00.968+00:00"}
    body = json.dumps(fields | ({} if fence is None else {"fence": fence}) | {"kind": kind, "data": data})
    return f'{body[:-1]}, "crc": "{zlib.crc32(body.encode()):08x}"}}\n'


def segment(folder: Path, first: int, notes: list[str], *, fence: int, after: int, end: int | None = None) -> Path:
    """A segment of format 2."""
    folder.mkdir(exist_ok=True)
    (folder / "fence").write_text(json.dumps({"fence": fence}))
    closed = "" if end is None else f"-{end:012d}"
    about = {"format": 2, "after": after} | ({} if end is None else {"end": end, "records": len(notes)})
    path = folder / f"{first:012d}{closed}.f{fence:06d}.jsonl"
    lines = [line(first, "journal", about, fence)]
    lines += [line(seq, "note", {"number": note}, fence) for seq, note in enumerate(notes, first)]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_an_old_journal_is_not_taken_for_an_empty_one(path: Path) -> None:
    segment(path, 0, ["a"], fence=1, after=0)
    assert has_journal(path)
    for use in (read_journal, Journal):
        with pytest.raises(RunError, match=f"of an older format; `raysplit journal upgrade {path}`"):
            use(path)


def test_segments_become_batches(path: Path) -> None:
    segment(path, 0, ["a", "b", "late"], fence=1, after=0)  # the second opening had begun before "late" came
    segment(path, 2, ["c"], fence=2, after=1)
    segment(path, 3, ["d"], fence=4, after=2)
    segment(path, 3, ["never"], fence=3, after=2)
    torn = segment(path, 4, ["e"], fence=5, after=4)
    torn.write_text(torn.read_text() + line(5, "note", {"number": "f"}, 5)[:-9])
    assert upgrade(path) == 5
    assert numbers(path) == ["a", "b", "c", "d", "e"]
    assert [record.seq for record in read_journal(path)] == [0, 1, 2, 3, 4]
    assert [file.name for file in path.iterdir()] == ["0000000000.jsonl"]
    journal = Journal(path)
    assert journal.fence > 5
    assert journal.append("note", {"number": "g"}).seq == 5
    journal.close()


def test_a_closed_segment_stands_for_those_that_it_covers(path: Path) -> None:
    segment(path, 0, ["a"], fence=1, after=0)
    segment(path, 1, ["b"], fence=2, after=1)
    segment(path, 0, ["a", "b"], fence=2, after=0, end=2)  # a crash came before the others were deleted
    segment(path, 2, ["c"], fence=2, after=2)
    assert upgrade(path) == 3
    assert numbers(path) == ["a", "b", "c"]


def test_one_file_of_format_1(path: Path) -> None:
    single = path.with_suffix(".jsonl")
    single.write_text("".join(line(seq, "note", {"number": seq}) for seq in range(2)) + '{"seq": 2, "ti')  # it crashed
    assert has_journal(path)
    assert upgrade(path) == 2
    assert not single.exists()
    assert numbers(path) == [0, 1]


def test_an_interrupted_upgrade_is_taken_up(path: Path) -> None:
    segment(path, 0, ["a"], fence=1, after=0)
    content = {file.name: file.read_bytes() for file in path.iterdir()}
    upgrade(path)
    for name, old in content.items():
        (path / name).write_bytes(old)
    assert upgrade(path) == 1
    assert numbers(path) == ["a"]


def test_what_cannot_be_upgraded(path: Path) -> None:
    with pytest.raises(RunError, match="no journal of an older format"):
        upgrade(path)
    damaged = segment(path, 0, ["a", "b"], fence=1, after=0)
    damaged.write_text(damaged.read_text().replace('"a"', '"x"'))
    with pytest.raises(RunError, match=rf"{damaged}: is damaged; repair it with the raysplit that wrote it"):
        upgrade(path)
    assert damaged.exists()
