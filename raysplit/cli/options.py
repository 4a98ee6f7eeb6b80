"""Arguments that several commands share, and numbers as people write them."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from raysplit.errors import RaysplitError, RunError
from raysplit.files import read_text
from raysplit.quantities import counted, parse_count, parse_quantity, parse_share

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
NOT_TOLD = 3
"""Exit status of an answer of which something is withheld, where --strict was given."""

_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray's job API sets for the command of a job."""

_LOG_WIDTH = 140
"""Columns where no terminal says how many it has, so that tables in a log file are not cut."""


def show(text: str, *, err: bool = False) -> None:
    """Print as the terminal can write it: click by itself would send UTF-8 to one that says ASCII.

    Args:
        text: the command's own output.
        err: it is a word beside that.
    """
    click.echo(text, file=sys.stderr if err else sys.stdout)


def say(line: str) -> None:
    """A word beside the command's own output that must be told from what Ray and others write there."""
    show(f"raysplit: {line}", err=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the command ends as others do whose reader has gone


def open_console() -> Console:
    """The console that commands print to, every text as it is: a path or a domain may hold brackets and colons."""
    console = _Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _LOG_WIDTH
    return console


@contextmanager
def steps_shown(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Progress of long work: a bar for each step on a terminal, elsewhere a line; told a step and the share done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show_step(step: str, share: float) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=1.0)
                if not console.is_terminal:
                    console.print(f"  {step} ...")
            bar.update(tasks[step], completed=share)

        yield show_step


def read_json(path: Path, parse: Callable[[str], T]) -> T:
    """What ``parse`` makes of a file that raysplit wrote, which a shell may have put into UTF-16 since.

    Raises:
        RunError: the file cannot be read, or is not what ``parse`` expects; the message names it.
    """
    try:
        return parse(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except RaysplitError as error:
        raise RunError(f"{path}: {error}") from error


def read_table(path: Path, *, as_is: bool, is_all: bool) -> "pd.DataFrame":
    """A checked table of runs; what was assumed and what is doubted goes to the error stream.

    Args:
        path: of the table.
        as_is: take what seems impossible.
        is_all: an answer will rest on this table alone, so what it says nothing of is told too, and too many rows are
            thinned.

    Raises:
        TableError: the table is unusable, or says something impossible and not ``as_is``.
    """
    from raysplit.doubts import gaps_in, warnings_about
    from raysplit.runs import read_runs, thinned

    doubts: list[str] = []
    runs = read_runs(path, note=doubts.append)
    doubts += warnings_about(runs, origin=str(path), as_is=as_is)
    doubts += [f"{path}: {gap}" for gap in gaps_in(runs) if is_all]
    if is_all:
        runs, thinning = thinned(runs)
        doubts += [f"{path}: {thinning}"] if thinning else []
    for sentence in doubts:
        say(f"warning: {sentence}")
    return runs


def sizes_of(runs: "pd.DataFrame") -> str:
    """How much a table holds: ``1 run, 1 domain, 3 sizes``."""
    numbers = {"run": len(runs), "domain": runs["domain"].nunique(), "size": runs["n_params"].nunique()}
    return ", ".join(counted(n_things, thing) for thing, n_things in numbers.items())


class Quantity(click.ParamType):
    """A number such as 3e21, 250k or 7B."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = parse_quantity(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 < number < float("inf"):
            self.fail(f"must be positive and finite, got {value}", param, ctx)
        return number


class Share(click.ParamType):
    """A share of one, such as 0.02 or 2%."""

    name = "share"

    def __init__(self, *, may_be_zero: bool) -> None:
        self._may_be_zero = may_be_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            share = parse_share(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 <= share < 1 or (share == 0 and not self._may_be_zero):
            least = "from" if self._may_be_zero else "above"
            self.fail(f"must be {least} 0 and below 1, such as 0.02 or 2%, got {value}", param, ctx)
        return share


_POINTED = re.compile(r"[1-9]\d{0,2}\.000")
"""A count that in much of Europe is a thousand times as many; in a table it is read, and doubted."""


class Count(click.ParamType):
    """A whole number such as 2M; zero is allowed."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = parse_count(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if number < 0:
            self.fail(f"must not be negative, got {value}", param, ctx)
        if isinstance(value, str) and _POINTED.fullmatch(value.strip()):
            self.fail(f"{value!r} could be {number} or {value.strip().replace('.', '')}; write which", param, ctx)
        return number


class OfDomain(click.ParamType):
    """DOMAIN=NUMBER, such as law=2.5B."""

    name = "domain=number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        domain, equals, number = str(value).rpartition("=")
        if not equals or not domain:
            self.fail(f"{value!r} is not DOMAIN=NUMBER", param, ctx)
        return domain, QUANTITY.convert(number, param, ctx)


class ClusterNumbers(click.ParamType):
    """Numbers of clusters, such as 4,8,16."""

    name = "k[,k...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        numbers = [COUNT.convert(number, param, ctx) for number in str(value).split(",")]
        if min(numbers) < 2 or len(set(numbers)) < len(numbers):
            self.fail(f"{value!r}: give different numbers of clusters, each at least 2, such as 4,8,16", param, ctx)
        return tuple(numbers)


class RunOrUrl(click.ParamType):
    """A run folder as a path, or the address of a live law over HTTP as text."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        from raysplit.http.client import is_url

        if isinstance(value, Path):
            return value
        if is_url(value):
            return str(value)
        if ":" in value and not Path(value).exists():
            self.fail(f"{value!r}: there is no such folder; a live law's address begins with http:// or https://")
        return Path(value)


QUANTITY, COUNT, SHARE, OF_DOMAIN, KS, RUN_OR_URL = (
    Quantity(),
    Count(),
    Share(may_be_zero=False),
    OfDomain(),
    ClusterNumbers(),
    RunOrUrl(),
)

space_argument = click.argument("space_file", metavar="SPACE", type=click.Path(path_type=Path))
run_argument = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
asked_argument = click.argument("run_folder", metavar="RUN|URL", type=RUN_OR_URL)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Run folder; run again with the same one, a command continues.",
)


def once(option: str, pairs: Sequence[tuple[str, T]]) -> dict[str, T]:
    """What an option that is repeated says of each name.

    Raises:
        RunError: it says something of a name twice.
    """
    told: dict[str, T] = {}
    for name, value in pairs:
        if name in told:
            raise RunError(f"{option}: {name} is given twice, as {told[name]} and as {value}")
        told[name] = value
    return told


def _cluster_of_this_job() -> str | None:
    """The cluster that a Ray job runs on: a command in a job starts none inside it.

    Elsewhere RAY_ADDRESS counts for nothing: it may be left from another day, and a sweep would go there unasked.
    """
    return os.environ.get("RAY_ADDRESS") if _JOB_CONFIG in os.environ else None


ray_address_option = click.option(
    "--ray-address",
    default=_cluster_of_this_job,
    show_default="inside a Ray job, its cluster",
    help="Address of a running Ray cluster; `auto` for this node's. "
    "Without it, Ray runs on this machine for as long as the command.",
)
wait_option = click.option(
    "--wait-for-cluster",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for nodes where the cluster has no room for the smallest lane; an error at once without it.",
)
take_over_option = click.option(
    "--take-over",
    is_flag=True,
    help="Take the run folder from the command that holds it; that one ends, on whichever machine it runs.",
)
http_option = click.option(
    "--http",
    "http_address",
    metavar="HOST:PORT",
    help="Serve the sweep's law over HTTP, with its page, as long as the sweep lasts; PORT alone is on loopback. "
    "Writing needs the token in RAYSPLIT_TOKEN.",
)
closed_reading_option = click.option("--closed-reading", is_flag=True, help="Over HTTP, reading needs the token too.")

allow_host_option = click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="Another name of the server over HTTP, such as that of a proxy before it; repeat for several.",
)

version_option = click.option(
    "--version", type=click.IntRange(min=1), help="Version of the law, as answers name it; the latest when left out."
)

as_is_option = click.option(
    "--as-is",
    is_flag=True,
    help="Take the table's numbers as they are, where they seem impossible: fewer than 1,000 parameters or tokens, a "
    "loss above that of a model that knows nothing, losses that rise.",
)

strict_option = click.option(
    "--strict",
    "is_strict",
    is_flag=True,
    help=f"End with status {NOT_TOLD} where the runs do not tell all that the answer shows.",
)

AccountingName = Literal["shared", "per-expert"]

SeedsName = Literal["shared", "independent"]

seeds_option = click.option(
    "--seeds",
    type=click.Choice(["shared", "independent"]),
    help="shared: experts leave one seed; independent: the budget pays for a seed of each expert's own.",
)
accounting_option = click.option(
    "--accounting",
    type=click.Choice(["shared", "per-expert"]),
    help="shared: the budget pays for one seed and all experts; per-expert: for the seed and one expert.",
)
