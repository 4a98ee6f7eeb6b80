"""Sources are read into sorted runs, part by part; each part goes on where an earlier build left it."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raysplit.corpus.not_read import Counts
from raysplit.corpus.runs import UNSAID, Entry, Run, write_durably, write_run
from raysplit.corpus.sources import Document, SourcePart, TokenDocument, open_source
from raysplit.corpus.tokenized import Vocabulary
from raysplit.space import SourceSpec

RUN_BYTES = 128 << 20
"""Of documents, which a process holds in memory until they are sorted."""
_RUN_DOCUMENTS = 250_000
"""The same for short ones, of which each takes 200 bytes beside its text."""


@dataclass(frozen=True, kw_only=True)
class PartToRead:
    source: SourceSpec
    domain: str
    part: SourcePart
    stem: str
    """Path that the names of its files begin with."""
    seed: int
    vocabulary: Vocabulary | None = None
    """Of the corpus, for a source of tokens."""
    wanted_bytes: int | None = None
    """Read no more than that; None for all."""
    run_bytes: int = RUN_BYTES


class PartRead(BaseModel):
    """How far a part has been read; written after each run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: tuple[Run, ...] = ()
    counts: Counts = Counts()
    is_whole: bool = False

    @property
    def n_documents(self) -> int:
        return sum(run.n_documents for run in self.runs)

    @property
    def n_bytes(self) -> int:
        return sum(run.n_bytes for run in self.runs)


@dataclass
class _Run:
    """A run that is being read."""

    entries: list[Entry] = field(default_factory=list)
    n_bytes: int = 0

    def add(self, document: Document | TokenDocument, counts: tuple[int, int, int, int], *, seed: int) -> None:
        data = document.data()
        side = UNSAID if document.is_held_out is None else int(document.is_held_out)
        self.entries.append(Entry(document.key(seed=seed), data, side, counts))
        self.n_bytes += len(data)


def read_part(task: PartToRead) -> PartRead:
    """Read a part to its end, or until it has given as much text as is wanted.

    What was read of it before, by this build or by one that was interrupted, is gone through without being looked at.

    Raises:
        CorpusError: as `open_source`, and while it is read.
    """
    done = _so_far(task)
    if done.is_whole or (task.wanted_bytes is not None and done.n_bytes >= task.wanted_bytes):
        return done
    source = open_source(task.source, domain=task.domain, part=task.part, vocabulary=task.vocabulary)
    run = _Run()
    for document in islice(source.documents, done.n_documents, None):
        run.add(document, source.tally.numbers, seed=task.seed)
        is_enough = task.wanted_bytes is not None and done.n_bytes + run.n_bytes >= task.wanted_bytes
        if is_enough or run.n_bytes >= task.run_bytes or len(run.entries) >= _RUN_DOCUMENTS:
            done = _with_run(task, done, run, source.tally.counts())
            run = _Run()
        if is_enough:
            return done
    done = _with_run(task, done, run, source.tally.counts(), is_whole=True)
    return done


def _record(task: PartToRead) -> Path:
    return Path(task.stem + ".json")


def _so_far(task: PartToRead) -> PartRead:
    path = _record(task)
    found = PartRead.model_validate_json(path.read_bytes()) if path.exists() else PartRead()
    return found if all(run.is_whole() for run in found.runs) else PartRead()


def _with_run(task: PartToRead, done: PartRead, run: _Run, counts: Counts, *, is_whole: bool = False) -> PartRead:
    runs = done.runs
    if run.entries:
        runs = (*runs, write_run(f"{task.stem}-{len(runs):04d}", run.entries))
    done = PartRead(runs=runs, counts=counts, is_whole=is_whole)
    path = _record(task)
    partial = path.with_name(path.name + ".partial")
    write_durably(partial, [done.model_dump_json().encode()])
    partial.replace(path)
    return done
