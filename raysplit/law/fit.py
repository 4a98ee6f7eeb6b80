"""Fit one form to the runs of one domain."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from raysplit.errors import LawError
from raysplit.law.form import Array, Form
from raysplit.law.minimize import Minimum, minimize_together
from raysplit.law.objective import Coordinates, FitProblem, Sample
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
    return [scaled(p, residual_sd(p, phi)[0], huber_delta) for p, phi in zip(problems, best, strict=True)]


def scaled(problem: FitProblem, noise: float, huber_delta: float | None = None) -> FitProblem:
    """The problem for a log sd of an observation; Huber's threshold follows from it where none is given."""
    delta = HUBER_EFFICIENT * noise if huber_delta is None else huber_delta
    return replace(problem, noise=np.full((1, 1), noise), delta=np.full((1, 1), delta))


def residual_sd(problem: FitProblem, phi: Array) -> tuple[float, float]:
    """Robust sd of the log residuals at phi (1, P), corrected for the parameters fitted, and how many those are.

    The trace of the hat matrix counts the parameters fitted, so that one held by its prior counts little. The sd is
    Huber's proposal: root mean square of the residuals cut at 1.345 times their median-based sd.
    """
    residual, weight = problem.residuals(phi)[0], problem.weight[0]
    effective = float((hat_root(problem, phi) ** 2).sum())
    order = np.argsort(np.abs(residual))
    share = np.cumsum(weight[order]) / weight.sum()
    median = float(np.abs(residual)[order][np.searchsorted(share, 0.5)])
    cut = max(HUBER_EFFICIENT * 1.4826 * median, NOISE_FLOOR)
    # A fit pulls residuals towards zero as if there were fewer runs; the variance of cut normal residuals is .71.
    freedom = max(1.0 - effective / float(weight.sum() ** 2 / (weight**2).sum()), 0.1)
    square = float(np.average(np.minimum(np.abs(residual), cut) ** 2, weights=weight))
    return max(float(np.sqrt(square / 0.7102 / freedom)), NOISE_FLOOR), effective


def hat_root(problem: FitProblem, phi: Array) -> Array:
    """(R, P) matrix whose product with its transpose is the hat matrix of the regularised linear model around phi.

    Args:
        problem: One fit, of runs that are multiplied by the square roots of their weights.
        phi: (1, P)
    """
    jacobian, information = problem.information(phi)
    jacobian = jacobian[0] * np.sqrt(problem.weight[0])[:, None]
    scale = 1.0 / np.sqrt(np.maximum(np.diag(information[0]), 1e-300))
    values, vectors = np.linalg.eigh(information[0] * scale[:, None] * scale)
    kept = values > 1e-12 * values[-1]
    return np.asarray(jacobian * scale @ (vectors[:, kept] / np.sqrt(values[kept])))


def _described(
    problems: Sequence[FitProblem], samples: Sequence[Sample], ends: Sequence[Minimum]
) -> list[tuple[Fit, FitProblem]]:
    return [(_describe(p, sample, end), p) for p, sample, end in zip(problems, samples, ends, strict=True)]


def _describe(problem: FitProblem, sample: Sample, ends: Minimum) -> Fit:
    form, c = problem.form, problem.coordinates
    best = int(np.argmin(ends.value))
    phi, value = ends.phi[best], ends.value[best]
    theta = c.to_theta(phi)
    # Equal to a part in 10^4 above the floor that rounding sets; the first end is the refined best one, not a start.
    others = ends.value[1:]
    agreeing = float(np.mean(others <= value * (1 + 1e-4) + 1e-14)) if others.size else 1.0
    noise, effective = residual_sd(problem, phi[None])
    held = [
        f"{p.name} = {value:.3g}"
        for p, value, x, low, high in zip(form.parameters, theta, phi, c.lower, c.upper, strict=True)
        if x <= low or x >= high
    ]
    detail = f"{agreeing:.0%} of {others.size} polished starts" if others.size else "gone on from where it was"
    flaw = diagnose_design(sample, n_parameters=len(form.parameters), specializes=_specializes(form, theta, sample))
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
        form=form.name, theta=theta, objective=float(replace(problem, prior_strength=0.0).value(phi[None])[0]),
        status=status, message=f"{form.name}: {status.value} ({detail})", n_runs=sample.n.size, log_residual_sd=noise,
        effective_parameters=effective, starts_agreeing=agreeing, huber_delta=float(problem.delta[0, 0]),
    )  # fmt: skip


def _specializes(form: Form, theta: Array, sample: Sample) -> bool:
    """Whether some parameter acts only where D' > 0, so that the form needs runs of several D'."""
    n, d, s = (np.asarray(x) for x in sample.middle)
    with np.errstate(all="ignore"):
        without, having = (np.abs(form.gradient(theta, n, d, x)) for x in (np.zeros(()), s))
    return bool(np.any(without < 1e-9 * having))
