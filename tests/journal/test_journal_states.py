"""The journal against a list: any interleaving of storing, failing, dying, opening again and opening twice."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raysplit.errors import RunError
from raysplit.journal import Journal, read_journal
from raysplit.journal.storage import Folder, Storage
from tests.journal.stores import Faulty, Killed, memory

values = st.integers(0, 99)
keys = st.sampled_from("abc")
batches = st.lists(st.tuples(keys, values), min_size=1, max_size=3)
Items = list[tuple[str, int]]


class Model(RuleBasedStateMachine):
    """`acknowledged` is what must be there; `possible` may follow it: what was sent without being acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged: list[tuple[int, str, Any]] = []
        self.possible: list[tuple[int, str, Any]] = []
        self.old_ones: list[Journal] = []
        self.late: list[Faulty] = []
        self.place = self.new_place()

    def new_place(self) -> Storage:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.storage = Faulty(self.place)
        self.journal = Journal(self.storage)
        self.acknowledged = [(r.seq, r.kind, r.data["value"]) for r in self.journal.records]
        self.possible = []

    # What a reader sees.

    @invariant()
    def every_acknowledged_record_is_there_once(self) -> None:
        read = [(record.seq, record.kind, record.data["value"]) for record in read_journal(self.place)]
        assert read[: len(self.acknowledged)] == self.acknowledged
        assert read[len(self.acknowledged) :] in ([], self.possible)

    # What happens to it.

    @rule(items=st.lists(st.tuples(keys, values), max_size=3))
    def append_many(self, items: Items) -> None:
        self.acknowledged += self.stored(items)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.open()

    @rule()
    def a_second_one_opens(self) -> None:
        self.old_ones.append(self.journal)
        self.open()

    @rule(items=batches)
    def the_disk_is_full(self, items: Items) -> None:
        self.storage.fault = "refused"
        with pytest.raises(RunError, match="not stored: No space left"):
            self.stored(items)

    @rule(items=batches, after=st.booleans())
    def kill_while_writing(self, items: Items, after: bool) -> None:
        self.storage.fault = "killed after" if after else "killed"
        self.possible = self.next_of(items) if after else []
        with suppress(Killed):
            self.stored(items)
        self.every_acknowledged_record_is_there_once()
        known = self.acknowledged
        self.open()
        assert self.acknowledged[: len(known)] == known

    @rule(items=batches, fault=st.sampled_from(["lost", "late"]))
    def the_answer_is_lost(self, items: Items, fault: str) -> None:
        self.storage.fault = fault
        self.possible = self.next_of(items)
        with pytest.raises(RunError, match="not acknowledged"):
            self.stored(items)
        if fault == "late":
            self.late.append(self.storage)
        known, faulty = self.acknowledged, self.journal
        with pytest.raises(RunError, match="not known whether"):
            faulty.append("a", {"value": 0})
        self.every_acknowledged_record_is_there_once()
        self.open()
        assert self.acknowledged[: len(known)] == known

    @precondition(lambda self: self.late)
    @rule()
    def what_was_late_arrives(self) -> None:
        assert not self.late.pop().arrive()  # a later opening has its place

    @precondition(lambda self: self.old_ones)
    @rule(pick=st.randoms(use_true_random=False), value=values)
    def an_old_one_comes_back(self, pick: Any, value: int) -> None:
        with pytest.raises(RunError, match="another writer has taken over"):
            pick.choice(self.old_ones).append("a", {"value": value})

    def stored(self, items: Items) -> list[tuple[int, str, Any]]:
        records = self.journal.append_many([(kind, {"value": value}) for kind, value in items])
        return [(record.seq, record.kind, record.data["value"]) for record in records]

    def next_of(self, items: Items) -> list[tuple[int, str, Any]]:
        return [(seq, kind, value) for seq, (kind, value) in enumerate(items, len(self.acknowledged))]


class InAStore(Model):
    def new_place(self) -> Storage:
        return memory()


class InAFolder(Model):
    def new_place(self) -> Storage:
        self.folder = Path(tempfile.mkdtemp())
        return Folder(self.folder / "journal")

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


InAFolder.TestCase.settings = InAStore.TestCase.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None
)
TestInAFolder = InAFolder.TestCase
TestInAStore = InAStore.TestCase
