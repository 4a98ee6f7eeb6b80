"""The observations that were acknowledged: the table of any moment, and the checks of what may join it."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pandas as pd

from raysplit.errors import TableError, unknown
from raysplit.runs import BASE, GENERAL_LOSS, KEY, MAX_ROWS, REPLAY_SHARE, Observation, check_runs, to_frame

run_of = attrgetter(*KEY, REPLAY_SHARE)
"""The fields of an observation that say which run it measured."""
MAX_BATCH = 10_000
"""Most observations in one call."""
_ORIGIN = "observations"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """One observation and how it came in."""

    seq: int
    """Number of the journal's record that holds it."""
    observation: Observation
    own: bool
    """Measured by the sweep itself; it replaces what others said of the same run."""


class ObservationTable:
    """Observations by run. Methods may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_run: dict[tuple[object, ...], Reported] = {}
        self._replaced: list[Reported] = []
        self.last_seq = -1
        """Number of the last record that brought an observation."""

    def __len__(self) -> int:
        return len(self._by_run)

    def add(self, rows: Iterable[Reported]) -> None:
        """Take in rows of rising ``seq``; a run that is there already is replaced."""
        with self._lock:
            for row in rows:
                run = run_of(row.observation)
                if (old := self._by_run.pop(run, None)) is not None:
                    self._replaced.append(old)
                self._by_run[run] = row
                self.last_seq = row.seq

    def known(self, observation: Observation) -> Observation | None:
        """The known observation of the same run; None where there is none."""
        found = self._by_run.get(run_of(observation))
        return found.observation if found else None

    def since(self, seq: int) -> list[Reported]:
        """Rows of records after ``seq``, oldest first, replaced rows too."""
        with self._lock:
            found = []
            for row in reversed(self._by_run.values()):
                if row.seq <= seq:
                    break
                found.append(row)
            found += [row for row in self._replaced if row.seq > seq]
            return sorted(found, key=attrgetter("seq"))

    def until(self, seq: int) -> list[Reported]:
        """What was known after the record ``seq``, one row a run."""
        with self._lock:
            if seq >= self.last_seq:
                return list(self._by_run.values())
            rows = [row for row in (*self._replaced, *self._by_run.values()) if row.seq <= seq]
        return list({run_of(row.observation): row for row in sorted(rows, key=attrgetter("seq"))}.values())

    def frame(self) -> pd.DataFrame:
        """All observations, as `raysplit.runs.to_frame` lays them out."""
        return to_frame([row.observation for row in self.until(self.last_seq)])


def rows_to_fit(rows: Sequence[Reported]) -> list[Reported]:
    """All rows, or `raysplit.runs.MAX_ROWS` of them where there are more: the same for the same rows.

    The sweep's own come first, then those of the least `Observation.identity`, which is a hash. So the others are a
    random sample, in which one more observation replaces at most one.
    """
    if len(rows) <= MAX_ROWS:
        return list(rows)
    return sorted(rows, key=lambda row: (not row.own, row.observation.identity))[:MAX_ROWS]


def checked(
    observations: Sequence[Observation], domains: Sequence[str], *, shares: Sequence[float] = ()
) -> list[Observation]:
    """The observations with checked values of the right types, each once.

    Args:
        observations: as they were told.
        domains: of the sweep.
        shares: the replayed shares that its law tells apart; none where it tells none.

    Raises:
        TableError: there are none or too many, one is impossible, of an unknown domain or of a share that the law does
            not know, or two contradict each other.
    """
    check_batch(observations)
    try:
        once = list({row.identity: row for row in reversed(observations)}.values())[::-1]
    except ValueError as error:  # Python writes out no whole number of more than 4,300 digits
        raise TableError(f"{_ORIGIN}: a number is too large: {error}") from error
    names = list(Observation.__dataclass_fields__)
    columns = {name: pd.Series([getattr(row, name) for row in once], dtype=object) for name in names}
    for name in ("domain", "trial"):
        for number, value in enumerate(columns[name], 1):
            if not isinstance(value, str):
                raise TableError(f"{_ORIGIN}: row {number}: {name} = {value!r} is not text")
    if says_more := any(row.replay_share or row.general_loss == row.general_loss for row in once):
        # Both are read beside a base alone. Here a base is its size.
        columns[BASE] = pd.Series([str(row.n_params) for row in once], dtype=object)
    frame = check_runs(pd.DataFrame(columns), origin=_ORIGIN)
    if not says_more:
        frame = frame.assign(**{REPLAY_SHARE: 0.0, GENERAL_LOSS: np.nan})
    for domain in frame["domain"].unique():
        if domain not in domains:
            raise TableError(f"{_ORIGIN}: {unknown('domain', domain, domains)}")
    for share in frame.loc[frame["specialize_tokens"] > 0, REPLAY_SHARE].unique() if shares else ():
        if share not in shares:
            raise TableError(f"{_ORIGIN}: {unknown('replay_share', share, shares)}")
    return [
        Observation(**dict(zip(names, row, strict=True)))
        for row in zip(*(frame[n].tolist() for n in names), strict=True)
    ]


def check_batch(observations: Sequence[Observation]) -> None:
    """Check a batch without reading its numbers.

    Raises:
        TableError: it is no list of observations, or too long.
    """
    if isinstance(observations, Observation):
        raise TableError(f"{_ORIGIN}: one observation where a list of them is expected")
    if not isinstance(observations, Sequence):
        raise TableError(f"{_ORIGIN}: {type(observations).__name__} where a list of them is expected")
    if len(observations) > MAX_BATCH:
        raise TableError(f"{_ORIGIN}: {len(observations)} rows; at most {MAX_BATCH} in one call, give them in parts")
    for number, row in enumerate(observations, 1):
        if not isinstance(row, Observation):
            raise TableError(f"{_ORIGIN}: row {number} is {type(row).__name__}, not raysplit.runs.Observation")


def new_to(table: ObservationTable, observations: Sequence[Observation]) -> list[Observation]:
    """The observations of runs that the table does not know.

    Raises:
        TableError: another loss is known of the same run.
    """
    new = []
    for observation in observations:
        known = table.known(observation)
        if known is None:
            new.append(observation)
        elif known.identity != observation.identity:
            what = ", ".join(f"{name}={getattr(observation, name)}" for name in KEY)
            raise TableError(
                f"{_ORIGIN}: loss = {observation.loss:g} of {what}: {known.loss:g} is known of this run; "
                "give a repeated run another seed"
            )
    return new


def as_row(observation: Observation) -> dict[str, object]:
    """An observation's fields for JSON, which has no NaN: unknown values and a replayed share of 0 are left out."""
    fields = ((name, getattr(observation, name)) for name in Observation.__dataclass_fields__)
    return {name: value for name, value in fields if value == value and (name != REPLAY_SHARE or value)}
