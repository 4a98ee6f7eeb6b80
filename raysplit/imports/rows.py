"""From rows as a tool wrote them to a checked table of runs, with a count of what was left out and why."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raysplit.errors import TableError
from raysplit.imports.columns import COUNTED, ColumnChoice, losses_of
from raysplit.imports.found import Found, FoundRow, shown
from raysplit.imports.histories import has_loss, last_of_runs
from raysplit.imports.names import plain_name
from raysplit.imports.units import UNIT_NAMES
from raysplit.quantities import counted, parse_count, parse_quantity, parse_share
from raysplit.runs import BASE, GENERAL_LOSS, KEY, OPTIONAL, REPLAY_SHARE, check_runs, read_count
from raysplit.tables import is_nothing, is_well

_POSITIVE = ("n_params", "loss", "weight", GENERAL_LOSS)
_TEXTS = ("domain", "tokenizer", BASE)
_MAY_LACK = (*OPTIONAL, "tokenizer", REPLAY_SHARE, GENERAL_LOSS)
"""Fields that a row may have no value of."""
_TUNED = re.compile(
    r"(^|_)(lr|learning_rate|batch_size|batch_tokens|weight_decay|warmup|warmup_steps|optimizer|unique_tokens"
    r"|epochs|num_epochs|dataset)$"
)
"""Plain names of settings. Runs that differ in one of them are no repeats of one another."""
_SEED = re.compile(r"^\s*(seed|s)[\s_=-]*(?=\d)", re.IGNORECASE)
_LONGEST = 40
"""Most characters of a cell that a message shows."""
_MOST_IN_UNITS = 1_000_000
"""From here on a cell below a name with a unit, such as millions, is taken to count single ones, and is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A table of runs made from what another tool recorded."""

    kind: str
    runs: pd.DataFrame
    """As `raysplit.runs.check_runs` gives it, without the optional columns of which nothing is known."""
    choices: Mapping[str, ColumnChoice]
    """Column or constant by field."""
    skipped: Mapping[str, Sequence[str]]
    """Names of runs left out and of pieces that could not be read, by reason."""
    notes: Sequence[str] = ()
    """What was assumed, in sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    """One loss of one row."""

    row: FoundRow
    values: dict[str, Any]


def take_rows(found: Found, choices: Mapping[str, ColumnChoice], *, all_points: bool | None = None) -> Imported:
    """The observations of a source.

    A run is left out, and counted, where it ended badly or has not ended, its loss is no finite number, it lacks a
    required value, or it repeats another. Of several rows of one run the last is taken. Where no column has the seed,
    runs of the same point get seeds 0, 1, ... in their order.

    Args:
        found: the source.
        choices: column or constant by field, as `choose_columns` gives them.
        all_points: True takes each row as a run of its own. False takes the last row of each size, domain and seed
            along which a step rises. None does so too, but refuses rows that could be either.

    Raises:
        TableError: a value cannot be read or is impossible; two runs of the same point and seed have different losses;
            nothing is left.
    """
    skipped = found.unusable()
    notes = list(found.notes)
    rows = [row for row in found.rows if not row.unusable]
    if not all_points and not found.are_runs:
        rows = _ended(rows, choices, found, skipped, notes, is_told=all_points is not None)
    rounded: Counter[str] = Counter()
    measured = list(_measured(rows, choices, skipped, rounded))
    notes += [
        f"{counted(n, 'value')} of {field} with a fraction: rounded to whole ones" for field, n in rounded.items()
    ]
    notes += _merged(rows, choices) if found.kind == "csv" else []
    taken = _told_apart(measured, skipped, notes, is_seeded="seed" in choices)
    if not taken:
        reasons = "; ".join(f"{len(runs)} {reason}" for reason, runs in skipped.items())
        raise TableError(f"{found.origin}: no run is usable ({reasons or 'there are none'})")
    given = pd.DataFrame(taken)
    runs = check_runs(given, origin=found.origin)
    known_columns = [c for c in runs.columns if c not in OPTIONAL or c in given.columns]
    return Imported(kind=found.kind, runs=runs[known_columns], choices=choices, skipped=skipped, notes=notes)


def _ended(
    rows: Sequence[FoundRow],
    choices: Mapping[str, ColumnChoice],
    found: Found,
    skipped: dict[str, list[str]],
    notes: list[str],
    *,
    is_told: bool,
) -> list[FoundRow]:
    """The last row of each run that has several.

    Raises:
        TableError: rows may be of one run or of several, and ``is_told`` is false.
    """
    thinned = last_of_runs(rows, choices, found.names)
    if thinned.unclear and not is_told:
        rows = thinned.unclear[0]
        first, last = (row.where.rpartition(": ")[2] for row in (rows[0], rows[-1]))
        raise TableError(
            f"{found.origin}: {len(rows)} rows, {first} to {last}, have one size, domain and seed, and steps "
            "that rise: the history of one run, of which only the last loss is from after the cooldown (say "
            "--last-points), or each a finished run (say --all-points, or name the runs in a column 'run')?"
        )
    if thinned.earlier:
        reason = "an earlier step of the same run, before its cooldown; --all-points takes every row"
        skipped.setdefault(reason, []).extend(row.run for row in thinned.earlier)
    if thinned.unended:
        notes.append(
            f"the last loss of {shown(thinned.unended)} is of an earlier step than the last row of its run: is it from "
            "after the cooldown?"
        )
    return thinned.rows


def _measured(
    rows: Iterable[FoundRow],
    choices: Mapping[str, ColumnChoice],
    skipped: dict[str, list[str]],
    rounded: Counter[str],
) -> Iterator[_Measured]:
    for row in rows:
        losses = losses_of(row, choices)
        if not losses:
            skipped.setdefault(f"without a value for loss ({choices['loss'].column})", []).append(row.run)
        for domain, loss_column in losses:
            values, reason = _read(row, choices, domain, loss_column, rounded)
            if reason:
                skipped.setdefault(reason, []).append(row.run)
            else:
                yield _Measured(row=row, values=values)


def _merged(rows: Sequence[FoundRow], choices: Mapping[str, ColumnChoice]) -> list[str]:
    """Notes on columns whose filled cells may stand for the empty ones below them too, as merged cells do."""
    notes = []
    for field in ("n_params", "pretrain_tokens", "specialize_tokens", "domain"):
        if (choice := choices.get(field)) and choice.column:
            filled = [not is_nothing(row.values.get(choice.column)) for row in rows if has_loss(row, choices)]
            if filled[:1] == [True] and not all(filled):
                notes.append(
                    f"{choice.column!r} is empty below filled cells: where one stands for those below it too, as "
                    "merged cells do, fill it down"
                )
    return notes


def _told_apart(
    measured: Sequence[_Measured], skipped: dict[str, list[str]], notes: list[str], *, is_seeded: bool
) -> list[dict[str, Any]]:
    """Observations of which no two are of one point and seed.

    Raises:
        TableError: two runs of one point and seed have different losses.
    """
    points: dict[tuple[Any, ...], list[_Measured]] = {}
    for one in measured:
        of_base = (one.values.get(BASE), one.values.get(REPLAY_SHARE, 0.0))
        point = (*(one.values.get(name) for name in KEY if is_seeded or name != "seed"), *of_base)
        known = points.setdefault(point, [])
        if any(other.values["loss"] == one.values["loss"] for other in known):
            skipped.setdefault("the same as another", []).append(one.row.run)
            continue
        if known and is_seeded:
            what = ", ".join(f"{n}={one.values[n]}" for n in (*KEY, BASE, REPLAY_SHARE) if n in one.values)
            raise TableError(
                f"{one.row.where}: loss = {one.values['loss']:g} of {what}, of which run {known[0].row.run!r} says "
                f"{known[0].values['loss']:g}; give repeated runs different seeds (--column seed=COLUMN), or keep one "
                "of them"
            )
        if known:
            one.values["seed"] = len(known)
        known.append(one)
    repeated = [runs for runs in points.values() if len(runs) > 1]
    if repeated:
        n_repeats = sum(map(len, repeated))
        notes.append(
            f"no column is the seed: {n_repeats} runs of {counted(len(repeated), 'point')} are numbered as seeds 0, 1, "
            "..."
        )
        notes += _tuned(repeated)
    return [one.values for runs in points.values() for one in runs]


def _tuned(repeated: Sequence[Sequence[_Measured]]) -> list[str]:
    """A note on settings in which the runs of a point differ."""
    names = dict.fromkeys(name for runs in repeated for one in runs for name in one.row.values)
    differing = [
        name
        for name in names
        if _TUNED.search(plain_name(name))
        and any(len({str(one.row.values.get(name)) for one in runs}) > 1 for runs in repeated)
    ]
    if not differing:
        return []
    return [
        f"they differ in {', '.join(map(repr, differing))}: keep the best setting of each point, unless that is meant"
    ]


def _read(
    row: FoundRow, choices: Mapping[str, ColumnChoice], domain: str | None, loss_column: str, rounded: Counter[str]
) -> tuple[dict[str, Any], str]:
    """(values, reason): those of one observation, and why it is left out, empty where it is not."""
    values: dict[str, Any] = {"trial": row.run, "seed": 0}
    if domain:
        values["domain"] = domain
    for field, choice in choices.items():
        column = loss_column if field == "loss" else choice.column
        value = domain if field == "domain" else row.values.get(column) if column else choice.constant
        if _is_missing(value, field):
            if field in _MAY_LACK:
                continue
            return values, f"without a value for {field} ({column})"
        if field == "loss" and isinstance(value, str) and _says_how_it_ended(value):
            return values, f"with {value[:_LONGEST]!r} in place of a loss"
        source = f"column {column!r}, read as {field}" if column else f"--set {field}"
        values[field] = _parsed(row, choice, source, value, rounded)
        if field == "loss" and not math.isfinite(values[field]):
            return values, "diverged: the loss is no finite number"
    return values, ""


def _is_missing(value: object, field: str) -> bool:
    if field in _TEXTS:
        return value is None or value != value or not str(value).strip()  # NaN of JSON is no name
    if field != "loss" and isinstance(value, float | str) and str(value).strip().lower() == "nan":
        return True
    return is_nothing(value)


def _says_how_it_ended(cell: str) -> bool:
    """Whether a cell for a number says how a run ended, as ``OOM`` and ``diverged`` do; ``nan`` is a number."""
    return not re.search(r"\d|nan|inf", cell, re.IGNORECASE) and is_well(cell) is False


def _parsed(row: FoundRow, choice: ColumnChoice, source: str, value: object, rounded: Counter[str]) -> Any:
    field = choice.field
    if field in _TEXTS:
        return str(value).strip()
    try:
        number = _number(value, choice, rounded)
    except (ValueError, OverflowError) as error:
        raise TableError(f"{row.where}: {source}: {error}") from error
    if math.isfinite(number) and (number < 0 or (number == 0 and field in _POSITIVE)):
        rule = "must be positive" if field in _POSITIVE else "must not be negative"
        hint = "; of a log-likelihood, bring the negative" if field == "loss" and number < 0 else ""
        raise TableError(f"{row.where}: {source}: {rule}, got {value!r}{hint}")
    return number


def _number(value: object, choice: ColumnChoice, rounded: Counter[str]) -> float:
    """The number in a cell, in the unit that the column's name tells; a whole one in fields that count."""
    if choice.field in COUNTED:
        has_unit = isinstance(value, str) and value.strip()[-1:].isalpha()
        count = _scaled(value, choice.power) if choice.power and not has_unit else value
        whole, was_rounded = read_count(count, may_round=True)
        if was_rounded:
            rounded[choice.field] += 1
        return whole
    if isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(value)
    if choice.field == REPLAY_SHARE:
        return parse_share(value)
    if choice.field == "seed":
        return parse_count(_SEED.sub("", value) if isinstance(value, str) else value)
    return parse_quantity(value)


def _scaled(value: object, power: int) -> float:
    """The number in a cell whose column counts in a unit of ten to this power.

    Raises:
        ValueError: it is no number, or so large that it must count single ones.
    """
    number = parse_quantity(value)
    if number >= _MOST_IN_UNITS:
        raise ValueError(
            f"{value!r} in a column of {UNIT_NAMES[power]} by its name; rename the column if it counts single ones"
        )
    return number * 10.0**power
