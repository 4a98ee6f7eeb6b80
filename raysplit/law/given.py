"""Forms for bases that are given, each pretrained on one D: such a form has no term of D.

Where no size has two D, the terms of D are constants, and a fit of them would answer with its priors. So the parameters
of D are held at values at which the form does not depend on it, and the others are fitted.

A base is measured as it was published, after whatever cooldown it had, a branch after its own cooldown on the domain.
As in `raysplit.law.cooldown`, the base's cooldown counts as some specialization tokens, here w k: the form is read
there at D' = 0.
"""

import math
from collections.abc import Mapping

import numpy as np

from raysplit.law.form import Array, Form, Parameter

_WORTH = Parameter(name="w", lower=1e-6, upper=1.0, log=True, prior=(0.01, math.log(5)))


def without_pretraining(form: Form, held: Mapping[str, float]) -> Form:
    """The form at one D, with one more parameter, w, last.

    Args:
        form: with a parameter k, the tokens on whose scale D' gains.
        held: a value for each parameter that only D gives a meaning; the form must not depend on D there.
    """
    return _Given(form, held)


class _Given(Form):
    def __init__(self, form: Form, held: Mapping[str, float]) -> None:
        self._form = form
        self.name = f"{form.name}-given"
        self._kept = [j for j, p in enumerate(form.parameters) if p.name not in held]
        self._whole = np.array([held.get(p.name, np.nan) for p in form.parameters])
        kept = tuple(form.parameters[j] for j in self._kept)
        self._k = next(j for j, p in enumerate(kept) if p.name == "k")
        self.parameters = (*kept, _WORTH)

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return self._form.loss(self._all(theta), n, d, self._at(theta, s))

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        every, at = self._all(theta), self._at(theta, s)
        known = self._form.gradient(every, n, d, at)[..., self._kept]
        by_tokens = np.where(s > 0, 0.0, self._form.slope(every, n, d, at))
        by_worth = np.broadcast_to(by_tokens * theta[..., self._k], known.shape[:-1])
        known[..., self._k] += by_tokens * theta[..., -1]
        return np.concatenate([known, by_worth[..., None]], axis=-1)

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Of branches; at D' = 0 what the first token gains a base that was not cooled down."""
        return self._form.slope(self._all(theta), n, d, s)

    def limits(self) -> Mapping[str, str]:
        return {
            "no specialization": "at D' = 0 it is the base as it is, worth w k tokens of D'",
            "pretraining": "does not depend on D",
            "far out": "falls in D', to E + A N^-a",
        }

    def _all(self, theta: Array) -> Array:
        whole = np.broadcast_to(self._whole, (*theta.shape[:-1], self._whole.size)).copy()
        whole[..., self._kept] = theta[..., :-1]
        return whole

    def _at(self, theta: Array, s: Array) -> Array:
        return np.where(s > 0, s, theta[..., -1] * theta[..., self._k])
