"""Histories: many rows of one run, of which the last alone was measured after the cooldown and compares with others."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from raysplit.imports.columns import Choice, losses_of, plain_name
from raysplit.imports.found import FoundRow
from raysplit.quantities import parse_quantity
from raysplit.tables import is_nothing

_STEPS = ("step", "global_step", "trainer_global_step", "train_global_step", "iteration", "iter", "training_iteration",
          "epoch", "train_epoch")  # fmt: skip
"""Plain names of columns that count along a run, the finest first."""
_MANY = 50
"""Nobody trains so many runs of one size on one domain, each longer than the one before."""


class Thinned(NamedTuple):
    """Rows of runs, and those that say an earlier state of a run."""

    rows: list[FoundRow]
    earlier: list[FoundRow]
    unended: list[str]
    """Runs with rows, but no loss, at a later step than the last loss."""


def last_of_runs(rows: Sequence[FoundRow], choices: Mapping[str, Choice], names: Sequence[str]) -> Thinned:
    """The rows without those of earlier steps of the same run.

    Rows are of one run where they have its name, or no name and one size, domain and seed, as long as the step rises.
    Without a column of steps, tokens that rise over at least `_MANY` rows are taken for them.

    Args:
        rows: of runs that ended well.
        choices: column by field.
        names: every column.
    """
    column = _step_column(names)
    step_of: Callable[[FoundRow], float] = (lambda row: _number(row.values.get(column))) if column else _tokens(choices)
    fewest = 2 if column else _MANY
    earlier: list[FoundRow] = []
    unended: list[str] = []
    for run in _runs(rows, choices, step_of):
        with_loss = [row for row in run if has_loss(row, choices)]
        if len(with_loss) >= fewest:
            earlier += with_loss[:-1]
            if step_of(run[-1]) > step_of(with_loss[-1]):
                unended.append(with_loss[-1].run)
    dropped = set(map(id, earlier))
    return Thinned([row for row in rows if id(row) not in dropped], earlier, unended)


def has_loss(row: FoundRow, choices: Mapping[str, Choice]) -> bool:
    """Whether a row says any loss."""
    return any(not is_nothing(row.values.get(column)) for _, column in losses_of(row, choices))


def _runs(
    rows: Sequence[FoundRow],
    choices: Mapping[str, Choice],
    step_of: Callable[[FoundRow], float],
) -> list[list[FoundRow]]:
    """Rows in their order, as runs along which the step rises."""
    runs: list[list[FoundRow]] = []
    current: dict[tuple[str, ...], list[FoundRow]] = {}
    for row in rows:
        if math.isnan(step := step_of(row)):
            continue
        key = (row.run if row.is_named else "", *(_raw(row, choices, f) for f in ("n_params", "domain", "seed")))
        run = current.get(key)
        # Lightning writes the losses of training and of evaluation into rows of their own, of one step.
        is_next = run is not None and (
            step > step_of(run[-1])
            or (step == step_of(run[-1]) and not all(has_loss(r, choices) for r in (run[-1], row)))
        )
        if run is None or not is_next:
            run = current[key] = []
            runs.append(run)
        run.append(row)
    return runs


def _raw(row: FoundRow, choices: Mapping[str, Choice], field: str) -> str:
    choice = choices.get(field)
    return str(row.values.get(choice.column, "")) if choice and choice.column else ""


def _step_column(names: Sequence[str]) -> str | None:
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[step] for step in _STEPS if step in plain), None)


def _tokens(choices: Mapping[str, Choice]) -> Callable[[FoundRow], float]:
    columns = [choices[f].column for f in ("pretrain_tokens", "specialize_tokens") if choices[f].column]
    return lambda row: sum(_number(row.values.get(column)) for column in columns) if columns else math.nan


def _number(value: object) -> float:
    try:
        return parse_quantity(value)
    except ValueError:
        return math.nan
