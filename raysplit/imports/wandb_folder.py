"""Weights & Biases' own folder (``wandb``), with a folder ``run-DATE_TIME-ID`` or ``offline-run-DATE_TIME-ID`` a run.

A run that was synced has ``files/config.yaml`` and ``files/wandb-summary.json``. One that stayed offline may have
nothing but its log ``run-ID.wandb`` (W&B 0.31 leaves only that). The log is read where the package ``wandb`` is
installed. How a run ended stands in the log, and as an exit code in ``logs/debug.log``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.files import read_text
from raysplit.imports.documents import read_json, read_yaml
from raysplit.imports.found import Found, FoundRow, flatten, shown
from raysplit.imports.source import Source
from raysplit.imports.wandb_log import Log, can_read_logs, read_log

_FOLDER = re.compile(r"(offline-)?run-\d{8}_\d{6}-[^/]+")
_FILES = ("config.yaml", "wandb-summary.json")
_EXIT_CODE = re.compile(r"got exitcode: (-?\d+)")
_PARTS = re.compile(r"(^|/)((offline-)?run-\d{8}_\d{6}-[^/]+|artifacts|sweep-[^/]+)/|(^|/)(debug[^/]*\.log|settings)$")
_WAY_OUT = (
    "pip install wandb and import again; or send it to the server (wandb sync FOLDER) and give the runs table as CSV"
)


def recognises(source: Source) -> bool:
    """Whether a source is or holds the folder of a run, or is a file of one."""
    return bool(_runs(source))


def is_part(name: str) -> bool:
    """Whether a file that was not read is one of W&B's own, and no run."""
    return _PARTS.search(name) is not None


def read_folder(source: Source) -> Found:
    """One row a run, with its summary: the last value of every metric.

    Raises:
        TableError: every run has nothing but a log, and the package ``wandb`` is not installed.
    """
    runs = [_read_run(folder) for folder in _runs(source)]
    if runs and not any(run.values for run in runs) and not can_read_logs():
        raise TableError(f"{source.path}: has only logs of W&B (run-*.wandb), which its own package reads: {_WAY_OUT}")
    rows = [
        FoundRow(run=run.name, where=str(run.folder), values=dict(flatten(run.values)), unusable=run.unusable)
        for run in runs
    ]
    assumed = [run.name for run in runs if run.is_assumed]
    damaged = [source.name_of(path) for run in runs for path in run.damaged]
    return Found(
        kind="wandb",
        are_runs=True,
        origin=str(source.path),
        rows=rows,
        left_out={"damaged files of runs": damaged} if damaged else {},
        notes=[f"nothing says how {shown(assumed)} ended: taken as finished"] if assumed else [],
    )


@dataclass(kw_only=True, slots=True)
class _Run:
    folder: Path
    name: str
    values: dict[str, object] = field(default_factory=dict)
    """``config`` and ``summary``."""
    unusable: str = ""
    is_assumed: bool = False
    """Whether nothing says how it ended, so that it is taken as finished."""
    damaged: list[Path] = field(default_factory=list)


def _runs(source: Source) -> list[Path]:
    """Folders of runs, by any file in them."""
    found: set[Path] = set()
    for path in source.files:
        if not source.is_folder and path.name not in _FILES and path.suffix != ".wandb":
            continue
        inside = [parent for parent in path.parents if not source.is_folder or source.holds(parent)]
        named = [parent for parent in inside if _FOLDER.fullmatch(parent.name)]
        if named:
            found.add(named[-1])
        elif path.name in _FILES and path.parent.name == "files":
            found.add(path.parent.parent)
    return sorted(found)


def _read_run(folder: Path) -> _Run:
    run = _Run(folder=folder, name=folder.name)
    config, summary = folder / "files" / "config.yaml", folder / "files" / "wandb-summary.json"
    for name, path in (("config", config), ("summary", summary)):
        if path.exists():
            try:
                run.values[name] = _plain(read_yaml(path)) if name == "config" else read_json(path)
            except TableError:
                run.damaged.append(path)
    log = _log(folder)
    if log is not None:
        run.name = log.name or run.name
        run.values = {"config": log.config, "summary": log.summary} | run.values
    if run.damaged:
        run.unusable = "with damaged files"
    elif "summary" not in run.values:
        has_log = any(folder.glob("run-*.wandb"))
        run.unusable = f"with nothing but a log: {_WAY_OUT}" if has_log and log is None else "without a summary"
    else:
        code = log.exit_code if log is not None and log.has_ended else _exit_code(folder)
        run.is_assumed = code is None and (log is None or log.is_damaged)
        run.unusable = "" if code == 0 or run.is_assumed else "not finished" if code is None else "failed"
    return run


def _plain(config: Mapping[str, Any]) -> dict[str, object]:
    """Settings without the description around each, and without W&B's own."""
    found = {k: v["value"] if isinstance(v, Mapping) and "value" in v else v for k, v in config.items()}
    return {k: v for k, v in found.items() if k not in ("_wandb", "wandb_version")}


def _log(folder: Path) -> Log | None:
    """The log of a run; None where there is none, or W&B's package is not installed."""
    path = next(iter(sorted(folder.glob("run-*.wandb"))), None)
    return read_log(path) if path is not None and can_read_logs() else None


def _exit_code(folder: Path) -> int | None:
    try:
        found = _EXIT_CODE.findall(read_text(folder / "logs" / "debug.log"))
    except (OSError, ValueError):
        return None
    return int(found[-1]) if found else None
