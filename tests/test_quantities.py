"""Numbers with units: what people write is read exactly, and what is written can be read back."""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from raysplit.cli.options import COUNT, QUANTITY
from raysplit.live.questions import ObservationRow
from raysplit.quantities import (
    BEGINS_AS_NUMBER,
    format_count,
    format_flops,
    format_hyperparameter,
    format_seconds,
    parse_count,
    parse_quantity,
    parse_share,
)
from raysplit.runs import check_runs
from raysplit.section import Count, Quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("36k", 36e3),
        ("2M", 2e6),
        ("7B", 7e9),
        ("7g", 7e9),
        ("1.5T", 1.5e12),
        ("3P", 3e15),
        ("1e18", 1e18),
        ("1E18", 1e18),
        ("2.5E", 2.5e18),
        ("1_000", 1e3),
        (" .5 k ", 500.0),
        ("-3", -3.0),
        ("8.2M", 8_200_000),
        ("0.067B", 67_000_000),
        ("20 million", 20e6),
        ("2B tokens", 2e9),
        ("1.6 bn params", 1.6e9),
        ("1,234,567", 1_234_567),
        ("1,234.5", 1234.5),
        ("1\u2019234\u2019567", 1_234_567),
        (Decimal("8.2E+6"), 8_200_000),
        (12, 12.0),
        (0.25, 0.25),
    ],
)
def test_reads_what_people_write(text: object, number: float) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "k", "3 apples", "1e", "1k k", "0x10", True, None, [1], "--1", "1,5", "1__0", "1,23,456", "2 Ki"]
)
def test_refuses_what_is_no_number(text: object) -> None:
    with pytest.raises(ValueError, match="expected a number such as"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("10^9", 1e9), ("3 \u00b7 10\u00b2\u00b9 FLOPs", 3e21), ("1.5x10^-3", 1.5e-3), ("\u22123", -3.0)],
)
def test_reads_what_is_printed(text: str, number: float) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("pythia-1.4B-deduped", "where that is meant, write 1.4B"),
        ("70M-v2", "where that is meant, write 70M"),
        ("~3.2", "where that is meant, write 3.2"),
        ("**3.25**", "where that is meant, write 3.25"),
        ("45.2%", "a share in per cent is none"),
        ("#DIV/0!", "an error of the spreadsheet: mend the cell, or empty it"),
        (datetime(2026, 3, 14), "a spreadsheet took it for a date"),
    ],
)
def test_says_what_may_be_meant(value: object, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse_quantity(value)


@pytest.mark.parametrize("text", ["5\u00b2", "1.2\u00d7109", "2.10^9", "x10^9", "1.3e9.0", "<3", "7B or 8B", "0x10"])
def test_guesses_at_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=rf"got '{re.escape(text)}'$"):
        parse_quantity(text)


@given(st.decimals(0, 100, places=3))
def test_a_share_may_be_in_per_cent(percent: Decimal) -> None:
    assert parse_share(f"{percent} %") == parse_share(f"{percent}%") == float(percent / 100)
    assert parse_share(str(percent)) == parse_share(percent) == float(percent)


@pytest.mark.parametrize("text", ["%", "5%%", "5 % of it", "five %", True])
def test_other_shares_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a number such as"):
        parse_share(text)


def test_a_count_is_whole() -> None:
    assert parse_count("1.5k") == 1500
    with pytest.raises(ValueError, match=r"whole number, got '1\.5'"):
        parse_count("1.5")


@given(st.integers(min_value=0, max_value=10**15))
def test_counts_round_trip_to_three_digits(count: int) -> None:
    assert parse_quantity(format_count(count)) == pytest.approx(count, rel=0.005)


@given(st.floats(min_value=1, max_value=1e30))
def test_flops_round_trip_to_three_digits(flops: float) -> None:
    assert parse_quantity(format_flops(flops).removesuffix(" FLOPs")) == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(41.6, "42 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (3599.9, "1 h 0 min"), (18720, "5 h 12 min")],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [("warmup_tokens", 87344.0, "87.3k"), ("learning_rate", 0.0123456, "0.0123"), ("replay_share", 0, "0")],
)
def test_hyperparameters_are_written_by_what_they_count(name: str, value: float, written: str) -> None:
    assert format_hyperparameter(name, value) == written


# Every way to write a count, through every door.

GAPS = (",", "'", "\u2019", " ", "\u00a0", "\u2009", "\u202f")
SCALES = {
    0: ("",),
    3: ("k", "K", " thousand", "e3"),
    6: ("m", "M", " M", " million", "e6", "E+6", "e06", " mio"),
    9: ("b", "B", "G", " billion", " bn", "e9", "\u00a0B", " x 10^9", "\u00d710\u2079", "*10**9", " Mrd."),
    12: ("t", "T", " trillion", "e12"),
}
UNITS = ("", " tokens", " tok", "tokens", " Params", " parameters", " FLOPs")


@st.composite
def written_counts(draw: st.DrawFn) -> tuple[int, object]:
    """A count from a thousand on, and one of the ways to write it."""
    count = draw(st.integers(1, 999_999)) * 10 ** draw(st.integers(3, 9))
    way = draw(st.sampled_from(["scaled", "grouped", "underscored", "int", "float", "decimal", "numpy"]))
    if way == "scaled":
        power = draw(st.sampled_from(sorted(SCALES)))
        number = f"{Decimal(count).scaleb(-power).normalize():f}"
        text: object = number + draw(st.sampled_from(SCALES[power])) + draw(st.sampled_from(UNITS))
        return count, draw(st.sampled_from(["", " ", "+"])) + str(text) + draw(st.sampled_from(["", " ", "\n"]))
    numbers: dict[str, Any] = {
        "grouped": f"{count:,}".replace(",", draw(st.sampled_from(GAPS))) + draw(st.sampled_from(["", ".0", ".00"])),
        "underscored": f"{count:_}",
        "int": count,
        "float": float(count),
        "decimal": Decimal(count),
        "numpy": np.float64(count),
    }
    return count, numbers[way]


def through_a_table(value: object) -> int:
    columns = {"n_params": value, "pretrain_tokens": "1B", "specialize_tokens": 0, "domain": "law", "loss": "3.25"}
    runs = check_runs(pd.DataFrame({n: pd.Series([v], dtype=object) for n, v in columns.items()}), origin="runs.csv")
    return int(runs["n_params"].iloc[0])


def through_http(value: object) -> int:
    value = value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Decimal) else value
    row = {"n_params": value, "pretrain_tokens": "1B", "specialize_tokens": 0, "domain": "law", "loss": 3.25}
    return ObservationRow.model_validate_json(json.dumps(row)).n_params


DOORS: dict[str, Callable[[Any], float]] = {
    "parse_count": parse_count,
    "parse_count, rounding": lambda value: parse_count(value, rounded=True),
    "parse_quantity": parse_quantity,
    "space": TypeAdapter(Count).validate_python,
    "space, quantity": TypeAdapter(Quantity).validate_python,
    "command line": lambda value: COUNT.convert(value, None, None),
    "command line, number": lambda value: QUANTITY.convert(value, None, None),
    "table": through_a_table,
    "http": through_http,
}


@given(written_counts())
def test_every_way_to_write_a_count_gives_that_count_through_every_door(written: tuple[int, object]) -> None:
    count, value = written
    is_one_comma = isinstance(value, str) and value.count(",") == 1 and "." not in value
    for door, read in DOORS.items():
        if is_one_comma and ("quantity" in door or "number" in door):  # the point of a number that is no count?
            with pytest.raises((ValueError, click.BadParameter), match="write which"):
                read(value)
        else:
            assert read(value) == count, (door, value)


@given(st.integers(1, 999), st.integers(0, 10**6), st.integers(1, 8))
def test_a_decimal_comma_is_never_another_number(whole: int, fraction: int, digits: int) -> None:
    """Refused with the remedy; in a plain count, three digits after the comma are thousands."""
    after = f"{fraction:0{digits}d}"
    for text in (f"{whole},{after}", f"{whole},{after}M", f"{whole},{after} tokens", f"{whole},{after}e9"):
        with pytest.raises(ValueError, match="write") as refused:
            parse_quantity(text)
        assert f"{whole}.{after}" in str(refused.value)
        if len(after) != 3 or "M" in text or "e9" in text:
            with pytest.raises(ValueError, match="write"):
                parse_count(text)
        else:
            assert parse_count(text) == 1000 * whole + int(after)


@given(st.integers(1000, 10**15))
def test_points_group_no_thousands(count: int) -> None:
    text = f"{count:,}".replace(",", ".")
    for written in (text + ",5", text + ",50 tokens"):
        with pytest.raises(ValueError, match=f"write {count}"):
            parse_count(written)
    if count >= 10**6:
        with pytest.raises(ValueError, match=f"points group no thousands here: write {count}"):
            parse_count(text)
    elif count % 1000:
        with pytest.raises(ValueError, match="expected a whole number"):
            parse_count(text)
    else:  # 20.000 is twenty; a table of so small models is doubted, and who types it is asked
        assert parse_count(text) == count // 1000
        with pytest.raises(click.BadParameter, match=f"could be {count // 1000} or {count}; write which"):
            COUNT.convert(text, None, None)


@given(st.integers(10**9, 10**14), st.integers(10**3, 10**9))
def test_a_computed_count_is_rounded_where_that_is_asked_for(compute: int, n_params: int) -> None:
    """C / 6N has a fraction; what multiplication leaves behind a whole number is none."""
    tokens = compute / (6 * n_params)
    if tokens >= 1000:
        assert parse_count(tokens, rounded=True) == parse_count(repr(tokens), rounded=True) == round(tokens)
    assert parse_count(n_params / 10 * 10) == parse_count(n_params / 1e6 * 1e6) == n_params


@pytest.mark.parametrize("value", [2048.5, "2048.5", "0.4", 1e3 + 1e-6])
def test_what_is_not_whole_is_no_count(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number, got"):
        parse_count(value)


HUGE = (
    10**5000, -(10**5000), [10**5000], Fraction(10**5000), Decimal("1e999999999"), "9" * 10**7, "1e999999999",
    "1e-999999999", "1e" + "9" * 60, "2e308", "1" + "0" * 5000, "1" + ",000" * 10**6, " " * 10**7, "1e400M",
)  # fmt: skip


@pytest.mark.parametrize("value", HUGE, ids=range(len(HUGE)))
def test_a_huge_number_is_refused_at_once_and_shortly(value: object) -> None:
    start = time.perf_counter()
    for read in (parse_count, parse_quantity):
        with pytest.raises(ValueError, match="expected a") as refused:
            read(value)
        assert len(str(refused.value)) < 200
    assert time.perf_counter() - start < 1


@given(st.one_of(st.text(), st.text("0123456789.,_' eEkKMBT+-"), st.floats(), st.integers(), st.binary(), st.none()))
def test_anything_else_is_refused(value: object) -> None:
    for read in (parse_count, parse_quantity):
        try:
            number = read(value)
        except ValueError:
            continue
        if isinstance(value, str):
            assert re.match(BEGINS_AS_NUMBER, value)
            # Of a text that is read, nothing but signs of a number is left without its suffix.
            assert set(re.sub(r"[eEkKMBT]", "", value)) <= set(
                "0123456789.,_' +-\u2212\t\r\n\u00a0\u2009\u202f\u2019^*x\u00d7"
            ), value
        else:
            assert number == pytest.approx(value, rel=1e-14, nan_ok=True)
