"""How fast is the live law: ingest, advice during a refit, HTTP, refits? Beside each is the floor of the same run.

    .venv/bin/python benchmarks/live/live_actor.py            # some minutes on two cores
    .venv/bin/python benchmarks/live/live_actor.py --quick    # a tenth of the calls and of the load

Everything is real: a Ray cluster on this machine, the actor in a process of its own, its journal on this disk with one
fsync a batch. The eight clients of the latency figures are eight threads of one process, each waiting for its answer
before it asks again: on two cores eight processes would measure the scheduler. While they ask, 10,000 observations are
refitted without a pause: one more is reported as soon as the law has caught up. The rest of the 100,000 is loaded then.

The floor of a call is an actor call, or an HTTP route, that does nothing. Advice is asked for the target, whose answer
comes with each law. A budget that this law was not asked about before has to be searched, and has a line of its own.
"""

import argparse
import http.client
import json
import os
import platform
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import ray

from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.lanes.cluster import joined_cluster
from raysplit.live.actor import start_law_actor
from raysplit.live.client import LiveLaw, sent
from raysplit.live.questions import AskStamp
from raysplit.live.run_spec import RunSpec
from raysplit.runs import Observation, check_runs, to_frame
from raysplit.sweep.replay import spec_of_table

N_CLIENTS = 8
SIZES = (14_000, 36_000, 90_000, 230_000)
DOMAINS = ("code", "law", "medicine", "poetry")
BATCH = 500
_here = threading.local()


def observations(n: int) -> list[Observation]:
    """Of a synthetic law with one per cent of noise, every one of another run."""
    rng = np.random.default_rng(0)
    pretrain = np.geomspace(2.5e5, 1.6e7, 20).round().astype(int).tolist()
    specialize = [0, *np.geomspace(6e4, 4e6, 12).round().astype(int).tolist()]
    found = []
    for seed, d, s, size, k in product(range(10**6), pretrain, specialize, SIZES, range(len(DOMAINS))):
        if len(found) == n:
            return found
        loss = 1.6 + 0.1 * k + 9 * size**-0.3 * 4 + 30 * (d + 1e5) ** -0.26 * (1 + s / 4e4) ** -0.08
        loss *= float(np.exp(0.01 * rng.standard_normal()))
        found.append(
            Observation(n_params=size, pretrain_tokens=d, specialize_tokens=s, domain=DOMAINS[k], loss=loss, seed=seed)
        )
    raise AssertionError


def clients(call: Callable[[], object], n_calls: int) -> list[float]:
    """Milliseconds of each call, by `N_CLIENTS` threads that ask one after the other."""
    left, lock, times = iter(range(n_calls)), threading.Lock(), []

    def ask() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1e3)

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        for client in [pool.submit(ask) for _ in range(N_CLIENTS)]:
            client.result()
    return times


def told(times: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2), "calls": len(times)}


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def wait_for(ready: Callable[[], bool], *, seconds: float = 900) -> float:
    started = time.perf_counter()
    while not ready():
        if time.perf_counter() - started > seconds:
            raise TimeoutError("the law did not get there")
        time.sleep(0.005)
    return time.perf_counter() - started


def over_http(url: str, path: str) -> Callable[[], None]:
    """A GET on a connection that each thread keeps open."""
    host = url.removeprefix("http://")

    def get() -> None:
        connection = getattr(_here, "connection", None)
        if connection is None or connection.host + f":{connection.port}" != host:
            connection = _here.connection = http.client.HTTPConnection(host)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    return get


def fit_workers() -> list[int]:
    """The processes of the actors that fit."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::FitWorker"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def load(law: LiveLaw, rows: Sequence[Observation]) -> float:
    """Seconds that it takes to report them, one durable batch after the other."""
    started = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        law.observe(rows[first : first + BATCH])
    return time.perf_counter() - started


def fitted(law: LiveLaw, n: int, *, settled: bool = False) -> Callable[[], bool]:
    def ready() -> bool:
        stamp = law.stamp()
        return stamp is not None and stamp.n_observations >= n and (stamp.full or not settled)

    return ready


@contextmanager
def refitting(law: LiveLaw, rows: Sequence[Observation]) -> Iterator[list[int]]:
    """Keeps the law refitting: one more observation as soon as it has caught up; gives how many there were."""
    n_fed, stop = [0], threading.Event()

    def feed() -> None:
        while not stop.is_set():
            stamp = law.stamp()
            if stamp is not None and stamp.n_observations == stamp.n_known:
                law.observe([rows[n_fed[0]]])
                n_fed[0] += 1
            time.sleep(0.02)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield n_fed
    finally:
        stop.set()
        thread.join()


def measure(scale: float) -> dict[str, object]:
    n_small, n_large, n_calls = 1_000, 10_000, round(10_000 * scale)
    rows = observations(n_large + round(90_000 * scale))
    table = check_runs(to_frame(rows[:n_large]), origin="benchmark")
    spec = spec_of_table(table, budget_flops=1e14)
    found: dict[str, object] = {"observations": len(rows), "clients": f"{N_CLIENTS} threads of one process"}
    with tempfile.TemporaryDirectory() as folder, joined_cluster(None, address=None):
        actor = start_law_actor(
            "benchmark", RunSpec(spec=spec, bytes_per_token=dict.fromkeys(DOMAINS, 1.0)), Path(folder) / "journal",
            face=HttpFace(HttpOptions(host="127.0.0.1", port=0)),
        )  # fmt: skip
        law = LiveLaw(actor, timeout_seconds=300)
        url = ray.get(actor.serve.remote(HttpFace(HttpOptions(host="127.0.0.1", port=0))))
        pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))

        load(law, rows[:n_small])
        wait_for(fitted(law, n_small, settled=True))
        refits = []
        for n in range(n_small, n_small + 20):
            law.observe([rows[n]])
            refits.append(wait_for(fitted(law, n + 1)) * 1e3)
        found[f"refit after one more observation, at {n_small}"] = {
            "p50_ms": round(statistics.median(refits)), "worst_ms": round(max(refits)),
        }  # fmt: skip
        wait_for(fitted(law, n_small + 20, settled=True))

        answers = {
            "an actor call that asks for the stamp": lambda: ray.get(sent(actor, AskStamp())),
            "advice": law.advise,
            "an HTTP route that does nothing": over_http(url, "/healthz"),
            "advice over HTTP": over_http(url, "/v1/advise"),
        }
        budgets = iter(np.geomspace(1e12, 1e15, 10_000))
        found["advice on a question not asked before, idle"] = told(
            clients(lambda: law.advise(budget_flops=float(next(budgets))), max(20, n_calls // 50))
        )
        for name, call in answers.items():
            clients(call, 200)
            found[f"{name}, idle"] = told(clients(call, n_calls // 4))

        load(law, rows[n_small + 20 : n_large])
        with refitting(law, rows[n_large : n_large + 1000]) as n_fed:
            for name, call in answers.items():
                found[f"{name}, while {n_large} are refitted"] = told(clients(call, n_calls))
        n_large += n_fed[0]

        seconds = load(law, rows[n_large:])
        found["ingest"] = {"observations_per_s": round((len(rows) - n_large) / seconds), "batch": BATCH}
        wait_for(lambda: law.stamp().n_observations > n_large)
        found["memory"] = {
            "actor_mb": rss_mb(pid), "fit_workers_mb": [rss_mb(worker) for worker in fit_workers()],
        }  # fmt: skip
        version = law.stamp().version
        os.kill(pid, signal.SIGKILL)
        started = time.perf_counter()
        assert law.advise().law.version >= version
        found["answers again after kill -9"] = {"s": round(time.perf_counter() - started, 2)}
        assert law.status().n_observations == len(rows)
        ray.kill(actor)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls and of the load")
    found = measure(0.1 if parser.parse_args().quick else 1.0)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores")
    for name, value in found.items():
        print(f"{name:<64} {json.dumps(value) if isinstance(value, dict) else value}")


if __name__ == "__main__":
    main()
