"""A live law to put behind a server: a synthetic sweep whose laws are weighed instead of fitted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raysplit.design.tasks import Measured
from raysplit.journal import Journal
from raysplit.law import Law
from raysplit.live import fitting
from raysplit.live.laws import LawsOnDemand
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.split import Choice, Problem
from tests.design.doubles import spec
from tests.live.doubles import true_losses, weighed_law

ASKED = spec(budget_flops=0.9e12, lanes=2)
TOKEN = "correct horse"


class LawsAtOnce(LawsOnDemand):
    """Fits as soon as something is measured, as a live actor does, but before the next thing happens."""

    def grew(self) -> None:
        self.latest()


@contextmanager
def opened(path: Path) -> Iterator[LawService]:
    """An empty service; its journal closes with the block."""
    laws: dict[bytes, tuple[Law, Choice]] = {}

    def fit(runs: pd.DataFrame, problem: Problem, **options: Any) -> tuple[Law, Choice]:
        content = pd.util.hash_pandas_object(runs.drop(columns=["wall_seconds"])).to_numpy().tobytes()
        if content not in laws:
            laws[content] = weighed_law(runs, problem, **options)
        return laws[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit_for_decision", fit)
        per_token = dict.fromkeys(ASKED.domains, 2.0)
        service = LawService(RunSpec(spec=ASKED, bytes_per_token=per_token), Journal(path), make_laws=LawsAtOnce)
        try:
            yield service
        finally:
            service.journal.close()  # type: ignore[union-attr]


def measure(service: LawService, n: int) -> int:
    """Measure at most ``n`` milestones, one trial after the other; returns how many there were."""
    losses, done = true_losses(ASKED), 0
    while done < n and (trial := service.claim().trial) is not None:
        for milestone in trial.milestones:
            service.record(trial, milestone, Measured(losses=losses(trial, milestone), tokens=0, wall_seconds=0.0))
            done += 1
            if not service.judge(trial, milestone).go_on or done == n:
                break
    return done
