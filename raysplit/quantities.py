"""Numbers with units as people write them: ``36k`` parameters, ``2M`` tokens, ``3e21`` FLOPs."""

import re

_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_PATTERN = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([kKmMbBgGtTpPE]?)\s*")


def parse_quantity(value: object) -> float:
    """Read a number such as ``1e18`` (which YAML leaves a string), ``250k``, ``2M``, ``7B`` or ``1.5T``.

    Raises:
        ValueError: the value is not a number of that form.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number such as 250k, 2M or 3e21, got {value!r}")
    if isinstance(value, int | float):
        return float(value)
    match = _PATTERN.fullmatch(value)
    if match is None:
        raise ValueError(f"expected a number such as 250k, 2M or 3e21, got {value!r}")
    return float(match[1].replace("_", "")) * _SCALES[match[2].lower()]


def parse_count(value: object) -> int:
    """Read a whole number of things (tokens, parameters, bytes); see :func:`parse_quantity`.

    Raises:
        ValueError: not a number, or not a whole one.
    """
    number = parse_quantity(value)
    if number != round(number):
        raise ValueError(f"expected a whole number, got {value!r}")
    return round(number)


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
