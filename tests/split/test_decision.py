"""From a table to the law that a decision rests on."""

import json
from dataclasses import asdict, replace

import pytest

from raysplit.law import DEFAULT_FORMS, fit_law
from raysplit.runs import check_runs, thinned
from raysplit.split import Problem, advise, best_split, fit_for_decision, losses_of
from raysplit.split.decision import ONE_STAGE_FORMS
from tests.split.doubles import known_law, measured_table
from tests.split.strategies import SIZES

TRUTH = known_law(n_domains=2)
PROBLEM = Problem(budget_flops=2e12, sizes=SIZES, domains=TRUTH.domains)


def test_a_table_of_a_known_law_leads_to_a_split_as_good_as_the_best() -> None:
    law, choice = fit_for_decision(measured_table(TRUTH, noise=0.003), PROBLEM, n_draws=16)
    assert choice.criterion == "regret"
    assert law.form_weights == pytest.approx(choice.weights)
    found, best = losses_of(TRUTH, [best_split(law, PROBLEM), best_split(TRUTH, PROBLEM)], PROBLEM)[0]
    assert found <= best * 1.003
    assert json.loads(json.dumps(asdict(choice)))["criterion"] == "regret"


def test_the_order_of_the_rows_changes_nothing() -> None:
    runs = measured_table(TRUTH, noise=0.01)
    (law, choice), (again, chosen) = (
        fit_for_decision(table, PROBLEM, forms=["law-2"], n_draws=4)
        for table in (runs, runs.sample(frac=1.0, random_state=1))
    )
    assert again.to_json() == law.to_json()
    assert chosen.weights == choice.weights
    for score, other in zip(choice.scores, chosen.scores, strict=True):
        assert other.regret == pytest.approx(score.regret, abs=1e-9)
        assert other.held_out_error == pytest.approx(score.held_out_error, rel=1e-9)


def test_a_table_of_one_row_is_answered_by_the_priors_which_the_answer_says() -> None:
    runs = check_runs(measured_table(TRUTH, noise=0.01).query("domain == 'domain-0'").iloc[:1], origin="one")
    alone = replace(PROBLEM, domains=("domain-0",), weights=())
    law, choice = fit_for_decision(runs, alone, n_draws=8)
    advice = advise(law, alone, warnings=[choice.sentence])
    assert "priors standing in for runs" in advice.warnings[0]
    assert "fewer distinct runs than parameters and one" in advice.warnings[1]


def test_a_table_too_small_for_any_form_still_gets_a_law_and_says_on_what_it_rests() -> None:
    runs = measured_table(TRUTH, sizes=(14_000,), pretrain_tokens=(1e6,), specialize_tokens=(0, 0.5e6))
    law, choice = fit_for_decision(runs, PROBLEM, n_draws=8)
    assert choice.criterion == "simplicity"
    assert "priors standing in for runs" in choice.sentence
    assert list(law.form_weights) == list(choice.weights) == ["law-2+cooldown"]
    assert best_split(law, PROBLEM).flops(PROBLEM) == pytest.approx(PROBLEM.budget_flops)


def test_the_default_forms_in_a_list_are_the_default() -> None:
    runs = measured_table(TRUTH, pretrain_tokens=(1e6, 2e6), specialize_tokens=(0,))
    _, choice = fit_for_decision(runs, PROBLEM, n_draws=1, forms=list(DEFAULT_FORMS))
    assert set(choice.weights) == set(ONE_STAGE_FORMS)


def test_a_hundred_thousand_rows_answer_as_the_few_that_they_are_thinned_to() -> None:
    """Checkpoint by checkpoint along every branch, as trackers export them."""
    runs = check_runs(measured_table(TRUTH, specialize_tokens=range(300, 1_020_300, 300), noise=0.01), origin="export")
    assert len(runs) > 100_000
    laws = [
        fit_law(thinned(runs, max_rows=rows)[0], forms=["law-8"], n_draws=1, pooling=1.0, misfit_scale=0.0).point
        for rows in (600, 4_800)
    ]
    splits = [best_split(law, PROBLEM) for law in (TRUTH, *laws)]
    least, few, many = losses_of(TRUTH, splits, PROBLEM)[0]
    assert few == pytest.approx(many, rel=1e-3)
    assert few == pytest.approx(least, rel=2e-3)
