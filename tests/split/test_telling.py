"""Deficient designs: what is answered, what is withheld, what is suggested. The table of docs/answers.md."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raysplit.design.suggest import SuggestedRun, suggest
from raysplit.law import Law
from raysplit.runs import check_runs
from raysplit.split import Advice, Problem, advise, fit_for_decision, render_advice
from raysplit.split.advice import GAINS, SHARE
from raysplit.split.price import price_of
from raysplit.split.telling import told_by_priors
from tests.conftest import REPOSITORY
from tests.law.tables import chinchilla
from tests.split.doubles import known_law, measured_table

BUDGET = 3e12
FULL = measured_table(known_law(n_domains=2), noise=0.005)
CODE = "domain-1"


def only(runs: pd.DataFrame, **values: object) -> pd.DataFrame:
    for name, value in values.items():
        runs = runs[runs[name] == value]
    return runs


DESIGNS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], set[str]]] = {
    "a full grid": (lambda runs: runs, set()),
    "D' = 0 in every row": (
        lambda runs: only(runs, specialize_tokens=0),
        {"specialize tokens", "pretrain share", "gains"},
    ),
    "D' = 0 in every row of one domain": (
        lambda runs: runs[(runs["specialize_tokens"] == 0) | (runs["domain"] != CODE)],
        {f"specialize tokens of {CODE}"},
    ),
    "one size": (lambda runs: only(runs, n_params=36_000), {"model size"}),
    "one size, D' = 0": (
        lambda runs: only(runs, n_params=36_000, specialize_tokens=0),
        {"model size", "specialize tokens", "pretrain share", "gains"},
    ),
    "one D": (lambda runs: only(runs, pretrain_tokens=1_000_000), {"pretrain share", "gains"}),
    "one D and one size": (
        lambda runs: only(runs, pretrain_tokens=1_000_000, n_params=36_000),
        {"model size", "pretrain share", "gains"},
    ),
    "D = 0 in every row": (
        lambda runs: (
            runs[runs["specialize_tokens"] > 0]
            .assign(pretrain_tokens=0)
            .drop_duplicates(["n_params", "specialize_tokens", "domain"])
        ),
        {"pretrain share", "gains"},
    ),
    "one D/N": (
        lambda runs: runs.assign(pretrain_tokens=20 * runs["n_params"]).drop_duplicates(
            ["n_params", "specialize_tokens", "domain"]
        ),
        {"model size"},
    ),
    "one D'/D": (
        lambda runs: only(runs, specialize_tokens=250_000).assign(
            specialize_tokens=lambda r: r["pretrain_tokens"] // 4
        ),
        {"pretrain share", "gains"},
    ),
    "one run of one domain": (
        lambda runs: pd.concat([only(runs, domain="domain-0"), only(runs, domain=CODE).iloc[[0]]]),
        {f"specialize tokens of {CODE}"},
    ),
    "two runs": (lambda runs: only(runs, domain="domain-0").iloc[[0, 30]], {"everything", "specialize tokens"}),
    "four runs of continued pretraining": (
        lambda runs: only(runs, n_params=36_000, pretrain_tokens=1_000_000, domain="domain-0").iloc[1:],
        {"model size", "pretrain share", "gains"},
    ),
}


@dataclass(frozen=True)
class Told:
    law: Law
    runs: pd.DataFrame
    problem: Problem
    advice: Advice

    def suggested(self) -> list[SuggestedRun]:
        return suggest(self.law, self.runs, self.problem, price_of(self.runs)[0], n_runs=3)


@pytest.fixture(scope="module")
def told() -> Callable[[str], Told]:
    known: dict[str, Told] = {}

    def of(name: str) -> Told:
        if name not in known:
            runs = check_runs(DESIGNS[name][0](FULL), origin=name)
            problem = Problem(
                budget_flops=BUDGET,
                sizes=price_of(runs)[0].of(sorted(runs["n_params"].unique())),
                domains=tuple(sorted(runs["domain"].unique())),
            )
            law, _ = fit_for_decision(runs, problem, n_draws=24)
            known[name] = Told(law, runs, problem, advise(law, problem))
        return known[name]

    return of


@pytest.mark.parametrize("name", DESIGNS)
def test_what_the_runs_do_not_tell_is_withheld(told: Callable[[str], Told], name: str) -> None:
    found, missing = told(name), DESIGNS[name][1]
    advice = found.advice
    assert missing <= set(advice.withheld)
    assert not set(advice.withheld) - missing - {"model size", "pretrain share", "gains"}
    text = render_advice(advice)
    assert ("Not told by these runs" in text) == bool(missing)
    assert all(why in text for why in advice.withheld.values())
    if "gains" in advice.withheld:
        assert not advice.gains
    if "pretrain share" in advice.withheld:
        assert (advice.pretrain_share.low, advice.pretrain_share.high) == (0.0, 1.0)
        assert "of the tokens (" not in text
    if "model size" in missing:
        assert "best in" not in text
    if "specialize tokens" in advice.withheld:
        assert set(advice.split.specialize_tokens.values()) == {0.0}
    assert Advice.from_json(advice.to_json()) == advice
    assert Law.from_json(found.law.to_json()).identified == found.law.identified


def another_size(run: SuggestedRun) -> bool:
    return run.n_params != 36_000


def another_d(run: SuggestedRun) -> bool:
    return run.pretrain_tokens not in (0, 1_000_000)


def has_branch(run: SuggestedRun) -> bool:
    return run.specialize_tokens > 0


def of_code(run: SuggestedRun) -> bool:
    return run.domain == CODE


OPENINGS: dict[str, tuple[Callable[[SuggestedRun], bool], ...]] = {
    "D' = 0 in every row": (has_branch,),
    "D' = 0 in every row of one domain": (lambda run: of_code(run) and has_branch(run),),
    "one size": (another_size,),
    "one size, D' = 0": (has_branch, another_size),
    "one D": (another_d,),
    "one D and one size": (another_d, another_size),
    "D = 0 in every row": (lambda run: run.pretrain_tokens > 0,),
    "one D/N": (lambda run: abs(run.pretrain_tokens / run.n_params - 20) > 2,),
    "one D'/D": (lambda run: abs(run.specialize_tokens / run.pretrain_tokens - 0.25) > 0.025,),
    "one run of one domain": (of_code,),
    "two runs": (has_branch,),
    "four runs of continued pretraining": (another_d,),
}
"""Runs of which one each is among the first suggested."""


@pytest.mark.parametrize("name", OPENINGS)
def test_a_suggested_run_opens_what_is_withheld(told: Callable[[str], Told], name: str) -> None:
    suggested = told(name).suggested()
    assert all(any(map(opens, suggested)) for opens in OPENINGS[name])
    assert all(0 < run.flops <= 0.1 * BUDGET for run in suggested)


def test_every_deficient_design_has_an_opening() -> None:
    assert {name for name, (_, missing) in DESIGNS.items() if missing} == set(OPENINGS)
    assert len(OPENINGS) >= 12


def of_spread(jitter: float) -> Law:
    """Of which the best share varies the more between draws, the larger the jitter."""
    return known_law(n_domains=2, n_draws=24, jitter=jitter)


@pytest.mark.parametrize(
    ("jitter", "wide", "is_told"),
    [(0.02, 0.1, False), (0.02, 0.021, True), (0.0001, 0.001, True)],
    ids=["widened with the priors", "as wide as before", "known to a hundredth, whoever told it"],
)
def test_what_the_priors_say_in_the_main_is_withheld(jitter: float, wide: float, is_told: bool) -> None:
    law = of_spread(jitter)
    problem = Problem(budget_flops=BUDGET, sizes={36_000: 6.0 * 36_000, 110_000: 6.0 * 110_000}, domains=law.domains)
    asked: list[float] = []

    def fit(prior_strength: float) -> Law:
        asked.append(prior_strength)
        return of_spread(wide)

    withheld = told_by_priors(law, problem, fit)
    assert asked == [0.25]  # precision: twice as wide
    assert set(withheld) == (set() if is_told else {SHARE, GAINS})
    assert all("priors twice as wide" in why for why in withheld.values())


def test_what_is_withheld_already_is_not_asked_of_priors(told: Callable[[str], Told]) -> None:
    found = told("D' = 0 in every row")

    def fit(prior_strength: float) -> Law:
        raise AssertionError

    assert told_by_priors(found.law, found.problem, fit) == {}


def test_every_design_stands_in_the_page() -> None:
    page = (REPOSITORY / "docs" / "answers.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert set(DESIGNS) <= set(rows)


def test_the_published_points_give_the_published_exponents(shared_data: Path) -> None:
    """245 points of Hoffmann's figure 4, without D': the refit of 2404.10102 has N as C^.513, .018 its error."""
    runs = check_runs(chinchilla(shared_data).assign(domain="web"), origin="chinchilla", note=lambda _: None)
    problem = Problem(
        budget_flops=5.76e23,
        sizes={int(n): 6.0 * n for n in np.geomspace(1e9, 3e11, 60).round()},
        domains=tuple(runs["domain"].unique()),
    )
    law, choice = fit_for_decision(runs, problem)
    advice = advise(law, problem)
    assert set(choice.weights) == {"hoffmann"}
    assert "specialize tokens" in advice.withheld
    power = advice.exponents["n_params"]
    assert power.mean == pytest.approx(0.513, abs=0.018)
    assert 0.45 < power.low < power.high < 0.58
    assert 50e9 < advice.split.n_params < 100e9  # Chinchilla has 70B
    assert replace(advice.split).total_tokens == pytest.approx(5.76e23 / 6 / advice.split.n_params, rel=1e-6)
