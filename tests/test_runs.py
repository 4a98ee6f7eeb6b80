"""Tables of runs: a good one is read whatever its order; a bad one is refused by row, column and rule."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.runs import (
    MAX_COUNT,
    MAX_RATIO_SPREAD,
    MAX_ROWS_READ,
    OPTIONAL,
    REQUIRED,
    Observation,
    check_runs,
    loss_unit_of,
    read_runs,
    thinned,
    to_frame,
)

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


@pytest.mark.parametrize("domain", ["null", "NA", "nan", "None", "2024", "1e5", "true"])
def test_a_domain_of_any_name_survives_the_files_of_a_sweep(tmp_path: Path, domain: str) -> None:
    frame = to_frame([Observation(n_params=1, pretrain_tokens=1, specialize_tokens=0, domain=domain, loss=3.0)])
    frame.to_csv(tmp_path / "observations.csv", index=False)
    frame.to_parquet(tmp_path / "observations.parquet", index=False)
    for path in tmp_path.iterdir():
        assert read_runs(path)["domain"].tolist() == [domain]


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
        ({"loss": "three"}, "runs.csv: row 1: loss: expected a number such as 250k, 2M or 3e21, got 'three'"),
        ({"n_params": 0}, "runs.csv: row 1: n_params = 0 must be positive"),
        ({"pretrain_tokens": -1}, "runs.csv: row 1: pretrain_tokens = -1 must not be negative"),
        (
            {"pretrain_tokens": 0.5},
            "runs.csv: row 1: pretrain_tokens: expected a whole number, got 0.5; where millions",
        ),
        ({"pretrain_tokens": "0.4"}, "got '0.4'; where millions or billions are meant, write 0.4M or 0.4B"),
        ({"pretrain_tokens": 1234.5}, "runs.csv: row 1: pretrain_tokens: expected a whole number, got 1234.5"),
        ({"loss": "3,25"}, "row 1: loss: expected a number such as 250k, 2M or 3e21, got '3,25'; the decimal mark is"),
        ({"loss": "3,226"}, "row 1: loss: '3,226' could be 3226 or 3.226; write which"),
        ({"pretrain_tokens": 0}, "with specialize_tokens = 0 is a model that saw no tokens"),
        ({"domain": " "}, "runs.csv: row 1: domain = ' ' is empty"),
        ({"domain": None}, "is empty"),
        ({"weight": 0.0}, "runs.csv: row 1: weight = 0.0 must be positive"),
        ({"seed": 1.5}, "runs.csv: row 1: seed: expected a whole number, got 1.5"),
        ({"n_params": 1e30}, f"runs.csv: row 1: n_params = 1e+30 is more than {MAX_COUNT}"),
        ({"flops": "many"}, "runs.csv: row 1: flops: expected a number such as 250k, 2M or 3e21, got 'many'"),
        ({"wall_seconds": -1.0}, "runs.csv: row 1: wall_seconds = -1.0 must not be negative"),
    ],
)
def test_names_row_value_and_rule(changes: dict[str, object], sentence: str) -> None:
    frame = pd.DataFrame({**GOOD, "weight": 1.0, "seed": 0, "flops": 1e12, "wall_seconds": 1.0})
    for name, value in changes.items():
        frame[name] = [value, *frame[name][1:]]
    assert sentence in refusal(frame)


NUMBERS = ("n_params", "pretrain_tokens", "specialize_tokens", "loss", "seed", "weight")


@given(
    row=st.integers(0, 2),
    name=st.sampled_from(NUMBERS),
    value=st.sampled_from([float("nan"), float("inf"), -float("inf"), -1.0, "", "1,00", None]),
    order=st.permutations(range(3)),
)
def test_a_bad_number_is_named_wherever_it_stands(row: int, name: str, value: object, order: list[int]) -> None:
    frame = pd.DataFrame({**GOOD, "weight": 1.0, "seed": 0}).iloc[order].astype(object)
    values = frame[name].tolist()
    values[row] = value
    frame[name] = pd.Series(values, index=frame.index, dtype=object)
    blank = value is None or value != value
    if name in OPTIONAL and blank:  # an empty cell of an optional column has a value that stands in for it
        assert (check_runs(frame, origin="runs.csv")[name] == OPTIONAL[name]).all()
    else:
        message = refusal(frame)
        assert message.startswith(f"runs.csv: row {row + 1}: {name}")
        assert repr(value) in message


def noted(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    notes: list[str] = []
    return check_runs(frame, origin="runs.csv", note=notes.append), notes


def test_reads_numbers_as_people_write_them() -> None:
    written = pd.DataFrame(
        {
            "n_params": ["20M", "1,234,567", "0.067B", 14_000],
            "pretrain_tokens": ["2B tokens", "1.6 billion", Decimal("8.2E+6"), 500_000.0],
            "specialize_tokens": [0, "0", "20 million", ""],
            "domain": "code",
            "loss": ["3.25", 3.0, Decimal("2.75"), 4],
            "flops": ["3e21", "1e12", 2e12, 1e12],
        }
    )
    assert "row 4: specialize_tokens: expected a number such as 250k, 2M or 3e21, got ''" in refusal(written)
    runs, notes = noted(written.iloc[:3])
    assert runs["n_params"].tolist() == [1_234_567, 20_000_000, 67_000_000]
    assert runs["pretrain_tokens"].tolist() == [1_600_000_000, 2_000_000_000, 8_200_000]
    assert runs["specialize_tokens"].tolist() == [0, 0, 20_000_000]
    assert runs["loss"].tolist() == [3.0, 3.25, 2.75]
    assert runs["flops"].tolist() == [1e12, 3e21, 2e12]
    assert {name: runs[name].dtype.kind for name in NUMBERS} == {
        name: "f" if name in ("loss", "weight") else "i" for name in NUMBERS
    }
    assert notes == []


def test_computed_tokens_are_rounded_where_somebody_is_told() -> None:
    frame = table(pretrain_tokens=6e18 / (6 * 57_334_197)).assign(n_params=[57_334_197, 14_000, 28_000.4])
    assert "row 3: n_params: expected a whole number, got 28000.4" in refusal(frame)
    runs, notes = noted(frame)
    assert runs["pretrain_tokens"].max() == 17_441_597_726
    assert notes == [
        "runs.csv: n_params has a fraction in 1 row and is rounded, as from 28000.4 to 28000",
        "runs.csv: pretrain_tokens has a fraction in 1 row and is rounded, as from 17441597725.699375 to 17441597726",
    ]
    for odd, message in (({"seed": [0, 1, 2000.5]}, "seed: expected"), ({"pretrain_tokens": 999.5}, "write 999.5M")):
        with pytest.raises(TableError, match=message):
            noted(table().assign(**odd))
    assert noted(table(n_params=8.2 * 1e6))[1] == [], "what arithmetic leaves behind a whole number is no fraction"


def test_blanks_around_a_domain_are_no_part_of_it() -> None:
    runs, notes = noted(table().assign(domain=["code ", "\u00a0code", "law"]))
    assert runs["domain"].unique().tolist() == ["code", "law"]
    assert notes == ["runs.csv: blanks around the names of domains are dropped, as from 'code '"]


def test_counts_the_further_rows_of_the_same_fault() -> None:
    frame = table()
    frame["loss"] = -1.0
    assert refusal(frame).endswith("must be positive (and 2 more rows)")


def test_names_both_rows_of_a_run_measured_twice() -> None:
    twice = pd.concat([table(), table(loss=3.2).iloc[:1]], ignore_index=True)
    assert "row 4 repeats row 1 (n_params=14000, pretrain_tokens=500000" in refusal(twice)
    assert len(check_runs(twice.assign(seed=[0, 0, 0, 1]), origin="runs.csv")) == 4


def test_one_row_is_a_table() -> None:
    assert len(check_runs(table().iloc[:1], origin="runs.csv")) == 1


def test_refuses_a_million_rows_before_it_looks_at_them() -> None:
    many = pd.DataFrame({name: np.broadcast_to(np.nan, MAX_ROWS_READ + 1) for name in REQUIRED})
    assert refusal(many) == f"runs.csv: 1000001 rows; at most {MAX_ROWS_READ} are read; keep one row per measured point"


def test_checkpoints_along_runs_are_thinned_by_their_ratio_and_the_last_is_kept() -> None:
    d = np.arange(1, 1001) * 1_000_000
    runs = check_runs(
        pd.concat(
            [
                pd.DataFrame(
                    {"n_params": n, "pretrain_tokens": d, "specialize_tokens": 0, "domain": "code", "loss": 3.0}
                )
                for n in (1_000_000, 2_000_000)
            ]
        ),
        origin="runs.csv",
    )
    kept, sentence = thinned(runs, max_rows=60)
    assert len(kept) <= 60
    assert "2000 rows are more than the 60 that are fitted" in sentence
    for _, run in kept.groupby("n_params"):
        tokens = run["pretrain_tokens"].to_numpy()
        assert tokens[-1] == d[-1]
        assert (tokens[2:] / tokens[1:-1]).min() > 1.2  # at least a factor of 2^(1/2) between the ends of two steps
    assert thinned(runs) == (runs, "") or thinned(runs)[0] is runs
    again, _ = thinned(runs.sample(frac=1.0, random_state=0).sort_index(), max_rows=60)
    assert again.equals(kept)


def test_branches_of_several_replayed_shares_are_thinned_each_for_itself() -> None:
    s, shares = np.arange(1, 101) * 1_000_000, (0.0, 0.05, 0.2)
    row = {"base": "a", "n_params": 1_000_000, "pretrain_tokens": 10**9, "domain": "code", "loss": 3.0}
    runs = check_runs(
        pd.concat([pd.DataFrame({**row, "specialize_tokens": s, "replay_share": share}) for share in shares]),
        origin="runs.csv",
    )
    kept, _ = thinned(runs, max_rows=60)
    points = [set(kept.loc[kept["replay_share"] == share, "specialize_tokens"]) for share in shares]
    assert points[0] == points[1] == points[2]
    assert max(points[0]) == s[-1]


def test_runs_of_two_tokenizers_are_told_by_their_names() -> None:
    one = table().assign(tokenizer="gpt2")
    assert len(check_runs(one, origin="runs.csv")) == 3
    mixed = one.assign(tokenizer=["gpt2", "llama", "llama"])
    said = "runs.csv: row 2: tokenizer = 'llama' is not that of row 1, 'gpt2'; losses per token of two tokenizers"
    assert refusal(mixed).startswith(said)
    assert refusal(mixed).endswith("(and 1 more row)")
    # Named rather than the repeat that they are too.
    assert refusal(mixed.assign(specialize_tokens=9, pretrain_tokens=9)).startswith(said)
    assert "row 3: tokenizer = nan" in refusal(one.assign(tokenizer=["gpt2", "gpt2", np.nan]))


def test_runs_of_two_tokenizers_are_compared_in_bits_a_byte() -> None:
    mixed = table().assign(tokenizer=["gpt2", "llama", "llama"], bits_per_byte=lambda t: t["loss"])
    runs = check_runs(mixed, origin="runs.csv")
    assert len(runs) == 3
    assert loss_unit_of(runs) == "bits/byte"
    assert loss_unit_of(check_runs(table(), origin="runs.csv")) == "nats/token"
    nearly = mixed.assign(bits_per_byte=mixed["loss"] * [1.0, 1.0, 0.99])
    assert "of two tokenizers bits a byte can" in refusal(nearly)


def test_runs_of_two_tokenizers_are_told_by_the_bytes_of_their_tokens() -> None:
    bytes_per_token = pd.Series([2.0, 2.0, 3.0])  # of code, code, law: a domain has its own
    frame = table().assign(bits_per_byte=lambda t: t["loss"] / np.log(2) / bytes_per_token)
    assert len(check_runs(frame, origin="runs.csv")) == 3
    assert len(check_runs(frame.round({"bits_per_byte": 2}), origin="runs.csv")) == 3
    for factor, good in ((1 + 0.9 * MAX_RATIO_SPREAD, True), (1 + 1.1 * MAX_RATIO_SPREAD, False), (0.8, False)):
        other = frame.assign(bits_per_byte=frame["bits_per_byte"] * [1.0, factor, 1.0])
        if good:
            check_runs(other, origin="runs.csv")
        else:
            assert "row 2: bits_per_byte = " in refusal(other)
            assert "is another multiple of the loss than in the rows above of its domain" in refusal(other)
            assert len(check_runs(other.assign(bits_per_byte=[np.nan, *other["bits_per_byte"][1:]]), origin="a")) == 3


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
    assert first.identity == repeat.identity == replace(repeat, loss=np.float64(repeat.loss)).identity
    assert len({o.identity for o in (first, other_loss, other_seed)}) == 3


def test_names_a_format_that_it_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "runs.docx").touch()
    with pytest.raises(TableError, match=r"unknown table format '\.docx'.*Known: \.csv, "):
        read_runs(tmp_path / "runs.docx")


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet"])
def test_names_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=f"{name}: there is no such file or folder"):
        read_runs(tmp_path / name)


def test_names_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(TableError, match=r"runs\.parquet: cannot be read as parquet"):
        read_runs(path)
