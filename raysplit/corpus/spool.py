"""All documents of some sources on disk: read in parallel into sorted runs, without copies, training or held out.

A source is read part by part; each part goes on where an earlier build left it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from raysplit.corpus.held_out import HeldOut, hold_out
from raysplit.corpus.not_read import Counts
from raysplit.corpus.parallel import in_parallel
from raysplit.corpus.runs import UNSAID, Entry, Run, write_durably, write_run
from raysplit.corpus.slices import Slice, slices_of
from raysplit.corpus.sources import Document, Documents, SourcePart, TokenDocument, check_labels, open_source, parts_of
from raysplit.corpus.tokenized import Vocabulary
from raysplit.corpus.tokenizer import SavedTokenizer
from raysplit.corpus.unique import End, Kept, end_of, keep_unique
from raysplit.space import SourceSpec

PART_BYTES = 64 << 20
"""Bytes of files that one process reads at a time."""
RUN_BYTES = 128 << 20
"""Bytes of documents that a process holds in memory until it sorts them."""
_RUN_DOCUMENTS = 250_000
"""Most documents that it holds, since each takes 200 bytes beside its text."""
_MORE = 1.2

Report = Callable[[float], None]
Step = Callable[[str], AbstractContextManager[Report]]
"""Begins a step by its name, and gives what is told the share of it that is done."""


@dataclass(frozen=True, kw_only=True)
class Spooled:
    """The documents of one domain."""

    runs: tuple[Run, ...]
    kept: Kept
    held_out: HeldOut

    @property
    def validation_share(self) -> float:
        """Share of the text that is held out, in bytes."""
        return self.held_out.n_bytes / self.kept.n_bytes

    def slices(self, *, slice_bytes: int, tokens_of: SavedTokenizer | None = None) -> list[Slice]:
        """All that is kept, as `slices_of` cuts it."""
        return slices_of(
            self.runs,
            n_bytes=self.kept.n_bytes,
            held_out=self.held_out.keys,
            slice_bytes=slice_bytes,
            tokens_of=tokens_of,
        )


@dataclass(frozen=True, kw_only=True)
class PartToRead:
    source: SourceSpec
    domain: str
    part: SourcePart
    stem: str
    """Path that the names of its files begin with."""
    seed: int
    vocabulary: Vocabulary | None = None
    """The vocabulary of the corpus, for a source of tokens."""
    wanted_bytes: int | None = None
    """Bytes of documents after which reading stops; None to read all."""
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

    Documents that were read before, by this build or by one that was interrupted, are skipped.

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


class Reader:
    """Reads sources into runs; what an earlier reader wrote into the same folder is not read again."""

    def __init__(
        self,
        sources: Mapping[str, SourceSpec],
        opened: Mapping[str, Documents],
        folder: Path,
        *,
        seed: int,
        n_processes: int,
        vocabulary: Vocabulary | None = None,
        run_bytes: int = RUN_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._sources, self._opened, self._folder = sources, opened, folder
        self._seed, self._n_processes = seed, n_processes
        self._vocabulary = vocabulary
        self._run_bytes, self._part_bytes = run_bytes, part_bytes
        self._parts: dict[str, list[PartRead]] = {}

    def read(self, *, step: Step) -> tuple[dict[str, tuple[Run, ...]], dict[str, Kept]]:
        """The runs of every source, and what is kept of them.

        A source with a limit is read until its text, without copies, reaches the limit. How much that is shows when
        copies are looked for, so it may be read in several turns. The tallies say what was not read.

        Raises:
            CorpusError: too much of a source cannot be read, or no row of it has its label.
        """
        tasks = {name: self._tasks(name) for name in self._sources}
        results = in_parallel(
            read_part, [task for each in tasks.values() for task in each], n_processes=self._n_processes
        )
        for name, each in tasks.items():
            with step(f"read {name}") as report:
                self._parts[name] = []
                for _ in each:
                    self._parts[name].append(next(results))
                    report(len(self._parts[name]) / len(each))
            if self._sources[name].max_bytes is None:
                self._count(name)
        ends: dict[str, End] = {}
        for name, source in self._sources.items():
            if source.max_bytes is not None:
                self._read_to_limit(name, source.max_bytes, ends)
        runs = {name: self._runs(name) for name in self._sources}
        return runs, keep_unique(runs, ends, n_processes=self._n_processes)

    def _tasks(self, name: str) -> list[PartToRead]:
        source = self._sources[name]
        paths = self._opened[name].paths
        # Where a limit ends the reading depends on all that was read before, so one process reads it all.
        parts = [SourcePart(paths)] if source.max_bytes is not None else parts_of(paths, part_bytes=self._part_bytes)
        return [
            PartToRead(
                source=source,
                domain=name,
                part=part,
                stem=str(self._folder / f"{name}-{number:05d}"),
                seed=self._seed,
                vocabulary=self._vocabulary,
                wanted_bytes=source.max_bytes,
                run_bytes=self._run_bytes,
            )
            for number, part in enumerate(parts)
        ]

    def _runs(self, name: str) -> tuple[Run, ...]:
        return tuple(run for part in self._parts[name] for run in part.runs)

    def _read_to_limit(self, name: str, max_bytes: int, ends: dict[str, End]) -> None:
        """Find where the source's kept text reaches its limit, reading on where copies took the place of others."""
        names = list(self._sources)
        upto = names[: names.index(name) + 1]
        (task,) = self._tasks(name)
        (part,) = self._parts[name]
        while part.n_bytes >= max_bytes:
            kept = keep_unique({one: self._runs(one) for one in upto}, ends, n_processes=self._n_processes)[name]
            reached = end_of(part.runs, max_bytes=max_bytes)
            if reached is not None:
                ends[name] = reached.end
                self._parts[name] = [part.model_copy(update={"counts": part.counts.as_of(reached.counts)})]
                self._count(name, is_whole=False)
                return
            if part.is_whole:
                break
            missing = max_bytes / max(kept.n_bytes, max_bytes / 2)
            wanted = part.n_bytes + 1 + int(part.n_bytes * (_MORE * missing - 1))
            part = read_part(replace(task, wanted_bytes=wanted))
            self._parts[name] = [part]
        self._count(name)

    def _count(self, name: str, *, is_whole: bool = True) -> None:
        tally, source = self._opened[name].tally, self._sources[name]
        for part in self._parts[name]:
            tally.add(part.counts)
        if source.label_column is not None and is_whole:
            check_labels(tally, source, domain=name)
        tally.check()


def spool_sources(
    reader: Reader, sources: Mapping[str, SourceSpec], *, fraction: float, step: Step
) -> dict[str, Spooled]:
    """Read all sources, and draw what is held out. A source with fewer than two documents holds out nothing.

    Args:
        reader: of the sources.
        sources: by domain; each says whether it holds out documents itself.
        fraction: share of a source's text to hold out, where the source does not say, in (0, 1).
        step: is told of each step.

    Raises:
        CorpusError: as `Reader.read`.
    """
    runs, kept = reader.read(step=step)
    return {
        name: Spooled(
            runs=runs[name],
            kept=kept[name],
            held_out=hold_out(runs[name], kept[name], fraction=None if source.held_out_column else fraction),
        )
        for name, source in sources.items()
    }
