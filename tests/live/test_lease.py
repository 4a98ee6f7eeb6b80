"""A law actor ends some time after its driver."""

from pathlib import Path

from raysplit.live import endpoint
from raysplit.live.endpoint import Endpoint
from raysplit.live.lease import Lease, Renewals


def test_a_lease_that_nobody_renews_ends_the_actor_and_its_endpoint(tmp_path: Path) -> None:
    endpoint.write(tmp_path, Endpoint(actor="law", namespace="raysplit", address="127.0.0.1:6379"))
    ended: list[bool] = []
    Renewals(Lease(seconds=0.01, folder=tmp_path), end=lambda: ended.append(True)).watch()
    assert ended == [True]
    assert endpoint.read(tmp_path) is None


def test_a_renewed_lease_lasts_from_then_on(tmp_path: Path) -> None:
    times = iter([0.0, 5.0, 9.0, 14.0, 15.0])  # made, renewed, looked at three times
    waited: list[float] = []
    renewals = Renewals(Lease(seconds=10.0, folder=tmp_path), end=lambda: None, clock=lambda: next(times))
    renewals.renew()
    renewals.watch(sleep=waited.append)
    assert waited == [6.0, 1.0]
