"""Fits behind the answers: processes that are killed, and failures that pass. Every table here is synthetic."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from raysplit.errors import LawError, RunError
from raysplit.live import refit
from raysplit.live.fit_process import FitProcess
from raysplit.live.fitting import Fitted, Target, fit_thoroughly
from raysplit.live.observations import ObservationTable, Reported
from raysplit.live.refit import LawsBehind
from raysplit.live.shelf import Shelf
from raysplit.runs import Observation
from tests.design.doubles import PRETRAIN, SIZES, SPECIALIZE, setup
from tests.split.doubles import known_law

ASKED = setup()
TARGET = Target(problem=ASKED.problem, step_tokens=ASKED.step_tokens, seed=0)


def rows(n: int) -> list[Reported]:
    law = known_law(n_domains=len(ASKED.domains))
    points = [(size, d, s) for d in PRETRAIN for s in (0, *SPECIALIZE) for size in SIZES]
    found = []
    for seq in range(n):
        k, (size, d, s) = seq % len(ASKED.domains), points[seq // len(ASKED.domains) % len(points)]
        loss = float(law.loss([[size]], [[d]], [[s]])[0, k]) * (1 + 0.001 * (seq % 7))
        seed = seq // (len(ASKED.domains) * len(points))
        found.append(
            Reported(
                seq=seq, own=True,
                observation=Observation(
                    n_params=size, pretrain_tokens=d, specialize_tokens=s, domain=ASKED.domains[k], loss=loss, seed=seed
                ),
            )
        )  # fmt: skip
    return found


@pytest.fixture
def table() -> ObservationTable:
    table = ObservationTable()
    table.add(rows(48))
    return table


@pytest.fixture
def process(table: ObservationTable) -> Iterator[FitProcess]:
    process = FitProcess(table, TARGET, niceness=0)
    yield process
    process.close()


def kill(process: FitProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


def test_a_process_that_was_killed_while_idle_is_replaced(process: FitProcess, table: ObservationTable) -> None:
    assert process.thorough(47).n_observations == 48
    kill(process)
    time.sleep(0.2)
    table.add(rows(4000)[48:])  # more than a pipe takes at once, so that some of it is never sent
    fitted = process.thorough(59)
    assert fitted.n_observations == 60
    assert fitted.law.to_json() == fit_thoroughly(table.until(59), 59, TARGET).law.to_json()


def test_a_process_that_is_killed_in_mid_fit_is_replaced(process: FitProcess) -> None:
    found: list[Fitted] = []
    asking = threading.Thread(target=lambda: found.append(process.thorough(47)))
    asking.start()
    while process.pid is None:
        time.sleep(0.01)
    time.sleep(0.1)
    kill(process)
    asking.join(120)
    assert found[0].n_observations == 48


class _Failing:
    """In place of `FitProcess`: fails as it is told to, then fits."""

    failures: ClassVar[list[Exception]] = []

    def __init__(self, table: ObservationTable, target: Target, *, niceness: int) -> None:
        self._table, self._target = table, target

    def thorough(self, seq: int) -> Fitted:
        if self.failures:
            raise self.failures.pop(0)
        return fit_thoroughly(self._table.until(seq), seq, self._target)

    quick: Any = None

    def close(self) -> None: ...


@pytest.mark.parametrize("failure", [RunError("the process that fits the law died twice"), ValueError("a bug"), None])
def test_a_failure_is_told_and_the_next_who_asks_gets_another_try(
    table: ObservationTable, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    monkeypatch.setattr(refit, "FitProcess", _Failing)
    error = failure or LawError("no form can be fitted")
    monkeypatch.setattr(_Failing, "failures", [error, error])  # for the fit that nobody asked for, and for who asks
    laws = LawsBehind(table, TARGET, Shelf(None, last_seq=47), settle_seconds=60)
    try:
        while not laws.trouble():
            time.sleep(0.01)
        with pytest.raises((RunError, LawError), match=str(error)):
            laws.of_round(47)
        assert laws.of_round(47).n_observations == 48
        assert laws.trouble() == ""
    finally:
        laws.close()
