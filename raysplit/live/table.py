"""Every observation that was acknowledged, in order, and the table of any moment made again from it."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import pandas as pd

from raysplit.runs import KEY, MAX_ROWS, Observation, to_frame

run_of = attrgetter(*KEY)
"""What says which run an observation measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """One observation and how it came in."""

    seq: int
    """Of the journal's record that told of it."""
    observation: Observation
    own: bool
    """Measured by the sweep itself; it replaces what others said of the same run."""


class Table:
    """Observations by run. Methods may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_run: dict[tuple[object, ...], Known] = {}
        self._replaced: list[Known] = []
        self.last_seq = -1
        """Of the last record that brought an observation."""

    def __len__(self) -> int:
        return len(self._by_run)

    def add(self, rows: Iterable[Known]) -> None:
        """Take in rows of rising ``seq``; a run that is there already is replaced."""
        with self._lock:
            for row in rows:
                run = run_of(row.observation)
                if (old := self._by_run.pop(run, None)) is not None:
                    self._replaced.append(old)
                self._by_run[run] = row
                self.last_seq = row.seq

    def known(self, observation: Observation) -> Observation | None:
        """What is known of the run that an observation measured."""
        found = self._by_run.get(run_of(observation))
        return found.observation if found else None

    def since(self, seq: int) -> list[Known]:
        """Rows of later records than ``seq``, oldest first, replaced ones too."""
        with self._lock:
            found = []
            for row in reversed(self._by_run.values()):
                if row.seq <= seq:
                    break
                found.append(row)
            found += [row for row in self._replaced if row.seq > seq]
            return sorted(found, key=attrgetter("seq"))

    def until(self, seq: int) -> list[Known]:
        """What was known after the record ``seq``, one row a run."""
        with self._lock:
            if seq >= self.last_seq:
                return list(self._by_run.values())
            rows = [row for row in (*self._replaced, *self._by_run.values()) if row.seq <= seq]
        return list({run_of(row.observation): row for row in sorted(rows, key=attrgetter("seq"))}.values())

    def frame(self) -> pd.DataFrame:
        """All of it, as `raysplit.runs.to_frame` lays it out."""
        return to_frame([row.observation for row in self.until(self.last_seq)])


def rows_to_fit(rows: Sequence[Known]) -> list[Known]:
    """All rows, or `raysplit.runs.MAX_ROWS` of them where there are more: the same for the same rows.

    The sweep's own come first, then those of the least `Observation.identity`, which is a hash: a random sample, in
    which one more observation replaces at most one.
    """
    if len(rows) <= MAX_ROWS:
        return list(rows)
    return sorted(rows, key=lambda row: (not row.own, row.observation.identity))[:MAX_ROWS]
