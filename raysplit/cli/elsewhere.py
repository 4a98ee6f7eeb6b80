"""Commands that ask about a run from outside its cluster: by the law's address, or by a job that asks there."""

import sys
from typing import Any

import click

from raysplit.cli.options import say, show
from raysplit.errors import RunError

_WORDS = "raysplit.words"


class AskedAnywhere(click.Command):
    """A command with the argument ``run_folder``; with --address it is run by a job on that cluster, and told here."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(
            click.Option(
                ["--address"],
                help="Of a cluster's dashboard, http://HEAD:8265: RUN lies there, and a job there asks.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        address = ctx.params.pop("address")
        if address is None:
            return super().invoke(ctx)
        run_folder = str(ctx.params["run_folder"] or "")
        if not run_folder.startswith("/"):
            raise RunError(f"{run_folder or 'RUN'}: with --address, an absolute path on the cluster is asked for")
        say_reaching(address)
        from raysplit.sweep.jobs import SubmittedJobs

        words = _without_address(ctx.meta[_WORDS])
        try:
            status = SubmittedJobs.at(address).ask(
                [str(ctx.info_name), *words], tell=show, tell_beside=lambda line: show(line, err=True)
            )
        except KeyboardInterrupt:
            say("no longer asking; the sweep goes on")
            status = 130
        sys.exit(status)


def say_reaching(address: str | None) -> None:
    """Say what is waited for, before Ray is loaded, which takes seconds."""
    say(f"asking the Ray dashboard {f'at {address}' if address else 'of this node'}")


def _without_address(words: list[str]) -> list[str]:
    """The command's words as they are said on the cluster itself."""
    kept, follows = list[str](), False
    for word in words:
        if not follows and word != "--address" and not word.startswith("--address="):
            kept.append(word)
        follows = word == "--address" and not follows
    return kept
