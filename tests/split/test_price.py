"""One price for one question: what the runs paid, whoever is asked."""

from dataclasses import replace

import numpy as np
import pytest

from raysplit.live.fitted import FitTarget
from raysplit.live.fitting import fit_fully
from raysplit.live.observations import Reported
from raysplit.runs import Observation, check_runs
from raysplit.split import Problem, advise, fit_for_decision
from raysplit.split.price import FAMILY, RULE, TABLE, price_of
from tests.split.doubles import known_law, measured_table

FAMILY_FLOPS = {14_000: 1.7e6, 110_000: 3.1e6}
RUNS = check_runs(
    measured_table(known_law(n_domains=2), sizes=tuple(FAMILY_FLOPS), noise=0.005).assign(
        flops=lambda r: r["n_params"].map(FAMILY_FLOPS) * (r["pretrain_tokens"] + r["specialize_tokens"])
    ),
    origin="runs.csv",
)


def test_a_table_is_priced_by_the_flops_of_its_runs() -> None:
    price, doubt = price_of(RUNS)
    assert (price.source, doubt) == (TABLE, "")
    assert price.of([*FAMILY_FLOPS]) == pytest.approx(FAMILY_FLOPS, rel=1e-12)
    assert FAMILY_FLOPS[14_000] < price(40_000) < FAMILY_FLOPS[110_000]
    assert price(220_000) == pytest.approx(2 * FAMILY_FLOPS[110_000])


def test_six_n_only_where_nothing_better_is_known() -> None:
    price, doubt = price_of(RUNS.assign(flops=np.nan))
    assert (price.source, doubt, price(1_000)) == (RULE, "", 6_000.0)
    price, doubt = price_of(RUNS.assign(flops=1e15))
    assert (price.source, price(1_000)) == (RULE, 6_000.0)
    assert "no one number for a size" in doubt


def test_a_fit_of_a_runs_own_observations_answers_as_its_live_law() -> None:
    domains = tuple(sorted(RUNS["domain"].unique()))
    target = Problem(budget_flops=3e13, sizes=FAMILY_FLOPS, domains=domains, price=FAMILY)
    price, _ = price_of(RUNS)
    asked = replace(target, sizes=price.of([*FAMILY_FLOPS]), price=price.source)
    law, _ = fit_for_decision(RUNS, asked)
    rows = [
        Reported(seq=i, observation=Observation(**{str(name): value for name, value in row.items()}), own=True)
        for i, row in enumerate(RUNS.to_dict(orient="records"))
    ]
    live = fit_fully(rows, len(rows) - 1, FitTarget(problem=target, step_tokens=1.0, seed=0)).advice
    assert live is not None
    told = advise(law, asked)
    assert told.split.n_params == live.split.n_params
    assert told.split.pretrain_tokens == pytest.approx(live.split.pretrain_tokens, rel=1e-6)
    assert told.loss.mean == pytest.approx(live.loss.mean, rel=1e-9)
    assert (told.price, live.price) == (TABLE, FAMILY)
