"""From a law and a problem to the advice."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raysplit.errors import SplitError
from raysplit.law import Law
from raysplit.law.law import measured_span
from raysplit.quantities import format_count
from raysplit.split.advice import (
    EXPERTS,
    FLAT_TOLERANCE,
    GAINS,
    MODEL_SIZE,
    SHARE,
    Advice,
    BudgetAdvice,
    FormAdvice,
    Gain,
    Interval,
    SizeAdvice,
)
from raysplit.split.curve import loss_curve
from raysplit.split.losses import domain_losses, losses_of
from raysplit.split.problem import Array, Problem, Seeds, Split, baselines
from raysplit.split.regret import expected_regret
from raysplit.split.replay import has_limit, losses_of_best, replay_choices, replay_rows
from raysplit.split.search import SplitsBySize, best_by_size_and_draw, best_split
from raysplit.split.surface import LawLike
from raysplit.split.telling import question_told

_ROUNDING = 1e-6
_SHARES, _COARSE_SHARES = np.linspace(0.0, 1.0, 101), np.linspace(0.0, 1.0, 51)
_BUDGET_FACTORS = (0.5, 2.0)
_LUCKS = 8
"""So many times each draw is trained, each time with other luck."""


def advise(
    law: Law,
    problem: Problem,
    *,
    level: float = 0.9,
    warnings: Sequence[str] = (),
    withheld: Mapping[str, str] | None = None,
) -> Advice:
    """Best split of a budget under the mean of the law's draws, and what the draws say about it.

    From bases it also says what each expert loses elsewhere, where that was measured, and of several replayed shares
    which is the best.

    Args:
        law: the law and its uncertainty; a single draw gives intervals of no width.
        problem: the budget and the constraints.
        level: of the intervals.
        withheld: what else of the answer is known to be the priors', name -> reason (`raysplit.split.telling`).
        warnings: what else the reader must know, e.g. how the forms were chosen; kept first.

    Raises:
        SplitError: no split satisfies the constraints; the message names the one that fails.
    """
    if not (problem.bases and (law.forgetting is not None or len(law.replay_shares) > 1 or has_limit(problem))):
        return _advise(law, problem, level=level, warnings=warnings, withheld=withheld)
    choices, why = replay_choices(law, problem, level=level)
    best, several = choices[0], len(law.replay_shares) > 1 or has_limit(problem)
    asked = best.problem if has_limit(problem) else problem
    found = _advise(best.law, asked, level=level, warnings=[*warnings, *why], withheld=withheld)
    found = replace(found, replay_share=best.replay_share, general_rise=best.rise)
    if not several:
        return found
    _, lowest = losses_of_best(law, problem)
    advised = losses_of(best.law, [found.split], asked)[:, 0]
    regret = float(np.maximum(advised / lowest - 1.0, 0.0).mean())
    return replace(found, replayed=replay_rows(choices), expected_regret=regret, bases=_names(problem))


def _names(problem: Problem) -> dict[int, str]:
    return {n_params: base.name or format_count(n_params) for n_params, base in problem.bases.items()}


def _advise(
    law: Law, problem: Problem, *, level: float, warnings: Sequence[str], withheld: Mapping[str, str] | None
) -> Advice:
    """The answer at one replayed share, within the limits on D' that the problem states."""
    problem, untold = question_told(law, problem)
    withheld = {**(withheld or {}), **untold}
    sizes, per_draw = best_by_size_and_draw(law, problem)
    split = sizes.split(0, int(sizes.best_size[0]))
    own = domain_losses(law, [split], problem)[:, 0]  # (n_draws, K)
    weighted = own @ np.asarray(problem.weights)
    trained = _trained(law, problem, own[:, None], [split], seed=0)[:, 0]
    shares = _best_shares(per_draw.by_size, problem, split.n_params)
    flat, indistinguishable = _regions(law, problem, split, weighted, level)
    return Advice(
        budget_flops=problem.budget_flops,
        accounting=problem.accounting,
        seeds=problem.seeds,
        weights=dict(zip(problem.domains, problem.weights, strict=True)),
        split=split,
        pretrain_share=_share(problem.pretrain_share(split), shares, withheld, level),
        unspent_flops=_unspent(problem, split),
        level=level,
        n_draws=law.n_draws,
        losses=_measured(law, problem, split, own, level),
        loss=_around(weighted, trained, level),
        flat=(0.0, 1.0) if SHARE in withheld else flat,
        indistinguishable=(0.0, 1.0) if SHARE in withheld else indistinguishable,
        sizes=_sizes(law, problem, sizes, per_draw.by_size, weighted, trained, level),
        gains=[] if GAINS in withheld else _gains(law, problem, split, weighted, trained, level),
        other_seeds=None if GAINS in withheld else _other_seeds(law, problem, split, weighted, trained, level),
        expected_regret=float(expected_regret(law, [split], problem, best=per_draw)[0]),
        budgets=_budgets(law, problem),
        calibration=law.calibration,
        price=problem.price,
        loss_unit=problem.loss_unit,
        bases=_names(problem),
        withheld=withheld,
        exponents=_exponents(law, level) if EXPERTS in withheld and MODEL_SIZE not in withheld else {},
        forms={
            name: FormAdvice(weight=weight, fits={domain: fit.status.name for domain, fit in law.fits[name].items()})
            for name, weight in law.form_weights.items()
        },
        extrapolation={
            name: worst if math.isfinite(worst := float(factor.max(initial=1.0))) else None
            for name, factor in law.extrapolation(*_points(split)).items()
        },
        warnings=[*warnings, *law.warnings(*_points(split)), *_warnings(law, problem, split)],
    )


def _share(advised: float, of_draws: Array, withheld: Mapping[str, str], level: float) -> Interval:
    """D / T with its interval: that of the draws, or 0 to 1 where the runs do not tell the share."""
    low, high = (0.0, 1.0) if SHARE in withheld else (None, None)
    found = replace(Interval.of(of_draws, level), mean=advised)
    return found if low is None or high is None else replace(found, low=low, high=high)


def _exponents(law: Law, level: float) -> dict[str, Interval]:
    """Powers of C in the best N and D, where L = E + A N^-a + B D^-b: b / (a + b) and a / (a + b) (2203.15556, eq. 4).

    Each draw has the mean over the domains. Empty where a form has no such exponents.
    """
    of_size = np.full(law.n_draws, np.nan)
    for member in law.members:
        names = [p.name for p in member.form.parameters]
        if member.draws.size and {"a", "b"} <= set(names):
            a, b = (member.draw_theta[..., names.index(name)] for name in ("a", "b"))
            of_size[member.draws] = (b / (a + b)).mean(axis=1)
    if np.isnan(of_size).any():
        return {}
    return {"n_params": Interval.of(of_size, level), "pretrain_tokens": Interval.of(1.0 - of_size, level)}


def _points(split: Split) -> tuple[float, float, Array]:
    """N, D and the domains' D' of a split, for the law to judge."""
    return float(split.n_params), split.pretrain_tokens, np.array(list(split.specialize_tokens.values()))


def _measured(law: Law, problem: Problem, split: Split, own: Array, level: float) -> dict[str, Interval]:
    """Each domain's loss (n_draws, K), with the interval of one measurement."""
    noise = law.noise_at(split.pretrain_tokens)
    found = {}
    for k, name in enumerate(problem.domains):
        low, high = measured_span(own[:, k], float(noise[law.domains.index(name)]), level)
        found[name] = Interval(mean=float(own[:, k].mean()), low=float(low), high=float(high))
    return found


def _trained(law: Law, problem: Problem, losses: Array, splits: Sequence[Split], *, seed: int) -> Array:
    """Weighted losses (_LUCKS x n_draws, n_splits) of splits that are trained, each in runs of its own.

    ``losses`` (n_draws, n_splits, K) are given the luck of `_LUCKS` trunks and their branches; ``seed`` keeps the luck
    of one group of splits apart from that of another.
    """
    rng = np.random.default_rng([seed, losses.shape[1]])
    shape = (_LUCKS, *losses.shape)
    of_law = law.noise_at([split.pretrain_tokens for split in splits])  # (n_splits, K)
    sd = of_law[:, [law.domains.index(name) for name in problem.domains]]
    shared = np.sqrt(law.shared_noise) * rng.standard_normal(shape[:-1])[..., None]
    luck = shared + np.sqrt(1.0 - law.shared_noise) * rng.standard_normal(shape)
    weighted = (losses * np.exp(sd * luck)) @ np.asarray(problem.weights)
    return np.asarray(weighted.reshape(-1, losses.shape[1]))


def _around(mean_of: Array, trained: Array, level: float) -> Interval:
    """The mean over the draws, with the interval of what training would show."""
    return replace(Interval.of(trained, level), mean=float(mean_of.mean()))


def _best_shares(by_size: SplitsBySize, problem: Problem, n_params: int) -> Array:
    """D / T of each draw's best split at one size, (n_draws,)."""
    j = by_size.n_params.index(n_params)
    return np.array([problem.pretrain_share(by_size.split(draw, j)) for draw in range(len(by_size.loss))])


def _regions(
    law: LawLike, problem: Problem, split: Split, weighted: Array, level: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two ranges of D / T that meet the constraints: within the tolerance of the best, and not told from the best."""
    here = problem.pretrain_share(split)
    if problem.bases:
        return (here, here), (here, here)
    curve = loss_curve(law, problem, n_params=split.n_params, shares=_SHARES)
    excess = curve.draws / weighted[:, None] - 1.0  # (n_draws, n_shares)
    most = problem.tokens(split) / problem.n_seeds  # of D, were all of T pretraining
    allowed = np.isfinite(excess).all(axis=0) & (curve.shares * most <= problem.pretrain_cap)
    allowed &= _of_use(law, problem, [replace(split, pretrain_tokens=share * most) for share in curve.shares])
    flat = curve.shares[allowed & (np.where(allowed, excess, 0.0).mean(axis=0) <= FLAT_TOLERANCE)]
    surely_worse = np.quantile(np.where(allowed, excess, 1.0), 1 - level, axis=0) > _ROUNDING
    same = curve.shares[allowed & ~surely_worse]
    return _span(flat, here), _span(same, here)


def _of_use(law: LawLike, problem: Problem, splits: Sequence[Split]) -> NDArray[np.bool_]:
    """Which splits' seeds stay below `max_general_loss` before they are branched, under the mean of the draws."""
    if problem.max_general_loss == math.inf or problem.bases or not splits:
        return np.ones(len(splits), dtype=bool)
    seeds = [replace(split, specialize_tokens=dict.fromkeys(problem.domains, 0.0)) for split in splits]
    with np.errstate(all="ignore"):  # some forms have no loss where a seed saw nothing
        loss = losses_of(law, seeds, problem).mean(axis=0)
    return np.asarray(loss <= problem.max_general_loss * (1 + _ROUNDING))


def _span(shares: Array, here: float) -> tuple[float, float]:
    return float(min(shares.min(initial=here), here)), float(max(shares.max(initial=here), here))


def _sizes(
    law: Law,
    problem: Problem,
    sizes: SplitsBySize,
    per_draw: SplitsBySize,
    weighted: Array,
    trained: Array,
    level: float,
) -> list[SizeAdvice]:
    splits = [sizes.split(0, j) for j in range(len(sizes.n_params))]
    by_domain, of_use = domain_losses(law, splits, problem), _of_use(law, problem, splits)
    losses, others = by_domain @ np.asarray(problem.weights), _trained(law, problem, by_domain, splits, seed=1)
    others[:, int(sizes.best_size[0])] = trained  # the advised split is one split, and its luck one luck
    return [
        SizeAdvice(
            split=split,
            loss=_around(losses[:, j], others[:, j], level),
            excess=_around(losses[:, j] / weighted - 1.0, others[:, j] / trained - 1.0, level),
            probability=float((per_draw.best_size == j).mean()),
        )
        for j, split in enumerate(splits)
        if of_use[j]
    ]


def _gains(law: Law, problem: Problem, split: Split, weighted: Array, trained: Array, level: float) -> list[Gain]:
    named = baselines(problem, n_params=split.n_params)
    if not _knows_scratch(law, problem):
        named = {name: baseline for name, baseline in named.items() if baseline.pretrain_tokens > 0}
    if not named:
        return []
    of_use = _of_use(law, problem, list(named.values()))
    by_domain = domain_losses(law, list(named.values()), problem)
    losses, others = (
        by_domain @ np.asarray(problem.weights),
        _trained(law, problem, by_domain, list(named.values()), seed=2),
    )
    return [
        Gain(
            baseline=name,
            split=baseline,
            loss=_around(losses[:, j], others[:, j], level),
            gain=_around(1.0 - weighted / losses[:, j], 1.0 - trained / others[:, j], level),
        )
        for j, (name, baseline) in enumerate(named.items())
        if of_use[j] and np.isfinite(losses[:, j]).all()
    ]


def _other_seeds(
    law: Law, problem: Problem, split: Split, weighted: Array, trained: Array, level: float
) -> Gain | None:
    """Gain over the best split with the other kind of seeds; None for one domain, experts reckoned alone, or bases."""
    if len(problem.domains) == 1 or problem.accounting != "shared" or problem.bases:
        return None
    other: Seeds = "independent" if problem.seeds == "shared" else "shared"
    asked = replace(problem, seeds=other)
    best = _best_on_grid(law, asked, split.n_params)
    if best is None or not _of_use(law, asked, [best])[0]:
        return None
    by_domain = domain_losses(law, [best], problem)
    losses, others = by_domain @ np.asarray(problem.weights), _trained(law, problem, by_domain, [best], seed=3)
    return Gain(
        baseline=f"{other} seeds",
        split=best,
        loss=_around(losses[:, 0], others[:, 0], level),
        gain=_around(1.0 - weighted / losses[:, 0], 1.0 - trained / others[:, 0], level),
    )


def _best_on_grid(law: Law, problem: Problem, n_params: int) -> Split | None:
    """The best split at one size with D to a fiftieth of T: nearly as good, and found much sooner. None without one."""
    try:
        *_, total = problem.pretrain_range(n_params)
    except SplitError:  # the budget may not buy a token for each seed
        return None
    curve = loss_curve(law, problem, n_params=n_params, shares=_COARSE_SHARES)
    d = curve.shares * total / problem.n_seeds
    least = min(law.support.pretrain_tokens[0], 0.05 * total / problem.n_seeds)  # as the search has it
    allowed = (d >= least) & (d <= problem.pretrain_cap)
    loss = np.where(allowed, np.nan_to_num(curve.loss, nan=np.inf), np.inf)
    best = int(np.argmin(loss))
    if not np.isfinite(loss[best]):
        return None
    tokens = dict(zip(problem.domains, map(float, curve.specialize_tokens[best]), strict=True))
    return Split(n_params=n_params, pretrain_tokens=float(d[best]), specialize_tokens=tokens)


def _knows_scratch(law: Law, problem: Problem) -> bool:
    """Whether every domain has a run without pretraining; else the answer says nothing of training from scratch."""
    return law.from_scratch >= set(problem.domains)


def _budgets(law: LawLike, problem: Problem) -> list[BudgetAdvice]:
    found = []
    for factor in _BUDGET_FACTORS:
        other = replace(problem, budget_flops=factor * problem.budget_flops)
        try:
            split = best_split(law, other, rough=True)
        except SplitError:  # half the budget may buy nothing
            continue
        found.append(
            BudgetAdvice(budget_flops=other.budget_flops, split=split, pretrain_share=other.pretrain_share(split))
        )
    return found


def _unspent(problem: Problem, split: Split) -> float:
    left = problem.budget_flops - problem.flops(split)
    return left if left > 1e-9 * problem.budget_flops else 0.0


def _warnings(law: Law, problem: Problem, split: Split) -> list[str]:
    found = []
    if law.n_draws == 1:
        found.append("the law has a single draw, so every interval has no width")
    if (
        not _knows_scratch(law, problem)
        and problem.max_specialize_tokens.get(problem.domains[0]) != 0
        and "from scratch" in baselines(problem, n_params=split.n_params)
    ):
        lacking = [name for name in problem.domains if name not in law.from_scratch]
        found.append(f"no run of {', '.join(lacking)} was trained from scratch, so nothing is said of that")
    if share := _unspent(problem, split) / problem.budget_flops:
        texts = [problem.available_tokens, *(base.available_tokens for base in problem.bases.values())]
        is_capped = bool(problem.max_specialize_tokens) or any(texts)
        why = (
            "the caps leave nothing to spend it on" if is_capped else "more training is expected to make experts worse"
        )
        found.append(f"{share:.0%} of the budget is left: {why}")
    edge = [n for n in (min(problem.sizes), max(problem.sizes)) if n == split.n_params and len(problem.sizes) > 1]
    if edge:
        side = "smallest" if edge[0] == min(problem.sizes) else "largest"
        what = "base" if problem.bases else "size"
        found.append(f"the best {what}, {format_count(edge[0])}, is the {side} allowed; one beyond it may be better")
    if (
        split.pretrain_tokens
        and not problem.bases
        and math.isclose(split.pretrain_tokens, problem.pretrain_cap, rel_tol=1e-6)
    ):
        found.append("pretraining is held back by the data there is")
    allowed = problem.specialize_caps(np.array(split.pretrain_tokens), split.n_params)
    caps = dict(zip(problem.domains, allowed, strict=True))
    held = [
        n
        for n, tokens in split.specialize_tokens.items()
        if caps[n] > 0 and math.isclose(tokens, caps[n], rel_tol=1e-6)
    ]
    if held:
        found.append(f"specialization is held back by the caps on {', '.join(held)}")
    return found
