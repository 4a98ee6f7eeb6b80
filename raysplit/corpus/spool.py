"""All documents of some sources on disk: read in parallel, copies left out, each on its side."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from raysplit.corpus.held_out import HeldOut, hold_out
from raysplit.corpus.parallel import in_parallel
from raysplit.corpus.reading import RUN_BYTES, PartRead, PartToRead, read_part
from raysplit.corpus.runs import Run
from raysplit.corpus.sources import Documents, SourcePart, check_labels, parts_of
from raysplit.corpus.tokenized import Vocabulary
from raysplit.corpus.unique import End, Kept, end_of, keep_unique
from raysplit.space import SourceSpec

PART_BYTES = 64 << 20
"""Of files that one process reads at a time."""
_MORE = 1.2

Report = Callable[[float], None]
Step = Callable[[str], AbstractContextManager[Report]]
"""Begins a step by its name; what it gives is told the share that is done."""


@dataclass(frozen=True, kw_only=True)
class Spooled:
    """The documents of one domain."""

    runs: tuple[Run, ...]
    kept: Kept
    held_out: HeldOut

    @property
    def validation_share(self) -> float:
        """Of the text, in bytes."""
        return self.held_out.n_bytes / self.kept.n_bytes


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

        Of sources with a limit as much is read as the limit asks for once copies are left out, which is known when
        they are compared. The tallies say what was not read.

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
    """Read all, and draw what is held out; of a source with fewer than two documents nothing is.

    Args:
        reader: of the sources.
        sources: which say whether they hold out documents themselves.
        fraction: of a source's text to hold out.
        step: told what is done.

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
