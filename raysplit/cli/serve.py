"""`raysplit serve`: the law of a run over HTTP, with its page."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raysplit.cli.options import (
    allow_host_option,
    closed_reading_option,
    open_console,
    ray_address_option,
    say,
    take_over_option,
)
from raysplit.errors import RunError
from raysplit.http.options import DEFAULT_ADDRESS, HttpOptions, read_http_options

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("source", metavar="RUN|SPACE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder for a SPACE, whose journal it keeps.")
@ray_address_option
@click.option("--http", "address", default=DEFAULT_ADDRESS, show_default=True, help="HOST:PORT, or PORT on loopback.")
@closed_reading_option
@allow_host_option
@take_over_option
@click.option("--experts", is_flag=True, help="Serve the experts of RUN in place of its law: an OpenAI-compatible API.")
@click.option(
    "--keep-loaded",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Experts in memory at most; the one used longest ago goes.",
)
def serve(
    source: Path,
    out: Path | None,
    ray_address: str | None,
    address: str,
    closed_reading: bool,
    allowed_hosts: tuple[str, ...],
    take_over: bool,
    experts: bool,
    keep_loaded: int,
) -> None:
    """Serve the law of a RUN over HTTP, with a page to watch it and to ask it; or its experts, with --experts.

    Of a SPACE: a live law without a sweep, which learns from what is reported to it until Ctrl-C; nothing is trained.

    While a sweep is live, its own law actor serves, for as long as the sweep lasts. A sweep that has ended is served by
    this command until Ctrl-C, for reading alone. Writing needs the token in RAYSPLIT_TOKEN.
    """
    from raysplit.http.face import HttpFace  # brings the law along, which `--help` must not load
    from raysplit.live import endpoint

    if not source.exists():
        raise RunError(f"{source}: there is no such file or folder; give a run folder, or a space with --out")
    http = read_http_options(address, open_reading=not closed_reading, allowed_hosts=allowed_hosts)
    console = open_console()
    if experts:
        _serve_experts(source, http, console, keep_loaded=keep_loaded)
        return
    if source.is_file():
        if out is None:
            raise RunError("a SPACE needs a run folder: give --out")
        _serve_space(source, out, http, ray_address, console, take_over=take_over)
        return
    given = {"--out": out, "--ray-address": ray_address, "--take-over": take_over}
    if idle := [option for option, value in given.items() if value]:
        say(f"{source} is a run folder: {', '.join(idle)} not needed for it, and not used")
    run_folder = source
    if endpoint.find(run_folder) is not None:
        from raysplit.live.client import connect

        url = connect(run_folder).serve(HttpFace(http))
        own = not http.port or url.endswith(f":{http.port}")
        how = "served by" if own else "served already, and not elsewhere as well, by"
        console.print(f"{how} the sweep's law actor, as long as the sweep lasts: {url}")
        return
    from raysplit.sweep.launch import read_service

    service = read_service(run_folder)
    if not service.status().finished:
        console.print("this sweep is not running; its journal is shown as it was left")
    if service.status().n_observations:
        service.law()  # what is wrong with it shows here
    server = HttpFace(http).serve(service)
    console.print(f"serving {run_folder} at {server.url}; Ctrl-C ends it")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("closed")
    finally:
        server.close()


def _serve_experts(run_folder: Path, http: HttpOptions, console: "Console", *, keep_loaded: int) -> None:
    from raysplit.experts import ExpertSet
    from raysplit.experts.app import serve_experts

    expert_set = ExpertSet.open(run_folder, n_kept=keep_loaded)
    with serve_experts(
        expert_set, host=http.host, port=http.port, token=http.token, allowed_hosts=http.allowed_hosts
    ) as server:
        console.print(f"serving the experts of {run_folder} at {server.url}/v1; Ctrl-C ends it")
        while True:
            time.sleep(3600)


def _serve_space(
    space_file: Path,
    out: Path,
    http: HttpOptions,
    ray_address: str | None,
    console: "Console",
    *,
    take_over: bool,
) -> None:
    where = f"joining Ray at {ray_address}" if ray_address else "starting Ray on this machine"
    say(f"{where}, then the law of {space_file}; its address follows")  # before Ray is loaded, which takes seconds
    from raysplit.http.face import HttpFace
    from raysplit.live.client import connect
    from raysplit.sweep.serve import served

    with served(space_file, out, http=http, ray_address=ray_address, take_over=take_over, tell=say) as folder:
        url = connect(folder.path).serve(HttpFace(http))
        console.print(f"live law: raysplit.connect({str(folder.path)!r}), or `raysplit advise {shlex.quote(str(out))}`")
        console.print(f"over HTTP: {url}; Ctrl-C ends it, everything reported is kept")
        while True:
            time.sleep(3600)
