"""From rows as a tool wrote them to a checked table of runs, with a count of what was left out and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raysplit.errors import TableError
from raysplit.imports.columns import DOMAIN, Choice, columns_of_domains
from raysplit.imports.found import Found, FoundRow
from raysplit.quantities import parse_count, parse_quantity
from raysplit.runs import KEY, OPTIONAL, check_runs

_COUNTS = ("n_params", "pretrain_tokens", "specialize_tokens", "seed")
_POSITIVE = ("n_params", "loss", "weight")
_TEXTS = ("domain", "tokenizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A table of runs made from another tool's export."""

    kind: str
    runs: pd.DataFrame
    """As `raysplit.runs.check_runs` gives it, without optional columns of which nothing is known."""
    choices: Mapping[str, Choice]
    skipped: Mapping[str, Sequence[str]]
    """Runs left out, by reason."""


def take_rows(found: Found, choices: Mapping[str, Choice]) -> Imported:
    """The observations of a source.

    Left out, and counted, are runs that ended badly or have not ended, whose loss is no finite number, that lack a
    required value, or that say again what another said.

    Raises:
        TableError: a value cannot be read or is impossible; two runs of the same point have different losses; nothing
            is left.
    """
    taken: dict[tuple[Any, ...], dict[str, Any]] = {}
    skipped: dict[str, list[str]] = {}
    names = found.names
    for row in found.rows:
        if row.unusable:
            skipped.setdefault(row.unusable, []).append(row.run)
            continue
        for domain, loss_column in _losses(row, choices, names):
            values, reason = _read(row, choices, domain, loss_column)
            if reason:
                skipped.setdefault(reason, []).append(row.run)
                continue
            key = tuple(values[name] for name in KEY)
            if (known := taken.setdefault(key, values)) is values:
                continue
            if known["loss"] != values["loss"]:
                what = ", ".join(f"{name}={values[name]}" for name in KEY)
                raise TableError(
                    f"{row.where}: loss = {values['loss']:g} of {what}, of which run {known['trial']!r} says "
                    f"{known['loss']:g}; give repeated runs different seeds (--column seed=COLUMN), or keep one of them"
                )
            skipped.setdefault("the same as another", []).append(row.run)
    if not taken:
        reasons = "; ".join(f"{len(runs)} {reason}" for reason, runs in skipped.items())
        raise TableError(f"{found.origin}: no run is usable ({reasons or 'there are none'})")
    given = pd.DataFrame(list(taken.values()))
    runs = check_runs(given, origin=found.origin)
    known_columns = [c for c in runs.columns if c not in OPTIONAL or c in given.columns]
    return Imported(kind=found.kind, runs=runs[known_columns], choices=choices, skipped=skipped)


def _losses(row: FoundRow, choices: Mapping[str, Choice], names: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """(domain, column) of each loss in a row: one, or one a domain where the run is not of one domain alone."""
    column = choices["loss"].column
    own = _value(row, choices.get("domain"))
    if DOMAIN not in column:
        yield None if own is None else str(own), column
        return
    for domain, of_domain in columns_of_domains(column, names).items():
        if (own is None and of_domain in row.values) or str(own) == domain:
            yield domain, of_domain


def _value(row: FoundRow, choice: Choice | None) -> object:
    if choice is None:
        return None
    return row.values.get(choice.column) if choice.column else choice.constant


def _read(
    row: FoundRow, choices: Mapping[str, Choice], domain: str | None, loss_column: str
) -> tuple[dict[str, Any], str]:
    """The values of one observation, or why it is left out."""
    values: dict[str, Any] = {"trial": row.run, "seed": 0}
    for field, choice in choices.items():
        column = loss_column if field == "loss" else choice.column
        value = domain if field == "domain" else row.values.get(column) if column else choice.constant
        if value is None or (isinstance(value, float) and math.isnan(value) and field != "loss"):
            if field in OPTIONAL or field == "tokenizer":
                continue
            return values, f"without a value for {field} ({column})"
        values[field] = _parsed(
            row, field, f"column {column!r}, read as {field}" if column else f"--set {field}", value
        )
        if field == "loss" and not math.isfinite(values[field]):
            return values, "diverged: the loss is no finite number"
    return values, ""


def _parsed(row: FoundRow, field: str, source: str, value: object) -> Any:
    if field in _TEXTS:
        return str(value)
    try:
        number = _number(value, whole=field in _COUNTS)
    except (ValueError, OverflowError) as error:
        raise TableError(f"{row.where}: {source}: {error}") from error
    if math.isfinite(number) and (number < 0 or (number == 0 and field in _POSITIVE)):
        rule = "must be positive" if field in _POSITIVE else "must not be negative"
        raise TableError(f"{row.where}: {source}: {rule}, got {value!r}")
    return number


def _number(value: object, *, whole: bool) -> float:
    """A number, or one as people write it; a finite one if whole."""
    plain = value.item() if hasattr(value, "item") else value  # numpy's, from Parquet
    if not whole and isinstance(plain, str) and plain.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(plain)
    return parse_count(plain) if whole else parse_quantity(plain)
