"""What the display says of lanes where no law counts trials, as in a final run, and of a cluster that is gone."""

import time
from io import StringIO

import pytest
from rich.console import Console

from raysplit.design.tasks import Task
from raysplit.design.tree import Trial
from raysplit.lanes.display import Display, describe_lanes
from raysplit.pool.pool_report import LaneReport
from tests.pool.simulated_cluster import footprint


def lane(state: str, task: Task | None = None, tokens: int = 0) -> LaneReport:
    return LaneReport(
        number=3, footprint=footprint(), addresses=(), state=state, task=task, tokens=tokens, loss=float("nan")
    )


def test_every_lane_has_a_word_whether_it_trains_or_not() -> None:
    trunk = Trial(n_params=28_000, seed=7, domain="", pretrain_tokens=10, milestones=(10,))
    said = describe_lanes([lane("training", Task(trial=trunk, milestone=0), 1_500_000), lane("starting")])
    assert said == "28k trunk seed 7 at 1.5M tokens, lane 3 starting"
    assert describe_lanes([]) == "no lane yet"


def test_a_cluster_that_is_gone_is_told_of_and_after_a_while_not_waited_for() -> None:
    class Gone:
        """A broker whose calls nobody answers."""

        class report:
            @staticmethod
            def remote() -> None:
                raise TimeoutError

    said = StringIO()
    display = Display(Console(file=said, width=200), law=None, broker=Gone(), title="sweep")
    display._heard = time.monotonic() - 20
    display._watch_once(lambda status, report: None)
    assert "the cluster has not answered for 20 s" in said.getvalue()
    display._heard = display._heard_lanes = time.monotonic() - 301
    with pytest.raises(KeyboardInterrupt):
        display._watch_once(lambda status, report: None)
    display._watch_once(lambda status, report: None)
