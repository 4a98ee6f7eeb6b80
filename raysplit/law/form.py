"""What a form of the law is: one formula for the loss of one domain, and what it needs to be fitted.

Notation
    n   N, non-embedding parameters          d   D, pretraining tokens on the mixture
    s   D', specialization tokens            t   theta, the form's parameters, shape (..., P)
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PRETRAIN_TOKENS, SPECIALIZE_TOKENS = "pretrain_tokens", "specialize_tokens"
"""Units of parameters that are compared with D and with D'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a form.

    Bounds and prior are in the form's own units, with one exception that keeps a fit free of units: those of a
    parameter in ``pretrain_tokens`` or ``specialize_tokens`` are multiples of the geometric mean of the positive D or
    D' in the table.
    """

    name: str
    lower: float
    upper: float
    unit: str = ""
    """``nats/token``, ``pretrain_tokens``, ``specialize_tokens``; empty for exponents and other pure numbers."""
    log: bool = False
    """Searched on a logarithmic scale (both bounds positive)."""
    linear: bool = False
    """The loss is linear in it, and in all linear parameters together; the fit then solves for it in the starts."""
    prior: tuple[float, float] | None = None
    """Centre (a value) and standard deviation (on the search scale: nats where `log`) of a weak normal prior, or None.

    For a parameter that is `linear` and `log` (an amplitude) the prior is on the share of the mean loss that its term
    has at the middle of the table, so that it knows no units either."""


class Form(ABC):
    """A form of L(N, D, D'). Subclass it, name the parameters, write three formulas; nothing else is needed.

    The formulas broadcast: ``theta`` is (..., P) with leading axes for starts or posterior draws, and n, d, s are
    arrays that broadcast against ``theta[..., 0]`` (add a trailing axis to theta's batch axes to cross them with runs).
    `raysplit.law.check_form` compares the derivatives with finite differences.
    """

    name: str
    parameters: tuple[Parameter, ...]

    @abstractmethod
    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Predicted loss, nats per token."""

    @abstractmethod
    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Derivative of `loss` by each parameter, one more trailing axis of length P."""

    def loss_and_gradient(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        """Both at once; a form may override it where they have parts in common."""
        return self.loss(theta, n, d, s), self.gradient(theta, n, d, s)

    def loss_and_linear(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        """The loss, and what the `linear` parameters multiply, one more leading axis.

        A fit asks for these more often than for the whole gradient; a form may override it where they cost less.
        """
        loss, gradient = self.loss_and_gradient(theta, n, d, s)
        return loss, np.stack([gradient[..., j] for j, p in enumerate(self.parameters) if p.linear])

    @abstractmethod
    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Derivative of `loss` by s, nats per token per token; what the next specialization token gains."""

    def loss_and_slope(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        """Both at once; as `loss_and_gradient`."""
        return self.loss(theta, n, d, s), self.slope(theta, n, d, s)

    def limits(self) -> Mapping[str, str]:
        """What the form claims at D' = 0, D = 0 and far out, as sentences that the tests check."""
        return {}
