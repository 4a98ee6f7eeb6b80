"""What a form of the law is: one formula for the loss of one domain, and what it needs to be fitted.

Notation
    n   N, non-embedding parameters          d   D, pretraining tokens on the mixture
    s   D', specialization tokens            t   theta, the form's parameters, shape (..., P)
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of a form, in the form's own units."""

    name: str
    lower: float
    upper: float
    unit: str = ""
    """``nats/token``, ``tokens``, ... ; empty for exponents and other pure numbers."""
    log: bool = False
    """Searched on a logarithmic scale (both bounds positive)."""


class Form(ABC):
    """A form of L(N, D, D'). Subclass it, name the parameters, write the two formulas; nothing else is needed.

    `loss` and `slope` broadcast: ``theta`` is (..., P) with leading axes for starts or posterior draws, and n, d, s are
    arrays that broadcast against ``theta[..., 0]`` (add a trailing axis to theta's batch axes to cross them with runs).
    """

    name: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]

    @abstractmethod
    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Predicted loss, nats per token."""

    @abstractmethod
    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Derivative of `loss` by each parameter, one more trailing axis of length P."""

    @abstractmethod
    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """Derivative of `loss` by s, nats per token per token; what the next specialization token gains."""

    def limits(self) -> Mapping[str, str]:
        """What the form claims at D' = 0, D = 0 and far out, as sentences that the tests check."""
        return {}
