"""Repeated tokens are worth less: a correction that goes on any form, or on a law as a whole.

Notation
    U   unique tokens there are          x   tokens seen         r   repetitions, max(x / U - 1, 0)
    R   how many repetitions are worth while

Seeing x tokens of U is worth U + U R (1 - exp(-r / R)) fresh ones (Muennighoff 2305.16264, eq. 5, R = 15.4 on C4): the
first repetitions count nearly in full, and no number of them counts for more than R times U.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from raysplit.errors import LawError, unknown
from raysplit.law.form import Array, Form, Parameter

MUENNIGHOFF_REPETITIONS = 15.387756
"""R of D in Muennighoff's fit to C4 (2305.16264, section 5)."""
_REPETITIONS = Parameter(name="R", lower=0.5, upper=200.0, log=True, prior=(15.0, float(np.log(3))))


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How many unique tokens there are: a law that knows counts D and D' in fresh tokens, in its runs and its answers.

    Raises:
        LawError: a number that is not positive.
    """

    unique_pretrain_tokens: float = math.inf
    """Of the mixture."""
    unique_specialize_tokens: Mapping[str, float] = field(default_factory=dict)
    """By domain; unlimited where absent, and an infinite number is left out."""
    worth: float = MUENNIGHOFF_REPETITIONS
    """R. Fit it with `with_repetition` where the runs repeat enough to tell."""

    def __post_init__(self) -> None:
        named = {"unique_pretrain_tokens": self.unique_pretrain_tokens, "worth": self.worth}
        named |= {f"unique_specialize_tokens: {name}": n for name, n in self.unique_specialize_tokens.items()}
        for name, value in named.items():
            if not value > 0:
                raise LawError(f"repetition: {name} = {value!r} must be positive")
        limited = {name: n for name, n in self.unique_specialize_tokens.items() if n < math.inf}
        object.__setattr__(self, "unique_specialize_tokens", limited)

    def renamed(self, names: Mapping[str, str]) -> "Repetition":
        """The same for domains by other names; ``names`` maps each new name to the one that is known here."""
        unique = self.unique_specialize_tokens
        return replace(
            self, unique_specialize_tokens={new: unique[known] for new, known in names.items() if known in unique}
        )

    def pretrain(self, tokens: Array) -> Array:
        """Fresh tokens that so many of the mixture are worth."""
        return _fresh(tokens, self.unique_pretrain_tokens, np.asarray(self.worth))[0]

    def specialize(self, tokens: Array, domains: Sequence[str]) -> tuple[Array, Array]:
        """Fresh tokens that so many of each domain (last axis) are worth, and what one more is worth."""
        unique: Array = np.array([self.unique_specialize_tokens.get(name, math.inf) for name in domains])
        fresh, slope, _ = _fresh(tokens, unique, np.asarray(self.worth))
        return fresh, slope

    def counted(self, runs: pd.DataFrame) -> pd.DataFrame:
        """A table of runs with its tokens in fresh ones.

        Raises:
            LawError: a domain that the table does not have.
        """
        for name in self.unique_specialize_tokens:
            if name not in set(runs["domain"]):
                raise LawError("repetition: " + unknown("domain", name, sorted(runs["domain"].unique())))
        unique: Array = np.array([self.unique_specialize_tokens.get(name, math.inf) for name in runs["domain"]])
        seen = runs["specialize_tokens"].to_numpy(dtype=float)
        return runs.assign(
            pretrain_tokens=self.pretrain(runs["pretrain_tokens"].to_numpy(dtype=float)),
            specialize_tokens=_fresh(seen, unique, np.asarray(self.worth))[0],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, `unique_pretrain_tokens` None if unlimited; `from_dict` reads them back."""
        out = asdict(self)
        return out | {"unique_pretrain_tokens": _finite(self.unique_pretrain_tokens)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Repetition":
        return cls(**{**raw, "unique_pretrain_tokens": raw["unique_pretrain_tokens"] or math.inf})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def with_repetition(
    form: Form, *, unique_pretrain_tokens: float | None = None, unique_specialize_tokens: float | None = None
) -> Form:
    """The form with D, D' or both counted in fresh tokens, and one more parameter, R, last.

    Args:
        form: Any form.
        unique_pretrain_tokens: Unique tokens of the mixture; None leaves D as it is.
        unique_specialize_tokens: Unique tokens of the domain; None leaves D' as it is.

    Raises:
        LawError: neither is given, or one is not positive.
    """
    given = {"unique_pretrain_tokens": unique_pretrain_tokens, "unique_specialize_tokens": unique_specialize_tokens}
    if all(value is None for value in given.values()):
        raise LawError(f"with_repetition: give at least one of {', '.join(given)}")
    for name, value in given.items():
        if value is not None and not value > 0:
            raise LawError(f"with_repetition: {name} = {value!r} must be positive")
    return _Repeated(form, unique_pretrain_tokens, unique_specialize_tokens)


class _Repeated(Form):
    def __init__(self, form: Form, unique_pretrain: float | None, unique_specialize: float | None) -> None:
        self._form = form
        self._unique = (unique_pretrain, unique_specialize)
        self.name = f"{form.name}+repetition"
        self.parameters = (*form.parameters, _REPETITIONS)

    def _inner(self, theta: Array, d: Array, s: Array) -> tuple[Array, Array, Array]:
        worth = theta[..., -1]
        return theta[..., :-1], _fresh(d, self._unique[0], worth)[0], _fresh(s, self._unique[1], worth)[0]

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        inner, fresh_d, fresh_s = self._inner(theta, d, s)
        return self._form.loss(inner, n, fresh_d, fresh_s)

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        inner, fresh_d, fresh_s = self._inner(theta, d, s)
        known = self._form.gradient(inner, n, fresh_d, fresh_s)
        by_d = self._by_pretrain(inner, n, fresh_d, fresh_s) * _fresh(d, self._unique[0], theta[..., -1])[2]
        by_s = self._form.slope(inner, n, fresh_d, fresh_s) * _fresh(s, self._unique[1], theta[..., -1])[2]
        return np.concatenate([known, np.broadcast_to(by_d + by_s, known.shape[:-1])[..., None]], axis=-1)

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        inner, fresh_d, fresh_s = self._inner(theta, d, s)
        return self._form.slope(inner, n, fresh_d, fresh_s) * _fresh(s, self._unique[1], theta[..., -1])[1]

    def _by_pretrain(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        """dL/dD by a central difference, the one derivative that a form need not give."""
        if self._unique[0] is None:
            return np.zeros(())
        at = np.maximum(d, self._unique[0])  # below U the derivative is multiplied by zero
        step = 1e-5 * at
        return (self._form.loss(theta, n, at + step, s) - self._form.loss(theta, n, at - step, s)) / (2 * step)


def _fresh(tokens: Array, unique: float | Array | None, worth: Array) -> tuple[Array, Array, Array]:
    """Fresh tokens that ``tokens`` are worth, and its derivatives by tokens and by R."""
    if unique is None:
        return tokens, np.ones(()), np.zeros(())
    with np.errstate(invalid="ignore"):  # nothing repeats where there is no end of unique tokens
        repeats = np.maximum(tokens / unique - 1.0, 0.0)
        decay = np.exp(-repeats / worth)
        again = np.where(repeats > 0, unique * worth * -np.expm1(-repeats / worth), 0.0)
        by_worth = np.where(repeats > 0, unique * (1.0 - decay - repeats / worth * decay), 0.0)
    return np.minimum(tokens, unique) + again, np.where(tokens > unique, decay, 1.0), by_worth
