"""Machines of a simulated cluster: they are asked for, join, fail, are taken away with notice, let go, and paid for."""

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from raysplit.pool.placement import Footprint, Machine, Resources
from raysplit.simulation.rates import Rates

HOUR = 3600.0


@dataclass(slots=True)
class Clock:
    """Simulated time, in seconds, and what happens later."""

    now: float = 0.0
    _waiting: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def later(self, seconds: float, happen: Callable[[], None]) -> None:
        """Have something happen after so many seconds; at one moment, what was asked for first happens first."""
        heapq.heappush(self._waiting, (self.now + seconds, next(self._numbers), happen))

    def go_on(self) -> None:
        """Go to the next moment at which something happens, and have it happen."""
        self.now, _, happen = heapq.heappop(self._waiting)
        happen()
        while self._waiting and self._waiting[0][0] <= self.now:
            heapq.heappop(self._waiting)[2]()


@dataclass(kw_only=True, slots=True)
class SimulatedNode:
    """A node that has joined."""

    name: str
    is_spot: bool
    since: float
    leaves: bool = False
    idle_since: float | None = None


@dataclass(kw_only=True, slots=True)
class Machines:
    """The nodes of a cluster that grows as it is asked to, and shrinks when nobody uses it."""

    most_nodes: int
    resources: Resources
    """Resources of each node."""
    rates: Rates
    rng: np.random.Generator
    clock: Clock
    lost: Callable[[str], None]
    """Hears the name of a node that is gone without having been let go."""
    nodes: dict[str, SimulatedNode] = field(default_factory=dict)
    n_asked: int = 0
    """Nodes on their way."""
    n_failures: int = 0
    n_taken: int = 0
    """Spot nodes that were given notice."""
    most_at_once: int = 0
    _n_begun: int = 0
    _paid: float = 0.0
    _held_seconds: float = 0.0

    def ask(self, footprints: Iterable[Footprint]) -> None:
        """Have nodes join for lanes that find no room, if those on their way are not enough."""
        wanted = 0.0
        for footprint in footprints:
            each = (
                max(amount / self.resources[name] for name, amount in footprint.of_a_worker.items() if amount)
                * footprint.n_workers
            )
            wanted += max(each, footprint.n_nodes if footprint.n_nodes > 1 else 0.0)
        n_more = min(math.ceil(wanted - 1e-9) - self.n_asked, self.most_nodes - len(self.nodes) - self.n_asked)
        for _ in range(max(0, n_more)):
            self.n_asked += 1
            self.clock.later(self.rng.exponential(60 * self.rates.queue_minutes), self._join)

    def seen(self) -> list[Machine]:
        """The nodes as a broker sees them."""
        return [
            Machine(name=node.name, address=node.name, total=self.resources, free=self.resources, leaves=node.leaves)
            for node in self.nodes.values()
        ]

    def let_go(self, used: Collection[str]) -> None:
        """Let go of nodes on which no lane has been for `Rates.idle_minutes`; ``used`` names those that have one."""
        now = self.clock.now
        for node in list(self.nodes.values()):
            if node.name in used or node.leaves:
                node.idle_since = None
            elif node.idle_since is None:
                node.idle_since = now
            elif now - node.idle_since >= 60 * self.rates.idle_minutes:
                self._pay(self.nodes.pop(node.name))

    def bill(self) -> tuple[float, float]:
        """(US dollars, node seconds) until now."""
        for node in self.nodes.values():
            self._pay(node)
            node.since = self.clock.now
        return self._paid, self._held_seconds

    def _join(self) -> None:
        self.n_asked -= 1
        name = f"node{self._n_begun}"
        self._n_begun += 1
        # The share is met at every number of nodes.
        share = self.rates.spot_share
        is_spot = math.floor(self._n_begun * share) > math.floor((self._n_begun - 1) * share)
        self.nodes[name] = SimulatedNode(name=name, is_spot=is_spot, since=self.clock.now)
        self.most_at_once = max(self.most_at_once, len(self.nodes))
        self.clock.later(self.rng.exponential(HOUR * self.rates.mtbf_hours), lambda: self._fail(name))
        if is_spot:
            self.clock.later(self.rng.exponential(HOUR * self.rates.spot_hours), lambda: self._give_notice(name))

    def _fail(self, name: str) -> None:
        if name in self.nodes:
            self.n_failures += 1
            self._end(name)

    def _give_notice(self, name: str) -> None:
        if name in self.nodes:
            self.nodes[name].leaves = True
            self.n_taken += 1
            self.clock.later(self.rates.notice_seconds, lambda: self._end(name))

    def _end(self, name: str) -> None:
        if (node := self.nodes.pop(name, None)) is not None:
            self._pay(node)
            self.lost(name)

    def _pay(self, node: SimulatedNode) -> None:
        seconds = self.clock.now - node.since
        self._held_seconds += seconds
        self._paid += seconds / HOUR * (self.rates.spot_price if node.is_spot else self.rates.price)
