"""Fits behind the answers: failures that pass. Every table here is synthetic."""

import time

import pytest

from raysplit.errors import LawError, RunError
from raysplit.live.fitted import FitTarget, Fitted
from raysplit.live.fitting import FitJob, FitterHere
from raysplit.live.law_store import LawStore
from raysplit.live.laws_behind import LawsBehind
from raysplit.live.observations import ObservationTable, Reported
from raysplit.runs import Observation
from tests.design.doubles import PRETRAIN, SIZES, SPECIALIZE, spec
from tests.split.doubles import known_law

ASKED = spec()
TARGET = FitTarget(problem=ASKED.problem, step_tokens=ASKED.step_tokens, seed=0)


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


@pytest.mark.parametrize("failure", [RunError("the process that fits the law died twice"), ValueError("a bug"), None])
def test_a_failure_is_told_and_the_next_who_asks_gets_another_try(failure: Exception | None) -> None:
    error = failure or LawError("no form can be fitted")
    failures = [error, error]  # of the fit that nobody asked for, and for who asks

    class Failing(FitterHere):
        def __init__(self, table: ObservationTable, target: FitTarget, niceness: int) -> None:
            super().__init__(table, target)

        def fit(self, job: FitJob) -> Fitted:
            if failures:
                raise failures.pop(0)
            return super().fit(job)

    table = ObservationTable()
    table.add(rows(48))
    laws = LawsBehind(table, TARGET, LawStore(None, last_seq=47), make_fitter=Failing, quiet_seconds=60)
    try:
        while not laws.trouble():
            time.sleep(0.01)
        with pytest.raises((RunError, LawError), match=str(error)):
            laws.of_round(47)
        assert laws.of_round(47).n_observations == 48
        assert laws.trouble() == ""
    finally:
        laws.close()
