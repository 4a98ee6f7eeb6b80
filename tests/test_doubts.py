"""Doubts about tables of runs: what cannot be is refused, what is odd is told, and real tables raise none."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.cli.options import COUNT
from raysplit.doubts import doubts_about, gaps_in, warnings_about
from raysplit.errors import TableError
from raysplit.quantities import parse_count, parse_quantity
from raysplit.runs import check_runs
from tests.conftest import REPOSITORY
from tests.law.tables import TRUTH, synthetic

PAGE = REPOSITORY / "docs" / "numbers.md"
Change = Callable[[pd.DataFrame], pd.DataFrame]


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    return check_runs(frame, origin="runs.csv")


def good(**options: object) -> pd.DataFrame:
    """Two domains, three sizes, N from 14M, D to 2B."""
    frame = synthetic("law-2", n_domains=2, noise=0.005, **options)  # type: ignore[arg-type]
    for name in ("n_params", "pretrain_tokens", "specialize_tokens"):
        frame[name] *= 1000
    return frame


def one_run(tokens: np.ndarray) -> pd.DataFrame:
    """Points of one run of one size, added to a good table."""
    points = {"n_params": 14_000_001, "pretrain_tokens": tokens, "specialize_tokens": 0, "domain": "domain0"}
    return pd.concat([good(), pd.DataFrame(points | {"loss": 5 - 0.1 * np.log(tokens)})], ignore_index=True)


def rising(frame: pd.DataFrame, domain: str) -> pd.DataFrame:
    return frame.assign(loss=frame["loss"].where(frame["domain"] != domain, 10 - frame["loss"]))


def overfit(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(loss=frame["loss"] * (1 + frame["specialize_tokens"] / frame["specialize_tokens"].max()))


def only(frame: pd.DataFrame, name: str, value: object) -> pd.DataFrame:
    return frame[frame[name] == value]


DOUBTED: dict[str, Change] = {
    "N below 1,000": lambda t: t.assign(n_params=t["n_params"].replace(14_000_000, 20)),
    "D or D' below 1,000 and not 0": lambda t: t.assign(pretrain_tokens=t["pretrain_tokens"] // 1_000_000),
    "over a million tokens a parameter": lambda t: t.assign(n_params=t["n_params"].replace(14_000_000, 1400)),
    "a loss above the logarithm of the vocabulary": lambda t: t.assign(loss=np.exp(t["loss"])),
    "losses that rise with N, D and D'": lambda t: t.assign(loss=1 - t["loss"] / 10),
    "one loss in every row": lambda t: t.assign(loss=3.0),
    "under a token for 10,000 parameters": lambda t: t.assign(n_params=t["n_params"] * 10_000_000),
    "one domain's losses that rise": lambda t: rising(t, "domain1"),
    "losses that rise with D alone, or with D' alone": overfit,
    "domains that differ in case, blanks or hyphens": lambda t: t.assign(
        domain=["Law" if i % 2 else "law" for i in range(len(t))]
    ),
    "fifty points of one run, or twelve at even distances": lambda _: one_run(np.arange(1, 13) * 100_000_000),
}
GAPS: dict[str, Change] = {
    "D' = 0 in every row": lambda t: only(t, "specialize_tokens", 0),
    "D' = 0 in every row of a domain": lambda t: t[(t["domain"] == "domain0") | (t["specialize_tokens"] == 0)],
    "D = 0 in every row": lambda t: t.assign(pretrain_tokens=0, seed=range(len(t)))[t["specialize_tokens"] > 0],
    "one size": lambda t: only(t, "n_params", 14_000_000),
    "no row with D' = 0 of a base": lambda t: t[t["specialize_tokens"] > 0].assign(base=t["n_params"].astype(str)),
    "one row of a domain": lambda t: pd.concat([t, t.iloc[:1].assign(domain="new")]),
}


def rows_of_page(head: str) -> list[list[str]]:
    """The cells of the page's table under a header, without their backticks."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    assert any(line.startswith(f"| {head} |") for line in lines), head
    next(lines)
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_page_of_numbers_says_how_they_are_read() -> None:
    for written, number in rows_of_page("written | read as"):
        for text in re.findall(r"`([^`]+)`", written):
            assert parse_count(text) == parse_quantity(text) == int(number), text


def through_a_table(text: str) -> object:
    return checked(
        pd.DataFrame({"n_params": ["1M"], "pretrain_tokens": text, "specialize_tokens": 0, "domain": "a", "loss": 3})
    )


def test_the_page_of_numbers_says_what_is_refused() -> None:
    doors: dict[str, Callable[[str], object]] = {
        "number": parse_quantity,
        "count": parse_count,
        "tokens": through_a_table,
        "option": lambda text: COUNT.convert(text, None, None),
    }
    for written, door, answer in rows_of_page("written | as | answer"):
        with pytest.raises(Exception, match=re.escape(answer)):
            doors[door](written.strip("`"))


def test_the_page_of_numbers_says_what_is_doubted() -> None:
    rows = rows_of_page("the table says | becomes | in these words")
    assert [says for says, _, _ in rows] == list(DOUBTED)
    for says, becomes, words in rows:
        runs = checked(DOUBTED[says](good()))
        if becomes == "refused":
            with pytest.raises(TableError, match=re.escape(words)) as refused:
                warnings_about(runs, origin="runs.csv")
            assert str(refused.value).startswith("runs.csv: ")
            assert "--as-is" in str(refused.value)
        told = warnings_about(runs, origin="runs.csv", as_is=becomes == "refused")
        assert any(words in sentence for sentence in told), told


def test_the_page_of_numbers_says_what_no_run_tells() -> None:
    rows = rows_of_page("the table has | said")
    assert [has for has, _ in rows] == list(GAPS)
    for has, said in rows:
        gaps = gaps_in(checked(GAPS[has](good())))
        assert any(said in gap for gap in gaps), (has, gaps)
    assert gaps_in(checked(good())) == []


# No false alarms.


@pytest.mark.parametrize("scale", [1, 1000, 500_000], ids=["tiny", "millions", "billions"])
@pytest.mark.parametrize("form", [form for form in TRUTH if not form.endswith("-given")])  # D does something
def test_no_doubt_about_a_table_of_any_scale(form: str, scale: int) -> None:
    frame = synthetic(form, n_domains=3, noise=0.02, within=0.5, across=0.2)
    for name in ("n_params", "pretrain_tokens", "specialize_tokens"):
        frame[name] *= scale
    assert doubts_about(checked(frame), vocab_size=50_257) == []


def test_no_doubt_about_what_sweeps_measured(repository: Path) -> None:
    runs = checked(pd.read_csv(repository / "benchmarks" / "data" / "surface-2026-11-23.csv"))
    assert doubts_about(runs) == doubts_about(runs, vocab_size=512) == []
    assert gaps_in(runs) == []


def test_no_doubt_about_published_tables(shared_data: Path) -> None:
    published = {
        "chinchilla-toolkit-234/llm_df.csv": {"N": "n_params", "D": "pretrain_tokens"},
        "datablations/runs_c4_val.csv": {"params": "n_params", "tokens": "pretrain_tokens", "val_loss": "loss"},
        "scalebench/data_constrained_train.csv": {"params": "n_params", "tokens": "pretrain_tokens"},
        "scalebench/farseer_train.csv": {"N": "n_params", "D": "pretrain_tokens"},
    }
    for file, columns in published.items():
        frame = pd.read_csv(shared_data / file).rename(columns=columns).assign(specialize_tokens=0, domain="web")
        frame = frame[np.isfinite(frame["loss"])]
        frame["seed"] = frame.groupby(["n_params", "pretrain_tokens"]).cumcount()
        assert doubts_about(checked(frame)) == [], file


@given(
    sizes=st.lists(st.integers(8_000, 10**11), min_size=1, max_size=5, unique=True),
    per_parameter=st.lists(st.floats(0.5, 2000), min_size=1, max_size=6, unique=True),
    exponent=st.floats(0.05, 0.5),
    noise=st.floats(0, 0.02),
    seed=st.integers(0, 100),
)
@settings(max_examples=20)
def test_no_doubt_where_losses_fall(
    sizes: list[int], per_parameter: list[float], exponent: float, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (n, round(n * ratio), 1.7 + 3 * ((n / 8e3) ** -exponent + ratio**-exponent))
        for n in sizes
        for ratio in per_parameter
    ]
    frame = pd.DataFrame(rows, columns=["n_params", "pretrain_tokens", "loss"]).assign(specialize_tokens=0, domain="a")
    frame["loss"] *= np.exp(noise * rng.normal(size=len(frame)))
    frame = frame.drop_duplicates(["n_params", "pretrain_tokens"])
    assert not any(doubt.is_impossible for doubt in doubts_about(checked(frame)))


def test_noise_of_neighbours_is_no_doubt(rng: np.random.Generator) -> None:
    frame = good()
    frame["loss"] = 3.0 * np.exp(0.01 * rng.normal(size=len(frame)))  # of domains that tokens do nothing for
    assert doubts_about(checked(frame)) == []


def test_a_few_rows_that_all_rise_are_enough() -> None:
    frame = only(only(only(good(), "n_params", 14_000_000), "specialize_tokens", 0), "domain", "domain0")
    assert doubts_about(checked(frame)) == []
    [doubt] = doubts_about(checked(frame.assign(loss=1 - frame["loss"] / 10)))
    assert "in 100% of 6 comparisons: an accuracy?" in doubt.sentence
    assert doubts_about(checked(frame.assign(loss=[0.5, 0.6, 0.55, 0.7]))) == []


def test_grids_are_no_histories() -> None:
    for tokens in (np.geomspace(1e8, 1e11, 12).astype(int), np.arange(1, 9) * 10**9):
        assert doubts_about(checked(one_run(tokens))) == []
    [doubt] = doubts_about(checked(one_run(np.geomspace(1e8, 1e11, 50).astype(int))))
    assert doubt.sentence.startswith("50 points of one run along pretrain_tokens, as in its history: only losses after")


def test_branches_of_several_replayed_shares_are_no_history_and_do_not_rise() -> None:
    shares, tokens = (0.0, 0.05, 0.1, 0.2, 0.4), np.array([1, 4, 16]) * 10**7
    row = {"base": "a", "n_params": 14_000_000, "pretrain_tokens": 10**9, "domain": "code"}
    frame = pd.concat(
        [
            pd.DataFrame({**row, "specialize_tokens": tokens, "replay_share": share, "loss": 3 + 2 * share})
            for share in shares
        ]
    )
    falling = 0.001 * np.log(frame["specialize_tokens"])
    assert doubts_about(checked(frame.assign(loss=frame["loss"] - falling))) == []
    later = frame.assign(specialize_tokens=frame["specialize_tokens"] * (1 + frame["replay_share"]))
    assert doubts_about(checked(later.assign(loss=frame["loss"] - falling))) == []


# What the sentences name.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(loss=1 - t["loss"] / 10), "an accuracy?"),
        (lambda t: t.assign(loss=100 - 10 * t["loss"]), "an accuracy in per cent?"),
        (lambda t: t.assign(loss=12 - t["loss"]), "an accuracy or another score, or a likelihood?"),
    ],
    ids=["share", "per cent", "score"],
)
def test_what_rises_is_called_by_its_scale(change: Change, words: str) -> None:
    [doubt] = doubts_about(checked(change(good())))
    assert doubt.is_impossible
    assert "losses rise with parameters and tokens, in 100% of 1680 comparisons" in doubt.sentence
    assert words in doubt.sentence


def test_a_vocabulary_bounds_the_loss() -> None:
    frame = good()
    assert (
        doubts_about(checked(frame.assign(loss=frame["loss"] / frame["loss"].max() * np.log(512))), vocab_size=512)
        == []
    )
    [doubt] = doubts_about(checked(frame.assign(loss=frame["loss"] + 6)), vocab_size=512)
    assert "a vocabulary of 512 has 6.24 nats per token" in doubt.sentence


def test_values_and_rows_are_named() -> None:
    frame = good().assign(n_params=lambda t: t["n_params"] // 1_000_000)
    [doubt] = doubts_about(checked(frame))
    assert doubt.sentence.startswith("n_params = 14, 36, 111 in 120 rows: fewer than 1,000 parameters;")
    assert "write 14M or 14B" in doubt.sentence
    with pytest.raises(TableError) as refused:
        warnings_about(checked(frame), origin="runs.csv")
    assert str(refused.value) == f"runs.csv: {doubt.sentence}; if the numbers are right, take them with --as-is"


@pytest.mark.parametrize(
    ("names", "n_alike"),
    [
        (("law", "Law", "LAW"), 3),
        (("web text", "web_text"), 2),
        (("caf\u00e9", "cafe\u0301"), 2),
        (("c", "c++"), 0),
        (("law", "laws"), 0),
    ],
)
def test_spellings_of_one_name_are_told(names: tuple[str, ...], n_alike: int) -> None:
    frame = pd.concat([good().query("domain == 'domain0'").assign(domain=name) for name in names])
    doubts = doubts_about(checked(frame))
    assert [d.sentence for d in doubts if f"are taken as {n_alike}" in d.sentence] == [d.sentence for d in doubts]
    assert len(doubts) == (n_alike > 0)
