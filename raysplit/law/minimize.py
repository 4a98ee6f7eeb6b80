"""Many small robust fits at once: a damped Newton method, vectorised over the fits.

Each step solves (H + lambda M) p = -g. H is the Hessian; M, which replaces Huber's loss by the parabola that touches it
from above, is positive definite and shrinks with H's own units, so that the damping knows no units and a step with
lambda large enough always descends. Bounds are kept by freezing the coordinates that sit on a bound and push outward.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysplit.law.form import Array
from raysplit.law.objective import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimum:
    """Where B fits ended."""

    phi: Array  # (B, P)
    value: Array  # (B,)
    converged: NDArray[np.bool_]  # (B,)


def minimize(problem: Problem, start: Array, *, max_iterations: int = 200, tolerance: float = 1e-10) -> Minimum:
    """Minimise each row of a problem from its start.

    Args:
        problem: B fits.
        start: (B, P) search coordinates; moved inside the bounds.
        max_iterations: Steps tried per fit, refused ones included.
        tolerance: A fit has converged when a step promises less than this share of its value.
    """
    lower, upper = problem.coordinates.lower, problem.coordinates.upper
    phi = np.clip(start, lower, upper)
    value = problem.value(phi)
    damping = np.full(len(phi), 1e-2)
    converged = np.zeros(len(phi), dtype=bool)
    active = np.flatnonzero(np.isfinite(value))
    fresh = np.ones(len(phi), dtype=bool)  # whose derivatives must be computed
    n_parameters = phi.shape[1]
    gradient = np.zeros_like(phi)
    majorant = np.zeros((len(phi), n_parameters, n_parameters))
    hessian = np.zeros_like(majorant)

    for _ in range(max_iterations):
        if not active.size:
            break
        renew = active[fresh[active]]
        if renew.size:
            gradient[renew], hessian[renew], majorant[renew] = problem.rows(renew).scores(phi[renew])
            fresh[renew] = False
        step, decrement = _step(
            phi[active], gradient[active], hessian[active], majorant[active], damping[active], lower, upper
        )
        trial = np.clip(phi[active] + step, lower, upper)
        trial_value = problem.rows(active).value(trial)
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


def _step(
    phi: Array, gradient: Array, hessian: Array, majorant: Array, damping: Array, lower: Array, upper: Array
) -> tuple[Array, Array]:
    """Damped Newton steps (B, P) of the coordinates that are free to move, and the decrease (B,) they promise."""
    held = ((phi <= lower) & (gradient > 0)) | ((phi >= upper) & (gradient < 0))
    free = ~held
    both = free[:, :, None] & free[:, None, :]
    system = np.where(both, hessian + damping[:, None, None] * majorant, 0.0)
    diagonal = np.einsum("bii->bi", majorant)
    ridge = np.where(free, 1e-14 * diagonal + 1e-300, 1.0)
    index = np.arange(phi.shape[1])
    system[:, index, index] += ridge
    right = np.where(free, -gradient, 0.0)
    step = _solve(system, right)
    promise = -np.einsum("bi,bi->b", right, step)
    # Where H + lambda M is not positive definite the step may climb; the majorant alone never does.
    climbing = ~(promise < 0)
    if climbing.any():
        safe = np.where(both, majorant * (1.0 + damping[:, None, None]), 0.0)[climbing]
        safe[:, index, index] += ridge[climbing]
        step[climbing] = _solve(safe, right[climbing])
        promise[climbing] = -np.einsum("bi,bi->b", right[climbing], step[climbing])
    return step, -0.5 * promise


def _solve(system: Array, right: Array) -> Array:
    """Solve (B, P, P) x = (B, P) scaled to a unit diagonal; a singular system gets its least-squares solution."""
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.einsum("bii->bi", system)), 1e-300))
    scaled = system * scale[:, :, None] * scale[:, None, :]
    try:
        solution = np.linalg.solve(scaled, (right * scale)[..., None])[..., 0]
    except np.linalg.LinAlgError:
        solution = np.stack([np.linalg.lstsq(m, r, rcond=None)[0] for m, r in zip(scaled, right * scale, strict=True)])
    return np.where(np.isfinite(solution), solution, 0.0) * scale
