"""What a person watches during a sweep: a live table on a terminal, a line now and then in a log file."""

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raysplit.design.tasks import Task
from raysplit.live.answers import Status
from raysplit.live.client import LiveLaw
from raysplit.quantities import format_count, format_flops, format_seconds

_REFRESH_SECONDS = 0.5
_LOG_SECONDS = 20.0
_PATIENCE_SECONDS = 3.0


class Display:
    """Shows sweep and lanes from a thread of its own while a ``with`` block runs."""

    def __init__(self, console: Console, *, law: ActorHandle | None, broker: ActorHandle, title: str) -> None:
        self._console, self._broker, self._title = console, broker, title
        self._law = None if law is None else LiveLaw(law, timeout_seconds=_PATIENCE_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live if console.is_terminal else self._log, daemon=True)
        self._started = time.monotonic()
        self._n_deaths: dict[int, int] = {}
        """Of each lane, as told."""
        self._gone: set[int] = set()
        """Lanes of which it was told that they have ended for good."""

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _ask(self) -> tuple[Status | None, list[dict[str, Any]]]:
        lanes = self._broker.lanes.remote()
        # The law answers when its fit has ended; the terminal must be given back before that.
        status = self._law.status() if self._law is not None else None
        return status, ray.get(lanes, timeout=_PATIENCE_SECONDS)

    def _watch(self, seconds: float, show: Callable[[Status | None, list[dict[str, Any]]], None]) -> None:
        while not self._stop.wait(seconds):
            try:
                status, lanes = self._ask()
                self._tell_ends(lanes)
                show(status, lanes)
            except Exception:  # the display never ends a sweep; what is wrong shows where it happens
                continue

    def _tell_ends(self, lanes: list[dict[str, Any]]) -> None:
        for number, lane in enumerate(lanes):
            if lane["n_deaths"] > self._n_deaths.get(number, 0):
                self._n_deaths[number] = lane["n_deaths"]
                self._console.print(f"lane {number} has died and starts again: {lane['cause']}")
            if lane["gone"] and number not in self._gone:
                self._gone.add(number)
                self._console.print(f"lane {number} has ended for good, the others go on: {lane['cause']}")

    def _live(self) -> None:
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            self._watch(_REFRESH_SECONDS, lambda status, lanes: live.update(self._table(status, lanes)))

    def _log(self) -> None:
        self._watch(_LOG_SECONDS, lambda status, lanes: self._console.print(self._line(status, lanes)))

    def _table(self, status: Status | None, lanes: list[dict[str, Any]]) -> Group:
        table = Table("lane", "trial", "to", "tokens", "loss", title=None, expand=False, box=None, padding=(0, 2))
        for i, lane in enumerate(lanes):
            table.add_row(
                str(i),
                *describe_task(lane["task"]),
                format_count(lane["tokens"]),
                f"{lane['loss']:.3f}" if lane["loss"] == lane["loss"] else "",
            )
        return Group(Text(self._line(status, None), style="bold"), table)

    def _line(self, status: Status | None, lanes: list[dict[str, Any]] | None) -> str:
        elapsed = format_seconds(time.monotonic() - self._started)
        if status is None:
            busy = ", ".join(describe_task(lane["task"])[0] for lane in lanes or () if lane["task"])
            return f"{self._title}  {elapsed}  {busy}"
        budget = f" of {format_flops(status.budget_flops)}" if status.budget_flops < float("inf") else ""
        return (
            f"{self._title}  {elapsed}  round {status.round}: {status.n_trials - status.n_trials_left}/"
            f"{status.n_trials} trials, {status.n_observations} observations, "
            f"{format_flops(status.spent_flops)}{budget}, {status.n_stopped} stopped, {status.n_failed} failed"
        )


def describe_task(task: Task | None) -> tuple[str, str]:
    """A lane's task in words: the trial, and the milestone it is heading for."""
    if task is None:
        return "idle", ""
    trial = task.trial
    pretrain, specialize = trial.point(task.milestone)
    seed = f" seed {trial.seed}" if trial.seed else ""
    if trial.is_trunk:
        return f"{format_count(trial.n_params)} trunk{seed}", f"D = {format_count(pretrain)}"
    return f"{format_count(trial.n_params)} {trial.domain} from D = {format_count(pretrain)}{seed}", (
        f"D' = {format_count(specialize)}"
    )
