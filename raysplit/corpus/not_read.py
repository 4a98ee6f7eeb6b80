"""What a source holds beside its documents: all of it is counted, and the first few are named."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from raysplit.errors import CorpusError
from raysplit.space import SourceSpec

_NAMED = 20
_SHOWN = 5
_FEW = 0.1
_REMEDY = (
    "Mend that, set `encoding:` or `text_column:` where they are wrong, name fewer files with a glob such as "
    "`path: data/*.jsonl`, or leave out what is bad with `on_bad: skip`"
)


class NotRead(BaseModel):
    """What was not read of one source, for the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_files: int = 0
    """Files that were asked for; 0 for a dataset or a package."""
    n_bad_files: int = 0
    """Files, of ``n_files``, that could not be read, or not to their end."""
    rows_are: Literal["rows", "lines"] = "rows"
    """What ``n_rows`` counts: rows of tables, or lines of text that is cut into documents."""
    n_rows: int = 0
    n_bad_rows: int = 0
    bad: tuple[str, ...] = ()
    """The first files and rows that could not be read, and why."""
    n_blank: int = 0
    """Files, rows and pieces without text."""
    n_others: int = 0
    """Files in the folder that were not asked for."""
    others: tuple[str, ...] = ()
    n_left_behind: int = 0
    """Files and folders of an operating system or an editor, such as ``._a.txt``, or of a run of raysplit."""
    left_behind: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """Sentences on what was read and may not be what the user wanted."""

    def sentences(self) -> list[str]:
        """A sentence for each kind of thing that was not read, then the remarks."""
        counts = [
            f"{n_bad} of {n} {what}"
            for n_bad, n, what in (
                (self.n_bad_files, self.n_files, "files"),
                (self.n_bad_rows, self.n_rows, self.rows_are),
            )
            if n_bad
        ]
        said = []
        if counts:
            names = _listed(self.bad, self.n_bad_files + self.n_bad_rows, "; ")
            said.append(f"left out {' and '.join(counts)} that cannot be read: {names}")
        if self.n_others:
            said.append(f"left out {_files(self.n_others)} not asked for: {_listed(self.others, self.n_others, ', ')}")
        if self.n_left_behind:
            names = _listed(self.left_behind, self.n_left_behind, ", ")
            said.append(f"left out {_files(self.n_left_behind)} of a system, an editor or raysplit: {names}")
        if self.n_blank:
            said.append(f"left out {self.n_blank} without text")
        return [*said, *self.remarks]


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"


def _listed(names: tuple[str, ...], n: int, separator: str) -> str:
    shown = names[:_SHOWN]
    return separator.join(shown) + (f"{separator}and {n - len(shown)} more" if n > len(shown) else "")


class Counts(BaseModel):
    """What was not read of a part of a source, to be put together with the other parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_rows: int = 0
    n_blank: int = 0
    n_bad_files: int = 0
    n_bad_rows: int = 0
    bad: tuple[tuple[str, str], ...] = ()
    """Names and reasons of the first that are bad."""
    labels: dict[str, int] = {}
    """Rows with each label, where the source chooses by label."""

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        return self.n_rows, self.n_blank, self.n_bad_files, self.n_bad_rows

    def as_of(self, numbers: Iterable[int]) -> "Counts":
        """These counts as they were earlier, when their ``numbers`` were those; without the labels."""
        n_rows, n_blank, n_bad_files, n_bad_rows = map(int, numbers)
        return Counts(
            n_rows=n_rows,
            n_blank=n_blank,
            n_bad_files=n_bad_files,
            n_bad_rows=n_bad_rows,
            bad=self.bad[: n_bad_files + n_bad_rows],
        )


class Tally:
    """Counts what a source gives while it is read, and ends the reading where too much of it is bad."""

    def __init__(self, source: SourceSpec, *, domain: str) -> None:
        self.where = f"domain {domain!r}" + (f": {source.path}" if source.path is not None else "")
        self._root = Path(source.path or "")
        self._on_bad = source.on_bad
        self._rows_are: Literal["rows", "lines"] = "lines" if source.kind == "files" else "rows"
        self._bad: list[tuple[str, str]] = []
        """Names and reasons of the first that are bad."""
        self._others: list[str] = []
        self._left_behind: list[str] = []
        self._remarks: list[str] = []
        self.labels: dict[str, int] = {}
        """Rows with each label, where the source chooses by label."""
        self.n_files = self.n_rows = self.n_blank = 0
        self._n_bad_files = self._n_bad_rows = 0

    def name(self, path: Path) -> str:
        """Path of a file within the source; empty for the source itself."""
        relative = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        return os.fsencode(relative).decode("utf-8", errors="replace") if relative != Path() else ""

    def bad_file(self, path: Path, why: object) -> None:
        """Note a file that cannot be read; `n_files` has to count it as well.

        Raises:
            CorpusError: the source wants that to end the build.
        """
        self._note(self.name(path), str(why))
        self._n_bad_files += 1

    def bad_row(self, path: Path, place: str, why: object) -> None:
        """Note a row that cannot be read; `n_rows` has to count it as well.

        Args:
            path: of its file.
            place: within it, such as ``line 41``.
            why: in words.

        Raises:
            CorpusError: the source wants that to end the build.
        """
        self._note(", ".join(filter(None, [self.name(path), place])), str(why))
        self._n_bad_rows += 1

    def other(self, path: Path) -> None:
        self._others.append(self.name(path))

    def left_behind(self, path: Path) -> None:
        self._left_behind.append(self.name(path))

    def remark(self, sentence: str) -> None:
        self._remarks.append(sentence)

    def check(self) -> None:
        """Check that few enough files and rows are bad.

        Raises:
            CorpusError: ``on_bad`` is "few", and more than one in ten is bad.
        """
        if self._on_bad != "few":
            return
        for n_bad, n, what in (
            (self._n_bad_files, self.n_files, "files"),
            (self._n_bad_rows, self.n_rows, self._rows_are),
        ):
            if n_bad > _FEW * n:
                first = "; ".join(_by_reason(self._bad[:_SHOWN]))
                said = first if n == 1 else f"{n_bad} of {n} {what} cannot be read, more than one in ten: {first}"
                raise CorpusError(f"{self.where}: {said}\n{_REMEDY}")

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Numbers of `Counts`, which grow while documents are read."""
        return self.n_rows, self.n_blank, self._n_bad_files, self._n_bad_rows

    def counts(self) -> Counts:
        n_rows, n_blank, n_bad_files, n_bad_rows = self.numbers
        return Counts(
            n_rows=n_rows,
            n_blank=n_blank,
            n_bad_files=n_bad_files,
            n_bad_rows=n_bad_rows,
            bad=tuple(self._bad),
            labels=self.labels,
        )

    def add(self, counts: Counts) -> None:
        """Add the counts of a part of the source; parts are added in their order."""
        self.n_rows += counts.n_rows
        self.n_blank += counts.n_blank
        self._n_bad_files += counts.n_bad_files
        self._n_bad_rows += counts.n_bad_rows
        self._bad = [*self._bad, *counts.bad][:_NAMED]
        for label, n in counts.labels.items():
            self.labels[label] = self.labels.get(label, 0) + n

    def so_far(self) -> NotRead:
        return NotRead(
            n_files=self.n_files,
            n_bad_files=self._n_bad_files,
            rows_are=self._rows_are,
            n_rows=self.n_rows,
            n_bad_rows=self._n_bad_rows,
            bad=tuple(map(_said, self._bad)),
            n_blank=self.n_blank,
            n_others=len(self._others),
            others=tuple(self._others[:_NAMED]),
            n_left_behind=len(self._left_behind),
            left_behind=tuple(self._left_behind[:_NAMED]),
            remarks=tuple(self._remarks),
        )

    def _note(self, name: str, why: str) -> None:
        if self._on_bad == "fail":
            raise CorpusError(f"{self.where}: {_said((name, why))}\n{_REMEDY}")
        if len(self._bad) < _NAMED:
            self._bad.append((name, why))


def _said(bad: tuple[str, str]) -> str:
    return ": ".join(filter(None, bad))


def _by_reason(bad: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A sentence for each reason, in which neighbours with one reason stand together."""
    for why, alike in groupby(bad, key=itemgetter(1)):
        yield _said((", ".join(name for name, _ in alike), why))
