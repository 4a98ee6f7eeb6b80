"""Errors that a person caused and can mend: each names the file or field, the value and the valid choices."""

from collections.abc import Iterable
from difflib import get_close_matches


class RaysplitError(Exception):
    """Base of every error whose message is meant for the user; the command line prints it without a traceback."""


class SpaceError(RaysplitError):
    """A search space that cannot be read, or that asks for something impossible."""


class TableError(RaysplitError):
    """A table of runs with missing columns or impossible values."""


class CorpusError(RaysplitError):
    """A corpus that is missing, empty, damaged or too small."""


class CheckpointError(RaysplitError):
    """A checkpoint that is missing, or of another model."""


class StorageError(RaysplitError):
    """Storage that is missing, full, read-only or out of reach: no verdict on what was to be stored there."""


class LawError(RaysplitError):
    """A law that cannot be fitted, or a prediction that it cannot make."""


class UnknownValue(LawError):
    """A field of a question whose value is none of those that there are."""

    def __init__(self, field: str, what: str, value: object, known: Iterable[object]) -> None:
        self.field, self.value, self.choices = field, str(value), [str(choice) for choice in known]
        super().__init__(f"{field}: {unknown(what, value, self.choices)}")


class SplitError(RaysplitError):
    """A budget or a set of constraints that no split satisfies."""


class RunError(RaysplitError):
    """A run folder that cannot be written, or that belongs to another sweep."""


class NotStored(RunError, StorageError):
    """A record that the disk refused: nothing of it was stored, and the same again may well be."""


class LaneError(RaysplitError):
    """What machines did to a task, or to every lane: no verdict on a trial."""


class ExpertError(RaysplitError):
    """A model's folder that is missing, damaged or unlike the others beside it, or a text that it cannot take."""


class TaskError(RaysplitError):
    """An unknown task, or one whose data cannot be read or do not fit the models."""


class CutOff(RunError):
    """This command's own node of the Ray cluster is gone, and the command with it; the same command continues."""


class FolderTaken(RunError):
    """A run folder that another command has taken over from this one."""


class Unreadable(Exception):
    """Why a file or row cannot be read, in words; whoever reads the source decides whether to go on."""


def unknown(what: str, value: object, known: Iterable[object]) -> str:
    """Sentence for a value outside a set of choices, with the nearest choice when there is one."""
    choices = [str(k) for k in known]
    close = get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {str(value)!r}{hint}. Known: {', '.join(choices) or 'none'}"
