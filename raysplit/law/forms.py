"""The forms that raysplit provides, by name.

Notation
    n, d, s   N, D, D' (form.py)             E          floor, nats/token
    A, a      amplitude, exponent in N       B, b       amplitude, exponent in D
    d0        offset to D, tokens            k, c       scale (tokens) and exponent of the gain from D'
    m         exponent of N in the data term

Every amplitude is positive and E >= 0, so each form falls towards E where its exponents say so. The exponents a and b
stay within (0.02, 1.5), which holds every published one and keeps an extrapolation sane. Their prior is lognormal: the
median is 0.3, the standard deviation a factor of 2. Kaplan's .08 in N (2001.08361, eq. 1.1) and Hoffmann's .34 in N
(2203.15556, eq. 10) lie within two of those. The prior of c is the same; its upper bound is 3.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from raysplit.law.cooldown import with_cooldown
from raysplit.law.form import PRETRAIN_TOKENS, SPECIALIZE_TOKENS, Array, Form, Parameter
from raysplit.law.given import without_pretraining

_TINY = 1e-300
"""Stands in for zero tokens under a logarithm; any power of it that a form takes is 0."""


def _floor() -> Parameter:
    return Parameter(name="E", lower=0.0, upper=math.inf, unit="nats/token", linear=True)


def _amplitude(name: str) -> Parameter:
    return Parameter(
        name=name, lower=1e-30, upper=1e30, unit="nats/token", log=True, linear=True, prior=(0.3, math.log(6))
    )


def _exponent(name: str, *, upper: float = 1.5) -> Parameter:
    return Parameter(name=name, lower=0.02, upper=upper, log=True, prior=(0.3, math.log(2)))


def _tokens(name: str, unit: str, *, centre: float, factor: float) -> Parameter:
    return Parameter(name=name, lower=1e-4, upper=1e4, unit=unit, log=True, prior=(centre, math.log(factor)))


_E, _A, _B = _floor(), _amplitude("A"), _amplitude("B")
_a, _b, _c = _exponent("a"), _exponent("b"), _exponent("c", upper=3.0)
_d0 = _tokens("d0", PRETRAIN_TOKENS, centre=0.3, factor=5.0)
_k = _tokens("k", SPECIALIZE_TOKENS, centre=0.3, factor=5.0)
_m = Parameter(name="m", lower=-0.5, upper=0.5, prior=(0.0, 0.2))


def _log(x: Array) -> Array:
    return np.log(np.maximum(x, _TINY))


def _power(theta: Array, amplitude: int, exponent: int, n: Array) -> Array:
    """theta[amplitude] * n ** -theta[exponent]"""
    return np.exp(np.log(theta[..., amplitude]) - theta[..., exponent] * np.log(n))


def _stack(*columns: Array) -> Array:
    """Columns as the last axis, each contiguous in memory: a fit works on one after the other."""
    out = np.empty((len(columns), *np.broadcast_shapes(*(np.shape(c) for c in columns))))
    for j, column in enumerate(columns):
        out[j] = column
    return np.moveaxis(out, 0, -1)


class Law1(Form):
    """E + A n^-a + B (d + l s)^-b: a specialization token is worth l mixture tokens.

    Linear along an iso-budget, so its split is always a corner; a yardstick, not for decisions.
    """

    name = "law-1"
    parameters = (
        _E, _A, _a, _B, _b, Parameter(name="l", lower=1e-2, upper=1e3, log=True, prior=(3.0, math.log(4)))
    )  # fmt: skip

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return theta[..., 0] + _power(theta, 1, 2, n) + _power(theta, 3, 4, d + theta[..., 5] * s)

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        size, tokens = _power(theta, 1, 2, n), d + theta[..., 5] * s
        data = _power(theta, 3, 4, tokens)
        return _stack(
            np.ones(1),
            size / theta[..., 1],
            -np.log(n) * size,
            data / theta[..., 3],
            -np.log(tokens) * data,
            -theta[..., 4] * data * s / tokens,
        )

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        tokens = d + theta[..., 5] * s
        return -theta[..., 4] * theta[..., 5] * _power(theta, 3, 4, tokens) / tokens

    def limits(self) -> Mapping[str, str]:
        return {
            "no specialization": "at D' = 0 it is Hoffmann's law of the seed",
            "from scratch": "at D = 0 it is Hoffmann's law with D' counted l times",
            "far out": "falls in N, D and D', to E",
        }


class Hoffmann(Form):
    """E + A n^-a + B (d + s)^-b (2203.15556, eq. 2): the domain is the mixture, and a token is a token."""

    name = "hoffmann"
    parameters = (_E, _A, _a, _B, _b)

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return theta[..., 0] + _power(theta, 1, 2, n) + _power(theta, 3, 4, d + s)

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        size, data = _power(theta, 1, 2, n), _power(theta, 3, 4, d + s)
        return _stack(np.ones(1), size / theta[..., 1], -np.log(n) * size, data / theta[..., 3], -np.log(d + s) * data)

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return -theta[..., 4] * _power(theta, 3, 4, d + s) / (d + s) + 0.0 * n

    def limits(self) -> Mapping[str, str]:
        return {"one stage": "depends on D + D' only", "far out": "falls in N, D and D', to E"}


class _Gain(Form):
    """Shared algebra of E + A n^-a + B n^m (d + d0)^-b (1 + s/k)^-c; the forms differ in which parts they free."""

    @staticmethod
    def _parts(theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array, Array, Array]:
        """A n^-a, B (d+d0)^-b, log(d + d0), log(1 + s/k); the first eight parameters are E A a B b d0 k c."""
        log_tokens = np.log(d + theta[..., 5])
        data = np.exp(np.log(theta[..., 3]) - theta[..., 4] * log_tokens)
        return _power(theta, 1, 2, n), data, log_tokens, np.log1p(s / theta[..., 6])

    @abstractmethod
    def _terms(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        """What A and what B multiply, times these: with E they make the loss."""

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        of_size, of_tokens = self._terms(theta, n, d, s)
        return theta[..., 0] + of_size + of_tokens

    def loss_and_linear(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        of_size, of_tokens = self._terms(theta, n, d, s)
        loss = theta[..., 0] + of_size + of_tokens
        columns = np.empty((3, *loss.shape))
        columns[0], columns[1], columns[2] = 1.0, of_size / theta[..., 1], of_tokens / theta[..., 3]
        return loss, columns

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return self.loss_and_gradient(theta, n, d, s)[1]

    def limits(self) -> Mapping[str, str]:
        return {
            "no specialization": "at D' = 0 it is Hoffmann's law of the seed with D + d0 tokens",
            "from scratch": "finite at D = 0: the seed is as good as d0 mixture tokens",
            "far out": "falls in D and D', to E + A N^-a",
        }


class Law2(_Gain):
    """E + A n^-a + B (d + d0)^-b (1 + s/k)^-c: specialization divides what pretraining left."""

    name = "law-2"
    parameters = (_E, _A, _a, _B, _b, _d0, _k, _c)

    def _terms(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, data, _, log_gain = self._parts(theta, n, d, s)
        return size, data * np.exp(-theta[..., 7] * log_gain)

    def loss_and_gradient(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, data, log_tokens, log_gain = self._parts(theta, n, d, s)
        term = data * np.exp(-theta[..., 7] * log_gain)
        return theta[..., 0] + size + term, _stack(
            np.ones(1),
            size / theta[..., 1],
            -np.log(n) * size,
            term / theta[..., 3],
            -log_tokens * term,
            -theta[..., 4] * term / (d + theta[..., 5]),
            theta[..., 7] * term * s / (theta[..., 6] * (theta[..., 6] + s)),
            -log_gain * term,
        )

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return self.loss_and_slope(theta, n, d, s)[1]

    def loss_and_slope(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term = self._terms(theta, n, d, s)
        return theta[..., 0] + size + term, -theta[..., 7] * term / (theta[..., 6] + s) + 0.0 * n


class Law4(_Gain):
    """E + A n^-a + B (d + d0)^-b (1 + s/k)^-c(d), c(d) = c (1 + d/d0)^-g: the more pretraining, the less D' gains.

    After Liew and Kato (2510.06548), whose exponent is linear in log d: -a2 + a3 log d. Theirs turns positive far out,
    so that specialization would harm; this one agrees to first order in g and falls to zero instead. Offsets keep it
    finite at d = 0 and s = 0.
    """

    name = "law-4"
    parameters = (
        *Law2.parameters, Parameter(name="g", lower=1e-3, upper=2.0, log=True, prior=(0.1, math.log(3)))
    )  # fmt: skip

    def _terms(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, data, log_tokens, log_gain = self._parts(theta, n, d, s)
        return size, data * np.exp(-self._exponent(theta, log_tokens) * log_gain)

    @staticmethod
    def _exponent(theta: Array, log_tokens: Array) -> Array:
        return theta[..., 7] * np.exp(-theta[..., 8] * (log_tokens - np.log(theta[..., 5])))

    def loss_and_gradient(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, data, log_tokens, log_gain = self._parts(theta, n, d, s)
        exponent = self._exponent(theta, log_tokens)
        term = data * np.exp(-exponent * log_gain)
        d0, tokens = theta[..., 5], d + theta[..., 5]
        by_exponent = -log_gain * term
        return theta[..., 0] + size + term, _stack(
            np.ones(1),
            size / theta[..., 1],
            -np.log(n) * size,
            term / theta[..., 3],
            -log_tokens * term,
            -theta[..., 4] * term / tokens + by_exponent * exponent * theta[..., 8] * d / (tokens * d0),
            exponent * term * s / (theta[..., 6] * (theta[..., 6] + s)),
            by_exponent * exponent / theta[..., 7],
            -by_exponent * exponent * (log_tokens - np.log(d0)),
        )

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        _, data, log_tokens, log_gain = self._parts(theta, n, d, s)
        exponent = self._exponent(theta, log_tokens)
        return -exponent * data * np.exp(-exponent * log_gain) / (theta[..., 6] + s) + 0.0 * n


class Law5b(Form):
    """E + A n^-a + ((d/d1)^h + (s/d2)^g)^-b: the two kinds of tokens add, each on its own power.

    d1 (d2) is the pretraining (specialization) alone that brings the data term to one nat. At s = 0 the slope is
    infinite where g < 1.
    """

    name = "law-5b"
    parameters = (
        _E, _A, _a, _b,
        Parameter(name="h", lower=0.2, upper=3.0, log=True, prior=(1.0, math.log(1.6))),
        Parameter(name="g", lower=0.2, upper=3.0, log=True, prior=(0.7, math.log(1.6))),
        Parameter(name="d1", lower=1e-8, upper=1e8, unit=PRETRAIN_TOKENS, log=True, prior=(1.0, math.log(30))),
        Parameter(name="d2", lower=1e-8, upper=1e8, unit=SPECIALIZE_TOKENS, log=True, prior=(0.3, math.log(30))),
    )  # fmt: skip

    @staticmethod
    def _parts(theta: Array, d: Array, s: Array) -> tuple[Array, Array, Array, Array, Array]:
        """log d/d1, log s/d2, (d/d1)^h, (s/d2)^g, their sum to the -b."""
        log_d, log_s = _log(d) - np.log(theta[..., 6]), _log(s) - np.log(theta[..., 7])
        pretrain, specialize = np.exp(theta[..., 4] * log_d), np.exp(theta[..., 5] * log_s)
        return log_d, log_s, pretrain, specialize, np.exp(-theta[..., 3] * np.log(pretrain + specialize))

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return theta[..., 0] + _power(theta, 1, 2, n) + self._parts(theta, d, s)[-1]

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        size = _power(theta, 1, 2, n)
        log_d, log_s, pretrain, specialize, term = self._parts(theta, d, s)
        total = pretrain + specialize
        by_pretrain, by_specialize = (-theta[..., 3] * term * x / total for x in (pretrain, specialize))
        return _stack(
            np.ones(1),
            size / theta[..., 1],
            -np.log(n) * size,
            -np.log(total) * term,
            by_pretrain * log_d,
            by_specialize * log_s,
            -by_pretrain * theta[..., 4] / theta[..., 6],
            -by_specialize * theta[..., 5] / theta[..., 7],
        )

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        _, _, pretrain, specialize, term = self._parts(theta, d, s)
        by_log = -theta[..., 3] * theta[..., 5] * term * specialize / (pretrain + specialize)
        return by_log / np.maximum(s, _TINY) + 0.0 * n

    def limits(self) -> Mapping[str, str]:
        return {
            "no specialization": "at D' = 0 it is Hoffmann's law of the seed, data exponent h b",
            "from scratch": "at D = 0 it is Hoffmann's law of D', data exponent g b",
            "far out": "falls in N, D and D', to E",
        }


class Law8(_Gain):
    """E + A n^-a + B n^m (d + d0)^-b (1 + s/k)^-c: law 2 whose data term, and so whose split, moves with N."""

    name = "law-8"
    parameters: tuple[Parameter, ...] = (*Law2.parameters, _m)

    def _scaled_parts(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array, Array, Array]:
        size, data, log_tokens, log_gain = self._parts(theta, n, d, s)
        return size, data * np.exp(theta[..., 8] * np.log(n) - theta[..., 7] * log_gain), log_tokens, log_gain

    def _terms(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term, _, _ = self._scaled_parts(theta, n, d, s)
        return size, term

    def loss_and_gradient(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term, log_tokens, log_gain = self._scaled_parts(theta, n, d, s)
        return theta[..., 0] + size + term, _stack(
            np.ones(1),
            size / theta[..., 1],
            -np.log(n) * size,
            term / theta[..., 3],
            -log_tokens * term,
            -theta[..., 4] * term / (d + theta[..., 5]),
            theta[..., 7] * term * s / (theta[..., 6] * (theta[..., 6] + s)),
            -log_gain * term,
            np.log(n) * term,
        )

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        return self.loss_and_slope(theta, n, d, s)[1]

    def loss_and_slope(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term, _, _ = self._scaled_parts(theta, n, d, s)
        return theta[..., 0] + size + term, -theta[..., 7] * term / (theta[..., 6] + s)


class Law16(Law8):
    """Law 8 with the size term times 1 + g (1 + s/k)^-c: specialization also narrows what size leaves."""

    name = "law-16"
    parameters = (
        *Law8.parameters, Parameter(name="g", lower=1e-3, upper=1e2, log=True, prior=(0.3, math.log(4)))
    )  # fmt: skip

    def _terms(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term, _, log_gain = self._scaled_parts(theta, n, d, s)
        return size * (1.0 + theta[..., 9] * np.exp(-theta[..., 7] * log_gain)), term

    def loss_and_gradient(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term, log_tokens, log_gain = self._scaled_parts(theta, n, d, s)
        kept = size * np.exp(-theta[..., 7] * log_gain)
        widened = size + theta[..., 9] * kept
        both = theta[..., 9] * kept + term  # all that (1 + s/k)^-c multiplies
        return theta[..., 0] + size + both, _stack(
            np.ones(1),
            widened / theta[..., 1],
            -np.log(n) * widened,
            term / theta[..., 3],
            -log_tokens * term,
            -theta[..., 4] * term / (d + theta[..., 5]),
            theta[..., 7] * both * s / (theta[..., 6] * (theta[..., 6] + s)),
            -log_gain * both,
            np.log(n) * term,
            kept,
        )

    def loss_and_slope(self, theta: Array, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
        size, term, _, log_gain = self._scaled_parts(theta, n, d, s)
        both = theta[..., 9] * size * np.exp(-theta[..., 7] * log_gain) + term
        return theta[..., 0] + size + both, -theta[..., 7] * both / (theta[..., 6] + s)


_PLAIN: tuple[Form, ...] = (Hoffmann(), Law1(), Law2(), Law4(), Law5b(), Law8(), Law16())
_COOLED = tuple(with_cooldown(form) for form in _PLAIN if form.name not in ("hoffmann", "law-1"))

_AT_ONE_D = {"b": 0.0, "d0": 1.0}
_GIVEN = tuple(without_pretraining(form, _AT_ONE_D) for form in (Law2(), Law8()))

FORMS: dict[str, Form] = {form.name: form for form in (*_PLAIN, *_COOLED, *_GIVEN)}
"""Forms by name. Add your own with ``FORMS[form.name] = form``, or hand the form itself to a fit."""
