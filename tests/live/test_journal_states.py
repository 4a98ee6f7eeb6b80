"""The journal against a list: any interleaving of storing, crashing, compacting, opening again and opening twice."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raysplit.errors import RunError
from raysplit.live import journal_tail
from raysplit.live.journal import Journal, Record, has_journal, read_journal
from raysplit.live.journal_lines import line_of
from raysplit.live.journal_tail import FileTail
from tests.live.test_journal import Disk, memory

values = st.integers(0, 99)
keys = st.sampled_from("abc")


class Killed(BaseException):
    """The process ends here."""


def last_of_each_key(records: Sequence[Record]) -> list[Record]:
    newest = {record.kind: record.seq for record in records}
    return [record for record in records if record.seq == newest[record.kind]]


class Model(RuleBasedStateMachine):
    """`acknowledged` is what must be there; `possible` may follow it: what was stored without being acknowledged."""

    location: str

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged: list[tuple[int, str, Any]] = []
        self.possible: list[tuple[int, str, Any]] = []
        self.old_ones: list[Journal] = []

    @initialize()
    def begin(self) -> None:
        self.journal = Journal(self.location)

    # What a reader sees.

    @invariant()
    def every_acknowledged_record_is_there_once(self) -> None:
        read = self.seen() if has_journal(self.location) else []
        n_known = len(self.acknowledged)
        assert read[:n_known] == self.acknowledged
        assert read[n_known:] == self.possible[: len(read) - n_known]

    def seen(self) -> list[tuple[int, str, Any]]:
        return [(record.seq, record.kind, record.data["value"]) for record in read_journal(self.location)]

    # What happens to it.

    @rule(items=st.lists(st.tuples(keys, values), max_size=3))
    def append_many(self, items: list[tuple[str, int]]) -> None:
        stored = self.journal.append_many([(kind, {"value": value}) for kind, value in items])
        if stored:
            self.possible.clear()
        self.acknowledged += [(record.seq, record.kind, record.data["value"]) for record in stored]

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.open()

    @rule()
    def a_second_one_opens(self) -> None:
        self.old_ones.append(self.journal)
        self.open()

    @rule()
    def kill(self) -> None:
        abandon(self.journal)
        self.open()

    @rule()
    def compact(self) -> None:
        self.journal.compact()
        self.possible.clear()

    @rule()
    def fold(self) -> None:
        self.journal.compact(last_of_each_key)
        newest = {kind: seq for seq, kind, _ in self.acknowledged}
        self.acknowledged = [item for item in self.acknowledged if item[0] == newest[item[1]]]
        self.possible.clear()

    @rule(folded=st.booleans(), n_steps=st.integers(0, 4), closed_is_there=st.booleans())
    def kill_while_compacting(self, folded: bool, n_steps: int, closed_is_there: bool) -> None:
        storage = self.journal._storage
        steps = iter(range(n_steps))

        def until_killed(name: str) -> Any:
            done = getattr(storage, name)

            def step(*arguments: Any) -> Any:
                if next(steps, None) is None:
                    if name == "put" and closed_is_there:
                        done(*arguments)
                    raise Killed
                return done(*arguments)

            return step

        before = self.acknowledged
        with pytest.MonkeyPatch.context() as patch:
            for name in ("put", "delete"):
                patch.setattr(storage, name, until_killed(name))
            with suppress(Killed):
                self.journal.compact(last_of_each_key if folded else None)
        abandon(self.journal)
        if folded:
            newest = {kind: seq for seq, kind, _ in before}
            after = [item for item in before if item[0] == newest[item[1]]]
            if self.seen()[: len(before)] != before:
                self.acknowledged = after
        self.open()

    @precondition(lambda self: self.old_ones)
    @rule(pick=st.randoms(use_true_random=False), value=values)
    def an_old_one_comes_back(self, pick: Any, value: int) -> None:
        old = pick.choice(self.old_ones)
        for what in (lambda: old.append("a", {"value": value}), old.compact):
            with pytest.raises(RunError, match="another writer has taken over"):
                what()

    @rule(items=st.lists(st.tuples(keys, values), min_size=1, max_size=3))
    def an_old_one_was_about_to_write(self, items: list[tuple[str, int]]) -> None:
        """It saw that it holds the fence, and then another one opened."""
        old = self.journal
        self.open()
        write = unacknowledged(old, items)
        try:
            old._tail.write(old._next_seq, *write.lines)
        except OSError:
            return
        self.possible = write.items
        self.old_ones.append(old)

    def open(self) -> None:
        self.journal = Journal(self.location)
        self.acknowledged = [(r.seq, r.kind, r.data["value"]) for r in self.journal.records]
        self.possible = []

    def teardown(self) -> None:
        for journal in [*self.old_ones, self.journal]:
            journal.close()


class Unacknowledged:
    def __init__(self, items: list[tuple[int, str, Any]], lines: tuple[bytes, bytes]) -> None:
        self.items, self.lines = items, lines


def unacknowledged(journal: Journal, items: list[tuple[str, int]]) -> Unacknowledged:
    """What a journal writes before it acknowledges."""
    first = journal._next_seq
    records = [
        Record(seq=seq, time="", kind=kind, data={"value": value}, fence=journal.fence)
        for seq, (kind, value) in enumerate(items, first)
    ]
    return Unacknowledged(
        [(record.seq, record.kind, record.data["value"]) for record in records],
        (journal._header(""), b"".join(map(line_of, records))),
    )


def abandon(journal: Journal) -> None:
    """What the end of its process does to a journal: its files are closed and nothing is tidied."""
    if isinstance(journal._tail, FileTail):
        os.close(journal._tail._fd)
        journal._tail._fd = -1


class InAStore(Model):
    def __init__(self) -> None:
        super().__init__()
        self.location = memory()


class InAFolder(Model):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.location = str(self.folder / "journal")

    @rule(items=st.lists(st.tuples(keys, values), min_size=1, max_size=3), share=st.floats(0, 1))
    def kill_while_writing(self, items: list[tuple[str, int]], share: float) -> None:
        """Any number of bytes of a batch got to the disk."""
        tail = self.journal._tail
        assert isinstance(tail, FileTail)
        write = unacknowledged(self.journal, items)
        content = b"".join(write.lines) if tail.is_empty else write.lines[1]
        os.write(tail._fd, content[: round(share * len(content))])
        self.possible = write.items
        abandon(self.journal)
        self.every_acknowledged_record_is_there_once()
        known = self.acknowledged
        self.open()
        assert self.acknowledged[: len(known)] == known

    @rule(items=st.lists(st.tuples(keys, values), min_size=1, max_size=3), room=st.integers(0, 150))
    def the_disk_is_full(self, items: list[tuple[str, int]], room: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal_tail, "os", Disk(room=room))
            try:
                stored = self.journal.append_many([(kind, {"value": value}) for kind, value in items])
            except RunError as error:
                assert "No space left" in str(error)  # noqa: PT017  (it may also have fitted)
                return
        self.acknowledged += [(record.seq, record.kind, record.data["value"]) for record in stored]
        self.possible.clear()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


InAFolder.TestCase.settings = InAStore.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None
)
TestInAFolder = InAFolder.TestCase
TestInAStore = InAStore.TestCase
