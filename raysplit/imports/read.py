"""Read a source, whichever tool made it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from raysplit.errors import TableError, unknown
from raysplit.files import suffix_of
from raysplit.imports import mlflow, optuna, plain, tensorboard, trainer, tune, wandb, wandb_folder
from raysplit.imports.columns import choose_columns
from raysplit.imports.found import Found
from raysplit.imports.rows import Imported, take_rows
from raysplit.imports.source import Source, look_into
from raysplit.imports.sqlite import databases_with
from raysplit.tables import SUFFIXES, read_table, unknown_format


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tool:
    """A tool that keeps runs in files of its own layout."""

    kind: str
    what: str
    """Its runs and how they are recognised, in words for messages."""
    recognises: Callable[[Source], bool]
    read: Callable[[Source, bool], Found]
    """Reads a source; the second argument says whether each report is a measurement."""
    is_part: Callable[[str], bool]
    """Whether a file, by its name below the source, belongs to the layout."""


_TOOLS = (
    _Tool(
        kind="tune",
        what="trials of Ray Tune (params.json beside result.json)",
        recognises=tune.recognises,
        read=lambda source, all_points: tune.read_tune(source, all_points=all_points),
        is_part=tune.is_part,
    ),
    _Tool(
        kind="mlflow",
        what="runs of MLflow (mlflow.db, or meta.yaml with a run_id)",
        recognises=mlflow.recognises,
        read=lambda source, _: mlflow.read_mlflow(source),
        is_part=mlflow.is_part,
    ),
    _Tool(
        kind="wandb",
        what="runs of W&B (run-* or offline-run-* with files/wandb-summary.json or run-*.wandb)",
        recognises=wandb_folder.recognises,
        read=lambda source, _: wandb_folder.read_folder(source),
        is_part=wandb_folder.is_part,
    ),
    _Tool(
        kind="trainer",
        what="runs of Hugging Face's Trainer (trainer_state.json)",
        recognises=trainer.recognises,
        read=lambda source, all_points: trainer.read_trainer(source, all_points=all_points),
        is_part=trainer.is_part,
    ),
    _Tool(
        kind="optuna",
        what="studies of Optuna (an SQLite storage)",
        recognises=optuna.recognises,
        read=lambda source, _: optuna.read_optuna(source),
        is_part=optuna.is_part,
    ),
    _Tool(
        kind="tensorboard",
        what="event files of TensorBoard (events.out.tfevents.*)",
        recognises=tensorboard.recognises,
        read=lambda source, _: tensorboard.read_tensorboard(source),
        is_part=tensorboard.is_part,
    ),
)
"""In the order in which they are tried. A tool whose files also lie in the folders of others comes after those."""
_EXPORTS = {"wandb": wandb.read_wandb, "mlflow": mlflow.read_table_of_runs}
"""Readers of the tables that a tool exports, which are not its own layout."""
KINDS = ("csv", *(tool.kind for tool in _TOOLS))
"""The kinds of source that can be read; csv is any table."""


def import_runs(
    source: Path,
    *,
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    all_points: bool | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
) -> Imported:
    """Make a table of runs from what another tool recorded.

    Args:
        source: a file or folder, as docs/tools.md lists them.
        kind: one of `KINDS`; guessed when None.
        columns: column by field of `raysplit.imports.FIELDS`, where the guess would be wrong. The loss's column may
            hold ``{domain}``, where each domain has a column; a run with a domain of its own is then read on that
            alone.
        constants: value by field, the same for every run.
        all_points: True takes every row of a history, every report of Ray Tune and every evaluation of a Trainer as a
            measurement, and not each run's last alone. That is right only where each was made after a cooldown, since
            no other losses compare. False takes each run's last. None does so too, and refuses rows that could be a
            history or runs of their own.
        encoding: of a text table that is neither UTF-8 nor UTF-16, as Python names it.
        sheet: name of the sheet, of a workbook that has several.

    Raises:
        TableError: the source cannot be read, columns are missing or ambiguous, a value is impossible, or no run is
            usable.
    """
    kind = kind or ("csv" if encoding or sheet else guess_kind(source))
    found = _read(source, kind, all_points=bool(all_points), encoding=encoding, sheet=sheet)
    choices = choose_columns(found, columns=columns or {}, constants=constants or {})
    return take_rows(found, choices, all_points=all_points)


def guess_kind(source: Path) -> str:
    """The kind of a source, by its layout.

    Raises:
        TableError: there is no such file or folder, or no known tool has its layout.
    """
    looked = look_into(source)
    for tool in _TOOLS:
        if tool.recognises(looked):
            return tool.kind
    if looked.is_folder:
        raise TableError(f"{source}: {_unknown_folder(looked)}")
    if suffix_of(source) not in SUFFIXES:
        raise TableError(f"{source}: {unknown_format(source)}; or give {', '.join(tool.what for tool in _TOOLS)}")
    names = set(read_table(source).names)
    if {"run_id", "experiment_id"} <= names:
        return "mlflow"
    if {"Name", "State"} <= names or {"config", "summary"} <= names:
        return "wandb"
    return "csv"


def _read(path: Path, kind: str, *, all_points: bool, encoding: str | None, sheet: str | None) -> Found:
    if kind not in KINDS:
        raise TableError(unknown("kind of source", kind, KINDS))
    source = look_into(path)
    tool = next((tool for tool in _TOOLS if tool.kind == kind), None)
    if tool is not None and (source.is_folder or tool.recognises(source)):
        found = tool.read(source, all_points)
        return replace(found, left_out={**found.left_out, **_not_read(source, tool)})
    if tool is not None and not (kind in _EXPORTS and (source.is_folder or suffix_of(path) in SUFFIXES)):
        raise TableError(f"{path}: holds no {tool.what}")
    if source.is_folder:
        raise TableError(f"{path}: is a folder; of kind {kind} a file is read: {', '.join(SUFFIXES)}")
    if kind == "csv":
        return plain.read_plain(path, encoding=encoding, sheet=sheet)
    return _EXPORTS[kind](path)


def _not_read(source: Source, tool: _Tool) -> dict[str, list[str]]:
    """Files beside the tool's own, by why they were not read."""
    names = [source.name_of(path) for path in source.files] if source.is_folder else []
    above = source.path.absolute().name  # which says what a run's own folder is
    others = [name for name in names if not tool.is_part(f"{above}/{name}")]
    closed = [source.name_of(path) for path in source.closed]
    found = {
        f"files that are no {tool.what}; what is a run among them has to be given by itself": others,
        "folders that cannot be listed": closed,
    }
    return {reason: names for reason, names in found.items() if names}


def _unknown_folder(source: Source) -> str:
    known = "; ".join(tool.what for tool in _TOOLS)
    tables = [source.name_of(path) for path in source.files if suffix_of(path) in SUFFIXES]
    hint = f". Of its {len(tables)} tables give one, such as {tables[0]}" if tables else ""
    _, broken = databases_with(source, frozenset())
    hint += f". {'; '.join(broken)}" if broken else ""
    return f"holds nothing that is recognised, which would be: {known}{hint}"
