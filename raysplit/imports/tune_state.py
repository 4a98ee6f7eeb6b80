"""How the trials of a Ray Tune experiment ended, by the newest of its snapshots that can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.documents import parse_object, read_json


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A snapshot; its mappings have the names of the trials' folders as keys."""

    statuses: Mapping[str, str] = field(default_factory=dict)
    """How each trial ended, as Tune names it."""
    last_reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_state(experiment: Path) -> State:
    """The newest of ``experiment_state-*.json`` that can be read; an empty state where there is none."""
    damaged: list[str] = []
    for path in sorted(experiment.glob("experiment_state-*.json"), reverse=True):
        try:
            statuses, last_reports = _read(path)
        except (TableError, ValueError, TypeError, KeyError):
            damaged.append(path.name)
            continue
        notes = [f"{experiment}: {', '.join(damaged)} cut short or damaged; {path.name} taken"] if damaged else []
        return State(statuses=statuses, last_reports=last_reports, notes=notes)
    if not damaged:
        return State()
    way_out = "Tuner.restore(folder, trainable) writes it anew"
    return State(notes=[f"{experiment}: {', '.join(damaged)} cut short or damaged, and there is no other; {way_out}"])


def _read(path: Path) -> tuple[dict[str, str], dict[str, Mapping[str, Any]]]:
    statuses: dict[str, str] = {}
    last_reports: dict[str, Mapping[str, Any]] = {}
    for trial_text, metadata_text in read_json(path)["trial_data"]:
        trial, metadata = parse_object(trial_text), parse_object(metadata_text)
        name = str(trial["relative_logdir"])
        statuses[name] = str(trial["status"])
        if isinstance(last := metadata.get("last_result"), dict) and last:
            last_reports[name] = last
    return statuses, last_reports
