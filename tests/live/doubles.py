"""A service whose law is not fitted but weighed, and lanes that finish in any order: whole sweeps in a fraction of a
second, every decision still resting on what was measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raysplit.design import candidates
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tasks import Measured
from raysplit.design.tree import Trial
from raysplit.design.value import Array, Belief, belief_of
from raysplit.journal import Journal
from raysplit.law import Law
from raysplit.live import fitting, law_answers
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.split import Advice, Choice, Problem, advise
from tests.split.doubles import known_law, known_theta, law_of

_PRIOR_DRAWS, _DRAWS = 64, 12
_NOISE = 0.1

Losses = Callable[[Trial, int], Mapping[str, float]]


def weighed_law(runs: pd.DataFrame, problem: Problem, **_: Any) -> tuple[Law, Choice]:
    """What `raysplit.split.fit_for_decision` gives, by weighing laws drawn beforehand instead of fitting one."""
    prior = known_theta(n_domains=len(problem.domains), n_draws=_PRIOR_DRAWS, jitter=0.15)
    n, d, s = (
        runs[c].to_numpy(dtype=float)[None, :, None] for c in ("n_params", "pretrain_tokens", "specialize_tokens")
    )
    own = [problem.domains.index(name) for name in runs["domain"]]
    foreseen = law_of(prior).loss(n, d, s)[:, np.arange(len(runs)), own]
    misfit = np.log(foreseen / runs["loss"].to_numpy())
    log_weights = -0.5 * ((misfit / _NOISE) ** 2).sum(axis=1)
    cumulative = np.cumsum(np.exp(log_weights - log_weights.max()))
    kept = np.searchsorted(cumulative, (np.arange(_DRAWS) + 0.5) / _DRAWS * cumulative[-1])
    law = replace(law_of(prior[kept]), domains=problem.domains)
    return law, Choice.forced("law-8", reason="it is a double")


def remember_laws(patch: pytest.MonkeyPatch) -> None:
    """Weigh laws instead of fitting them; reckon neither them nor what follows from one alone twice."""
    laws: dict[bytes, tuple[Law, Choice]] = {}
    beliefs: dict[int, Belief] = {}
    advices: dict[int, Advice] = {}

    def fit(runs: pd.DataFrame, problem: Problem, **options: Any) -> tuple[Law, Choice]:
        content = pd.util.hash_pandas_object(runs.drop(columns=["wall_seconds"])).to_numpy().tobytes()
        if content not in laws:
            laws[content] = weighed_law(runs, problem, **options)
        return laws[content]

    def believe(law: Law, problem: Problem, *points: Array) -> Belief:
        if id(law) not in beliefs:
            beliefs[id(law)] = belief_of(law, problem, *points)
        return beliefs[id(law)]

    def answer(law: Law, problem: Problem) -> Advice:
        if id(law) not in advices:
            advices[id(law)] = advise(law, problem)
        return advices[id(law)]

    patch.setattr(fitting, "fit_for_decision", fit)
    patch.setattr(fitting, "advise", answer)
    patch.setattr(law_answers, "advise", answer)
    patch.setattr(candidates, "belief_of", believe)


def open_service(spec: ResolvedSpec, path: Path) -> LawService:
    return LawService(RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 2.0)), Journal(path))


def true_losses(spec: ResolvedSpec) -> Losses:
    """Losses of a known (synthetic) law, one per cent of noise, the same for the same measurement."""
    law = known_law(n_domains=len(spec.domains), seed=0)

    def measure(trial: Trial, milestone: int) -> dict[str, float]:
        d, s = trial.point(milestone)
        branch = spec.domains.index(trial.domain) if trial.domain else 0
        rng = np.random.default_rng([trial.n_params, d, s, trial.seed, branch])
        losses = law.loss([[trial.n_params]], [[d]], [[s]])[0] * np.exp(0.01 * rng.normal(size=len(spec.domains)))
        return dict(zip(spec.domains, map(float, losses), strict=True))

    return measure


def carry_on(
    service: LawService, losses: Losses, *, n_lanes: int = 2, pick: Callable[[int], int] = lambda n_running: 0
) -> str:
    """Run a sweep on from where it is; ``pick`` says which of the running trials reports next. Returns how it ended."""
    running: list[tuple[Trial, list[int]]] = []
    while True:
        while len(running) < n_lanes:
            claim = service.claim([trial for trial, _ in running])
            if claim.trial is None:
                break
            running.append((claim.trial, list(claim.trial.milestones)))
        if not running:
            assert claim.finished, "nothing runs, nothing is handed out, and the sweep has not ended"
            return claim.finished
        at = pick(len(running))
        trial, left = running[at]
        milestone = left.pop(0)
        service.record(trial, milestone, Measured(losses=losses(trial, milestone), tokens=0, wall_seconds=0.0))
        if not service.judge(trial, milestone).go_on or not left:
            del running[at]


def account(service: LawService) -> dict[str, Any]:
    """What a sweep has measured, stopped and concluded, in a form that can be compared."""
    frame = service.observations()
    return {
        "observations": frame.drop(columns=["wall_seconds"]).to_dict("records"),
        "stopped": sorted(
            (record.data["trial"]["n_params"], record.data["trial"]["domain"], record.data["trial"]["pretrain_tokens"])
            for record in service.journal.records
            if record.kind == "stop"
        ),
        "why": service.status().finished,
        "spent": service.status().spent_flops,
        "advice": service.advise().advice.to_json() if len(frame) else "",
    }
