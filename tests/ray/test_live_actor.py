"""The law actor's processes killed in every way that clusters kill them: what was acknowledged is there, once."""

import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest
import ray
from ray.actor import ActorHandle

from raysplit.errors import RunError
from raysplit.live.client import LiveLaw
from raysplit.runs import Observation
from tests.conftest import LONG, REPOSITORY
from tests.ray import live

N_KILLS, N_CLIENTS, BATCHES_A_KILL, BATCH_ROWS = 20 if LONG else 6, 4, 8, 2


@pytest.fixture
def begin(ray_address: str, tmp_path: Path) -> Iterator[Callable[..., ActorHandle]]:
    """Start an actor on a journal of this test; ended with it."""
    actors: list[ActorHandle] = []

    def start(name: str) -> ActorHandle:
        actors.append(live.start(f"{name}-{tmp_path.name}", tmp_path / "journal"))
        return actors[-1]

    yield start
    for actor in actors:
        ray.kill(actor)


def assert_each_once(actor: ActorHandle, acknowledged: list[Observation]) -> list[Observation]:
    there = live.stored(actor)
    counts = Counter(observation.identity for observation in there)
    assert max(counts.values()) == 1, "some are there twice"
    assert {observation.identity for observation in acknowledged} <= counts.keys(), "some are lost"
    return there


@pytest.mark.timeout(400)
def test_killed_many_times_while_four_clients_report(begin: Callable[..., ActorHandle]) -> None:
    actor = begin("killed")
    rows = iter(live.observations(N_KILLS * BATCHES_A_KILL * BATCH_ROWS))
    acknowledged: list[Observation] = []
    lock, may_send = threading.Lock(), threading.Semaphore(0)

    def report() -> None:
        client = LiveLaw(actor)
        while True:
            may_send.acquire()
            with lock:
                batch = list(islice(rows, BATCH_ROWS))
            if not batch:
                return
            assert client.observe(batch).n_known > 0
            with lock:
                acknowledged.extend(batch)

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        clients = [pool.submit(report) for _ in range(N_CLIENTS)]
        pids, back_seconds = set(), []
        for number in range(N_KILLS):
            asked = time.monotonic()
            pids.add(pid := live.pid_of(actor))  # it answers again
            back_seconds.append(time.monotonic() - asked)
            may_send.release(BATCHES_A_KILL)
            enough = (number * BATCHES_A_KILL + number % BATCHES_A_KILL) * BATCH_ROWS
            end = time.monotonic() + 60
            while len(acknowledged) < enough:  # each kill at another moment of the burst
                assert time.monotonic() < end, [client.exception() for client in clients if client.done()]
                time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
        may_send.release(N_CLIENTS)
        for client in clients:
            client.result(timeout=120)
    assert len(pids) == N_KILLS
    # Within 5 s, says benchmarks/live/live_actor.py on a quiet machine; here only that nobody waits for a timeout.
    assert statistics.median(back_seconds) < 10, back_seconds
    assert len(acknowledged) == N_KILLS * BATCHES_A_KILL * BATCH_ROWS
    there = assert_each_once(actor, acknowledged)
    assert live.settled(actor, len(there)) == live.undisturbed(there)


def test_its_driver_is_killed(ray_address: str, begin: Callable[..., ActorHandle], tmp_path: Path) -> None:
    name, rows = f"orphan-{tmp_path.name}", live.observations(120)
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.ray.live_driver", ray_address, name, str(tmp_path / "journal")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert driver.stdout is not None
    n_acknowledged = 0
    while n_acknowledged < 30:
        n_acknowledged = int(driver.stdout.readline())
    driver.kill()
    n_acknowledged = max([n_acknowledged, *map(int, driver.communicate()[0].split())])
    actor = begin("orphan")
    there = assert_each_once(actor, rows[:n_acknowledged])
    assert len(there) <= n_acknowledged + 3
    live.law_of(actor).observe(rows)  # what the driver would have gone on with, and what it had
    assert len(assert_each_once(actor, rows)) == len(rows)
    assert live.settled(actor, len(rows)) == live.undisturbed(rows)


def test_two_actors_of_one_name_are_one(begin: Callable[..., ActorHandle]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(begin, ["same", "same"])
    assert live.pid_of(first) == live.pid_of(second)


def test_of_two_actors_on_one_journal_the_later_writes(begin: Callable[..., ActorHandle]) -> None:
    rows = live.observations(96)
    old = begin("old")
    LiveLaw(old).observe(rows[:60])
    new = begin("new")
    with pytest.raises(RunError):
        LiveLaw(old).observe(rows[60:70])
    LiveLaw(new).observe(rows[70:])
    there = assert_each_once(new, rows[:60] + rows[70:])
    assert len(there) == 86
    assert live.settled(new, 86) == live.undisturbed(there)


def test_a_disk_quota_refuses_and_later_takes_it(begin: Callable[..., ActorHandle], tmp_path: Path) -> None:
    actor, rows = begin("full"), live.observations(96)
    client = LiveLaw(actor)
    client.observe(rows[:48])
    live.settled(actor, 48)
    largest = max(path.stat().st_size for path in (tmp_path / "journal").rglob("*") if path.is_file())

    def limit(n_bytes: int) -> None:
        ray.get(actor.__ray_call__.remote(lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, -1))))

    limit(largest // 2)  # of a batch as large as the one before
    with pytest.raises(RunError, match="not stored"):
        client.observe(rows[48:])
    assert len(assert_each_once(actor, rows[:48])) == 48
    assert client.advise().law.n_known == 48
    limit(-1)
    client.observe(rows[48:])
    os.kill(live.pid_of(actor), signal.SIGKILL)
    there = assert_each_once(actor, rows)
    assert live.settled(actor, 96) == live.undisturbed(there)


def test_after_a_restart_it_answers_at_once_from_its_last_law(begin: Callable[..., ActorHandle]) -> None:
    actor, rows = begin("again"), live.observations(96)
    client = LiveLaw(actor)
    client.observe(rows)
    law = live.settled(actor, 96)
    before = client.advise()
    os.kill(live.pid_of(actor), signal.SIGKILL)
    after = client.advise()
    assert after.advice == before.advice
    assert after.law.version == before.law.version
    assert client.law().to_json() == law
