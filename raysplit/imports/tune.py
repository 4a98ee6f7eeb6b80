"""Ray Tune: experiment folders, one or several below a folder; Ray itself is not needed.

A trial's folder has ``params.json`` and ``result.json``, a line for each report; how the trial ended stands in the
experiment's ``experiment_state-*.json`` (seen with Ray 2.60), or shows by an ``error.txt`` of the trial.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.found import Found, FoundRow, flatten

_OWN = ("milestone_tokens", "pretrain_tokens", "specialize_tokens")
"""Reported by raysplit's own trials: every report of theirs is a measurement after its cooldown."""


def read_tune(folder: Path, *, all_points: bool) -> Found:
    """The last report of every trial that ended well, or all reports of all trials.

    Args:
        folder: an experiment, or a folder of experiments.
        all_points: take each report as a finished measurement. Trials of raysplit's own sweeps are read so anyway.

    Raises:
        TableError: a report cannot be read.
    """
    rows: list[FoundRow] = []
    is_own = False
    trials = sorted({path.parent for path in folder.rglob("params.json")})
    statuses = {experiment: _statuses(experiment) for experiment in {trial.parent for trial in trials}}
    for trial in trials:
        reports = _reports(trial / "result.json")
        own = bool(reports) and all(name in reports[-1][1] for name in _OWN)
        is_own |= own
        params = _json(trial / "params.json")
        if not reports:
            rows.append(FoundRow(run=trial.name, where=str(trial), values={}, unusable="reported nothing"))
        every = all_points or own
        for number, report in reports if every else reports[-1:]:
            values = {"config": params, **report}
            rows.append(
                FoundRow(
                    run=str(report.get("trial_id", trial.name)) if not own else _own_name(report),
                    where=f"{trial / 'result.json'}: line {number}",
                    values=dict(flatten(values)),
                    unusable="" if every else _ended(trial, statuses[trial.parent]),
                )
            )
    return Found(kind="tune", origin=str(folder), rows=rows, is_own=is_own)


def is_experiment(folder: Path) -> bool:
    """Whether a folder holds a trial of Ray Tune."""
    return any((path.parent / "result.json").exists() for path in folder.rglob("params.json"))


def _own_name(report: Mapping[str, Any]) -> str:
    return f"{report.get('trial_id')} at {report['milestone_tokens']}"


def _ended(trial: Path, statuses: Mapping[str, str]) -> str:
    """How a trial ended if not well."""
    if (trial / "error.txt").exists():
        return "crashed"
    status = statuses.get(trial.name, "TERMINATED")
    return {"TERMINATED": "", "ERROR": "crashed"}.get(status, status.lower())


def _statuses(experiment: Path) -> dict[str, str]:
    """By the name of the trial's folder, as the newest snapshot has it."""
    snapshots = sorted(experiment.glob("experiment_state-*.json"))
    if not snapshots:
        return {}
    found = {}
    for state, _ in _json(snapshots[-1]).get("trial_data", []):
        trial = json.loads(state)
        found[str(trial.get("relative_logdir"))] = str(trial.get("status"))
    return found


def _reports(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """(line number, report) of a trial; a last line that a crash cut short is left out."""
    return list(_parsed(path)) if path.exists() else []


def _parsed(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = _text(path).splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            report = json.loads(line)
            if not isinstance(report, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                return
            raise TableError(f"{path}: line {number} is no report of Tune: {error}") from error
        yield number, {name: value for name, value in report.items() if name != "config"}


def _json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(_text(path))
    except ValueError as error:
        raise TableError(f"{path}: is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise TableError(f"{path}: is no JSON object")
    return said


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: cannot be read: {error}") from error
