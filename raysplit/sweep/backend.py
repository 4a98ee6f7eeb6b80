"""What carries out tasks: lanes on Ray, a table of known losses, or in tests a stand-in.

`raysplit.lanes.lanes.Lanes` and `raysplit.sweep.replay.KnownLosses` are backends; another one implements `Backend`,
and the promises in `tests/sweep/backends.py` say when it is right.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from raysplit.design.tasks import Outcome, Task
from raysplit.design.tree import Trial


class Recorder(Protocol):
    """Stores outcomes; `raysplit.live.service.LawService` is one."""

    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None: ...


class Backend(Protocol):
    """Carries out tasks, as many at a time as it can.

    A backend records an outcome, measured or failed, with the law before it hands it over; nobody else records it. The
    same task gives the same losses, whatever happened on the way. A task asked for twice at the same time is carried
    out once.
    """

    def submit(self, task: Task) -> Future[Outcome]:
        """Have a task carried out; the checkpoint that it starts from must have been trained.

        The future raises `LaneError` where machines are at fault, which says nothing about the trial, and `RunError`
        where the task cannot be carried out as it is set up.
        """

    def n_blocked(self) -> int:
        """How many tasks wait for machines of their size, while other machines are free."""

    def close(self) -> None:
        """Release the machines; futures that are still open, and later ones, raise `LaneError`."""


def run_all(backend: Backend, tasks: Sequence[Task]) -> list[Outcome]:
    """Have tasks carried out at the same time; outcomes in the order of the tasks.

    Raises:
        LaneError: machines were at fault.
        RunError: a task cannot be carried out as it is set up.
    """
    return [future.result() for future in [backend.submit(task) for task in tasks]]
