"""Numbers as people write them: ``36k`` parameters, ``2B tokens``, ``20 million``, ``1,234,567``, ``3e21`` FLOPs.

The one reader of numbers: YAML, the command line, tables, imports and HTTP all come here. Text is read as a decimal
fraction, never through binary floats, so that ``8.2M`` is 8,200,000 and not almost that.
"""

import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real

_POWERS = {
    "k": 3, "m": 6, "b": 9, "g": 9, "t": 12, "p": 15, "E": 18,
    "thousand": 3, "million": 6, "mio": 6, "mn": 6, "billion": 9, "bn": 9, "trillion": 12,
    "kb": 3, "mb": 6, "gb": 9, "tb": 12,
}  # fmt: skip
"""Power of ten by suffix or word; exa is a capital E alone, since ``1e`` is half of an exponent."""
_UNITS = ("tokens", "token", "toks", "tok", "parameters", "parameter", "params", "param", "flops", "flop", "bytes")
_GROUPED = r"[1-9]\d{0,2}(?:(?P<gap>[,' \u00a0\u2009\u202f])\d{3})(?:(?P=gap)\d{3})*"
_PATTERN = re.compile(
    rf"(?P<number>[+-]?(?:(?:{_GROUPED}|\d[\d_]*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"
    rf"\s*(?P<scale>{'|'.join(sorted(_POWERS, key=len, reverse=True))})??\s*(?:{'|'.join(_UNITS)})?",
    re.IGNORECASE | re.ASCII,
)
_LONGEST = 64
"""Characters of a number: nobody writes more, and reading a huge one takes time."""
_LARGEST_POWER, _LARGEST = 400, 10**308
_BINARY_DUST = 1e-9
"""A float so near to a whole number, relative to it, is that number after arithmetic: 8.2 * 1e6."""
_ROUNDED_FROM = 1000
"""A fraction of fewer things than these is no rounding of a computed count but a mistake."""


def parse_quantity(value: object) -> float:
    """Read a number such as ``1e18`` (which YAML leaves a string), ``250k``, ``20 million`` or ``2B tokens``.

    Raises:
        ValueError: the value is not a number of that form, or too large for one.
    """
    return float(_exact(value, whole=False))


def parse_count(value: object, *, rounded: bool = False) -> int:
    """Read a whole number of things (tokens, parameters, bytes); see :func:`parse_quantity`.

    Args:
        value: what was written.
        rounded: take a count of at least a thousand that has a fraction, as C / 6N gives, to the nearest whole one.

    Raises:
        ValueError: not a number, or not a whole one.
    """
    exact = _exact(value, whole=True)
    if isinstance(exact, float) and not math.isfinite(exact):
        raise ValueError(f"expected a whole number, got {_shown(value)}")
    nearest = round(exact)
    if exact == nearest:
        return nearest
    is_dust = isinstance(exact, float) and abs(exact - nearest) <= _BINARY_DUST * abs(exact)
    if abs(nearest) >= _ROUNDED_FROM and (rounded or is_dust):
        return nearest
    raise ValueError(f"expected a whole number, got {_shown(value)}")


def _exact(value: object, *, whole: bool) -> Fraction | int | float:
    """The very number that was written; a float where it came as one.

    One comma before three digits groups the thousands of a count, and could be the point of any other number.
    """
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value  # numpy's
    if isinstance(value, bool):
        raise ValueError(_expected(value))
    if isinstance(value, Integral):
        if abs(int(value)) > _LARGEST:
            raise ValueError(f"expected a number below 1e308, got a whole number of {int(value).bit_length()} bits")
        return int(value)
    if isinstance(value, Decimal) and value.is_finite():
        return Fraction(value)
    if isinstance(value, Real | Decimal):
        return float(value)  # not a number and infinity among them
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError(_expected(value))
    match = _PATTERN.fullmatch(value.strip())
    if match is None or match["scale"] == "e":
        raise ValueError(_expected(value))
    if match["number"].count(",") == 1 and "." not in match["number"] and not (whole and not match["scale"]):
        raise ValueError(f"{_shown(value)} could be {value.replace(',', '')} or {value.replace(',', '.')}; write which")
    digits = re.sub(r"[_,'\s\u00a0\u2009\u202f]", "", match["number"])
    power = abs(int(digits.lower().partition("e")[2] or 0))
    scale = match["scale"] or ""
    exact = Fraction(0)
    if power <= _LARGEST_POWER:  # an exponent of thousands would take memory before it could be refused
        exact = Fraction(Decimal(digits)) * 10 ** (_POWERS["E"] if scale == "E" else _POWERS.get(scale.lower(), 0))
    if power > _LARGEST_POWER or abs(exact) > _LARGEST:
        raise ValueError(f"expected a number below 1e308, got {_shown(value)}")
    return exact


def _expected(value: object) -> str:
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+(\.\d{3})*,\d+\s*[a-zA-Z]*\s*", value):
        hint = "; a decimal comma is written as a point here"
    return f"expected a number such as 250k, 2M or 3e21, got {_shown(value)}{hint}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST + 20 else f"{text[:_LONGEST]}..."


def format_count(value: float) -> str:
    """Write a count with three significant digits and a suffix: 36864 -> ``36.9k``, 2e6 -> ``2M``."""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def format_hyperparameter(name: str, value: float) -> str:
    """Write the value of a hyperparameter by its name: tokens as counts, anything else as a number."""
    return format_count(value) if name.endswith("_tokens") else f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Write an amount of storage in powers of 1000: 2.3e10 -> ``23 GB``."""
    for scale, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def format_flops(value: float) -> str:
    """Write a number of floating-point operations: 3.2e21 -> ``3.20e21 FLOPs``."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def format_seconds(seconds: float) -> str:
    """Write a duration as a person would: ``42 s``, ``3 min 20 s``, ``5 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
