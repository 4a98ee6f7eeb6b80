"""How runs ended, as trackers, schedulers and people write it into a column: a state, an exit code, or yes and no."""

import re
from collections.abc import Callable, Mapping, Sequence

from raysplit.tables.table import Row, is_nothing

EndColumns = Mapping[str, Callable[[object], bool | None]]
"""Columns that say how each run ended. Each has a function that says whether a cell means "well"; None: not known."""

_STATES = frozenset(
    f"{of}{name}"
    for of in ("", "run_", "trial_", "job_", "task_", "experiment_", "sys_")
    for name in ("state", "status")
)
_EXIT_CODES = frozenset(("exit_code", "exitcode", "return_code", "returncode"))
_WELL_FLAGS = frozenset(("finished", "completed", "complete", "done", "converged", "success", "succeeded"))
_BAD_FLAGS = frozenset(("failed", "sys_failed", "crashed", "diverged", "killed", "pruned", "aborted", "oom"))
_FLAG = {"true": True, "yes": True, "y": True, "1": True, "false": False, "no": False, "n": False, "0": False}

_WELL_WORDS = """
    finished finish complete completed done ok okay success successful succeeded passed terminated ended converged final
    published yes true
"""
_BAD_WORDS = """
    crash crashed fail failed failure fails error errored errors exception killed kill stopped stopping aborted abort
    interrupted interrupt canceled cancelled cancel canceling cancelling running active started starting restarting
    retrying progress pending queued queueing scheduled created draft planned todo configuring completing initializing
    resizing waiting resuming requeued suspended paused pruned diverged diverging nan inf unstable oom memory preempted
    preempting preemption evicted timeout timed time_out deadline revoked lost dead hung stuck signal segfault sigterm
    sigkill exit deleted invalid bad broken unfinished incomplete partial partially almost skipped skip ignore excluded
    not no false
"""
_WELL, _BADLY = frozenset(_WELL_WORDS.split()), frozenset(_BAD_WORDS.split())
_SHORT = """
    BF CA CF CG DL F NF OOM PD PR R RD RF RH RQ RS RV S SI SE SO ST TO
"""
_SLURM = {"CD": True, **dict.fromkeys(_SHORT.split(), False)}
"""Whether a run ended well, by its state in the short form of ``squeue``."""
_SIGNS = {**dict.fromkeys("✅✔✓☑🟢👍", " ok "), **dict.fromkeys("❌✖✗✘☠💀💥🔴🛑👎", " bad ")}
_SPLIT = re.compile(r"[^a-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def end_columns(names: Sequence[str], rows: Sequence[Row]) -> EndColumns:
    """The columns of a table that say how runs ended, as ``State``, ``exit_code`` or ``diverged`` do by their names."""
    found: dict[str, Callable[[object], bool | None]] = {}
    for name in names:
        plain = _SPLIT.sub("_", name.lower()).strip("_").removeprefix("is_").removeprefix("has_")
        if plain in _STATES:
            found[name] = is_well
        elif plain in _EXIT_CODES:
            found[name] = _is_zero
        elif plain in _WELL_FLAGS | _BAD_FLAGS and _are_flags(rows, name):
            found[name] = _flag if plain in _WELL_FLAGS else _is_no_flag
    return found


def bad_end(cells: Mapping[str, object], columns: EndColumns) -> tuple[str, object] | None:
    """The first (column, cell) that says that a run did not end well; None where there is none."""
    for name, judge in columns.items():
        cell = cells.get(name)
        if not is_nothing(cell) and judge(cell) is False:
            return name, cell
    return None


def is_well(state: object) -> bool | None:
    """Whether a state is that of a run that ended well: COMPLETE, ``done``; None where the word is not known.

    ``CANCELLED by 1000`` and ``OOM at step 300`` are known by one of their words, ``TrialState.COMPLETE`` by its last.
    A state that ``sacct`` has cut short (``OUT_OF_ME+``) counts as bad, unless its words tell: no good one is so long.
    """
    text = "".join(_SIGNS.get(letter, letter) for letter in str(state)).strip()
    if text in _SLURM:
        return _SLURM[text]
    words = [word for word in _SPLIT.split(_HUMP.sub(" ", text).lower()) if word]
    if _BADLY.intersection(words) or "_".join(words) in _BADLY:
        return False
    if words and not _WELL.isdisjoint((words[0], words[-1])):
        return True
    return False if text.endswith("+") else None


def _is_zero(code: object) -> bool | None:
    """Whether an exit code is zero: ``0``, or Slurm's ``0:0`` (code and signal); None where it is no code."""
    parts = re.fullmatch(r"(-?\d+)(?:\.0)?(?::(\d+))?", str(code).strip())
    return None if parts is None else not any(int(part) for part in parts.groups(default="0"))


def _are_flags(rows: Sequence[Row], name: str) -> bool:
    return all(is_nothing(cell := row.cells.get(name)) or _flag(cell) is not None for row in rows)


def _is_no_flag(cell: object) -> bool:
    return not _flag(cell)


def _flag(cell: object) -> bool | None:
    return _FLAG.get(str(cell).strip().lower().removesuffix(".0"))
