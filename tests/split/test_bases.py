"""Answers that start from models that exist. All losses here are synthetic, of bases that lie on no common curve."""

import numpy as np
import pandas as pd
import pytest

from raysplit.errors import SplitError, TableError
from raysplit.law import Law
from raysplit.live.of_law import curve_of
from raysplit.runs import UNTOLD_TOKENS, check_runs
from raysplit.split import Advice, Base, Problem, advise, fit_for_decision, render_advice
from raysplit.split.decision import GIVEN_FORMS

SIZES = {"small": 440_000_000, "middle": 1_400_000_000, "large": 3_600_000_000}
LIFT = {"small": 0.97, "middle": 1.04, "large": 1.0}
"""How far each family lies off the curve of the three sizes."""
DOMAINS = {"law": (0.9, 0.16), "code": (1.3, 0.22)}
BUDGET = 4e19


def true_loss(base: str, domain: str, tokens: float) -> float:
    amplitude, exponent = DOMAINS[domain]
    n = SIZES[base]
    specialized = amplitude * n**-0.03 * (1 + max(tokens, 3e5) / 4e7) ** -exponent
    return LIFT[base] * (1.4 + 60 * n**-0.28 + specialized)


def table(*, noise: float = 0.003, longest: tuple[float, ...] = (5e7, 2e8, 8e8, 3.2e9)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "base": base, "n_params": n_params, "specialize_tokens": int(tokens), "domain": domain,
                "loss": true_loss(base, domain, tokens) * np.exp(rng.normal(0, noise)),
            }
            for base, n_params in SIZES.items()
            for domain in DOMAINS
            for tokens in (0.0, *longest)
        ]
    )  # fmt: skip


def problem_of(*bases: str) -> Problem:
    return Problem(
        budget_flops=BUDGET,
        sizes={SIZES[name]: 6.0 * SIZES[name] for name in bases},
        domains=tuple(sorted(DOMAINS)),
        bases={SIZES[name]: Base(name=name) for name in bases},
    )


@pytest.fixture(scope="module")
def answered() -> tuple[Law, Advice]:
    law, choice = fit_for_decision(check_runs(table(), origin="table"), problem_of(*SIZES))
    assert set(choice.weights) <= set(GIVEN_FORMS)
    assert "Every base was pretrained on one D" in choice.sentence
    return law, advise(law, problem_of(*SIZES))


def test_the_base_and_the_tokens_are_those_of_the_truth(answered: tuple[Law, Advice]) -> None:
    advice = answered[1]

    def best(base: str) -> float:
        total = BUDGET / (6 * SIZES[base])
        shares = np.linspace(0.02, 0.98, 97)
        return float(min(true_loss(base, "law", x * total) + true_loss(base, "code", (1 - x) * total) for x in shares))

    truly = {base: best(base) / 2 for base in SIZES}
    assert SIZES[min(truly, key=lambda base: truly[base])] == advice.split.n_params
    for size in advice.sizes:
        name = advice.bases[size.split.n_params]
        assert size.loss.low <= truly[name] <= size.loss.high, name
        assert sum(size.split.specialize_tokens.values()) == pytest.approx(BUDGET / (6 * SIZES[name]))


def test_a_curve_of_splits_that_no_base_has_is_refused(answered: tuple[Law, Advice]) -> None:
    law, problem = answered[0], problem_of(*SIZES)
    with pytest.raises(SplitError, match="the D of a base is fixed"):
        curve_of(law, problem, check_runs(table(), origin="table"), n_params=None)


def test_the_law_of_bases_says_the_same_at_every_d(answered: tuple[Law, Advice]) -> None:
    law = answered[0].point
    n, s = np.full((1, 1, 1), 1.4e9), np.full((1, 1, 1), 3e8)
    form = law.members[0].form
    here, there = (form.loss(law.members[0].theta[None], n, np.full_like(n, d), s) for d in (1.0, 1e13))
    assert here == pytest.approx(there)


def test_an_answer_names_the_base_and_says_nothing_of_pretraining(answered: tuple[Law, Advice]) -> None:
    advice = answered[1]
    text = render_advice(advice)
    assert "a base that exists" in text
    assert "small" in text
    assert "of the tokens in pretraining" not in text
    assert "tokens that it has seen" not in text
    assert [gain.baseline for gain in advice.gains] == ["no training", "equal tokens"]
    assert Advice.from_json(advice.to_json()) == advice


def test_a_base_that_was_only_read_is_marked() -> None:
    runs = table()
    runs = runs[(runs["base"] != "large") | (runs["specialize_tokens"] == 0)]
    law, _ = fit_for_decision(check_runs(runs, origin="table"), problem_of(*SIZES))
    assert list(advise(law, problem_of(*SIZES)).withheld) == ["specialize tokens of base large"]


def test_bases_that_nobody_trained_tell_nothing() -> None:
    runs = check_runs(table(longest=()), origin="table")
    law, _ = fit_for_decision(runs, problem_of(*SIZES))
    assert list(advise(law, problem_of(*SIZES)).withheld) == ["everything"]


def test_a_table_without_d_is_read_as_of_unknown_d() -> None:
    runs = check_runs(table(), origin="table")
    assert set(runs["pretrain_tokens"]) == {UNTOLD_TOKENS}
    assert set(runs["base"]) == set(SIZES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda runs: runs.assign(base=""), "row 1: base = '' is empty"),
        (lambda runs: runs.assign(base="one"), "row 1: base = 'one' has several n_params; a base is one model"),
        (lambda runs: runs.assign(n_params=10**9), "row 1: base = 'small' has the n_params of another base"),
        (lambda runs: runs.assign(replay_share=1.5), "row 1: replay_share = 1.5 is not within 0 to 1"),
        (lambda runs: runs.drop(columns="base"), "no column 'pretrain_tokens'"),
    ],
)
def test_a_table_of_bases_that_cannot_be_is_refused_by_name(change, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TableError, match=said.replace("(", r"\(")):
        check_runs(change(table()), origin="runs.csv")
