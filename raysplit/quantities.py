"""Numbers as people write them: ``36k`` parameters, ``2B tokens``, ``20 million``, ``1,234,567``, ``3e21`` FLOPs.

Numbers of YAML, the command line, tables, imports and HTTP are all read here. Text is read as a decimal fraction, never
through binary floats. So ``8.2M`` is 8,200,000 and not almost that.
"""

import math
import re
import reprlib
from datetime import date
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real

_POWERS = {
    "k": 3, "m": 6, "b": 9, "g": 9, "t": 12, "p": 15, "E": 18,
    "thousand": 3, "million": 6, "millions": 6, "mio": 6, "mio.": 6, "mln": 6, "mn": 6,
    "billion": 9, "billions": 9, "bln": 9, "bn": 9, "mrd": 9, "mrd.": 9, "trillion": 12, "trillions": 12,
    "kb": 3, "mb": 6, "gb": 9, "tb": 12,
}  # fmt: skip
"""Power of ten by suffix or word. Exa is a capital E alone, since ``1e`` is half of an exponent."""
_UNITS = ("tokens", "token", "toks", "tok", "parameters", "parameter", "params", "param", "flops", "flop", "bytes",
          "nats", "nat")  # fmt: skip
_BLANK = r"[ \t\r\n\u00a0\u2009\u202f]"
_GAPS = ",'\u2019 \u00a0\u2009\u202f"
"""Characters that group thousands, in English, Swiss and French writing. A point does not."""
_GROUPED = rf"[1-9]\d{{0,2}}(?:(?P<gap>[{_GAPS}])\d{{3}})(?:(?P=gap)\d{{3}})*"
_PATTERN = re.compile(
    rf"{_BLANK}*(?P<digits>[+-]?(?:(?:{_GROUPED}|\d+(?:_\d+)*)(?:\.\d*)?|\.\d+))(?:e(?P<power>[+-]?\d+))?"
    rf"{_BLANK}*(?P<scale>{'|'.join(map(re.escape, sorted(_POWERS, key=len, reverse=True)))})??"
    rf"{_BLANK}*(?:{'|'.join(_UNITS)})?{_BLANK}*",
    re.IGNORECASE | re.ASCII,
)
_COMMA = re.compile(r"[+-]?\d+(?:\.\d{3})*,\d+[^.,]*", re.ASCII)
_POINTS = re.compile(r"[+-]?\d{1,3}(?:\.\d{3}){2,}[^.,]*", re.ASCII)
"""Forms that are refused with a hint: a decimal comma, and thousands grouped by points."""
_TEN = re.compile(
    rf"(?:(?P<times>(?<=[\d.]){_BLANK}*[x\u00d7*\u00b7\u22c5]{_BLANK}*)|(?<![\d.,]))10"
    r"(?:(?:\^|\*\*)(?P<power>[+-]?\d+)|(?P<raised>\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+))",
    re.IGNORECASE,
)
"""``1.2 x 10^9``, ``3 * 10**21`` or a raised exponent, with or without a factor."""
_RAISED = str.maketrans("\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789")
_WITH_SUFFIX = re.compile(r"(?<![\w.,])\d+(?:\.\d+)?[ ]?[kmbt](?![a-z0-9.])", re.IGNORECASE | re.ASCII)
_DECORATED = re.compile(r"[^\w.,<>+-]*(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)[^\w.,<>%-]*")
"""Numbers within other text (``70M-v2``, ``~3.2``): the message suggests to write the number alone."""
MAX_LENGTH = 64
"""Most characters of a number: nobody writes more, and reading a huge one takes time."""
BEGINS_AS_NUMBER = r"^[ \t\r\n\u00a0\u2009\u202f]*[+\u2212-]?\.?[0-9]"
"""The beginning of every text that is read as a number, as a regular expression for JSON Schema."""
_LARGEST_POWER = 308
_LARGEST = 10**_LARGEST_POWER
_DUST_ULPS = 8
"""A float within so many units in its last place of a whole number is that number after arithmetic, as 8.2 * 1e6 is."""
ROUNDED_FROM = 1000
"""A computed count from here on may have a fraction, which is rounded. In a smaller count a fraction is a mistake."""


def parse_quantity(value: object) -> float:
    """Read a number such as ``1e18`` (which YAML leaves a string), ``250k``, ``20 million`` or ``2B tokens``.

    Raises:
        ValueError: the value is no number of such a form, is beyond 1e308, or has a comma that may be either mark.
    """
    return float(_exact(value, whole=False))


def parse_count(value: object, *, rounded: bool = False) -> int:
    """Read a whole number of things (tokens, parameters, bytes); see :func:`parse_quantity`.

    Args:
        value: what was written.
        rounded: whether a count of at least `ROUNDED_FROM` that has a fraction, as C / 6N gives, is rounded.

    Raises:
        ValueError: the value is no number, or no whole one.
    """
    exact = _exact(value, whole=True)
    if isinstance(exact, float) and not math.isfinite(exact):
        raise ValueError(f"expected a whole number, got {_shown(value)}")
    nearest = round(exact)
    if exact == nearest:
        return nearest
    is_dust = isinstance(exact, float) and abs(exact - nearest) <= _DUST_ULPS * math.ulp(exact)
    if abs(nearest) >= ROUNDED_FROM and (rounded or is_dust):
        return nearest
    raise ValueError(f"expected a whole number, got {_shown(value)}")


def parse_share(value: object) -> float:
    """Read a share of one, as ``0.05`` or in per cent, as ``5 %``.

    Raises:
        ValueError: the value is no number.
    """
    if isinstance(value, str) and value.rstrip().endswith("%"):
        return float(_exact(value.rstrip()[:-1], whole=False) / 100)
    return parse_quantity(value)


def _exact(value: object, *, whole: bool) -> Fraction | int | float:
    """The exact number that was written; a float where the value is one."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # numpy's
    if isinstance(value, bool):
        raise ValueError(_expected(value))
    if isinstance(value, Integral | Fraction):
        exact = int(value) if isinstance(value, Integral) else value
        if abs(exact) > _LARGEST:
            raise ValueError("expected a number below 1e308, got a longer one")
        return exact
    if isinstance(value, Decimal):
        value = str(value) if value.is_finite() else math.nan
    if isinstance(value, Real):
        return float(value)  # not a number and infinity among them
    match = _PATTERN.fullmatch(_plain(value)) if isinstance(value, str) and len(value) <= MAX_LENGTH else None
    if match is None or match["scale"] == "e":
        raise ValueError(_expected(value))
    digits, power, scale = match["digits"], int(match["power"] or 0), match["scale"] or ""
    is_scaled = bool(scale or match["power"])
    if digits.count(",") == 1 and "." not in digits and not (whole and not is_scaled):
        # The comma groups the thousands of a plain count, and could be the point of any other number.
        plain, decimal = (str(value).strip().replace(",", mark) for mark in ("", "."))
        raise ValueError(f"{_shown(value)} could be {plain} or {decimal}; write which")
    power += _POWERS["E"] if scale == "E" else _POWERS.get(scale.lower(), 0)
    return _scaled(Decimal(re.sub(rf"[_{_GAPS}]", "", digits)), power, value)


def _plain(text: str) -> str:
    """A number's text with a plain minus, and with ``e9`` for ``x 10^9`` and raised exponents."""
    return _TEN.sub(_exponent, text.replace("\u2212", "-"))


def _exponent(match: re.Match[str]) -> str:
    power = match["power"] or match["raised"].translate(_RAISED)
    return f"e{power}" if match["times"] else f"1e{power}"


def _scaled(number: Decimal, power: int, value: object) -> Fraction:
    """The number times a power of ten; its size is checked first, since an exponent of thousands would take memory.

    Raises:
        ValueError: the product is above 1e308 or below 1e-308; ``value`` is what was written.
    """
    magnitude = number.adjusted() + power
    if number and not -_LARGEST_POWER <= magnitude <= _LARGEST_POWER:
        raise ValueError(f"expected a number {'below 1e308' if magnitude > 0 else 'above 1e-308'}, got {_shown(value)}")
    exact = Fraction(number) * Fraction(10) ** power if number else Fraction(0)
    if abs(exact) > _LARGEST:
        raise ValueError(f"expected a number below 1e308, got {_shown(value)}")
    return exact


def _expected(value: object) -> str:
    hint = ""
    if isinstance(value, date):
        hint = "; a spreadsheet took it for a date: write it into a cell that is formatted as a number"
    elif isinstance(value, str) and len(value) <= MAX_LENGTH:
        text = value.strip()
        if _COMMA.fullmatch(text):
            hint = f"; the decimal mark is a point here: write {text.replace('.', '').replace(',', '.')}"
        elif _POINTS.fullmatch(text):
            hint = f"; points group no thousands here: write {text.replace('.', '')}"
        elif text.startswith("#") and text.endswith(("!", "?")):
            hint = "; an error of the spreadsheet: mend the cell, or empty it"
        elif text.endswith("%"):
            hint = "; a share in per cent is none"
        elif inside := _number_inside(text):
            hint = f"; where that is meant, write {inside}"
    return f"expected a number such as 250k, 2M or 3e21, got {_shown(value)}{hint}"


def _number_inside(text: str) -> str:
    """The only number with a suffix in a longer text, as ``1.4B`` in ``pythia-1.4B-v0``; or one among signs alone."""
    found = [match.group() for match in _WITH_SUFFIX.finditer(text)]
    alone = _DECORATED.fullmatch(text)
    return found[0] if len(found) == 1 else alone["number"] if alone else ""


def _shown(value: object) -> str:
    """A value as short text for a message; Python refuses to write a whole number of thousands of digits."""
    try:
        text = repr(value[: 2 * MAX_LENGTH]) if isinstance(value, str) else reprlib.repr(value)
        text = str(value) if isinstance(value, date) else text
    except ValueError:
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_LENGTH + 20 else f"{text[:MAX_LENGTH]}..."


def format_count(value: float) -> str:
    """Write a count with three significant digits and a suffix: 36864 -> ``36.9k``, 2e6 -> ``2M``."""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def counted(n_things: int, thing: str) -> str:
    """Write a number of things with their name: ``1 run``, ``1,200 runs``."""
    return f"{n_things:,} {thing}{'s' * (n_things != 1)}"


def format_hyperparameter(name: str, value: float) -> str:
    """Write the value of a hyperparameter: as a count where its name ends in ``_tokens``, else as a number."""
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
