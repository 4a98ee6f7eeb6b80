"""From a table of runs to a `Law`: every form fitted to every domain, pooled, weighed, and drawn from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.errors import LawError, unknown
from raysplit.law.basis import Basis
from raysplit.law.draws import bootstrapped, perturbed, refitted
from raysplit.law.fit import fit_again, fit_domains, hat_root, sample_of, scaled
from raysplit.law.form import Form
from raysplit.law.forms import FORMS
from raysplit.law.identified import identify
from raysplit.law.law import Law, Member, Support
from raysplit.law.misfit import misfit_of
from raysplit.law.noise import Noise, Residuals, estimate_noise, repeated_seed_sd, shared_sd
from raysplit.law.objective import FitProblem, Sample
from raysplit.law.pooling import pool
from raysplit.law.pooling_strength import choose_strength
from raysplit.law.repetition import Repetition
from raysplit.law.scratch import ScratchRuns, fit_scratch
from raysplit.law.status import Fit, FitStatus
from raysplit.law.warm import WarmStart

DEFAULT_FORMS = ("law-2+cooldown", "law-8+cooldown")
EXACT = 200
"""``draw_iterations`` at which every draw is refitted to its own optimum."""
DrawKind = Literal["perturb", "bootstrap"]
_POINT = ("n_params", "pretrain_tokens", "specialize_tokens")
_NEEDED = (*_POINT, "domain", "loss")


FitsMade = dict[tuple[Any, ...], Any]
"""Best fits of forms, by the form and by all that they were fitted to."""


def fit_law(
    runs: pd.DataFrame,
    *,
    forms: Sequence[str | Form] = DEFAULT_FORMS,
    form_weights: Mapping[str, float] | None = None,
    n_draws: int = 64,
    draw_iterations: int = 10,
    draw: DrawKind = "perturb",
    step_tokens: float | None = None,
    prior_strength: float = 1.0,
    pooling: float | None = None,
    repetition: Repetition | None = None,
    start: WarmStart | None = None,
    misfit_scale: float | None = None,
    seed: int = 0,
    made: FitsMade | None = None,
) -> Law:
    """Fit forms to every domain of a table of runs, with the uncertainty of all domains drawn together.

    Args:
        runs: Columns n_params, pretrain_tokens, specialize_tokens, domain, loss; optional seed and weight.
        forms: Names in `FORMS`, or forms. Those with more parameters than the runs can carry are left out, as long as
            one remains; else the smallest is fitted, its priors doing the rest, and its status says so.
        form_weights: How much each form counts, as the choice by regret found; without it, by what the residuals say
            (Akaike weights, in which the runs of one branch point count less than as many independent ones).
        n_draws: Worlds drawn; each belongs to one form.
        draw_iterations: Steps of each draw's refit; `EXACT` refits fully.
        draw: How a world is made (`raysplit.law.draws`): ``perturb`` moves the runs by the noise that the fits left,
            which is stable with few branch points and fast enough for a live sweep; ``bootstrap`` draws whole branch
            points with replacement, which assumes nothing about the noise but that they are independent.
        step_tokens: Tokens per optimizer step, to weight down points of few steps; see `raysplit.law.fit.sample_of`.
        prior_strength: Factor on the priors of the parameters.
        pooling: How strongly domains borrow exponents and offsets from each other (`raysplit.law.pooling`): 0 not at
            all, 10 makes them differ by a tenth of their prior's width; None chooses by held-out error.
        repetition: How many unique tokens there are, where runs or answers repeat some.
        start: Where a fit of most of these runs ended; then only a few other starts are tried, and its pooling is kept.
        misfit_scale: Factor on the amplitude of the forms' misfit (`raysplit.law.discrepancy`), as runs held out found
            it; 0 takes the forms to be right, as always where D' was never measured. None takes over that of
            ``start``, else 1.
        seed: Of starts and draws.
        made: Best fits that are at hand, which are then not made again; those that are missing are added. A fit with a
            ``start`` leaves it alone.

    Raises:
        LawError: an unknown form, a missing column, no runs, or values without a logarithm.
    """
    chosen = _resolve(forms, form_weights)
    if missing := [name for name in _NEEDED if name not in runs.columns]:
        raise LawError(f"no column {missing[0]!r} in the runs; needed: {', '.join(_NEEDED)}")
    if not len(runs):
        raise LawError("no runs to fit")
    if draw not in get_args(DrawKind):
        raise LawError("draw: " + unknown("kind", draw, get_args(DrawKind)))
    if n_draws < 1:
        raise LawError(f"n_draws = {n_draws}; a law needs at least one draw")
    # An order of its own, so that permuted runs give the same law.
    runs = runs.sort_values([*_NEEDED, *(c for c in ("seed", "weight") if c in runs.columns)], ignore_index=True)
    counted = runs if repetition is None else repetition.counted(runs)
    is_scratch = _from_scratch(runs)
    scratch, runs, counted = runs[is_scratch], runs[~is_scratch], counted[~is_scratch]
    domains, domain = np.unique(runs["domain"].to_numpy(dtype=str), return_inverse=True)
    samples = [sample_of(runs[domain == k], step_tokens=step_tokens) for k in range(len(domains))]
    if repetition is not None:  # repeated tokens are worth less, and were as many steps
        fresh = [sample_of(counted[domain == k]) for k in range(len(domains))]
        samples = [replace(own, weight=seen.weight) for own, seen in zip(fresh, samples, strict=True)]
    cluster = _branch_points(runs)
    if misfit_scale is None:
        misfit_scale = start.misfit_scale if start else 1.0
    if not (runs["specialize_tokens"] > 0).any():
        misfit_scale = 0.0  # Chinchilla's question, which is asked of the form: its exponents, and their sampling error
    basis = Basis.of(*(counted[name].to_numpy(dtype=float) for name in _POINT))

    weight = np.empty(len(runs))
    for k, sample in enumerate(samples):
        weight[domain == k] = sample.weight

    explores = start is None or start.explores
    made = {} if made is None or start else made
    table = (*(x.tobytes() for x in (domain, cluster, *(getattr(s, f.name) for s in samples for f in fields(s)))),)

    def at_hand(*told: Any, fit: Callable[[], Any]) -> Any:
        key = (*told, *table, prior_strength, seed)
        if key not in made:
            made[key] = fit()
        return made[key]

    fitted: dict[str, list[tuple[Fit, FitProblem]]] = {}
    for form in chosen:
        known = [start.known(form.name, str(name)) if start else None for name in domains]
        fitted[form.name] = at_hand(
            form,
            fit=partial(fit_domains, form, samples, known, prior_strength=prior_strength, seed=seed, explores=explores),
        )
    kept = _enough_runs(chosen, fitted)
    clusters = [cluster[domain == k] for k in range(len(domains))]
    alone, strength = dict(fitted), {form.name: 0.0 for form in chosen}
    for form in kept if prior_strength > 0 else ():
        asked = start.pooling.get(form.name, pooling) if start and pooling is None else pooling
        fitted[form.name], strength[form.name] = at_hand(
            form, asked, fit=partial(_pooled, alone[form.name], samples, clusters, asked, seed, explores)
        )
    weights = (
        _normalised({form.name: form_weights[form.name] for form in kept})
        if form_weights
        else _evidence(kept, fitted, domain, cluster)
    )
    worlds = _assign([weights[form.name] for form in kept], n_draws, seed)
    members, left_noise = [], {}
    for index, form in enumerate(kept):
        rng = np.random.default_rng([seed, index])
        draws = np.flatnonzero(worlds == index)
        misfit = misfit_of(fitted[form.name], clusters, basis, scale=misfit_scale)
        noise = left_noise[form.name] = misfit.noise
        off, errors = misfit.prior(draws.size, rng), noise.draw(cluster, domain, weight, draws.size, rng)
        of_domain = [errors[:, domain == k] for k in range(len(domains))]
        runs_drawn = (
            bootstrapped(clusters, draws.size, rng)
            if draw == "bootstrap"
            else perturbed([-(e + misfit.at_runs(off, k)) for k, e in enumerate(of_domain)])
        )
        draw_theta = refitted(
            alone[form.name], fitted[form.name], runs_drawn, strength[form.name], iterations=draw_iterations, rng=rng
        )
        members.append(
            Member(
                form=form,
                weight=weights[form.name],
                theta=np.stack([fit.theta for fit, _ in fitted[form.name]]),
                draws=draws,
                draw_theta=np.stack(draw_theta, axis=1),
                misfit=misfit.best,
                draw_misfit=misfit.given(draw_theta, off, of_domain),
            )
        )
    names = tuple(str(name) for name in domains)
    seed_sd, seed_freedom = repeated_seed_sd(runs)
    noise = left_noise[max(weights, key=weights.__getitem__)]
    law = Law(
        domains=names,
        n_draws=n_draws,
        members=tuple(members),
        fits={
            form.name: {name: fit for name, (fit, _) in zip(names, fitted[form.name], strict=True)} for form in chosen
        },
        pooling={form.name: strength[form.name] for form in kept},
        noise=noise.sd,
        shared_noise=noise.across,
        seed_noise=seed_sd if seed_freedom else None,
        support=Support.of(runs),
        basis=basis if misfit_scale else None,
        repetition=repetition,
        identified=identify(runs),
    )
    return _with_scratch(law, scratch, seed) if len(scratch) else law


def _from_scratch(runs: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows (R,) have D = 0, where every domain has D > 0 beside: they tell only what no pretraining costs.

    Of a domain that has no other rows they are its law, and there is nothing that the cost could be added to.
    """
    pretrained = runs["pretrain_tokens"] > 0
    return ~pretrained.to_numpy() & bool(pretrained.groupby(runs["domain"]).any().all())


def _with_scratch(law: Law, scratch: pd.DataFrame, seed: int) -> Law:
    """The law with what no pretraining costs, and D = 0 in its support where every domain has a run there."""
    least = law.support.pretrain_tokens[0]
    repetition = law.repetition
    own = []
    for k, name in enumerate(law.domains):
        rows = scratch[scratch["domain"] == name]
        n, s = (rows[c].to_numpy(dtype=float) for c in ("n_params", "specialize_tokens"))
        at = [x[None, :, None] for x in (n, np.full_like(n, least), s)]
        known = np.concatenate([law.point.loss(*at)[..., k], law.loss(*at)[..., k]])
        fresh = s if repetition is None else repetition.specialize(s[:, None], [name])[0][:, 0]
        own.append(ScratchRuns(n=n, s=fresh, cost=np.log(rows["loss"].to_numpy(dtype=float)) - np.log(known)))
    least = least if repetition is None else float(repetition.pretrain(np.array(least)))
    found = fit_scratch(own, least_tokens=least, rng=np.random.default_rng([seed, len(scratch)]))
    span = law.support.pretrain_tokens if not all(found.known) else (0.0, law.support.pretrain_tokens[1])
    return replace(law, scratch=found, support=replace(law.support, pretrain_tokens=span))


def _resolve(forms: Sequence[str | Form], form_weights: Mapping[str, float] | None) -> list[Form]:
    if not forms:
        raise LawError(f"no form to fit. Known: {', '.join(FORMS)}")
    chosen = []
    for form in forms:
        if not isinstance(form, Form) and form not in FORMS:
            raise LawError(unknown("form", form, FORMS))
        chosen.append(form if isinstance(form, Form) else FORMS[form])
    if form_weights is None:
        return chosen
    for name, weight in form_weights.items():
        if name not in {form.name for form in chosen}:
            raise LawError("form_weights: " + unknown("form", name, [form.name for form in chosen]))
        if not weight >= 0:
            raise LawError(f"form_weights: {name} = {weight!r} must not be negative")
    if not sum(form_weights.values()) > 0:
        raise LawError("form_weights: at least one must be positive")
    return [form for form in chosen if form_weights.get(form.name, 0.0) > 0]


def _normalised(form_weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(form_weights.values())
    return {name: weight / total for name, weight in form_weights.items() if weight > 0}


def _branch_points(runs: pd.DataFrame) -> NDArray[np.intp]:
    """Which rows share a branch point (N, seed, D), (R,) from zero; from scratch every run is its own trunk."""
    keys = [runs["n_params"], runs["pretrain_tokens"]]
    if "seed" in runs:
        keys.append(runs["seed"])
    alone = pd.Series(np.where(runs["pretrain_tokens"] > 0, -1, np.arange(len(runs))), index=runs.index)
    return np.asarray(runs.groupby([*keys, alone], sort=False).ngroup(), dtype=np.intp)


def _pooled(
    fitted: list[tuple[Fit, FitProblem]],
    samples: list[Sample],
    clusters: list[NDArray[np.intp]],
    strength: float | None,
    seed: int,
    explores: bool,
) -> tuple[list[tuple[Fit, FitProblem]], float]:
    """One form's fits with the domains pooled, and how strongly."""
    problems = [problem for _, problem in fitted]
    best = [problem.coordinates.to_phi(fit.theta) for fit, problem in fitted]
    if strength is None:
        forced = any(fit.status is FitStatus.TOO_FEW_RUNS for fit, _ in fitted)
        strength = choose_strength(problems, best, clusters, forced=forced)
    if not strength or len(fitted) < 2:
        return fitted, 0.0
    moved = pool(problems, [phi[None] for phi in best], strength)
    noise = shared_sd(
        np.array([fit.log_residual_sd for fit, _ in fitted]),
        np.array([fit.n_runs - fit.effective_parameters for fit, _ in fitted]),
    )
    rescaled = [scaled(problem, float(sd)) for problem, sd in zip(moved, noise, strict=True)]
    return fit_again(rescaled, samples, best, seed=seed, explores=explores), strength


def _enough_runs(chosen: list[Form], fitted: Mapping[str, list[tuple[Fit, FitProblem]]]) -> list[Form]:
    # One domain that can carry a form lends to the others.
    kept = [f for f in chosen if any(fit.status is not FitStatus.TOO_FEW_RUNS for fit, _ in fitted[f.name])]
    return kept or [min(chosen, key=lambda form: len(form.parameters))]


def _evidence(
    kept: list[Form],
    fitted: Mapping[str, list[tuple[Fit, FitProblem]]],
    domain: NDArray[np.intp],
    cluster: NDArray[np.intp],
) -> dict[str, float]:
    """Akaike weights with the small-sample correction (AICc; Hurvich and Tsai 1989), over all domains.

    A run counts as 1 / (1 + (m - 1) v) of an independent one, m being the runs of its domain and branch point and v the
    correlation that the best form leaves between them.
    """
    noises = {form.name: _noise_of(fitted[form.name], domain, cluster) for form in kept}
    within = noises[min(kept, key=lambda form: float(noises[form.name].sd.mean())).name].within
    size = pd.Series(cluster).groupby([cluster, domain]).transform("count").to_numpy()
    count = np.bincount(domain, weights=1.0 / (1.0 + (size - 1.0) * within))  # (K,)
    score = {}
    for form in kept:
        score[form.name] = 0.0
        for n, (fit, _) in zip(count, fitted[form.name], strict=True):
            p = fit.effective_parameters
            uncorrected = fit.log_residual_sd * np.sqrt(max(1.0 - p / fit.n_runs, 0.1))
            score[form.name] -= n * np.log(uncorrected) + p + p * (p + 1) / max(n - p - 1, 1.0)
    top = max(score.values())
    return _normalised({name: float(np.exp(max(value - top, -30.0))) for name, value in score.items()})


def _assign(weights: list[float], n_draws: int, seed: int) -> NDArray[np.intp]:
    """Index of each draw's form, (n_draws,): shares as exact as whole draws allow, in random order."""
    edges = np.cumsum(weights) / np.sum(weights)
    return np.random.default_rng(seed).permutation(np.searchsorted(edges, (np.arange(n_draws) + 0.5) / n_draws))


def _noise_of(fits: list[tuple[Fit, FitProblem]], domain: NDArray[np.intp], cluster: NDArray[np.intp]) -> Noise:
    left = []
    for k, (fit, problem) in enumerate(fits):
        phi = problem.coordinates.to_phi(fit.theta)[None]
        residual = problem.residuals(phi)[0] * np.sqrt(problem.weight[0])
        absorb = hat_root(problem, phi)[0]
        left.append(Residuals(residual=residual, absorb=absorb, cluster=cluster[domain == k], sd=fit.log_residual_sd))
    return estimate_noise(left)
