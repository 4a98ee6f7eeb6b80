"""Where should HTTP live: in the law actor's process, in a gateway actor, or under Ray Serve?

    .venv/bin/python benchmarks/live/http_placement.py

Eight clients ask for advice over HTTP, while observations come in and the law is refitted behind the answers. The law
is fitted to the measured surface. Ray Serve is left out where it is not installed (``pip install 'ray[serve]'``).

A line is a place, with answers a second and the median and 99th percentile of the latency. Beside it is an empty route
of the same server, which shows what the server itself takes.
"""

import argparse
import http.client
import math
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import ray
from pydantic import TypeAdapter

from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.live.actor import start_law_actor
from raysplit.live.answers import LiveAdvice
from raysplit.live.client import LiveLaw
from raysplit.live.run_spec import RunSpec
from raysplit.runs import Observation, read_runs
from raysplit.sweep.replay import spec_of_table

SURFACE = Path(__file__).parents[1] / "data" / "surface-2026-11-23.csv"
CLIENTS = 8
LOCAL = HttpOptions(host="127.0.0.1", port=0)


class Gateway:
    """An actor that serves and asks the law actor for every answer."""

    def __init__(self, law: Any) -> None:
        self._server = HttpFace(HttpOptions()).serve(LiveLaw(law))

    def url(self) -> str:
        return self._server.url


def under_serve(law: Any) -> str:
    """Start Ray Serve in front of the law; returns where."""
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import Response

    answer = TypeAdapter(LiveAdvice)

    @serve.deployment(num_replicas=1, max_ongoing_requests=32, ray_actor_options={"num_cpus": 0})
    class Face:
        def __init__(self, law: Any) -> None:
            self._law = LiveLaw(law)

        async def __call__(self, request: Request) -> Response:
            if request.url.path == "/healthz":
                return Response(b"ok\n")
            live = await self._law.aio.advise()
            return Response(answer.dump_json(live), media_type="application/json")

    serve.start(http_options={"host": "127.0.0.1", "port": 8351}, proxy_location="HeadOnly")
    serve.run(Face.bind(law))
    return "http://127.0.0.1:8351"


def times(url: str, path: str, seconds: float) -> np.ndarray:
    """Milliseconds of every answer that 8 clients get in so many seconds, each asking again as soon as answered."""
    host = urlsplit(url).netloc
    end = time.monotonic() + seconds

    def client(_: int) -> list[float]:
        link, out = http.client.HTTPConnection(host, timeout=60), []
        while time.monotonic() < end:
            began = time.perf_counter()
            link.request("GET", path)
            answer = link.getresponse()
            answer.read()
            out.append(1e3 * (time.perf_counter() - began))
            assert answer.status == 200, answer.status
        link.close()
        return out

    with ThreadPoolExecutor(CLIENTS) as pool:
        return np.concatenate(list(pool.map(client, range(CLIENTS))))


def keep_observing(law: LiveLaw, rows: list[Observation], stop: threading.Event) -> None:
    """Report the rows one by one, twice a second, so that a refit is always under way."""
    for row in rows:
        if stop.wait(0.5):
            return
        law.observe([row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="Of asking, for each line.")
    options = parser.parse_args()
    runs = read_runs(SURFACE)
    spec = spec_of_table(runs, budget_flops=1.5e12)
    rows = [
        Observation(**{str(k): v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))})
        for row in runs.to_dict("records")
    ]
    with tempfile.TemporaryDirectory() as folder:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        per_token = dict.fromkeys(spec.domains, 1.0)
        actor = start_law_actor(
            "placement",
            RunSpec(spec=spec, bytes_per_token=per_token),
            Path(folder) / "journal",
            face=HttpFace(LOCAL),
        )
        law = LiveLaw(actor)
        law.observe(rows[:400])
        while law.stamp() is None:
            time.sleep(0.2)
        stop = threading.Event()
        observing = threading.Thread(target=keep_observing, args=(law, rows[400:], stop), daemon=True)
        observing.start()
        first = law.stamp()
        assert first is not None
        gateway = ray.remote(num_cpus=0)(Gateway).remote(actor)
        places: dict[str, Callable[[], str]] = {
            "in the law actor": lambda: str(ray.get(actor.serve.remote(HttpFace(LOCAL)))),
            "in a gateway actor": lambda: str(ray.get(gateway.url.remote())),
        }
        try:
            from ray import serve  # noqa: F401

            places["under Ray Serve"] = lambda: under_serve(actor)
        except ModuleNotFoundError as error:
            print(f"Ray Serve is not installed (no {error.name})")
        print(f"{'':20}  {'route':10} {'answers/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'worst':>8}")
        for name, where in places.items():
            url = where()
            for path in ("/healthz", "/v1/advise"):
                found = times(url, path, options.seconds)
                p50, p99 = np.percentile(found, [50, 99])
                rate = len(found) / options.seconds
                print(f"{name:20}  {path:10} {rate:10.0f} {p50:8.1f} {p99:8.1f} {found.max():8.1f}", flush=True)
        last = law.stamp()
        assert last is not None
        print(f"{last.version - first.version} laws were fitted meanwhile, to up to {last.n_observations} observations")
        stop.set()
        observing.join()
        ray.shutdown()


if __name__ == "__main__":
    main()
