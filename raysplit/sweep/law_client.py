"""How searcher and scheduler talk to the law: the same calls to the actor or to a service in this process."""

from collections.abc import Collection
from typing import Any, Protocol

import ray
from ray.actor import ActorHandle

from raysplit.design.campaign import Verdict
from raysplit.design.tasks import Outcome
from raysplit.design.tree import Trial
from raysplit.live.service import Claim
from raysplit.sweep.causes import own_error


class LawClient(Protocol):
    """The part of `LawService` that a sweep's decisions need; the service itself is one."""

    def claim(self, running: Collection[Trial]) -> Claim: ...
    def judge(self, trial: Trial, milestone: int) -> Verdict: ...
    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None: ...


class ActorLaw:
    """The law actor as a `LawClient`."""

    def __init__(self, actor: ActorHandle) -> None:
        self.actor = actor

    def claim(self, running: Collection[Trial]) -> Claim:
        claim: Claim = _answer(self.actor.claim.remote(list(running)))
        return claim

    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None:
        _answer(self.actor.record.remote(trial, milestone, outcome))

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        verdict: Verdict = _answer(self.actor.judge.remote(trial, milestone))
        return verdict


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise own_error(error) or error from None
