"""Fit one form to the runs of one domain."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.errors import LawError
from raysplit.law.form import Array, Form
from raysplit.law.minimize import Minimum, minimize_together
from raysplit.law.objective import Coordinates, FitProblem, Sample, together
from raysplit.law.starts import scored_starts, start_at_priors
from raysplit.law.status import Fit, FitStatus, diagnose_design

FROM_SCRATCH_WEIGHT = 0.1
"""Weight of a run with D = 0 beside others with D > 0, where one form is fitted to all. It has so few steps that
optimisation, not the law, decides its loss. `fit_law` fits such runs apart (`raysplit.law.scratch`)."""
SETTLED_STEPS = 100
"""A run of fewer optimizer steps than this, counted from initialisation, is weighted by their ratio."""

ASSUMED_NOISE = 0.01
"""Log sd of an observation before any residual is known; the seed noise of small models is about 1 %."""
NOISE_FLOOR = 1e-4
"""No residual sd is believed below this: a form that passes through all its runs has not shown them noiseless."""
_WARM_GUESSES, _WARM_STARTS = 128, 3
"""Guesses scored, and starts polished, beside the optimum that is known."""
_BESIDE_ALIKE = 32
"""Guesses scored beside the optima of other domains."""
_PILOTS = 8
"""Domains fitted from many guesses; where there are more, the others start from the optima of these."""
HUBER_EFFICIENT = 1.345
"""Threshold in residual sds at which Huber's loss keeps 95 % of the efficiency of least squares on normal noise."""


def sample_of(runs: pd.DataFrame, *, step_tokens: float | None = None) -> Sample:
    """The arrays of a fit. A run's weight is its column ``weight`` times two factors:

    A run with D = 0 counts `FROM_SCRATCH_WEIGHT` where some run has D > 0. Where ``step_tokens`` (tokens per optimizer
    step) is given, a run of fewer than `SETTLED_STEPS` steps counts steps / SETTLED_STEPS.
    """
    n, d, s, loss = (
        runs[name].to_numpy(dtype=float) for name in ("n_params", "pretrain_tokens", "specialize_tokens", "loss")
    )
    weight = runs["weight"].to_numpy(dtype=float).copy() if "weight" in runs else np.ones(len(runs))
    if (d > 0).any():
        weight = np.where(d > 0, weight, weight * FROM_SCRATCH_WEIGHT)
    if step_tokens is not None:
        weight = weight * np.minimum(1.0, (d + s) / (step_tokens * SETTLED_STEPS))
    return Sample(n=n, d=d, s=s, log_loss=np.log(loss), weight=weight)


def fit_form(
    form: Form,
    runs: pd.DataFrame,
    *,
    huber_delta: float | None = 1e-3,
    prior_strength: float = 1.0,
    n_guesses: int = 512,
    n_starts: int = 12,
    step_tokens: float | None = None,
    seed: int = 0,
) -> Fit:
    """Fit one form to the runs of one domain by the sum of Huber losses of the log residuals.

    Args:
        form: What to fit.
        runs: Columns n_params, pretrain_tokens, specialize_tokens, loss and, if wanted, weight; one domain.
        huber_delta: Threshold between squares and absolute values. Hoffmann's 1e-3 (2203.15556, eq. 3) is nearly least
            absolute deviations, 1e-6 entirely, ``inf`` least squares; None sets it to `HUBER_EFFICIENT` residual sds.
        prior_strength: Factor on the priors of the parameters; 0 fits without them.
        n_guesses: How many starts are scored.
        n_starts: How many of them are polished.
        step_tokens: Tokens per optimizer step, for the weights; see `sample_of`.
        seed: Of the starts.

    Raises:
        LawError: no runs, or values that have no logarithm.
    """
    fitted, _ = fit_sample(
        form, sample_of(runs, step_tokens=step_tokens), huber_delta=huber_delta, prior_strength=prior_strength,
        n_guesses=n_guesses, n_starts=n_starts, seed=seed,
    )  # fmt: skip
    return fitted


def fit_sample(
    form: Form,
    sample: Sample,
    *,
    huber_delta: float | None,
    prior_strength: float = 1.0,
    n_guesses: int = 512,
    n_starts: int = 12,
    seed: int = 0,
) -> tuple[Fit, FitProblem]:
    """`fit_form` on arrays; also returns the problem that was solved, for the draws around its optimum."""
    problem = _posed(form, sample, huber_delta=huber_delta, prior_strength=prior_strength)
    return fit_cold([problem], [sample], huber_delta=huber_delta, n_guesses=n_guesses, n_starts=n_starts, seed=seed)[0]


def fit_domains(
    form: Form,
    samples: Sequence[Sample],
    known: Sequence[Array | None],
    *,
    prior_strength: float,
    seed: int,
    explores: bool = True,
) -> list[tuple[Fit, FitProblem]]:
    """`fit_sample` for several domains side by side.

    Args:
        form: What to fit.
        samples: One a domain.
        known: Parameters (P,) of a fit to most of a domain's runs; where every domain has them, they are the first
            start.
        prior_strength: Factor on the priors of the parameters.
        seed: Of the starts.
        explores: Whether a few other starts are tried beside those that are known.
    """
    problems = [_posed(form, sample, huber_delta=None, prior_strength=prior_strength) for sample in samples]
    starts = [p.coordinates.to_phi(theta)[None] for p, theta in zip(problems, known, strict=True) if theta is not None]
    if len(starts) == len(problems):
        return _continued(problems, samples, starts, seed, explores=explores)
    return fit_cold(problems, samples, huber_delta=None, seed=seed)


def fit_cold(
    problems: Sequence[FitProblem],
    samples: Sequence[Sample],
    *,
    huber_delta: float | None,
    n_guesses: int = 512,
    n_starts: int = 12,
    seed: int,
) -> list[tuple[Fit, FitProblem]]:
    """Fits of which nothing is known yet, from the best of many guesses.

    Of more than `_PILOTS` domains only the `_PILOTS` with the most runs are fitted so. The others start from the optima
    of these and from a few guesses.
    """
    if len(problems) > _PILOTS:
        return _fit_by_pilots(problems, samples, huber_delta, n_guesses, n_starts, seed)
    starts = [scored_starts(p, n_guesses=n_guesses, n_starts=n_starts, seed=seed) for p in problems]
    return _from_starts(problems, samples, starts, huber_delta)


def _fit_by_pilots(
    problems: Sequence[FitProblem],
    samples: Sequence[Sample],
    huber_delta: float | None,
    n_guesses: int,
    n_starts: int,
    seed: int,
) -> list[tuple[Fit, FitProblem]]:
    # The domains with the most runs tell best where the optima of the others may be.
    pilots = np.argsort([-s.n.size for s in samples], kind="stable")[:_PILOTS]
    first = fit_cold(
        [problems[k] for k in pilots], [samples[k] for k in pilots], huber_delta=huber_delta, n_guesses=n_guesses,
        n_starts=n_starts, seed=seed,
    )  # fmt: skip
    fitted = dict(zip(pilots.tolist(), first, strict=True))
    alike = np.stack([problem.coordinates.to_phi(fit.theta) for fit, problem in first])
    rest = [k for k in range(len(problems)) if k not in fitted]
    starts = [
        scored_starts(problems[k], n_guesses=_BESIDE_ALIKE, n_starts=_WARM_STARTS, seed=seed, alike=alike) for k in rest
    ]
    found = _from_starts([problems[k] for k in rest], [samples[k] for k in rest], starts, huber_delta)
    fitted |= dict(zip(rest, found, strict=True))
    return [fitted[k] for k in range(len(problems))]


def _from_starts(
    problems: Sequence[FitProblem], samples: Sequence[Sample], starts: Sequence[Array], huber_delta: float | None
) -> list[tuple[Fit, FitProblem]]:
    ends = minimize_together(problems, starts, max_iterations=60, tolerance=1e-6)
    best = [end.phi[np.argmin(end.value)][None] for end in ends]
    if problems[0].prior_strength > 0 or huber_delta is None:
        # Now that there are residuals, weigh the priors (and cut the outliers) by their size.
        problems = _rescaled(problems, best, huber_delta)
        best = [end.phi for end in minimize_together(problems, best)]
        problems = _rescaled(problems, best, huber_delta)
    starts = [np.concatenate([phi, end.phi]) for phi, end in zip(best, ends, strict=True)]
    return _described(problems, samples, minimize_together(problems, starts, tolerance=1e-13))


def _continued(
    problems: Sequence[FitProblem], samples: Sequence[Sample], best: list[Array], seed: int, *, explores: bool
) -> list[tuple[Fit, FitProblem]]:
    problems = _rescaled(problems, best, None)
    if explores:
        best = [end.phi for end in minimize_together(problems, best, max_iterations=30, tolerance=1e-8)]
        problems = _rescaled(problems, best, None)
        best = [end.phi for end in minimize_together(problems, best, max_iterations=30, tolerance=1e-8)]
    return fit_again(problems, samples, [phi[0] for phi in best], seed=seed, explores=explores)


def fit_again(
    problems: Sequence[FitProblem],
    samples: Sequence[Sample],
    known: Sequence[Array],
    *,
    seed: int,
    explores: bool = True,
) -> list[tuple[Fit, FitProblem]]:
    """Fits from optima (P,) that are known up to a change of priors or a few runs.

    With ``explores`` a few more starts are tried: guesses, or, where there are more than `_PILOTS` domains, one start
    at the centres of the priors.
    """
    if not explores:
        return _described(problems, samples, minimize_together(problems, [phi[None] for phi in known], tolerance=1e-8))

    def others(problem: FitProblem, phi: Array) -> Array:
        if len(problems) > _PILOTS:
            return start_at_priors(problem, phi)
        return scored_starts(problem, n_guesses=_WARM_GUESSES, n_starts=_WARM_STARTS, seed=seed)

    starts = [np.concatenate([phi[None], others(p, phi)]) for p, phi in zip(problems, known, strict=True)]
    ends = minimize_together(problems, starts, max_iterations=60, tolerance=1e-6)
    best = [end.phi[np.argmin(end.value)][None] for end in ends]
    starts = [np.concatenate([phi, end.phi]) for phi, end in zip(best, ends, strict=True)]
    return _described(problems, samples, minimize_together(problems, starts, tolerance=1e-11))


def _posed(form: Form, sample: Sample, *, huber_delta: float | None, prior_strength: float) -> FitProblem:
    """What a fit minimises as long as no residual is known."""
    if not sample.n.size:
        raise LawError(f"{form.name}: no runs to fit")
    for name, values in (("n_params", sample.n), ("tokens", sample.d + sample.s), ("weight", sample.weight)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise LawError(f"{form.name}: {name} must be finite and positive in every run")
    if not np.isfinite(sample.log_loss).all():
        raise LawError(f"{form.name}: every loss must be finite and positive")
    return FitProblem(
        form=form, coordinates=Coordinates(form, sample), middle=sample.middle[None], n=sample.n[None],
        d=sample.d[None], s=sample.s[None], log_loss=sample.log_loss[None], weight=sample.weight[None],
        prior_shift=np.zeros((1, len(form.parameters))), noise=np.full((1, 1), ASSUMED_NOISE),
        delta=np.full((1, 1), huber_delta or HUBER_EFFICIENT * ASSUMED_NOISE), prior_strength=prior_strength,
    )  # fmt: skip


def _rescaled(problems: Sequence[FitProblem], best: Sequence[Array], huber_delta: float | None) -> list[FitProblem]:
    noise, _ = residual_sds(problems, best)
    return [scaled(p, float(sd), huber_delta) for p, sd in zip(problems, noise, strict=True)]


def scaled(problem: FitProblem, noise: float, huber_delta: float | None = None) -> FitProblem:
    """The problem for a log sd of an observation; Huber's threshold follows from it where none is given."""
    delta = HUBER_EFFICIENT * noise if huber_delta is None else huber_delta
    return replace(problem, noise=np.full((1, 1), noise), delta=np.full((1, 1), delta))


def residual_sds(problems: Sequence[FitProblem], best: Sequence[Array]) -> tuple[Array, Array]:
    """Robust sd of the log residuals of each fit at phi (1, P), and how many parameters it fitted, (K,) each.

    The trace of the hat matrix counts the parameters fitted, so that one held by its prior counts little. The sd is
    Huber's proposal: root mean square of the residuals cut at 1.345 times their median-based sd, corrected for the
    parameters.
    """
    both, phi = together(problems, [1] * len(problems)), np.concatenate(best)
    found = [_residual_sd(both.rows(part), phi[part]) for part in both.in_parts(len(phi))]
    sd, effective = (np.concatenate(x) for x in zip(*found, strict=True))
    return sd, effective


def _residual_sd(problem: FitProblem, phi: Array) -> tuple[Array, Array]:
    """`residual_sds` of B fits side by side."""
    size, weight = np.abs(problem.residuals(phi)), problem.weight
    effective = (hat_root(problem, phi) ** 2).sum(axis=(1, 2))
    order = np.argsort(size, axis=1)
    share = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1) / weight.sum(axis=1, keepdims=True)
    middle = np.take_along_axis(order, np.argmax(share >= 0.5, axis=1)[:, None], axis=1)
    cut = np.maximum(HUBER_EFFICIENT * 1.4826 * np.take_along_axis(size, middle, axis=1), NOISE_FLOOR)
    # A fit pulls residuals towards zero as if there were fewer runs; the variance of cut normal residuals is .71.
    n_effective = weight.sum(axis=1) ** 2 / (weight**2).sum(axis=1)
    freedom = np.maximum(1.0 - effective / n_effective, 0.1)
    square = (weight * np.minimum(size, cut) ** 2).sum(axis=1) / weight.sum(axis=1)
    return np.maximum(np.sqrt(square / 0.7102 / freedom), NOISE_FLOOR), effective


def hat_root(problem: FitProblem, phi: Array) -> Array:
    """(B, R, P) matrices whose products with their transposes are the hat matrices of the linear models around phi.

    Args:
        problem: B fits, of runs that are multiplied by the square roots of their weights.
        phi: (B, P)
    """
    jacobian, information = problem.information(phi)
    jacobian = jacobian * np.sqrt(problem.weight)[..., None]
    scale = 1.0 / np.sqrt(np.maximum(np.einsum("bii->bi", information), 1e-300))
    values, vectors = np.linalg.eigh(information * scale[:, :, None] * scale[:, None, :])
    kept = values > 1e-12 * values[:, -1:]
    root = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    return np.asarray(np.matmul(jacobian * scale[:, None, :], vectors * root[:, None, :]))


def _described(
    problems: Sequence[FitProblem], samples: Sequence[Sample], ends: Sequence[Minimum]
) -> list[tuple[Fit, FitProblem]]:
    best = [end.phi[np.argmin(end.value)][None] for end in ends]
    free = replace(together(problems, [1] * len(problems)), prior_strength=0.0)
    known = zip(*residual_sds(problems, best), free.value(np.concatenate(best)), _specializes(free, best), strict=True)
    return [
        (_describe(p, sample, end, *map(float, told), specializes=bool(specializes)), p)
        for p, sample, end, (*told, specializes) in zip(problems, samples, ends, known, strict=True)
    ]


def _describe(
    problem: FitProblem,
    sample: Sample,
    ends: Minimum,
    noise: float,
    effective: float,
    objective: float,
    *,
    specializes: bool,
) -> Fit:
    form, c = problem.form, problem.coordinates
    best = int(np.argmin(ends.value))
    phi, value = ends.phi[best], ends.value[best]
    theta = c.to_theta(phi)
    # Equal to a part in 10^4 above the floor that rounding sets; the first end is the refined best one, not a start.
    others = ends.value[1:]
    agreeing = float(np.mean(others <= value * (1 + 1e-4) + 1e-14)) if others.size else 1.0
    held = [
        f"{p.name} = {value:.3g}"
        for p, value, x, low, high in zip(form.parameters, theta, phi, c.lower, c.upper, strict=True)
        if x <= low or x >= high
    ]
    detail = f"{agreeing:.0%} of {others.size} polished starts" if others.size else "gone on from where it was"
    flaw = diagnose_design(sample, n_parameters=len(form.parameters), specializes=specializes)
    if flaw is not None:
        status, detail = flaw
    elif not ends.converged[best]:
        status = FitStatus.NOT_CONVERGED
    elif agreeing < 0.2:
        status = FitStatus.STARTS_DISAGREE
    elif held:
        status, detail = FitStatus.AT_BOUND, ", ".join(held)
    else:
        status = FitStatus.CONVERGED
    return Fit(
        form=form.name, theta=theta, objective=objective,
        status=status, message=f"{form.name}: {status.value} ({detail})", n_runs=sample.n.size, log_residual_sd=noise,
        effective_parameters=effective, starts_agreeing=agreeing, huber_delta=float(problem.delta[0, 0]),
    )  # fmt: skip


def _specializes(problem: FitProblem, best: Sequence[Array]) -> NDArray[np.bool_]:
    """Whether some parameter acts only where D' > 0, so that the form needs runs of several D', (B,)."""
    theta = problem.coordinates.to_theta(np.concatenate(best))
    n, d, s = problem.middle.T
    with np.errstate(all="ignore"):
        without, having = (np.abs(problem.form.gradient(theta, n, d, x)) for x in (np.zeros_like(s), s))
    return np.asarray((without < 1e-9 * having).any(axis=1))
