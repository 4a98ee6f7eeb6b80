"""Numbers with units: what people write is read exactly, and what is written can be read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.quantities import (
    format_count,
    format_flops,
    format_hyperparameter,
    format_seconds,
    parse_count,
    parse_quantity,
)


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
        (12, 12.0),
        (0.25, 0.25),
    ],
)
def test_reads_what_people_write(text: object, number: float) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "k", "3 apples", "1e", "1k k", "0x10", True, None, [1], "--1", "1,5"])
def test_refuses_what_is_no_number(text: object) -> None:
    with pytest.raises(ValueError, match="expected a number such as"):
        parse_quantity(text)


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
