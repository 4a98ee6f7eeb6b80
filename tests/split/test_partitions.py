"""Partitions of one text, compared. All laws here are synthetic."""

from dataclasses import replace

import numpy as np
import pytest

from raysplit.errors import SplitError
from raysplit.split import Problem, compare_partitions, render_partitions
from tests.split.doubles import MEDIANS, known_theta, law_of

N_PARAMS = 36_000


def problem(n_domains: int, budget_tokens: float = 4e6) -> Problem:
    return Problem(
        budget_flops=6.0 * N_PARAMS * budget_tokens,
        sizes={N_PARAMS: 6.0 * N_PARAMS},
        domains=tuple(f"domain-{k}" for k in range(n_domains)),
    )


def theta(n_domains: int, *, gain: float, jitter: float = 0.002) -> np.ndarray:
    """Domains that are all alike, whose specialization gains so much more or less than the usual."""
    found = known_theta(n_domains=n_domains, n_draws=16, spread=0.0, jitter=jitter)
    found[..., list(MEDIANS).index("c")] *= gain
    return found


def test_closer_domains_win_where_they_gain_enough_and_not_where_they_gain_nothing() -> None:
    four = (law_of(theta(4, gain=1.0)), problem(4))
    for gain, wins in ((3.0, "eight"), (1.0, "four")):
        found = compare_partitions({"four": four, "eight": (law_of(theta(8, gain=gain)), problem(8))})
        best, other = found
        assert best.name == wins
        assert best.excess.mean == 0.0
        assert other.excess.low > 0.0
        assert (best.probability, other.probability) == (1.0, 0.0)
        assert {one.n_domains for one in found} == {4, 8}
        assert wins in render_partitions(found).splitlines()[1]


def test_more_domains_pay_with_a_larger_budget() -> None:
    """Each of eight experts has half the tokens of four: the more there are, the less that matters."""
    excess = []
    for tokens in (1e6, 4e6, 16e6):
        laws = {name: law_of(theta(k, gain=gain)) for name, k, gain in (("four", 4, 1.0), ("eight", 8, 1.5))}
        found = compare_partitions({name: (law, problem(len(law.domains), tokens)) for name, law in laws.items()})
        losses = {one.name: one.loss.mean for one in found}
        excess.append(losses["eight"] / losses["four"])
    assert excess == sorted(excess, reverse=True)


def test_partitions_that_cannot_be_compared_are_refused() -> None:
    law, asked = law_of(theta(4, gain=1.0)), problem(4)
    with pytest.raises(SplitError, match="at least two partitions, got four"):
        compare_partitions({"four": (law, asked)})
    with pytest.raises(SplitError, match="differ in budget_flops"):
        compare_partitions({"four": (law, asked), "again": (law, replace(asked, budget_flops=1e12))})
    with pytest.raises(SplitError, match="differ in seeds: 'shared' for four, 'independent' for again"):
        compare_partitions({"four": (law, asked), "again": (law, replace(asked, seeds="independent"))})
    with pytest.raises(SplitError, match="differ in draws: 16 for four, 1 for again"):
        compare_partitions({"four": (law, asked), "again": (law_of(theta(4, gain=1.0)[:1]), asked)})
