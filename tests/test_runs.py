"""Tables of runs: a good one is read whatever its order; a bad one is refused by row, column and rule."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.runs import OPTIONAL, REQUIRED, Observation, check_runs, read_runs, to_frame

GOOD = {
    "n_params": [14_000, 14_000, 28_000],
    "pretrain_tokens": [500_000, 500_000, 0],
    "specialize_tokens": [0, 250_000, 250_000],
    "domain": ["code", "code", "law"],
    "loss": [3.1, 2.9, 4.0],
}


def table(**changes: object) -> pd.DataFrame:
    """The good table with the first row's values changed."""
    frame = pd.DataFrame(GOOD)
    for name, value in changes.items():
        frame[name] = [value, *frame[name][1:]]
    return frame


def refusal(frame: pd.DataFrame) -> str:
    with pytest.raises(TableError) as caught:
        check_runs(frame, origin="runs.csv")
    return str(caught.value)


def test_fills_in_the_optional_columns() -> None:
    checked = check_runs(table(), origin="runs.csv")
    assert list(checked.columns) == [*REQUIRED, *OPTIONAL]
    assert (checked["seed"] == 0).all()
    assert (checked["weight"] == 1).all()
    assert checked["flops"].isna().all()


@given(st.permutations(range(3)))
def test_the_order_of_rows_means_nothing(order: list[int]) -> None:
    shuffled = table().iloc[order]
    pd.testing.assert_frame_equal(check_runs(shuffled, origin="a"), check_runs(table(), origin="b"))


@pytest.mark.parametrize("missing", REQUIRED)
def test_names_a_missing_column_and_those_there_are(missing: str) -> None:
    message = refusal(table().drop(columns=missing))
    assert message.startswith(f"runs.csv: no column {missing!r}. Required: n_params, ")
    assert "Found: " in message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": -3.1}, "runs.csv: row 1: loss = -3.1 must be positive"),
        ({"loss": 0.0}, "runs.csv: row 1: loss = 0.0 must be positive"),
        ({"loss": float("nan")}, "runs.csv: row 1: loss = nan is not a finite number"),
        ({"loss": float("inf")}, "runs.csv: row 1: loss = inf is not a finite number"),
        ({"loss": "three"}, "runs.csv: row 1: loss = 'three' is not a finite number"),
        ({"n_params": 0}, "runs.csv: row 1: n_params = 0 must be positive"),
        ({"pretrain_tokens": -1}, "runs.csv: row 1: pretrain_tokens = -1 must not be negative"),
        ({"pretrain_tokens": 0.5}, "runs.csv: row 1: pretrain_tokens = 0.5 is not a whole number"),
        ({"pretrain_tokens": 0}, "with specialize_tokens = 0 is a model that saw no tokens"),
        ({"domain": " "}, "runs.csv: row 1: domain = ' ' is empty"),
        ({"domain": None}, "is empty"),
        ({"weight": 0.0}, "runs.csv: row 1: weight = 0.0 must be positive"),
        ({"seed": 1.5}, "runs.csv: row 1: seed = 1.5 is not a whole number"),
    ],
)
def test_names_row_value_and_rule(changes: dict[str, object], sentence: str) -> None:
    frame = pd.DataFrame({**GOOD, "weight": 1.0, "seed": 0})
    for name, value in changes.items():
        frame[name] = [value, *frame[name][1:]]
    assert sentence in refusal(frame)


def test_counts_the_further_rows_of_the_same_fault() -> None:
    frame = table()
    frame["loss"] = -1.0
    assert refusal(frame).endswith("must be positive (and 2 more rows)")


def test_names_both_rows_of_a_run_measured_twice() -> None:
    twice = pd.concat([table(), table(loss=3.2).iloc[:1]], ignore_index=True)
    assert "row 4 repeats row 1 (n_params=14000, pretrain_tokens=500000" in refusal(twice)
    assert len(check_runs(twice.assign(seed=[0, 0, 0, 1]), origin="runs.csv")) == 4


def test_refuses_an_empty_table() -> None:
    assert refusal(table().iloc[:0]) == "runs.csv: the table has no rows"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_observations_survive_both_formats(tmp_path: Path, suffix: str) -> None:
    observations = [
        Observation(
            n_params=13_408, pretrain_tokens=d, specialize_tokens=s, domain="code", loss=3.0 + 1 / 3, wall_seconds=1.5
        )
        for d, s in ((500_000, 0), (250_000, 125_000))
    ]
    frame, path = to_frame(observations), tmp_path / f"runs{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    back = read_runs(path)
    pd.testing.assert_frame_equal(back[list(frame.columns)], frame)
    assert np.array_equal(back["loss"], frame["loss"]), "not a digit of the loss is lost"


@given(st.permutations(range(4)))
def test_equal_observations_give_equal_tables(order: list[int]) -> None:
    observations = [
        Observation(n_params=13_408, pretrain_tokens=d, specialize_tokens=s, domain="code", loss=3.0)
        for d, s in ((1, 0), (1, 2), (3, 0), (3, 2))
    ]
    pd.testing.assert_frame_equal(to_frame([observations[i] for i in order]), to_frame(observations))


def test_identity_tells_losses_and_runs_apart_and_knows_a_repeat() -> None:
    first = Observation(n_params=10, pretrain_tokens=1, specialize_tokens=2, domain="code", loss=3.0)
    repeat = Observation(
        n_params=10, pretrain_tokens=1, specialize_tokens=2, domain="code", loss=3.0, trial="again", wall_seconds=2.0
    )
    other_loss = Observation(n_params=10, pretrain_tokens=1, specialize_tokens=2, domain="code", loss=3.0000001)
    other_seed = Observation(n_params=10, pretrain_tokens=1, specialize_tokens=2, domain="code", loss=3.0, seed=1)
    assert first.identity == repeat.identity
    assert len({o.identity for o in (first, other_loss, other_seed)}) == 3


def test_names_a_format_that_it_does_not_read(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"unknown table format '\.xlsx'.*Known: \.csv, \.parquet"):
        read_runs(tmp_path / "runs.xlsx")


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet"])
def test_names_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=f"{name}: cannot be read as"):
        read_runs(tmp_path / name)


def test_names_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(TableError, match=r"runs\.parquet: cannot be read as parquet"):
        read_runs(path)
