"""The `raysplit` command and how it ends: a mended mistake is one line and status 2, Ctrl-C is status 130."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import click

import raysplit
from raysplit.cli import answer, cluster, evaluate, experts, journal, live, outside, serve, simulate, work
from raysplit.cli.options import say
from raysplit.errors import CutOff, FolderTaken, RaysplitError

_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What may come up wherever something is written."""


@dataclass(slots=True)
class _Stop:
    """Ctrl-C, noted as well as raised.

    A job manager's SIGTERM, or a terminal that goes away, gets the same orderly end; it may have stopped Ray's
    processes too. So what ends the command may be an error of a cluster that is going, in place of the
    KeyboardInterrupt, or because Python has dropped that in a destructor.
    """

    asked: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def _listening() -> Iterator[_Stop]:
    stop = _Stop()
    listened = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        listened.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in listened}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ending_in_order(stop: _Stop) -> Iterator[None]:
    """Whatever ends a command becomes a line and a status; only a defect of ours keeps its traceback."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError):
            _end_like_sigpipe()
        if isinstance(error, FolderTaken | CutOff):  # which stopped the command, and says more
            _end(str(error), status=2)
        if stop.asked or isinstance(error, KeyboardInterrupt):
            _end("stopped; everything measured is kept, and the same command continues", status=130)
        if isinstance(error, RaysplitError):
            _end(str(error), status=2)
        if isinstance(error, click.ClickException):
            with suppress(OSError):
                error.show(file=sys.stderr)
            sys.exit(error.exit_code)
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "raysplit":
            _end(f"this command needs the package {error.name}; install raysplit[train,report]", status=2)
        if isinstance(error, OSError) and error.errno in _OF_A_DISK:
            _end(f"{error.filename or 'a file or the output'}: cannot be written: {error.strerror}", status=2)
        raise


BY_PURPOSE = {
    "From runs that exist": ("import", "fit", "compare", "replay"),
    "A sweep, whole or step by step": ("run", "plan", "corpus", "tune", "sweep", "train", "report", "controls"),
    "Ask a sweep, or tell it": ("advise", "predict", "status", "watch", "observe", "serve"),
    "Use the experts": ("route", "generate", "eval"),
    "Machines": ("doctor", "submit", "resume", "stop", "simulate"),
    "Its memory": ("journal",),
}
"""Each command in its section of the help, in the order in which people meet them."""


class _Command(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in BY_PURPOSE.items():
            with formatter.section(title):
                width = formatter.width - formatter.current_indent - max(map(len, self.commands)) - 2
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that writes ASCII shows é as \\xe9
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _ending_in_order(_Stop()):  # --help and --version are answered here
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _listening() as stop, _ending_in_order(stop):
            return super().invoke(ctx)


def _end_like_sigpipe() -> NoReturn:
    """Whoever read the output has had enough, as `head` has: no word, and a shell's status for it."""
    with suppress(OSError, ValueError):  # what is still buffered
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _end(why: str, *, status: int) -> NoReturn:
    with suppress(OSError):  # a terminal that has gone
        say(why)
    sys.exit(status)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(raysplit.__version__, prog_name="raysplit")
def main() -> None:
    """How should a training budget be split between pretraining one seed model and specializing it into experts?

    raysplit answers by small runs. `raysplit run search_spaces/quickstart.yaml --out runs/quickstart` does the whole
    job; the other commands are its steps, and `raysplit fit` works on a table of runs alone.
    """


for command in (
    work.run,
    work.corpus,
    work.plan,
    work.tune,
    work.sweep,
    work.train,
    work.controls,
    work.report,
    experts.route,
    experts.generate,
    evaluate.evaluate,
    work.replay,
    simulate.simulate,
    cluster.doctor,
    cluster.submit,
    cluster.resume,
    cluster.stop,
    outside.import_,
    outside.observe,
    serve.serve,
    answer.fit,
    answer.compare,
    answer.advise,
    live.predict,
    live.status,
    live.watch,
    journal.journal,
):
    main.add_command(command)


def run() -> None:
    """The command as a process, which ends when the command has.

    Everything is on disk by then and Ray's processes are gone; what is left are threads of libraries, one of which has
    held a stopped command up for minutes (LOG 2026-11-30).
    """
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a reader that has gone
                stream.flush()
        os._exit(end.code)
