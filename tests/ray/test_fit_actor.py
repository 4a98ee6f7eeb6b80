"""The actors that fit the law, killed as a machine short of memory kills them."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from raysplit.errors import RaysplitError
from raysplit.live.fit_actor import FitActor
from raysplit.live.fitted import Fitted
from raysplit.live.fitting import FitJob, fit_fully
from raysplit.live.observations import ObservationTable
from tests.live.test_laws_behind import TARGET, rows

pytestmark = pytest.mark.usefixtures("ray_address")


@pytest.fixture
def table() -> ObservationTable:
    table = ObservationTable()
    table.add(rows(48))
    return table


@pytest.fixture
def fitter(table: ObservationTable) -> Iterator[FitActor]:
    fitter = FitActor(table, TARGET, 0)
    yield fitter
    fitter.close()


def kill(fitter: FitActor) -> None:
    assert fitter.worker is not None
    os.kill(ray.get(fitter.worker.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def test_a_worker_that_was_killed_while_idle_is_replaced(fitter: FitActor, table: ObservationTable) -> None:
    assert fitter.fit(FitJob(seq=47)).n_observations == 48
    kill(fitter)
    table.add(rows(4000)[48:])
    fitted = fitter.fit(FitJob(seq=59))
    assert fitted.n_observations == 60
    assert fitted.law.to_json() == fit_fully(table.until(59), 59, TARGET).law.to_json()


def test_a_worker_that_is_killed_in_mid_fit_is_replaced(fitter: FitActor) -> None:
    with pytest.raises(RaysplitError):
        fitter.fit(FitJob(seq=-1))  # of nothing; the worker is up
    assert fitter.worker is not None
    pid = ray.get(fitter.worker.__ray_call__.remote(lambda _: os.getpid()))
    found: list[Fitted] = []
    asking = threading.Thread(target=lambda: found.append(fitter.fit(FitJob(seq=47))))
    asking.start()
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    asking.join(120)
    assert found[0].n_observations == 48
