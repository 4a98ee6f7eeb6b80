"""Histories: many rows of one run, of which only the last was measured after the cooldown and compares with others.

A table of finished runs may have a column of steps too, with each run's last step. Where nothing tells a history from
such a table, the rows are given as unclear.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from raysplit.imports.columns import ColumnChoice, losses_of
from raysplit.imports.found import STEP, FoundRow
from raysplit.imports.names import plain_name
from raysplit.quantities import parse_quantity
from raysplit.runs import BASE, REPLAY_SHARE
from raysplit.tables import is_nothing, step_column

_SETTING = re.compile(
    r"(^|_)(batch_size|batch_tokens|weight_decay|warmup|warmup_steps|optimizer|max_steps|total_steps|num_steps"
    r"|max_iters|max_epochs|num_train_epochs)$"
)
"""Plain names of settings, which do not change along a run."""
_RATE = re.compile(r"(^|_)(lr|learning_rate)(_|$)")
_MANY = 50
"""So many rows, each longer than the one before, are a history: nobody trains so many runs of one size and domain."""
_MANY_EVEN = 12
"""So many rows at even distances are one too."""


class Thinned(NamedTuple):
    """Rows of which each run's last loss is left, and what was taken away."""

    rows: list[FoundRow]
    """All rows but ``earlier``."""
    earlier: list[FoundRow]
    """Rows with a loss that have a later one of the same run."""
    unended: list[str]
    """Names of runs whose last rows have no loss."""
    unclear: list[list[FoundRow]]
    """Rows along which the step rises, which may be a history or runs of their own."""


def last_of_runs(rows: Sequence[FoundRow], choices: Mapping[str, ColumnChoice], names: Sequence[str]) -> Thinned:
    """The rows without those of earlier steps of the same run.

    Rows may be of one run where they have one name (or none), size, domain, seed and setting, and the step rises from
    row to row. They clearly are where one of these holds: the step is W&B's own; the name is a run's; some rows lack a
    loss; the learning rate changes; or there are many, `_MANY_EVEN` at even distances and `_MANY` at others. Without a
    column of steps, tokens that rise over `_MANY` rows are taken for steps.

    Args:
        rows: of runs that ended well.
        choices: column by field.
        names: every column.
    """
    column = step_column(names)
    step_of: Callable[[FoundRow], float] = (lambda row: _number(row.values.get(column))) if column else _tokens(choices)
    fewest = 2 if column else _MANY
    rates = [name for name in names if _RATE.search(plain_name(name))]
    earlier: list[FoundRow] = []
    unended: list[str] = []
    unclear: list[list[FoundRow]] = []
    for run in _runs(rows, choices, names, step_of, may_be_mixed=column is not None):
        with_loss = [row for row in run if has_loss(row, choices)]
        if len(with_loss) >= fewest:
            earlier += with_loss[:-1]
            if step_of(run[-1]) > step_of(with_loss[-1]):
                unended.append(with_loss[-1].run)
            is_clear = column == STEP or run[0].is_run_name or len(with_loss) < len(run) or _changes(run, rates)
            if not is_clear and not _are_many(list(map(step_of, run))):
                unclear.append(with_loss)
    dropped = set(map(id, earlier))
    return Thinned([row for row in rows if id(row) not in dropped], earlier, unended, unclear)


def _changes(run: Sequence[FoundRow], names: Sequence[str]) -> bool:
    return any(len({str(row.values[name]) for row in run if name in row.values}) > 1 for name in names)


def _are_many(steps: Sequence[float]) -> bool:
    """Whether there are more rising steps than anybody would have trained runs for."""
    gaps = np.diff(steps)
    is_even = len(gaps) > 0 and np.mean(np.abs(gaps - np.median(gaps)) <= 0.02 * np.median(gaps)) >= 0.75
    return len(steps) >= (_MANY_EVEN if is_even else _MANY)


def has_loss(row: FoundRow, choices: Mapping[str, ColumnChoice]) -> bool:
    """Whether a row says any loss."""
    return any(not is_nothing(row.values.get(column)) for _, column in losses_of(row, choices))


def _runs(
    rows: Sequence[FoundRow],
    choices: Mapping[str, ColumnChoice],
    names: Sequence[str],
    step_of: Callable[[FoundRow], float],
    *,
    may_be_mixed: bool,
) -> list[list[FoundRow]]:
    """Groups of rows along which the step rises: in their own order, or by the step where that order is mixed."""
    settings = [name for name in names if _SETTING.search(plain_name(name))]
    alike: dict[tuple[str, ...], list[FoundRow]] = {}
    for row in rows:
        if not math.isnan(step_of(row)):
            key = [_raw(row, choices, field) for field in ("n_params", "domain", "seed", BASE, REPLAY_SHARE)]
            if _number(_raw(row, choices, "specialize_tokens")) > 0:
                key.append(_raw(row, choices, "pretrain_tokens"))  # a branch has left the trunk, and stays there
            named = row.run if row.is_named else ""
            alike.setdefault((named, *key, *(str(row.values.get(name)) for name in settings)), []).append(row)
    runs: list[list[FoundRow]] = []
    for group in alike.values():
        n_falls = sum(step_of(after) < step_of(before) for before, after in pairwise(group))
        is_mixed = may_be_mixed and n_falls > len(group) / 3  # the newest first, or in no order
        runs += _rising(sorted(group, key=step_of) if is_mixed else group, choices, step_of)
    return runs


def _rising(
    rows: Sequence[FoundRow], choices: Mapping[str, ColumnChoice], step_of: Callable[[FoundRow], float]
) -> list[list[FoundRow]]:
    """Rows cut where the step does not rise; two rows of one step stay together where Lightning writes both.

    It writes one row of training and one of evaluation, of which at most one has a loss.
    """
    runs: list[list[FoundRow]] = []
    for row in rows:
        before = runs[-1][-1] if runs else row
        is_same_step = step_of(row) == step_of(before) and not (has_loss(row, choices) and has_loss(before, choices))
        if runs and (step_of(row) > step_of(before) or is_same_step):
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _raw(row: FoundRow, choices: Mapping[str, ColumnChoice], field: str) -> str:
    choice = choices.get(field)
    return str(row.values.get(choice.column, "")) if choice and choice.column else ""


def _tokens(choices: Mapping[str, ColumnChoice]) -> Callable[[FoundRow], float]:
    counted = [choices[f] for f in ("pretrain_tokens", "specialize_tokens") if f in choices]
    columns = [choice.column for choice in counted if choice.column]
    return lambda row: sum(_number(row.values.get(column)) for column in columns) if columns else math.nan


def _number(value: object) -> float:
    try:
        return parse_quantity(value)
    except ValueError:
        return math.nan
