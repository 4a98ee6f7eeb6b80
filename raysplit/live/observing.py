"""Observations from outside: checked before anything is stored."""

from collections.abc import Sequence

import pandas as pd

from raysplit.errors import TableError, unknown
from raysplit.live.table import Table
from raysplit.runs import KEY, Observation, check_runs

MAX_BATCH = 10_000
"""Observations in one call."""
_ORIGIN = "observations"


def checked(observations: Sequence[Observation], domains: Sequence[str]) -> list[Observation]:
    """The observations in their types, each once.

    Raises:
        TableError: there are none or too many, one is impossible or of an unknown domain, or two contradict each other.
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
    frame = check_runs(pd.DataFrame(columns, columns=names), origin=_ORIGIN)
    for domain in frame["domain"].unique():
        if domain not in domains:
            raise TableError(f"{_ORIGIN}: {unknown('domain', domain, domains)}")
    return [
        Observation(**dict(zip(names, row, strict=True)))
        for row in zip(*(frame[n].tolist() for n in names), strict=True)
    ]


def check_batch(observations: Sequence[Observation]) -> None:
    """What can be said of a batch without reading its numbers.

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


def new_to(table: Table, observations: Sequence[Observation]) -> list[Observation]:
    """Those of runs that the table does not know.

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
    """Its fields for JSON, which has no NaN: unknown ones are left out."""
    fields = ((name, getattr(observation, name)) for name in Observation.__dataclass_fields__)
    return {name: value for name, value in fields if value == value}
