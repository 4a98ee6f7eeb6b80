"""Answers from one fitted law: plain functions, so that a live actor, a read journal and a law file answer alike."""

import numpy as np
import pandas as pd

from raysplit.errors import SplitError
from raysplit.law import Law
from raysplit.live.answers import Curve, GoOn, LawStamp
from raysplit.runs import Observation
from raysplit.split import LossCurve, Problem, best_by_size, loss_curve
from raysplit.split.measured import comparable, measured_surface

_SHARES = np.linspace(0.0, 1.0, 101)
_LEVEL = 0.9
_SURPRISE_LEVEL = 0.999
"""Level of the central interval above which a loss is no bad luck: one run in two thousand, if the law is right."""


def curve_of(law: Law, problem: Problem, observations: pd.DataFrame, *, n_params: int | None) -> Curve:
    """The best loss at each D / T of one of the problem's sizes, and the measured splits of as many tokens.

    ``n_params`` None takes the best size of `raysplit.split.best_by_size`.

    Raises:
        SplitError: the size is not one of the problem's, or no split satisfies the problem; or it has bases, of which
            each has one D.
    """
    if problem.bases:
        raise SplitError("curve: the D of a base is fixed, so there is no loss against the share in pretraining")
    if n_params is None:
        sizes = best_by_size(law, problem)
        n_params = sizes.n_params[int(sizes.best_size[0])]
    curve = loss_curve(law, problem, n_params=n_params, shares=_SHARES, level=_LEVEL)
    kept = np.isfinite(curve.draws).all(axis=0)
    return Curve(
        n_params=n_params,
        budget_flops=problem.budget_flops,
        shares=curve.shares[kept].tolist(),
        loss=curve.loss[kept].tolist(),
        low=curve.low[kept].tolist(),
        high=curve.high[kept].tolist(),
        level=curve.level,
        points=measured_points(observations, problem, n_params=n_params),
        moved=moved_points(law, problem, observations, curve),
    )


def measured_points(observations: pd.DataFrame, problem: Problem, *, n_params: int) -> tuple[tuple[float, float], ...]:
    """(D / T, weighted loss) at each measured D of a size from which T can be spent within the measured D'.

    Each domain gets its weight's share of what D leaves of T, or all of it where each expert is reckoned alone.
    """
    grids = measured_surface(observations[observations["n_params"] == n_params], problem.domains).get(n_params, {})
    total = problem.affordable_tokens(n_params)
    weights = np.asarray(problem.weights)
    found = []
    n_seeds = problem.n_seeds
    for pretrain_tokens in comparable(grids, total, accounting=problem.accounting, n_seeds=n_seeds):
        rest = (total - n_seeds * pretrain_tokens) * (
            weights if problem.accounting == "shared" else np.ones_like(weights)
        )
        losses = [grid.loss(tokens) for grid, tokens in zip(grids[pretrain_tokens], rest, strict=True)]
        loss = float(np.dot(losses, weights))
        if np.isfinite(loss):
            found.append((n_seeds * pretrain_tokens / total, loss))
    return tuple(sorted(found))


def moved_points(
    law: Law, problem: Problem, observations: pd.DataFrame, curve: LossCurve
) -> tuple[tuple[float, float], ...]:
    """`Curve.moved`: the distance from the law is the mean over seeds and domains of the log loss."""
    here = observations[observations["n_params"] == curve.n_params]
    here = here[here["domain"].isin(problem.domains)]
    if here.empty:
        return ()
    d, s = (here[name].to_numpy(dtype=float) for name in ("pretrain_tokens", "specialize_tokens"))
    own = [law.domains.index(name) for name in here["domain"]]
    with np.errstate(all="ignore"):  # some forms have no loss where nothing was pretrained
        said = law.point.loss(float(curve.n_params), d[None, :, None], s[None, :, None])[0, np.arange(len(here)), own]
        off = np.log(here["loss"].to_numpy() / said)
    experts = len(problem.domains) if problem.accounting == "shared" else 1
    paid = problem.n_seeds * d
    at = pd.DataFrame({"share": paid / (paid + experts * s), "d": d, "off": off}).groupby(["d", "share"])["off"].mean()
    shares = at.index.get_level_values("share").to_numpy()
    losses = np.interp(shares, curve.shares, curve.loss) * np.exp(at.to_numpy())
    return tuple(sorted((float(x), float(y)) for x, y in zip(shares, losses, strict=True) if np.isfinite(y)))


def whether_to_go_on(
    law: Law, observation: Observation, *, expected_regret: float, regret_tolerance: float, stamp: LawStamp
) -> GoOn:
    """Whether a run that raysplit did not start is worth its next tokens.

    It is not if its loss is so far above what the law expects there that something must be wrong with the run. Nor is
    it once the question is settled: expected regret is what perfect knowledge would gain, the most that any run may
    still be worth.

    Raises:
        LawError: the law knows no such domain.
    """
    at = (observation.n_params, observation.pretrain_tokens, observation.specialize_tokens)
    said = law.predict(observation.domain, *at, level=_SURPRISE_LEVEL)
    inside = all(float(factor) <= 1.0 for factor in law.extrapolation(*at).values())
    if inside and observation.loss > float(said.high):
        return GoOn(
            go_on=False,
            why=f"a loss of {observation.loss:.4f} is above {float(said.high):.4f}, the upper end of the law's "
            f"{_SURPRISE_LEVEL:.1%} interval here: something is wrong with this run",
            law=stamp,
        )
    if expected_regret <= regret_tolerance:
        return GoOn(
            go_on=False,
            why=f"the answer is certain enough: expected regret {expected_regret:.2%} of the loss, tolerance "
            f"{regret_tolerance:.2%}",
            law=stamp,
        )
    where = "" if inside else "; it is outside what was measured, where the law cannot judge a loss"
    return GoOn(go_on=True, why=f"expected regret {expected_regret:.2%} of the loss can still fall{where}", law=stamp)
