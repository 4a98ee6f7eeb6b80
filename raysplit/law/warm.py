"""What one fit hands to the next: where it ended, so that a few new runs cost a few steps and not a new search."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysplit.law.form import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """Where a law's fits ended, as `raysplit.law.Law.warm_start` tells.

    A fit of the same runs from the same start is the same fit.
    """

    theta: Mapping[str, Mapping[str, tuple[float, ...]]]
    """form -> domain -> its parameters"""
    pooling: Mapping[str, float]
    """form -> how strongly its domains were pooled, which is then taken over and not chosen again."""
    misfit_scale: float = 1.0
    """By what the amplitude of the forms' misfit was multiplied, which is then taken over too."""
    explores: bool = True
    """Whether a few other starts are tried; without them a fit of a few new runs is quicker and may miss an optimum."""

    def known(self, form: str, domain: str) -> Array | None:
        """Parameters (P,) of one fit; None where it is new."""
        found = self.theta.get(form, {}).get(domain)
        return None if found is None else np.array(found)
