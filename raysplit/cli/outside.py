"""Commands for runs that raysplit did not start: import what other tools recorded, and give it to a sweep's law."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from raysplit.cli.options import as_is_option, once, open_console, read_table, say, show, sizes_of
from raysplit.errors import RunError

if TYPE_CHECKING:
    from raysplit.imports import Imported

_SHOWN = 3
"""Runs named of each reason for which some were left out."""


class _Pair(click.ParamType):
    """FIELD=SOMETHING."""

    name = "field=value"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        field, equals, rest = value.partition("=")
        if not equals or not field or not rest:
            self.fail(
                f"{value!r} is not FIELD={'COLUMN' if param and param.name == 'columns' else 'VALUE'}", param, ctx
            )
        return field, rest


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["csv", "wandb", "mlflow", "tune", "trainer", "tensorboard", "optuna"]),
    help="What wrote it (csv: any table); guessed when left out.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs.csv"),
    show_default=True,
    help="Table of runs to write, .csv or .parquet.",
)
@click.option(
    "--column",
    "columns",
    type=_Pair(),
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column is n_params, pretrain_tokens, specialize_tokens, domain, loss, seed, ...; repeat for several. "
    "Where each domain has a loss of its own: loss='eval/{domain}_loss'.",
)
@click.option(
    "--set",
    "constants",
    type=_Pair(),
    multiple=True,
    metavar="FIELD=VALUE",
    help="One value for every run, such as specialize_tokens=0 or domain=law; repeat for several.",
)
@click.option(
    "--all-points/--last-points",
    default=None,
    help="Whether every row of a history, or report of Ray Tune, is a measurement after a cooldown, or just each run's "
    "last; as the source shows when left out.",
)
@click.option("--encoding", metavar="NAME", help="Of a text that is neither UTF-8 nor UTF-16, such as cp1252.")
@click.option("--sheet", metavar="NAME", help="Of a workbook that has several.")
@as_is_option
def import_(
    source: Path,
    kind: str | None,
    out: Path,
    columns: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, str], ...],
    all_points: bool | None,
    encoding: str | None,
    sheet: str | None,
    as_is: bool,
) -> None:
    """Make a table of runs from what you have: any table (CSV, Excel, JSON, Parquet), or what a tool recorded.

    SOURCE is a file, or a folder of MLflow, W&B, Ray Tune, TensorBoard or Hugging Face's Trainer (docs/tools.md).
    Columns are guessed by their names and shown. Numbers may be written as 160M or 2B. Runs that crashed, diverged or
    have not ended are left out and counted, and so is every row of a run's history but its last.
    """
    from raysplit.doubts import warnings_about
    from raysplit.imports import import_runs

    if out.suffix not in (".csv", ".parquet"):
        raise RunError(f"--out {out}: must end with .csv or .parquet")
    if not out.absolute().parent.is_dir():
        raise RunError(f"--out {out}: {out.parent} is not a folder")
    if out.exists() and source.exists() and out.samefile(source):
        raise RunError(f"--out {out}: is the source itself")
    imported = import_runs(
        source,
        kind=kind,
        columns=once("--column", columns),
        constants=once("--set", constants),
        all_points=all_points,
        encoding=encoding,
        sheet=sheet,
    )
    for sentence in warnings_about(imported.runs, origin=str(source), as_is=as_is):
        say(f"warning: {sentence}")
    try:
        if out.suffix == ".csv":
            imported.runs.to_csv(out, index=False)
        else:
            imported.runs.to_parquet(out, index=False)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    _tell(imported, source, out, was_guessed=kind is None)


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("table", metavar="RUNS.csv|parquet", type=click.Path(path_type=Path))
@click.option(
    "--token", envvar="RAYSPLIT_TOKEN", help="Where RUN is a URL: the token that its server was started with."
)
@click.option(
    "--offline", is_flag=True, help="The run's live law is known to be gone, though its folder still tells of it."
)
@click.option("--json", "output", flag_value="json", default="table", help="Print what was stored as JSON.")
@as_is_option
def observe(run: str, table: Path, token: str | None, offline: bool, output: str, as_is: bool) -> None:
    """Give a table of runs to a sweep's law.

    RUN is a run folder or the URL of a live law. While the sweep runs its live law takes the table; afterwards it is
    written into the journal, and the results are written anew. Runs that are known already change nothing.
    """
    import json
    from dataclasses import asdict

    from raysplit.http.client import is_url

    if ":" in run and not is_url(run) and not Path(run).exists():
        raise RunError(f"{run}: there is no such run folder; the address of a live law begins with http:// or https://")
    runs = read_table(table, as_is=as_is, is_all=False)
    from raysplit.quantities import counted
    from raysplit.sweep.observe import observe_run, observe_server

    is_server = is_url(run)
    accepted, taker = observe_server(run, token, runs) if is_server else observe_run(Path(run), runs, offline=offline)
    if output == "json":
        show(json.dumps(asdict(accepted)))
    else:
        show(
            f"stored by {taker}: {accepted.n_new} new, {accepted.n_repeated} known already; it knows "
            f"{counted(accepted.n_known, 'run')} now"
        )


def _tell(imported: "Imported", source: Path, out: Path, *, was_guessed: bool) -> None:
    from raysplit.imports.found import kind_shown

    console = open_console()
    how = " (guessed; --kind says otherwise)" if was_guessed else ""
    console.print(f"{source}: read as {kind_shown(imported.kind)}{how}")
    table = Table("field", "from", "", box=None, padding=(0, 2))
    for field, choice in imported.choices.items():
        note = f", {choice.note}" if choice.note else ""
        table.add_row(field, choice.source, f"{choice.how}{note}")
    console.print(table)
    for reason, names in imported.skipped.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        said = f"left out {len(names)}: {reason} ({', '.join(names[:_SHOWN])}{more})"
        console.print(said)
    for note in imported.notes:
        console.print(f"note: {note}")
    console.print(f"{sizes_of(imported.runs)}: {out}")
