"""`raysplit serve`: the law of a run over HTTP, with its page."""

import time
from pathlib import Path

import click

from raysplit.cli.options import closed_reading_option, open_console, run_argument

DEFAULT_ADDRESS = "127.0.0.1:8350"


@click.command()
@run_argument
@click.option("--http", "address", default=DEFAULT_ADDRESS, show_default=True, help="HOST:PORT, or PORT on loopback.")
@closed_reading_option
def serve(run_folder: Path, address: str, closed_reading: bool) -> None:
    """Serve the law of a RUN over HTTP, with a page to watch it and to ask it.

    While its sweep is live, its law actor serves, for as long as the sweep lasts; one that has ended is served from
    here until Ctrl-C, to read. Writing needs the token in RAYSPLIT_TOKEN.
    """
    from raysplit.live import beacon
    from raysplit.live.http_options import read_http_options

    http = read_http_options(address, open_reading=not closed_reading)
    console = open_console()
    if beacon.find(run_folder) is not None:
        from raysplit.live.client import connect

        url = connect(run_folder).serve_http(http)
        console.print(f"served by the sweep's law actor, as long as the sweep lasts: {url}", highlight=False)
        return
    from raysplit.live.http import serve_in_thread
    from raysplit.sweep.launch import read_service

    service, _, _ = read_service(run_folder)
    if not service.status().finished:
        console.print("this sweep is not running; its journal is shown as it was left")
    if service.status().n_observations:
        service.law()  # what is wrong with it shows here
    server = serve_in_thread(service, host=http.host, port=http.port, token=http.token, open_reading=http.open_reading)
    console.print(f"serving {run_folder} at {server.url}; Ctrl-C ends it", highlight=False)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("closed")
    finally:
        server.close()
