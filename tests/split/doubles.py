"""Laws whose parameters are known, so that split needs no fit here, and tables measured from them."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from raysplit.law import FORMS, Law, Support
from raysplit.law.law import Member

MEDIANS = {"E": 1.0, "A": 20.0, "a": 0.3, "B": 30.0, "b": 0.25, "d0": 1e5, "k": 5e4, "c": 0.2, "m": 0.03}
SUPPORT = Support(n_params=(14e3, 110e3), pretrain_tokens=(0.25e6, 4e6), specialize_tokens=(0.0, 1e6))


def law_of(theta: np.ndarray, *, form: str = "law-8", support: Support = SUPPORT, kind: type[Law] = Law) -> Law:
    """A law of one form with given parameters (n_draws, n_domains, P); its best guess is the mean of its draws'."""
    n_draws, n_domains, _ = theta.shape
    member = Member(form=FORMS[form], weight=1.0, theta=theta.mean(axis=0), draws=np.arange(n_draws), draw_theta=theta)
    return kind(
        domains=tuple(f"domain-{k}" for k in range(n_domains)),
        n_draws=n_draws,
        members=(member,),
        fits={form: {}},
        noise=np.full(n_domains, 0.01),
        pooling={},
        seed_noise=None,
        support=support,
    )


def known_theta(
    *, n_domains: int = 4, n_draws: int = 1, seed: int = 0, spread: float = 0.2, jitter: float = 0.02
) -> np.ndarray:
    """Parameters of law 8 (n_draws, n_domains, P): domains differ by ``spread`` (log sd), draws by ``jitter``."""
    rng = np.random.default_rng(seed)
    medians = np.array([MEDIANS[parameter.name] for parameter in FORMS["law-8"].parameters])
    centre = rng.normal(0, spread, (n_domains, medians.size))
    return medians * np.exp(centre + rng.normal(0, jitter, (n_draws, n_domains, medians.size)))


def known_law(*, n_domains: int = 4, n_draws: int = 1, seed: int = 0, spread: float = 0.2, jitter: float = 0.02) -> Law:
    """Law 8 with `known_theta`."""
    return law_of(known_theta(n_domains=n_domains, n_draws=n_draws, seed=seed, spread=spread, jitter=jitter))


def measured_table(
    law: Law,
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
