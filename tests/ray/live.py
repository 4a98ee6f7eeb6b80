"""Observations for a live law actor, the law that an undisturbed one would come to, and how to kill it."""

import os
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.actor import ActorHandle

from raysplit.live.fitted import FitTarget
from raysplit.live.fitting import fit_fully
from raysplit.live.observations import Reported
from raysplit.live.run_spec import RunSpec
from raysplit.runs import Observation
from tests.design.doubles import spec
from tests.split.doubles import known_law

if TYPE_CHECKING:
    from raysplit.live.client import LiveLaw

ASKED = spec(policy="grid")
RUN = RunSpec(spec=ASKED, bytes_per_token=dict.fromkeys(ASKED.domains, 2.0))
_SIZES = (14_000, 36_000, 90_000)
_PATIENCE_SECONDS = 60


def observations(n: int) -> list[Observation]:
    """Of a known law, one per cent of noise, no two of one run."""
    law, rng = known_law(n_domains=len(ASKED.domains)), np.random.default_rng(0)
    pretrain = np.geomspace(2.5e5, 4e6, 12).round().astype(int).tolist()
    specialize = [0, *np.geomspace(1e5, 2e6, 7).round().astype(int).tolist()]
    grid = product(range(1 + n // 500), pretrain, specialize, _SIZES, range(len(ASKED.domains)))
    found = []
    for (seed, d, s, size, k), _ in zip(grid, range(n), strict=False):
        loss = float(law.loss([[size]], [[d]], [[s]])[0, k] * np.exp(0.01 * rng.standard_normal()))
        found.append(
            Observation(
                n_params=size, pretrain_tokens=d, specialize_tokens=s, domain=ASKED.domains[k], loss=loss, seed=seed
            )
        )
    return found


def undisturbed(rows: Iterable[Observation]) -> str:
    """The settled law of these observations, as JSON."""
    known = [Reported(seq=0, observation=row, own=False) for row in rows]
    target = FitTarget(problem=ASKED.problem, step_tokens=ASKED.step_tokens, seed=ASKED.seed)
    return fit_fully(known, 0, target, with_advice=False).law.to_json()


def settled(actor: ActorHandle, n_observations: int) -> str:
    """The actor's law once it has settled, as JSON."""
    end = time.monotonic() + 2 * _PATIENCE_SECONDS
    while True:
        stamp = law_of(actor).stamp()
        if stamp is not None and stamp.full and stamp.n_observations == n_observations:
            return law_of(actor).law(stamp.version).to_json()
        assert time.monotonic() < end, f"did not settle: {stamp}, {law_of(actor).status()}"
        time.sleep(0.1)


def stored(actor: ActorHandle) -> list[Observation]:
    frame = law_of(actor).observations()
    return [Observation(**{str(name): value for name, value in row.items()}) for row in frame.to_dict("records")]


def law_of(actor: ActorHandle) -> "LiveLaw":
    """That answers also while it starts again."""
    from raysplit.live.client import LiveLaw

    return LiveLaw(actor, timeout_seconds=_PATIENCE_SECONDS)


def pid_of(actor: ActorHandle) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=_PATIENCE_SECONDS))


def start(name: str, journal: Path, **options: Any) -> ActorHandle:
    from raysplit.live.actor import start_law_actor

    return start_law_actor(name, RUN, journal, **options)
