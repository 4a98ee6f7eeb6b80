"""A law with known parameters: law 8 of the provided forms written out once more, so that split needs no fit here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Support:
    pretrain_tokens: tuple[float, float] = (0.25e6, 4e6)


@dataclass(frozen=True)
class KnownLaw:
    """E + A N^-a + B N^m (D + d0)^-b (1 + D'/k)^-c; every parameter (n_draws, K)."""

    domains: tuple[str, ...]
    theta: dict[str, Array]
    support: Support = Support()

    @property
    def n_draws(self) -> int:
        return len(self.theta["E"])

    def _at(self, name: str, ndim: int) -> Array:
        value = self.theta[name]
        return value.reshape(value.shape[0], *(1,) * (ndim - 2), value.shape[1])

    def _parts(self, n: Array, d: Array, s: Array) -> tuple[dict[str, Array], Array]:
        t = {name: self._at(name, np.broadcast(n, d, s).ndim) for name in self.theta}
        data = t["B"] * n ** t["m"] * (d + t["d0"]) ** -t["b"] * (1 + s / t["k"]) ** -t["c"]
        return t, data

    def loss(self, n: Array, d: Array, s: Array) -> Array:
        t, data = self._parts(n, d, s)
        return t["E"] + t["A"] * n ** -t["a"] + data

    def slope(self, n: Array, d: Array, s: Array) -> Array:
        t, data = self._parts(n, d, s)
        return -t["c"] * data / (t["k"] + s)


MEDIANS = {"E": 1.0, "A": 20.0, "a": 0.3, "B": 30.0, "b": 0.25, "d0": 1e5, "k": 5e4, "c": 0.2, "m": 0.03}


def known_law(
    *, n_domains: int = 4, n_draws: int = 1, seed: int = 0, spread: float = 0.2, jitter: float = 0.02
) -> KnownLaw:
    """Domains that differ by ``spread`` (log sd) and draws that differ by ``jitter``."""
    rng = np.random.default_rng(seed)
    theta = {}
    for name, median in MEDIANS.items():
        centre = rng.normal(0, spread, n_domains)
        theta[name] = median * np.exp(centre + rng.normal(0, jitter, (n_draws, n_domains)))
    return KnownLaw(domains=tuple(f"domain-{k}" for k in range(n_domains)), theta=theta)
