"""The page of the command line: every command with its usage, words and options."""

import inspect
from collections.abc import Iterator

import click

from docs.generators.docstrings import cell, one_line, table
from raysplit.cli.main import main

_INTRODUCTION = """\
# Command line

`raysplit COMMAND --help` shows the same. Numbers may be written as people write them ([Numbers](numbers.md)).

A command ends with status 0 when it has done its work, with 2 when something has to be mended (one line says what), and
with 130 when it was stopped. Status 3 is an answer of which a part is withheld, under `--strict`, or a final run that
nobody has agreed to. `doctor` ends with 1 where it has warnings alone, `journal verify` where the journal is damaged.
"""


def commands() -> str:
    return _INTRODUCTION + "".join(f"\n{section}" for section in _sections(main, "raysplit"))


def _sections(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _sections(inner, f"{name} {inner.name}")
        return
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    paragraphs = inspect.cleandoc(command.help or "").replace("\b", "").split("\n\n")
    words = "\n\n".join(cell(one_line(paragraph)) for paragraph in paragraphs)
    yield f"## `{name}`\n\n`{usage}`\n\n{words}\n\n{_options(command, context)}"


def _options(command: click.Command, context: click.Context) -> str:
    records = [param.get_help_record(context) for param in command.params if isinstance(param, click.Option)]
    rows = [[f"`{option}`".replace("|", "\\|"), cell(one_line(words))] for option, words in filter(None, records)]
    return table(["option", "what"], rows) if rows else ""
