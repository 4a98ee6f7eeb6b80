"""What the reader of every tool gives: rows of named values, each with how its run ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

STEP = "_step"
"""W&B's own count of steps, in each row of a run's history."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRow:
    """One candidate for an observation."""

    run: str
    """What the tool calls the run."""
    where: str
    """File and row, for errors."""
    values: Mapping[str, object]
    """Values by name; parts of nested names are joined by dots, and empty values are left out."""
    unusable: str = ""
    """How the run ended, where it did not end well: crashed, still running."""
    is_named: bool = True
    """Whether the source names its runs; where it does not, ``run`` is the row's number."""
    is_run_name: bool = True
    """Whether rows with the same ``run`` are of one run; where not, ``run`` may be a model's name, which many have."""


def kind_shown(kind: str) -> str:
    """A kind of source in words: what ``--kind csv`` reads is any table, a workbook too."""
    return "a table" if kind == "csv" else kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A source, read and not yet interpreted."""

    kind: str
    origin: str
    rows: Sequence[FoundRow]
    loss_columns: str = ""
    """Pattern of the columns with the losses of each domain, with ``{domain}`` in it; empty where there are none."""
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of pieces that could not be read or are not the tool's, by reason."""
    notes: Sequence[str] = ()
    """What was assumed of the runs, in sentences."""
    objective: str = ""
    """The column of the tool's objective, which may be the loss."""
    are_runs: bool = False
    """Whether each row is a whole run, since the tool keeps histories elsewhere."""

    @property
    def names(self) -> list[str]:
        """Every column, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.values))

    def unusable(self) -> dict[str, list[str]]:
        """Pieces that could not be read and runs that did not end well, by reason."""
        found = {reason: list(pieces) for reason, pieces in self.left_out.items()}
        for row in self.rows:
            if row.unusable:
                found.setdefault(row.unusable, []).append(row.run)
        return found


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """(name, value) of nested mappings, names joined by dots.

    Empty values are left out, and so are names that begin with an underscore, except `STEP`.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if (str(key).startswith("_") and key != STEP) or value is None or value == "":
            continue
        if isinstance(value, Mapping):
            yield from flatten(value, prefix=f"{name}.")
        else:
            yield name, value


def shown(names: Sequence[str]) -> str:
    """How many there are, and the first few by name."""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
