"""The law as searcher, scheduler and lanes call it: the same calls to the law actor or to a service in this process."""

import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

import ray
from ray.actor import ActorHandle

from raysplit.design.campaign import Verdict
from raysplit.design.tasks import Outcome
from raysplit.design.tree import Trial
from raysplit.errors import NotStored
from raysplit.lanes.causes import own_error
from raysplit.live.service import Claim

_PATIENCE_SECONDS, _PAUSE_SECONDS = 600.0, 5.0
"""How long, and how often, a journal that cannot be written is tried again: somebody may mend a full disk."""


class LawClient(Protocol):
    """The part of `LawService` that a sweep's decisions need; the service itself is one."""

    def claim(self, running: Collection[Trial]) -> Claim: ...
    def judge(self, trial: Trial, milestone: int) -> Verdict: ...
    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None: ...


class ActorLaw:
    """The law actor as a `LawClient`; while its journal cannot be written, it is asked again, for ten minutes."""

    def __init__(self, actor: ActorHandle, *, while_waiting: Callable[[], object] = lambda: None) -> None:
        self.actor, self._while_waiting = actor, while_waiting

    def claim(self, running: Collection[Trial]) -> Claim:
        claim: Claim = self._ask(lambda: self.actor.claim.remote(list(running)))
        return claim

    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None:
        self._ask(lambda: self.actor.record.remote(trial, milestone, outcome))

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        verdict: Verdict = self._ask(lambda: self.actor.judge.remote(trial, milestone))
        return verdict

    def _ask(self, ask: Callable[[], Any]) -> Any:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return ray.get(ask())
            except ray.exceptions.RayTaskError as error:
                ours = own_error(error)
                if not isinstance(ours, NotStored) or time.monotonic() > give_up:
                    raise ours or error from None
            self._while_waiting()
            time.sleep(_PAUSE_SECONDS)
