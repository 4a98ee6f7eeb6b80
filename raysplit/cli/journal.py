"""`raysplit journal`: look after the journal of a sweep."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote

import click

from raysplit import strict_json
from raysplit.cli.options import open_console, show
from raysplit.errors import RunError, unknown

_EXPORTS = ("csv", "parquet", "jsonl")


@click.group()
def journal() -> None:
    """Verify, export, repair or upgrade the journal of a sweep."""


@journal.command()
@click.argument("where", metavar="RUN|PATH|URL")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(where: str, as_json: bool) -> None:
    """Read a journal whole and say what it holds and what is damaged; nothing is changed.

    Give a run folder, or where a journal itself lies. Exit status 1 when something is damaged.
    """
    from raysplit.journal.repair import examine

    location = _location(where)
    found = examine(location)
    if as_json:
        show(json.dumps(asdict(found)))
        sys.exit(bool(found.damages))
    console = open_console()
    kinds = ", ".join(f"{n} {kind}" for kind, n in found.kinds.items())
    console.print(f"records: {found.n_records} ({kinds or 'none'}); batches: {found.n_batches}")
    fences = ", ".join(f"fence {fence}: {n}" for fence, n in found.fences.items())
    console.print(f"by opening: {fences or 'none'}")
    for damage in found.damages:
        where_in = f"byte {damage.byte}" + (f", {damage.n_bytes} bytes" if damage.n_bytes else "")
        console.print(f"{damage.file}: {damage.what} ({where_in})", style="red")
    if found.damages:
        console.print(f"damaged; `raysplit journal repair {quote(where)}` keeps everything that is intact")
        sys.exit(1)
    console.print("intact")


@journal.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--to", "to", required=True, type=click.Path(path_type=Path), help="File to write: .csv|.parquet|.jsonl")
def export(run: Path, to: Path) -> None:
    """Write the observations of a run as a flat table, one row each, also while it runs."""
    from raysplit.quantities import counted
    from raysplit.sweep.launch import read_service

    suffix = to.suffix.removeprefix(".")
    if suffix not in _EXPORTS:
        raise RunError(f"--to {to}: {unknown('format', suffix, _EXPORTS)}")
    if not to.parent.is_dir() or to.is_dir():
        raise RunError(f"{to}: cannot be written: {'it is' if to.is_dir() else f'{to.parent} is not'} a folder")
    frame = read_service(run).observations()
    try:
        if suffix == "csv":
            frame.to_csv(to, index=False)
        elif suffix == "parquet":
            frame.to_parquet(to, index=False)
        else:
            rows = frame.to_dict("records")
            to.write_text("".join(strict_json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{to}: cannot be written: {error.strerror or error}") from error
    open_console().print(f"{counted(len(frame), 'observation')} in {to}")


@journal.command()
@click.argument("where", metavar="RUN|PATH|URL")
def repair(where: str) -> None:
    """Make a damaged journal one that opens again: every intact record stays.

    Each damaged batch is first copied to a side file, BATCH.damaged-N. End the sweep before: a process that still
    writes the journal can write no more.
    """
    from raysplit.journal.repair import repair as repair_journal

    done = repair_journal(_location(where))
    console = open_console()
    if not done.lost and not done.set_aside:
        console.print(f"{done.n_records} records, none damaged; nothing was changed")
        return
    for side in done.set_aside:
        console.print(f"as it was: {side}")
    for lost in done.lost:
        console.print(f"lost: {lost}")
    console.print(f"{done.n_records} intact records kept; the journal opens again")


@journal.command()
@click.argument("where", metavar="RUN|PATH|URL")
def upgrade(where: str) -> None:
    """Make a journal that an older raysplit wrote one of this raysplit's format; end its sweep before."""
    from raysplit.journal.old import upgrade as upgrade_journal

    n_records = upgrade_journal(_location(where))
    open_console().print(f"{n_records} records; the journal opens again")


def _location(where: str) -> str:
    """A journal's location, also when its run folder was given."""
    from raysplit.journal import has_journal
    from raysplit.run_folder.folder import RunFolder

    folder = RunFolder(path=Path(where))
    return str(folder.journal) if "://" not in where and has_journal(folder.journal) else where
