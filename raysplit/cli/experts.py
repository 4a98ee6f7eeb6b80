"""Commands that use the experts of a run: where a text goes, and what is written on from it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table

from raysplit.cli.options import open_console, run_argument, show
from raysplit.errors import ExpertError
from raysplit.files import read_text

if TYPE_CHECKING:
    from raysplit.experts import ExpertSet, Routing

_ROUTERS = ("centre", "likelihood", "label", "uniform")


class Top(click.ParamType):
    """How many experts are kept: a number from 1, or `all` (None)."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "all":
            return None
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither a number from 1 nor all", param, ctx)
        return int(value)


TOP = Top()

router_option = click.option(
    "--router",
    type=click.Choice(_ROUTERS),
    help="centre: nearest centre of the run's clusterer; likelihood: the experts' own, of the first 256 bytes; label: "
    "the domain given with --label; uniform: all alike. The centre where there is a clusterer, else the likelihood.",
)
top_option = click.option("--top", type=TOP, default="1", show_default=True, help="Experts to keep, or `all`.")
updated_option = click.option(
    "--updated", is_flag=True, help="Let the weights of a mixture follow the likelihood of what is read."
)
label_option = click.option("--label", default="", help="Domain of the text, for the router label.")
router_temperature_option = click.option(
    "--router-temperature", type=float, default=1.0, show_default=True, help="T of the weights exp(score / T)."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="Where the models run: auto, cpu, cuda, cuda:1."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["stored", "fp32", "bf16"]),
    default="stored",
    show_default=True,
    help="Precision of the weights in memory.",
)


@click.command()
@run_argument
@click.option("--text", "text_file", required=True, help="File with the text, or - for the standard input.")
@click.option("--lines", is_flag=True, help="Take every line as a text of its own.")
@router_option
@top_option
@label_option
@router_temperature_option
@device_option
@precision_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each text, one a line.")
def route(
    run_folder: Path,
    text_file: str,
    lines: bool,
    router: str | None,
    top: int | None,
    label: str,
    router_temperature: float,
    device: str,
    precision: Literal["stored", "fp32", "bf16"],
    as_json: bool,
) -> None:
    """Which experts of RUN a text goes to, by its first 256 bytes, and what that costs at inference."""
    from raysplit.experts import ExpertSet
    from raysplit.quantities import format_flops

    text = _text_of(text_file)
    texts = [line for line in text.split("\n") if line.strip()] if lines else [text]
    experts = ExpertSet.open(run_folder, device=device, precision=precision)
    how = _routing(experts, router, top, updated=False, temperature=router_temperature)
    routes = experts.route(texts, how, labels=[label] * len(texts) if label else ())
    if as_json:
        for found in routes:
            show(json.dumps(asdict(found)))
        return
    table = Table("text", "experts", "router, once", "a token", box=None, padding=(0, 2))
    for given, found in zip(texts, routes, strict=True):
        experts_ = ", ".join(f"{name} {weight:.3f}" for name, weight in found.weights.items())
        table.add_row(
            " ".join(given.split())[:40],
            experts_ + (" (fallback)" if found.is_fallback else ""),
            format_flops(found.router_flops),
            format_flops(found.flops_per_token),
        )
    open_console().print(table)


@click.command()
@run_argument
@click.option("--prompt", default="", help="Text to go on from; without one a document is begun.")
@click.option("--expert", help="Write with this expert, without a router.")
@router_option
@top_option
@updated_option
@label_option
@router_temperature_option
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="The most to write.")
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True, help="0 takes the likeliest token."
)
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw from the likeliest tokens of this share.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of what is drawn.")
@device_option
@precision_option
def generate(
    run_folder: Path,
    prompt: str,
    expert: str | None,
    router: str | None,
    top: int | None,
    updated: bool,
    label: str,
    router_temperature: float,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    device: str,
    precision: Literal["stored", "fp32", "bf16"],
) -> None:
    """Write on from a prompt with the experts of RUN that the router chooses, or with a mixture of them."""
    from raysplit.experts import ExpertSet, Sampling

    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    experts = ExpertSet.open(run_folder, device=device, precision=precision)
    how = expert or _routing(experts, router, top, updated=updated, temperature=router_temperature)
    found, pieces = experts.generate(prompt, how, sampling, label=label)
    show(", ".join(f"{name} {weight:.3f}" for name, weight in found.weights.items()), err=True)
    click.echo(prompt, nl=False)
    for piece in pieces:
        click.echo(piece.text, nl=False)
        sys.stdout.flush()
    click.echo()


def _routing(
    experts: "ExpertSet", router: str | None, top: int | None, *, updated: bool, temperature: float
) -> "Routing":
    from raysplit.experts import Routing

    name: Any = router or experts.default_routing().router
    return Routing(router=name, top=top, updated=updated, temperature=temperature)


def _text_of(text_file: str) -> str:
    if text_file == "-":
        return sys.stdin.read()
    try:
        return read_text(Path(text_file))
    except (OSError, UnicodeDecodeError) as error:
        raise ExpertError(f"{text_file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
