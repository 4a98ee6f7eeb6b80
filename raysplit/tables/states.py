"""How runs ended, as trackers, schedulers and people write it into a column."""

import re
from collections.abc import Iterable

_COLUMNS = frozenset(f"{of}{name}" for of in ("", "run_", "trial_", "job_") for name in ("state", "status"))
_WELL_WORDS = """
    finished finish complete completed done ok okay success successful succeeded passed terminated ended converged final
    yes true
"""
_BAD_WORDS = """
    crash crashed fail failed failure fails error errored errors exception killed kill stopped aborted abort interrupted
    canceled cancelled running pending queued scheduled waiting resuming requeued suspended paused pruned diverged
    diverging nan inf unstable oom memory preempted preempting preemption timeout timed time_out deadline revoked
    deleted invalid bad broken unfinished incomplete partial skipped skip ignore excluded not no false
"""
_WELL, _BADLY = frozenset(_WELL_WORDS.split()), frozenset(_BAD_WORDS.split())
_SPLIT = re.compile(r"[^a-z0-9]+")


def state_column(names: Iterable[str]) -> str | None:
    """The column that says how each run ended: ``status``, ``State``, ``run_state``; its name tells."""
    return next((name for name in names if _SPLIT.sub("_", name.lower()).strip("_") in _COLUMNS), None)


def is_well(state: object) -> bool | None:
    """Whether a state is that of a run that ended well: COMPLETE, ``done``; None where the word is not known.

    ``CANCELLED by 1000`` and ``OOM at step 300`` are known by a word in them.
    """
    words = [word for word in _SPLIT.split(str(state).lower()) if word]
    if _BADLY.intersection(words) or "_".join(words) in _BADLY:
        return False
    return True if words and words[0] in _WELL else None
