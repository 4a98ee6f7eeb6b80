"""From a table to the law that a decision rests on."""

import json
from dataclasses import asdict

import pytest

from raysplit.split import Problem, best_split, fit_for_decision, losses_of
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


def test_a_table_too_small_for_any_form_still_gets_a_law_and_says_on_what_it_rests() -> None:
    runs = measured_table(TRUTH, sizes=(14_000,), pretrain_tokens=(1e6,), specialize_tokens=(0, 0.5e6))
    law, choice = fit_for_decision(runs, PROBLEM, n_draws=8)
    assert choice.criterion == "simplicity"
    assert "priors standing in for runs" in choice.sentence
    assert list(law.form_weights) == list(choice.weights) == ["law-2+cooldown"]
    assert best_split(law, PROBLEM).flops(PROBLEM) == pytest.approx(PROBLEM.budget_flops)
