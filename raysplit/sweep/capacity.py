"""Trials for which no machine of the cluster has room: they would wait for ever, and the search with them."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray

_LOOK_SECONDS = 1.0

Bundle = Mapping[str, float]
_Shape = tuple[tuple[tuple[str, float], ...], ...]
"""Bundles that a trial asks for together."""


class Capacity:
    """Gives up trials that have long asked for more than the cluster has; it may grow in the meantime."""

    def __init__(self, *, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._since: dict[_Shape, float] = {}
        """What does not fit -> since when somebody waits for it. What was given up stays here until it fits."""
        self._looked = -_LOOK_SECONDS

    def given_up(self, trials: Iterable[Any]) -> Iterator[tuple[Any, str]]:
        """Those of Tune's waiting trials that are to be given up, each with the reason."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        waiting = [(trial, _shape_of(trial)) for trial in trials if trial.status == "PENDING"]
        wanted = {shape for _, shape in waiting}
        if not wanted and not self._since:
            return
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        lacking = {shape for shape in wanted.union(self._since) if not fits(map(dict, shape), nodes)}
        self._since = {
            shape: since
            for shape, since in self._since.items()
            if shape in lacking and (shape in wanted or now - since >= self._patience_seconds)
        }
        for trial, shape in waiting:
            if shape in lacking and now - self._since.setdefault(shape, now) >= self._patience_seconds:
                bundles = [dict(bundle) for bundle in shape]
                asked = {name for bundle in bundles for name in bundle}
                there = _words({name: node.get(name, 0.0) for name in asked} for node in nodes)
                yield trial, f"no room for {_words(bundles)} in {self._patience_seconds:g} s; the nodes have {there}"


def _shape_of(trial: Any) -> _Shape:
    return tuple(tuple(sorted(bundle.items())) for bundle in trial.placement_group_factory.bundles)


def fits(bundles: Iterable[Bundle], nodes: Iterable[Bundle]) -> bool:
    """Whether an idle cluster could hold the bundles, the largest first, each on the fullest node that takes it."""
    left = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=lambda b: -sum(b.values())):
        roomy = [node for node in left if all(node.get(name, 0.0) >= n for name, n in bundle.items())]
        if not roomy:
            return False
        node = min(roomy, key=lambda n: sum(n[name] for name in bundle))
        for name, n in bundle.items():
            node[name] -= n
    return True


def _words(bundles: Iterable[Bundle]) -> str:
    return ", ".join(" ".join(f"{n:g} {name}" for name, n in sorted(bundle.items())) for bundle in bundles) or "nothing"
