"""A seed is read after a cooldown of its own: a correction that goes on any form.

In a sweep every point is measured after its rate has been decayed: a branch's over its last tokens on the domain, the
seed's, where D' = 0, over its last tokens of the mixture. A form that is smooth in D' takes D' = 0 for a trunk whose
rate never fell. At D = 4M the cooldown was worth up to 8 % of the loss (LOG 2026-11-24). So the seed's cooldown counts
as w D specialization tokens: at D' = 0 the form is read at D' = w D, anywhere else as it is. A branch shorter than w D
is then worse than none, as measured ones are.
"""

import math
from collections.abc import Mapping

import numpy as np

from raysplit.law.form import SPECIALIZE_TOKENS, Array, Form, Parameter

_WORTH = Parameter(name="w", lower=1e-6, upper=1.0, log=True, prior=(0.01, math.log(5)))


def with_cooldown(form: Form) -> Form:
    """The form with the seed's cooldown counted, and one more parameter, w, last."""
    return _Cooled(form)


class _Cooled(Form):
    def __init__(self, form: Form) -> None:
        self._form = form
        self.name = f"{form.name}+cooldown"
        self.parameters = (*form.parameters, _WORTH)
        scales = [i for i, p in enumerate(form.parameters) if p.unit == SPECIALIZE_TOKENS]
        self._scale = scales[0] if len(scales) == 1 else None

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return self._form.loss(theta[..., :-1], n, d, np.where(s > 0, s, theta[..., -1] * d))

    def loss_and_linear(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        return self._form.loss_and_linear(theta[..., :-1], n, d, np.where(s > 0, s, theta[..., -1] * d))

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return self.loss_and_gradient(theta, n, d, s)[1]

    def loss_and_gradient(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        inner, worth = theta[..., :-1], theta[..., -1]
        at = np.where(s > 0, s, worth * d)
        loss, known = self._form.loss_and_gradient(inner, n, d, at)
        if self._scale is None:
            by_log = self._form.slope(inner, n, d, at) * at
        else:  # a loss knows D' only in multiples of a scale of that unit, k, so D' dL/dD' = -k dL/dk
            by_log = -theta[..., self._scale] * known[..., self._scale]
        by_worth = np.where(s > 0, 0.0, by_log / worth)
        return loss, np.concatenate([known, by_worth[..., None]], axis=-1)

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Of branches; at D' = 0 what the first token gains a trunk that was not cooled down."""
        return self._form.slope(theta[..., :-1], n, d, s)

    def loss_and_slope(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        if not (s > 0).all():
            return self.loss(theta, n, d, s), self.slope(theta, n, d, s)
        return self._form.loss_and_slope(theta[..., :-1], n, d, s)

    def limits(self) -> Mapping[str, str]:
        return {**self._form.limits(), "no specialization": "at D' = 0 it is the form itself at D' = w D"}
