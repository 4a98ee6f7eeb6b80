"""Ray Tune: one experiment's folder, a folder with several, or one trial's folder; Ray itself is not needed.

A trial's folder has ``params.json``, and ``result.json`` with a line for each report. How the trial ended stands in the
experiment's ``experiment_state-*.json`` (seen with Ray 2.60). A trial that failed, was tried again and ended well keeps
its ``error.txt``. So that file counts only where no state tells how the trial ended.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.documents import read_json, read_lines
from raysplit.imports.found import Found, FoundRow, flatten, shown
from raysplit.imports.own_trials import is_own, measurements
from raysplit.imports.source import Source
from raysplit.imports.tune_state import State, read_state
from raysplit.tables import read_table

_PARTS = re.compile(
    r"(^|/)(params\.(json|pkl)|result\.json|progress\.csv|error\.(txt|pkl)|events\.out\.tfevents\.[^/]*|std(out|err)|"
    r"(tuner|trainer)\.pkl|[^/]*-state-[^/]*|[^/]*_state-[^/]*|(checkpoint_|rank_|artifacts)[^/]*/.*)$"
)
_COLUMNS = {"trial_id", "training_iteration", "time_total_s"}
"""Columns of every ``progress.csv``."""


def recognises(source: Source) -> bool:
    """Whether a source is or holds a trial of Ray Tune, or is a ``progress.csv``."""
    return bool(_trials(source))


def is_part(name: str) -> bool:
    """Whether a file that was not read is one of Ray Tune's own, and no run."""
    return _PARTS.search(name) is not None


def read_tune(source: Source, *, all_points: bool) -> Found:
    """The last report of every trial that ended well, or all reports of all trials.

    Args:
        source: an experiment, a folder of experiments, a trial's folder, or its ``result.json`` or ``progress.csv``.
        all_points: whether each report is a measurement after a cooldown. Those of raysplit's own trials always are.

    Raises:
        TableError: ``progress.csv``, given by itself, cannot be read.
    """
    folders = _trials(source)
    states = {experiment: read_state(experiment) for experiment in sorted({f.parent for f in folders})}
    trials = [_read_trial(folder, states[folder.parent]) for folder in folders]
    trials += [
        _Trial(folder=experiment / name, reports=_last_report(state, name), status=state.statuses[name])
        for experiment, state in states.items()
        for name in sorted(state.statuses)
        if source.holds(experiment / name) and experiment / name not in folders  # gone, or never made
    ]
    if _is_progress(source.path):
        trials = [replace(trial, reports=_rows_of_progress(source.path)) for trial in trials]
    damaged = [f"{source.name_of(t.path)}: line {line}" for t in trials for line in t.damaged_lines]
    return Found(
        kind="tune",
        are_runs=True,
        origin=str(source.path),
        rows=[row for trial in trials for row in _rows(trial, all_points=all_points)],
        loss_columns="loss_on_{domain}" if any(trial.is_own for trial in trials) else "",
        left_out={"damaged lines of result.json": damaged} if damaged else {},
        notes=[*(note for state in states.values() for note in state.notes), *_notes(trials)],
    )


def _trials(source: Source) -> list[Path]:
    """Folders of trials: those with two of the files of a trial, or with one and an experiment's state above."""
    if not source.is_folder:
        is_trial = source.path.name == "result.json" or _is_progress(source.path)
        return [source.path.parent] if is_trial else []
    found: dict[Path, set[str]] = {}
    for path in source.files:
        inside = source.name_of(path.parent)
        if path.name in ("params.json", "result.json", "progress.csv") and "checkpoint_" not in inside:
            found.setdefault(path.parent, set()).add(path.name)
    return [f for f, names in sorted(found.items()) if len(names) > 1 or any(f.parent.glob("experiment_state-*.json"))]


def _is_progress(path: Path) -> bool:
    if path.name != "progress.csv" or not path.is_file():
        return False
    try:
        return set(read_table(path).names) >= _COLUMNS
    except TableError:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    reports: Mapping[int, Mapping[str, Any]]
    """Reports by line of ``result.json``, the last one last; line 0 is a report that the experiment's state holds."""
    damaged_lines: Sequence[int] = ()
    status: str | None
    """How it ended, as Tune names it; None where no state tells."""

    @property
    def path(self) -> Path:
        return self.folder / "result.json"

    @property
    def last(self) -> Mapping[str, Any]:
        return list(self.reports.values())[-1] if self.reports else {}

    @property
    def is_own(self) -> bool:
        return bool(self.reports) and is_own(self.config, self.last)

    @property
    def ended(self) -> str:
        """How it ended; empty where it ended well."""
        if self.status is None:
            return "crashed" if (self.folder / "error.txt").exists() else ""
        return {"TERMINATED": "", "ERROR": "crashed"}.get(self.status, self.status.lower())


def _read_trial(folder: Path, state: State) -> _Trial:
    path = folder / "result.json"
    lines = dict(read_lines(path)) if path.exists() else {}
    reports: dict[int, Mapping[str, Any]] = {line: report for line, report in lines.items() if report is not None}
    last = _last_report(state, folder.name)
    if last and _iteration(last[0]) > max(map(_iteration, reports.values()), default=0):
        reports |= last
    try:
        config = read_json(folder / "params.json")
    except TableError:
        config = next((r["config"] for r in reports.values() if isinstance(r.get("config"), dict)), {})
    return _Trial(
        folder=folder,
        config=config,
        reports=reports,
        damaged_lines=[line for line, report in lines.items() if report is None],
        status=state.statuses.get(folder.name),
    )


def _last_report(state: State, name: str) -> dict[int, Mapping[str, Any]]:
    return {0: state.last_reports[name]} if name in state.last_reports else {}


def _rows_of_progress(path: Path) -> dict[int, Mapping[str, Any]]:
    """Rows of a trial's ``progress.csv``, by line; its names have slashes where ``result.json`` nests mappings."""
    return {line: row.cells for line, row in enumerate(read_table(path).rows, start=2)}


def _rows(trial: _Trial, *, all_points: bool) -> Iterator[FoundRow]:
    name = str(trial.last.get("trial_id", trial.folder.name))
    if not trial.reports:
        reason = trial.ended or "reported nothing"
        yield FoundRow(run=trial.folder.name, where=str(trial.folder), values={}, unusable=reason)
    elif trial.is_own:
        for line, (pretrain, specialize), values, failed in measurements(trial.config, trial.reports):
            run, where = f"{name} at {specialize or pretrain}", f"{trial.path}: line {line}"
            yield FoundRow(run=run, where=where, values=values, unusable="failed" if failed else "")
    elif all_points:
        # A trial that was tried again reports an iteration again.
        by_iteration = {_iteration(report) or -line: line for line, report in trial.reports.items()}
        for line in by_iteration.values():
            where = f"{trial.path}: line {line}"
            yield FoundRow(run=name, where=where, values=_values(trial, trial.reports[line]))
    else:
        yield FoundRow(run=name, where=str(trial.path), values=_values(trial, trial.last), unusable=trial.ended)


def _values(trial: _Trial, report: Mapping[str, Any]) -> dict[str, object]:
    config = trial.config or report.get("config", {})
    return dict(flatten({"config": config, **{name: value for name, value in report.items() if name != "config"}}))


def _notes(trials: Sequence[_Trial]) -> Iterator[str]:
    """Sentences on what is assumed of trials, and on reports that were taken from the experiment's state."""
    unknown = [t.folder.name for t in trials if t.status is None and t.reports and not t.ended and not t.is_own]
    if unknown:
        yield f"nothing says how {shown(unknown)} ended: without an error.txt taken as finished"
    completed = [trial.folder.name for trial in trials if 0 in trial.reports]
    if completed:
        yield f"the last report of {shown(completed)} is not in result.json, and is taken from the experiment's state"


def _iteration(report: Mapping[str, Any]) -> int:
    """A report's number in its trial, from 1; 0 where it does not tell."""
    try:
        return int(report.get("training_iteration", 0))
    except (TypeError, ValueError, OverflowError):
        return 0
