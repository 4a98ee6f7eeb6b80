"""What one fit hands to the next: where it ended, so that a few new runs cost a few steps and not a new search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysplit.law.form import Array
from raysplit.law.law import Law


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """Where a law's fits ended. A fit of the same runs from the same start is the same fit."""

    theta: Mapping[str, Mapping[str, tuple[float, ...]]]
    """form -> domain -> its parameters"""
    pooling: Mapping[str, float]
    """form -> how strongly its domains were pooled, which is then taken over and not chosen again."""
    misfit_scale: float = 1.0
    """By what the amplitude of the forms' misfit was multiplied, which is then taken over too."""
    explores: bool = True
    """Whether a few other starts are tried; without them a fit of a few new runs is quicker and may miss an optimum."""

    @classmethod
    def of(cls, law: Law, *, explores: bool = True) -> "WarmStart":
        return cls(
            explores=explores,
            theta={
                form: {domain: tuple(map(float, fit.theta)) for domain, fit in by_domain.items()}
                for form, by_domain in law.fits.items()
            },
            pooling=dict(law.pooling),
            misfit_scale=law.calibration.stretch if law.calibration else 1.0,
        )

    def known(self, form: str, domain: str) -> Array | None:
        """Parameters (P,) of one fit; None where it is new."""
        found = self.theta.get(form, {}).get(domain)
        return None if found is None else np.array(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back without loss."""
        theta = {
            form: {domain: list(values) for domain, values in of_form.items()} for form, of_form in self.theta.items()
        }
        return {
            "theta": theta,
            "pooling": dict(self.pooling),
            "misfit_scale": self.misfit_scale,
            "explores": self.explores,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "WarmStart":
        theta = {
            form: {domain: tuple(values) for domain, values in of_form.items()}
            for form, of_form in raw["theta"].items()
        }
        known = {name: raw[name] for name in ("misfit_scale", "explores") if name in raw}
        return cls(theta=theta, pooling=dict(raw["pooling"]), **known)
