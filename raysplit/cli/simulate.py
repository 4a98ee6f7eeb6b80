"""A sweep on machines that nobody has yet: what it would cost, how long it would take, and what would hold it up."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from raysplit import strict_json
from raysplit.cli.options import open_console, show, space_argument
from raysplit.simulation.rates import Rates

if TYPE_CHECKING:
    from raysplit.simulation.simulate import Simulated

_RATE = click.FloatRange(min=0, min_open=True)
_RATES = {
    "mtbf_hours": ("--mtbf", "Hours between failures of one node; 419 in 54 days of Llama 3's 2,048 nodes."),
    "spot_share": ("--spot", "Share of the nodes that are spot."),
    "spot_hours": ("--spot-hours", "Hours until a spot node is taken away; Google's preemptible ones live 24 at most."),
    "notice_seconds": ("--notice", "Seconds of notice before that; AWS gives 120, Google 30."),
    "queue_minutes": ("--queue", "Minutes from asking for a node until it has joined; assumed."),
    "idle_minutes": ("--idle", "Minutes without a lane after which a node is let go; as Ray's autoscaler has it."),
    "price": ("--price", "US dollars for an hour of a node; AWS's p5.48xlarge since June 2025."),
    "spot_price": ("--spot-price", "Likewise of a spot node; p5 in March 2026."),
    "start_seconds": ("--start", "Seconds until a lane trains; assumed."),
    "starts_at_once": ("--starts-at-once", "Lanes that start on a node as fast together as one alone; assumed."),
    "turn_seconds": ("--turn", "Seconds from an outcome until the trial's next task; LOG 2026-11-23."),
    "storage_bytes_per_second": ("--storage", "Bytes a second that the shared storage takes in all; assumed."),
    "node_bytes_per_second": ("--node-storage", "Likewise from one node; assumed."),
    "broker_calls_per_second": ("--broker-calls", "Calls a second of lanes to the broker; live_actor.txt, 2026-11-26."),
    "law_calls_per_second": ("--law-calls", "Likewise to the law."),
}
"""Field of `raysplit.simulation.rates.Rates` -> option and help, with where the default is from."""


def _rates_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gathers the rates into one argument ``rates``."""

    @functools.wraps(command)
    def gather(**options: Any) -> None:
        given = {name: options.pop(name) for name in _RATES}
        command(rates=Rates(**given), **options)

    for name, (option, meaning) in reversed(_RATES.items()):
        kind = click.FloatRange(0, 1) if name == "spot_share" else _RATE
        default = getattr(Rates(), name)
        gather = click.option(option, name, type=kind, help=meaning, default=default, show_default=True)(gather)
    return gather


@click.command()
@space_argument
@click.option("--nodes", "most_nodes", type=click.IntRange(min=1), required=True, help="The most that there may be.")
@click.option(
    "--lanes",
    "most_lanes",
    type=click.IntRange(min=1),
    help="The most at a time; as many as the nodes hold by default.",
)
@_rates_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of failures and losses.")
@click.option("--json", "output", flag_value="json", default="table", help="Print it as JSON, with nodes over time.")
def simulate(space_file: Path, most_nodes: int, most_lanes: int | None, rates: Rates, seed: int, output: str) -> None:
    """Play a sweep of SPACE to its answer on a cluster that grows, fails and costs, in simulated time.

    The search and the choice of machines are the real ones, the losses those of a made-up law (Chinchilla's). Nothing
    is trained, and no GPU is needed; times are reckoned from compute.gpu, as `raysplit plan` does.
    """
    from raysplit.cli.bases import with_counted_bases
    from raysplit.discover.spaces import expected_space
    from raysplit.simulation.simulate import simulate as play
    from raysplit.space import load_space

    space = expected_space(with_counted_bases(load_space(space_file)))
    went = play(space, most_nodes=most_nodes, most_lanes=most_lanes, rates=rates, seed=seed)
    if output == "json":
        show(strict_json.dumps(asdict(went)))
    else:
        _show(went)


def _show(went: "Simulated") -> None:
    table = Table("", "", box=None, padding=(0, 2), show_header=False)
    for what, said in (
        ("hours to the answer", f"{went.hours:.1f}"),
        ("observations", str(went.n_observations)),
        ("nodes, lanes at most", f"{went.most_nodes}, {went.most_lanes}"),
        ("node hours", f"{went.node_hours:,.0f}"),
        ("cost", f"${went.cost:,.0f}"),
        ("of the paid time: training that was kept", f"{went.trained_share:.1%}"),
        ("  saving", f"{went.saving_share:.1%}"),
        ("  lost with nodes", f"{went.lost_share:.1%}"),
        ("nodes that failed, that were taken away", f"{went.n_failures}, {went.n_taken}"),
        ("at the busiest: of the broker's calls", f"{went.broker_share:.1%}"),
        ("  of the law's", f"{went.law_share:.1%}"),
        ("  of the storage", f"{went.storage_share:.1%}"),
        ("longest look of the broker at lanes and nodes, here", f"{went.look_seconds:.2f} s of each second"),
    ):
        table.add_row(what, said)
    console = open_console()
    console.print(went.finished)
    console.print(table)
    full = {"the broker": went.broker_share, "the law": went.law_share, "the storage": went.storage_share}
    full |= {"the broker's look at the lanes": went.look_seconds}
    for name in (name for name, share in full.items() if share > 1):
        console.print(f"warning: {name} is asked for more than it can do; what is said above is too good to be true")
