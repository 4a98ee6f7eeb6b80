"""The journal on real processes and a really full disk."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysplit.errors import RunError
from raysplit.journal import Journal, read_journal
from raysplit.journal.repair import examine
from tests.conftest import REPOSITORY

# Stores numbers until it is told to end, and says each one only once it is acknowledged.
WRITER = """
import sys
from raysplit.errors import RunError
from raysplit.journal import Journal

journal = Journal(sys.argv[1])
print("open", journal.fence, flush=True)
try:
    while True:
        batch = [("note", {"writer": sys.argv[2], "n": len(journal.records) + i}) for i in range(3)]
        for record in journal.append_many(batch):
            print(record.seq, flush=True)
except RunError as error:
    print("refused:", error, flush=True)
"""


class Writer:
    """A process that stores; what it says goes to a file, so that it never waits for a reader."""

    def __init__(self, location: Path, name: str) -> None:
        self._said = location.with_name(f"{name}.txt")
        with self._said.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(location), name],
                stdout=out, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip

    def said(self) -> list[str]:
        """What it has said so far after that it is open, whole lines only."""
        lines = self._said.read_text().splitlines(keepends=True)
        return [line.rstrip("\n") for line in lines[1:] if line.endswith("\n")]

    def wait_for(self, n_lines: int) -> None:
        while len(self.said()) < n_lines:
            assert self.process.poll() is None, self.said()[-1:]
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_killed_again_and_again_it_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    location = tmp_path / "journal"
    acknowledged: dict[int, str] = {}
    for number in range(6):
        writer = Writer(location, str(number))
        try:
            writer.wait_for(10 + 7 * number)
        finally:
            writer.kill()
        acknowledged |= dict.fromkeys(map(int, writer.said()), str(number))
    assert len(acknowledged) > 6
    records = read_journal(location)
    assert [record.seq for record in records] == list(range(len(records)))
    assert [record.data["n"] for record in records] == list(range(len(records)))
    written_by = {record.seq: record.data["writer"] for record in records}
    assert {seq: written_by[seq] for seq in acknowledged} == acknowledged


def test_of_two_that_open_at_once_one_goes_on(tmp_path: Path) -> None:
    location = tmp_path / "journal"
    writers = [Writer(location, name) for name in "ab"]
    try:
        while not any(writer.process.poll() is not None for writer in writers):
            time.sleep(0.01)
        lost, won = sorted(writers, key=lambda writer: writer.process.poll() is None)
        won.wait_for(len(won.said()) + 10)  # it still acknowledges
    finally:
        for writer in writers:
            writer.kill()
    *acknowledged, refusal = lost.said()
    assert "another writer has taken over" in refusal
    records = read_journal(location)
    assert [record.data["n"] for record in records] == list(range(len(records)))
    written_by = {record.seq: record.data["writer"] for record in records}
    name_of_lost, name_of_won = "ab" if writers[0] is lost else "ba"
    assert {written_by[int(seq)] for seq in acknowledged} <= {name_of_lost}
    assert {written_by[int(seq)] for seq in won.said()} == {name_of_won}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    location, ballast = small_disk / "journal", small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    journal = Journal(location)
    n_stored = 0
    with pytest.raises(RunError, match=r"journal: record \d+ to \d+ not stored: No space left on device"):  # noqa: PT012
        while True:
            n_stored += len(journal.append_many([("note", {"n": n_stored + i, "text": "x" * 99}) for i in range(7)]))
    assert n_stored
    before = read_journal(location)
    assert [record.data["n"] for record in before] == list(range(n_stored))
    assert not examine(location).damages
    with pytest.raises(RunError, match="not stored: No space left"):
        journal.append_many([("note", {"text": "x" * 9000})])
    assert read_journal(location) == before  # also while it is full
    ballast.unlink()
    journal.append("note", {"n": n_stored})
    journal.close()
    journal = Journal(location)
    assert len(journal.records) == n_stored + 1
    journal.close()
    assert [record.data["n"] for record in read_journal(location)] == list(range(n_stored + 1))
