"""Is a form's calculus right? A check for people who write their own."""

import numpy as np

from raysplit.law.form import PRETRAIN_TOKENS, SPECIALIZE_TOKENS, Array, Form

_REFERENCE = {PRETRAIN_TOKENS: 1e6, SPECIALIZE_TOKENS: 3e5}
"""Table scales that bounds and priors of parameters in tokens are read against here."""
_RELATIVE_STEP = 1e-5
_TOLERANCE = 1e-5


def check_form(form: Form, *, seed: int = 0, n_points: int = 64) -> list[str]:
    """Compare a form's gradient and slope with central differences of its loss, and its shapes with the contract.

    Args:
        form: What to check; its parameters are drawn from their priors, or within their bounds.
        seed: Of the parameters and the points drawn.
        n_points: How many.

    Returns:
        A sentence for each thing that is wrong, naming the derivative and the worst point; empty for a sound form.
    """
    rng = np.random.default_rng(seed)
    theta = np.stack([_draw(form, rng) for _ in range(n_points)])
    n = 10 ** rng.uniform(4, 6, n_points)
    d = np.where(rng.random(n_points) < 0.1, 0.0, 10 ** rng.uniform(5, 7, n_points))
    s = np.where((d > 0) & (rng.random(n_points) < 0.1), 0.0, 10 ** rng.uniform(4.5, 6.5, n_points))
    problems = _shapes(form, theta, n, d, s)
    if problems:
        return problems
    loss = form.loss(theta, n, d, s)
    if not np.isfinite(loss).all():
        i = int(np.flatnonzero(~np.isfinite(loss))[0])
        return [f"loss is {loss[i]} at {_where(form, theta[i], n[i], d[i], s[i])}"]

    gradient = form.gradient(theta, n, d, s)
    at, terms = form.loss_and_linear(theta, n, d, s)
    linear = [j for j, p in enumerate(form.parameters) if p.linear]
    if not np.allclose(at, loss, rtol=1e-9) or not np.allclose(terms, gradient[:, linear].T, rtol=1e-9):
        problems.append("loss_and_linear gives another loss, or another gradient by the linear parameters")
    for j, parameter in enumerate(form.parameters):
        step = _RELATIVE_STEP * np.maximum(np.abs(theta[:, j]), 1e-3)
        high, low = theta.copy(), theta.copy()
        high[:, j] += step
        low[:, j] -= step
        difference = (form.loss(high, n, d, s) - form.loss(low, n, d, s)) / (2 * step)
        what = f"gradient by {parameter.name}"
        problems += _compare(what, gradient[:, j], difference, loss / step, form, theta, n, d, s)
        if parameter.linear:
            probe = theta.copy()
            probe[:, j] *= 2.0
            off = np.abs(form.gradient(probe, n, d, s)[:, j] - gradient[:, j]) > 1e-9 * np.abs(gradient[:, j])
            if off.any():
                problems.append(f"{parameter.name} is declared linear, but the gradient by it depends on it")
    branched = s > 0
    step = np.where(branched, _RELATIVE_STEP * s, 1.0)
    difference = (form.loss(theta, n, d, s + step) - form.loss(theta, n, d, np.maximum(s - step, 0.0))) / (2 * step)
    slope = np.where(branched, form.slope(theta, n, d, s), 0.0)
    problems += _compare("slope", slope, np.where(branched, difference, 0.0), loss / step, form, theta, n, d, s)
    return problems


def _draw(form: Form, rng: np.random.Generator) -> Array:
    values = []
    for p in form.parameters:
        unit = _REFERENCE.get(p.unit, 1.0)
        if p.linear:
            value = rng.uniform(0.5, 2.0)
        elif p.prior is not None:
            move = rng.uniform(-1.0, 1.0) * p.prior[1]
            value = p.prior[0] * np.exp(move) if p.log else p.prior[0] + move
        elif p.log:
            value = np.exp(rng.uniform(np.log(p.lower), np.log(p.upper)))
        else:
            value = rng.uniform(p.lower, p.upper)
        values.append(unit * float(np.clip(value, p.lower, p.upper)))
    return np.array(values)


def _shapes(form: Form, theta: Array, n: Array, d: Array, s: Array) -> list[str]:
    """Starts (B, 1) against runs (1, R), as a fit calls a form."""
    starts, problems = theta[:3, None, :], []
    for name, trailing in (("loss", ()), ("gradient", (len(form.parameters),)), ("slope", ())):
        wanted = (3, n.size, *trailing)
        got = np.shape(getattr(form, name)(starts, n, d, s))
        if got != wanted:
            problems.append(f"{name} of theta (3, 1, P) and {n.size} runs has shape {got}, not {wanted}")
    return problems


def _compare(
    what: str, given: Array, difference: Array, rounding: Array, form: Form, theta: Array, n: Array, d: Array, s: Array
) -> list[str]:
    """A sentence if two derivatives differ by more than truncation, and rounding of the loss, explain."""
    allowed = _TOLERANCE * np.maximum(np.abs(given), np.abs(difference)) + 1e-14 * np.abs(rounding)
    excess = np.abs(given - difference) / np.maximum(allowed, 1e-300)
    i = int(np.nanargmax(np.where(np.isfinite(excess), excess, np.inf)))
    if excess[i] <= 1.0:
        return []
    return [
        f"{what} is {given[i]:.6g} where finite differences of the loss give {difference[i]:.6g}, "
        f"at {_where(form, theta[i], n[i], d[i], s[i])}"
    ]


def _where(form: Form, theta: Array, n: float, d: float, s: float) -> str:
    values = ", ".join(f"{p.name} = {v:.4g}" for p, v in zip(form.parameters, theta, strict=True))
    return f"N = {n:.4g}, D = {d:.4g}, D' = {s:.4g}, {values}"
