"""Live laws for a training to talk to: one that answers, and ones that do not."""

import threading
from collections.abc import Sequence

from raysplit.errors import RunError, TableError
from raysplit.live.answers import Accepted, GoOn
from raysplit.runs import Observation


class FakeLaw:
    """Remembers what it is told; says stop of losses above a limit, and refuses domains that it does not know."""

    def __init__(self, *, limit: float = float("inf"), domains: Sequence[str] = ("law", "code")) -> None:
        self.limit, self.domains = limit, domains
        self.told: dict[str, Observation] = {}
        self.asked: list[Observation] = []
        self.is_down = False
        self.held: threading.Event | None = None
        """Answers wait for it."""

    def observe(self, observations: Sequence[Observation]) -> Accepted:
        self._check()
        for observation in observations:
            if observation.domain not in self.domains:
                raise TableError(f"unknown domain {observation.domain!r}")
        new = {o.identity: o for o in observations if o.identity not in self.told}
        self.told |= new
        return Accepted(n_new=len(new), n_repeated=len(observations) - len(new), n_known=len(self.told))

    def should_go_on(self, observation: Observation) -> GoOn:
        self._check()
        self.asked.append(observation)
        return GoOn(go_on=observation.loss <= self.limit, why=f"the limit is {self.limit:g}")

    def _check(self) -> None:
        if self.held is not None:
            self.held.wait()
        if self.is_down:
            raise RunError("the law actor has ended, with its sweep or its node: connect again, or ask the run folder")
