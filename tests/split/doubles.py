"""A law with known parameters: law 8 of the provided forms written out once more, so that split needs no fit here."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
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


def measured_table(
    law: KnownLaw,
    *,
    sizes: Sequence[int] = (14_000, 36_000, 110_000),
    pretrain_tokens: Sequence[float] = (0.25e6, 0.5e6, 1e6, 2e6, 4e6),
    specialize_tokens: Sequence[float] = (0, 0.125e6, 0.25e6, 0.5e6, 1e6),
    noise: float = 0.0,
    n_seeds: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """A full grid of runs as the first draw of the law would give them, with lognormal noise."""
    rng = np.random.default_rng(seed)
    keys = list(product(sizes, pretrain_tokens, specialize_tokens, law.domains, range(n_seeds)))
    runs = pd.DataFrame(keys, columns=["n_params", "pretrain_tokens", "specialize_tokens", "domain", "seed"])
    n, d, s = (runs[c].to_numpy(dtype=float)[None, :, None] for c in runs.columns[:3])
    own = [law.domains.index(name) for name in runs["domain"]]
    exact = law.loss(n, d, s)[0][np.arange(len(runs)), own]
    runs["loss"] = exact * np.exp(rng.normal(0, noise, len(runs)))
    return runs
