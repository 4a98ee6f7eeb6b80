"""The `raysplit` command and how it ends: a mended mistake is one line and status 2, Ctrl-C is status 130."""

import signal
import sys
from typing import Any

import click

import raysplit
from raysplit.cli import answer, journal, live, outside, serve, work
from raysplit.errors import RaysplitError


class _Command(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        # A terminal that goes away or a job manager that says stop gets the same orderly end as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except RaysplitError as error:
            click.echo(f"raysplit: {error}", err=True)
            sys.exit(2)
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] == "raysplit":
                raise
            needs = f"this command needs the package {error.name}; install raysplit[train,report]"
            click.echo(f"raysplit: {needs}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("raysplit: stopped; everything measured is kept, and the same command continues", err=True)
            sys.exit(130)


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
    work.report,
    work.replay,
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
