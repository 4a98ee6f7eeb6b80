"""The display of a sweep: a live table on a terminal, a line now and then in a log file."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

import ray
from ray.actor import ActorHandle
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raysplit.design.tasks import Task
from raysplit.live.answers import Status
from raysplit.live.client import LiveLaw
from raysplit.pool.pool_report import LaneReport, PoolReport
from raysplit.quantities import counted, format_count, format_flops, format_seconds

_REFRESH_SECONDS = 0.5
_LOG_SECONDS = 20.0
_PATIENCE_SECONDS = 3.0
_QUIET_AGAIN_SECONDS = 30.0
_DEAF_SECONDS = 15.0
_GONE_SECONDS = 300.0
"""After so long without a word from the broker nobody will answer any more; of its own raylet's death a command knows
sooner (`raysplit.lanes.own_raylet`)."""

_log = logging.getLogger(__name__)


class Display:
    """Shows sweep and lanes from a thread of its own while a ``with`` block runs."""

    def __init__(self, console: Console, *, law: ActorHandle | None, broker: ActorHandle, title: str) -> None:
        self._console, self._broker, self._title = console, broker, title
        self._law = None if law is None else LiveLaw(law, timeout_seconds=_PATIENCE_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live if console.is_terminal else self._log, daemon=True)
        self._started = time.monotonic()
        self._n_notices = 0
        """Notices that were printed."""
        self._told_quiet = self._told_deaf = -_QUIET_AGAIN_SECONDS
        self._heard = self._heard_lanes = self._started
        """When law and broker both answered last, and when the broker did."""

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _ask(self) -> tuple[Status | None, PoolReport]:
        report: PoolReport = ray.get(self._broker.report.remote(), timeout=_PATIENCE_SECONDS)
        self._heard_lanes = time.monotonic()
        # The law answers when its fit has ended; the terminal must be given back before that.
        status = self._law.status() if self._law is not None else None
        return status, report

    def _watch(self, seconds: float, show: Callable[[Status | None, PoolReport], None]) -> None:
        while not self._stop.wait(seconds):
            self._watch_once(show)

    def _watch_once(self, show: Callable[[Status | None, PoolReport], None]) -> None:
        try:
            status, report = self._ask()
            self._tell_news(report)
            show(status, report)
            self._heard = time.monotonic()
        except Exception as error:  # what is wrong shows where it happens
            _log.info("nothing to show: %r", error)
            self._tell_deafness()

    def _tell_news(self, report: PoolReport) -> None:
        """Print news, which is no part of the table: lanes that were lost, and why nothing happens."""
        if n_new := report.n_notices - self._n_notices:
            self._n_notices = report.n_notices
            for notice in report.notices[-n_new:]:
                self._console.print(notice)
        if report.quiet and time.monotonic() - self._told_quiet >= _QUIET_AGAIN_SECONDS:
            self._told_quiet = time.monotonic()
            self._console.print(report.quiet)

    def _tell_deafness(self) -> None:
        """Print that the cluster does not answer, and end the command if it goes on: else Ray might do so silently.

        A law that is silent alone ends nothing: it may wait for storage, which is away for longer at times.
        """
        now = time.monotonic()
        if now - self._heard >= _DEAF_SECONDS and now - self._told_deaf >= _QUIET_AGAIN_SECONDS:
            self._told_deaf = now
            self._console.print(
                f"the cluster has not answered for {format_seconds(now - self._heard)}: its head, or the node of the "
                "law, is away; should this command end, everything measured is kept, and the same command continues"
            )
        if now - self._heard_lanes >= _GONE_SECONDS:
            self._heard_lanes = math.inf  # once: a second Ctrl-C would not wait for the end to be in order
            os.kill(os.getpid(), signal.SIGINT)

    def _live(self) -> None:
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            self._watch(_REFRESH_SECONDS, lambda status, report: live.update(self._table(status, report)))

    def _log(self) -> None:
        self._watch(_LOG_SECONDS, self._print_line)

    def _print_line(self, status: Status | None, report: PoolReport) -> None:
        doing = describe_lanes(report.lanes) if status is None else ""
        self._console.print(self._line(status, report, doing))

    def _table(self, status: Status | None, report: PoolReport) -> Group:
        table = Table("lane", "trial", "to", "tokens", "loss", title=None, expand=False, box=None, padding=(0, 2))
        for lane in report.lanes:
            trial, to = describe_task(lane.task) if lane.task else (lane.state, "")
            table.add_row(
                str(lane.number), trial, to, format_count(lane.tokens),
                f"{lane.loss:.3f}" if lane.loss == lane.loss else "",
            )  # fmt: skip
        return Group(Text(self._line(status, report), style="bold"), table)

    def _line(self, status: Status | None, report: PoolReport, doing: str = "") -> str:
        elapsed = format_seconds(time.monotonic() - self._started)
        busy = "" if math.isnan(report.utilization) else f", machines {report.utilization:.0%} busy"
        if status is None:
            return f"{self._title}  {elapsed}  {doing}{busy}".rstrip()
        budget = f" of {format_flops(status.budget_flops)}" if status.budget_flops < float("inf") else ""
        return (
            f"{self._title}  {elapsed}  round {status.round}: {status.n_trials - status.n_trials_left}/"
            f"{counted(status.n_trials, 'trial')}, {counted(status.n_observations, 'observation')}, "
            f"{format_flops(status.spent_flops)}{budget}, {status.n_stopped} stopped, {status.n_failed} failed{busy}"
        )


def describe_lanes(lanes: Sequence[LaneReport]) -> str:
    """What each lane does and how far it is, in a line: a lane without a word would look like one that hangs."""
    doing = (
        f"{describe_task(lane.task)[0]} at {format_count(lane.tokens)} tokens" if lane.task
        else f"lane {lane.number} {lane.state}"
        for lane in lanes
    )  # fmt: skip
    return ", ".join(doing) or "no lane yet"


def describe_task(task: Task) -> tuple[str, str]:
    """A lane's task in words: the trial, and the milestone it is heading for."""
    trial = task.trial
    pretrain, specialize = trial.point(task.milestone)
    seed = f" seed {trial.seed}" if trial.seed else ""
    if trial.is_trunk:
        return f"{format_count(trial.n_params)} trunk{seed}", f"D = {format_count(pretrain)}"
    return f"{format_count(trial.n_params)} {trial.domain} from D = {format_count(pretrain)}{seed}", (
        f"D' = {format_count(specialize)}"
    )
