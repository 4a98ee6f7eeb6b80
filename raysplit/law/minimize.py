"""Many small robust fits at once: a damped Gauss-Newton method, vectorised over the fits.

Each step solves (H + lambda M) v = -g. H is the Gauss-Newton Hessian; M, which replaces Huber's loss by the parabola
that touches it from above, is positive definite and in H's own units, so that the damping knows no units and a step
with lambda large enough always descends. Bounds are kept by freezing the coordinates on a bound that push outward.

Laws of this kind have narrow, curved valleys: the floor trades with an exponent and an amplitude. So after each step
the linear parameters are solved again where it ended, as in variable projection (Golub and Pereyra 1973; the solve is
two Newton steps, since log residuals and Huber's loss are not linear): on synthetic sweeps 8 iterations where plain
steps had not arrived after 60.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysplit.law.form import Array
from raysplit.law.objective import FitProblem, together

_LINEAR_SOLVES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimum:
    """Where B fits ended."""

    phi: Array  # (B, P)
    value: Array  # (B,)
    converged: NDArray[np.bool_]  # (B,)


def minimize(problem: FitProblem, start: Array, *, max_iterations: int = 200, tolerance: float = 1e-10) -> Minimum:
    """Minimise each row of a problem from its start, some rows at once.

    Args:
        problem: B fits.
        start: (B, P) search coordinates; moved inside the bounds.
        max_iterations: Steps tried per fit, refused ones included.
        tolerance: A fit has converged when a step promises less than this share of its value.
    """
    ends = [
        _minimize(problem.rows(part), start[part], max_iterations, tolerance) for part in problem.in_parts(len(start))
    ]
    return Minimum(
        phi=np.concatenate([end.phi for end in ends]),
        value=np.concatenate([end.value for end in ends]),
        converged=np.concatenate([end.converged for end in ends]),
    )


def _minimize(problem: FitProblem, start: Array, max_iterations: int, tolerance: float) -> Minimum:
    bounds = problem.coordinates
    lower, upper = (np.broadcast_to(x, start.shape) for x in (bounds.lower, bounds.upper))
    phi = np.clip(start, lower, upper)
    value = problem.value(phi)
    damping = np.full(len(phi), 1e-2)
    converged = np.zeros(len(phi), dtype=bool)
    has_linear = bool(problem.coordinates.linear.any())
    active = np.flatnonzero(np.isfinite(value))
    rows, n_rows = problem, len(phi)  # those of the active ones
    fresh = np.ones(len(phi), dtype=bool)  # whose derivatives must be computed
    n_parameters = phi.shape[1]
    gradient = np.zeros_like(phi)
    majorant = np.zeros((len(phi), n_parameters, n_parameters))
    hessian = np.zeros_like(majorant)

    for _ in range(max_iterations):
        if not active.size:
            break
        if len(active) < n_rows:
            rows, n_rows = problem.rows(active), len(active)
        renew = fresh[active]
        if renew.any():
            of = active[renew]
            part = rows if renew.all() else rows.rows(np.flatnonzero(renew))
            gradient[of], hessian[of], majorant[of] = part.scores(phi[of])
            fresh[of] = False
        here = phi[active]
        low, high = lower[active], upper[active]
        held = ((here <= low) & (gradient[active] > 0)) | ((here >= high) & (gradient[active] < 0))
        step, decrement = _step(gradient[active], hessian[active], majorant[active], damping[active], held)
        trial = np.clip(here + step, low, high)
        trial, trial_value = _linear_solved(rows, trial) if has_linear else (trial, rows.value(trial))
        better = trial_value < value[active]
        # A promise below the tolerance counts only where the damping is too small to be the reason for it.
        settled = (decrement <= tolerance * value[active]) & (damping[active] <= 1.0)
        stuck = damping[active] > 1e12
        accepted = active[better]
        gain = (value[accepted] - trial_value[better]) / np.maximum(decrement[better], 1e-300)
        phi[accepted], value[accepted] = trial[better], trial_value[better]
        fresh[accepted] = True
        damping[accepted] *= np.where(gain > 0.7, 0.1, np.where(gain < 0.2, 3.0, 0.5))
        damping[active[~better]] *= 8.0
        damping = np.maximum(damping, 1e-10)
        done = settled | (stuck & ~better)
        converged[active[done]] = True
        active = active[~done]
    return Minimum(phi=phi, value=value, converged=converged)


def minimize_together(
    problems: Sequence[FitProblem], starts: Sequence[Array], *, max_iterations: int = 200, tolerance: float = 1e-10
) -> list[Minimum]:
    """`minimize` for several tables at once, (B_k, P) starts each; every fit ends where it would have ended alone."""
    n_fits = [len(start) for start in starts]
    ends = minimize(
        together(problems, n_fits), np.concatenate(starts), max_iterations=max_iterations, tolerance=tolerance
    )
    edges = np.cumsum(n_fits)[:-1]
    parts = zip(*(np.split(x, edges) for x in (ends.phi, ends.value, ends.converged)), strict=True)
    return [Minimum(phi=phi, value=value, converged=converged) for phi, value, converged in parts]


def _step(
    gradient: Array, hessian: Array, majorant: Array, damping: Array, held: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Damped steps (B, P) of the coordinates that are not held, and the decrease (B,) of F that they promise."""
    free = ~held
    both = free[:, :, None] & free[:, None, :]
    system = np.where(both, hessian + damping[:, None, None] * majorant, 0.0)
    index = np.arange(held.shape[1])
    system[:, index, index] += np.where(free, 1e-14 * np.einsum("bii->bi", majorant) + 1e-300, 1.0)
    right = np.where(free, -gradient, 0.0)
    step = _solve(system, right)
    return step, 0.5 * np.einsum("bi,bi->b", right, step)


def _linear_solved(rows: FitProblem, phi: Array) -> tuple[Array, Array]:
    """Newton steps of the majorant in the linear parameters alone, and F there; amplitudes shrink at most tenfold."""
    part = rows.linear_part(phi)
    linear, log = part.linear, rows.coordinates.log[part.linear]
    lower, upper = rows.coordinates.lower[..., linear], rows.coordinates.upper[..., linear]
    phi = phi.copy()
    for _ in range(_LINEAR_SOLVES):
        gradient, system = part.scores(phi)
        right, here = -gradient, phi[:, linear]
        step = _solve(system, right)
        beyond = (here + step < lower) | (here + step > upper)
        if beyond.any():
            # Those that would leave their bounds stop there, and the others make the best of it.
            stopped = np.where(beyond, np.clip(here + step, lower, upper) - here, 0.0)
            right = np.where(beyond, stopped, right - np.einsum("bij,bj->bi", system, stopped))
            both = ~beyond[:, :, None] & ~beyond[:, None, :]
            step = _solve(np.where(both, system, np.eye(linear.size)), right)
        phi[:, linear] = np.clip(here + np.where(log, np.log(np.maximum(1.0 + step, 0.1)), step), lower, upper)
    return phi, part.value(phi)


def _solve(system: Array, right: Array) -> Array:
    """Solve (B, P, P) x = (B, P) scaled to a unit diagonal; a singular system gets its least-squares solution."""
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", system)), 1e-300))
    scaled = system * scale[:, :, None] * scale[:, None, :]
    try:
        solution = np.linalg.solve(scaled, (right * scale)[..., None])[..., 0]
    except np.linalg.LinAlgError:
        solution = np.stack([np.linalg.lstsq(m, r, rcond=None)[0] for m, r in zip(scaled, right * scale, strict=True)])
    return np.where(np.isfinite(solution), solution, 0.0) * scale
