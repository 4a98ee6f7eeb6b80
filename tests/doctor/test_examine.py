"""Nodes that leave while the doctor asks them."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, TaskUnschedulableError

from raysplit.doctor import examine

IDS = {"stays": "a" * 56, "goes": "b" * 56}


class FakeRay:
    """Two nodes, of which the second leaves when it is asked."""

    exceptions = SimpleNamespace(GetTimeoutError=GetTimeoutError)

    def __init__(self) -> None:
        self.left = False

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeManagerHostname": name, "NodeID": at, "Alive": name == "stays" or not self.left, "Resources": {}}
            for name, at in IDS.items()
        ]

    def remote(self, **_: Any) -> Any:
        return lambda function: SimpleNamespace(
            options=lambda scheduling_strategy: SimpleNamespace(
                remote=lambda call: (scheduling_strategy.node_id, function, call)
            )
        )

    def get(self, reference: Any, timeout: float) -> Any:
        at, function, call = reference
        if at == IDS["goes"]:
            self.left = True
            raise TaskUnschedulableError("the node does not exist any more")
        return function(call)


def test_one_that_has_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    monkeypatch.setattr(examine, "ray", fake)
    nodes = examine._nodes()
    assert set(nodes) == {"stays", "goes"}
    assert examine._on_nodes(nodes, dict.fromkeys(nodes, lambda: 7)) == [("stays", 7)]


def test_one_that_stays_and_gives_no_answer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "ray", FakeRay())
    nodes = examine._nodes()

    def fails() -> None:
        raise OSError("no disk")

    [(name, why)] = examine._on_nodes(nodes, {"stays": fails})
    assert name == "stays"
    assert isinstance(why, OSError)
