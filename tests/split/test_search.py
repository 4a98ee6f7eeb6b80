"""Properties of the optimum, against random splits, a general solver and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.optimize import LinearConstraint, minimize

from raysplit.errors import SplitError
from raysplit.law import FORMS, Law
from raysplit.law.form import Array
from raysplit.split import Problem, Split, best_by_size, best_split, best_split_per_draw, loss_curve, losses_of
from tests.split.doubles import SUPPORT, known_law, known_theta, law_of
from tests.split.strategies import SIZES, laws, problems


def mean_loss(law: Law, splits: list[Split], problem: Problem) -> Array:
    return losses_of(law, splits, problem).mean(axis=0)


def random_splits(law: Law, problem: Problem, *, n_splits: int, seed: int) -> list[Split]:
    """Feasible splits that spend what the caps let them spend, drawn over sizes, D and domains."""
    rng = np.random.default_rng(seed)
    found = []
    for n_params in problem.sizes:
        try:
            low, high, total = problem.pretrain_range(n_params)
        except SplitError:
            continue
        low = max(low, min(law.support.pretrain_tokens[0], 0.05 * problem.affordable_tokens(n_params), high))
        for _ in range(n_splits // len(problem.sizes)):
            d = rng.uniform(low, high)
            caps = problem.specialize_caps(np.array(d))
            tokens = (total - d) * (rng.dirichlet(np.ones(len(caps))) if problem.accounting == "shared" else 1.0)
            found.append(
                Split(
                    n_params=n_params,
                    pretrain_tokens=d,
                    specialize_tokens=dict(zip(problem.domains, np.minimum(tokens, caps), strict=True)),
                )
            )
    return found


@settings(max_examples=40, deadline=None)
@given(law=laws, data=st.data())
def test_no_feasible_random_split_is_better(law: Law, data: st.DataObject) -> None:
    problem = data.draw(problems(law=law))
    best = mean_loss(law, [best_split(law, problem)], problem)[0]
    others = random_splits(law, problem, n_splits=1_000, seed=data.draw(st.integers(0, 1_000)))
    assert best <= mean_loss(law, others, problem).min() * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(law=laws, data=st.data())
def test_the_split_spends_the_budget_and_keeps_every_cap(law: Law, data: st.DataObject) -> None:
    problem = data.draw(problems(law=law))
    for split in [best_split(law, problem), *best_split_per_draw(law, problem)]:
        d = np.array(split.pretrain_tokens)
        low, high, spendable = problem.pretrain_range(split.n_params)
        spent = split.flops(problem) / SIZES[split.n_params] - problem.inference_tokens / 3
        if d >= problem.least_spending_all(low, high, spendable):
            assert spent == pytest.approx(spendable, rel=1e-9)
        else:  # there the caps are what is left to spend on, and all of it is
            tokens = d + problem.specialize_caps(d).sum() if problem.accounting == "shared" else None
            assert tokens is None or spent == pytest.approx(tokens, rel=1e-9)
            assert spent <= spendable * (1 + 1e-12)
        assert split.flops(problem) <= problem.budget_flops * (1 + 1e-12)
        assert split.pretrain_tokens <= problem.pretrain_cap * (1 + 1e-12)
        tokens = np.array(list(split.specialize_tokens.values()))
        assert (tokens >= 0).all()
        assert (tokens <= problem.specialize_caps(d) * (1 + 1e-9) + 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(law=laws, factor=st.floats(1.01, 20), data=st.data())
def test_a_larger_budget_never_predicts_a_worse_best_loss(law: Law, factor: float, data: st.DataObject) -> None:
    law = replace(
        law, support=replace(SUPPORT, pretrain_tokens=(0.0, 4e6))
    )  # so that both budgets have the same choices
    small = data.draw(problems(law=law))
    large = replace(small, budget_flops=factor * small.budget_flops)
    losses = [mean_loss(law, [best_split(law, p)], p)[0] for p in (small, large)]
    assert losses[1] <= losses[0] * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(law=laws, data=st.data())
def test_permuting_domains_permutes_the_answer(law: Law, data: st.DataObject) -> None:
    problem = data.draw(problems(law=law))
    order = data.draw(st.permutations(range(len(law.domains))))
    shuffled = replace(
        problem,
        domains=tuple(problem.domains[i] for i in order),
        weights=[problem.weights[i] for i in order],
    )
    first, second = best_split(law, problem), best_split(law, shuffled)
    assert mean_loss(law, [first], problem) == pytest.approx(mean_loss(law, [second], shuffled), rel=1e-9)
    assert second.n_params == first.n_params
    total = first.total_tokens
    assert second.pretrain_tokens == pytest.approx(first.pretrain_tokens, abs=1e-4 * total)
    for name in problem.domains:
        assert second.specialize_tokens[name] == pytest.approx(first.specialize_tokens[name], abs=1e-4 * total)


@given(law=laws, scale=st.floats(1e-3, 1e3), data=st.data())
@settings(max_examples=15, deadline=None)
def test_only_the_ratios_of_the_weights_count(law: Law, scale: float, data: st.DataObject) -> None:
    problem = data.draw(problems(law=law))
    first, second = (best_split(law, replace(problem, weights=[f * w for w in problem.weights])) for f in (1.0, scale))
    assert second.n_params == first.n_params
    assert second.pretrain_tokens == pytest.approx(first.pretrain_tokens, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_a_general_solver(seed: int) -> None:
    law = known_law(n_domains=4, seed=seed, spread=0.5)
    name = law.domains[0]
    problem = Problem(
        budget_flops=2e12,
        sizes=SIZES,
        domains=law.domains,
        weights=[1, 2, 0.5, 1],
        max_specialize_tokens={name: 1e5},
    )
    found = best_by_size(law, problem)
    for j, n_params in enumerate(problem.sizes):
        total = problem.affordable_tokens(n_params)

        def loss(x: Array, /, n_params: int = n_params, total: float = total) -> float:
            tokens = dict(zip(problem.domains, x[1:] * total, strict=True))
            split = Split(n_params=n_params, pretrain_tokens=x[0] * total, specialize_tokens=tokens)
            return float(losses_of(law, [split], problem)[0, 0])

        bounds = [(0.25e6 / total, 1.0), (0.0, 1e5 / total), *[(0.0, 1.0)] * 3]
        whole = LinearConstraint(np.ones((1, 5)), 1.0, 1.0)
        solved = minimize(
            loss, [0.6, 0.01, 0.1, 0.1, 0.19], bounds=bounds, constraints=whole, method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert found.loss[0, j] == pytest.approx(solved.fun, rel=1e-8)


def test_each_draw_gets_its_own_optimum() -> None:
    theta = known_theta(n_draws=5, jitter=0.3)
    law = law_of(theta)
    problem = Problem(budget_flops=2e12, sizes=SIZES, domains=law.domains)
    per_draw = best_split_per_draw(law, problem)
    losses = losses_of(law, per_draw, problem)
    assert len(per_draw) == 5
    assert np.diagonal(losses) == pytest.approx(per_draw.loss)
    assert (np.diagonal(losses)[:, None] <= losses * (1 + 1e-6)).all()
    for draw, split in enumerate(per_draw):
        exact = best_split(law_of(theta[[draw]]), problem)
        assert split.n_params == exact.n_params
        assert split.pretrain_share == pytest.approx(exact.pretrain_share, abs=2e-3)


def test_a_fixed_seed_spends_the_whole_budget_on_experts() -> None:
    law = known_law()
    problem = Problem(budget_flops=1e12, sizes=SIZES, domains=law.domains, fixed_seed=(36_000, 2e6))
    split = best_split(law, problem)
    assert (split.n_params, split.pretrain_tokens) == (36_000, 2e6)
    assert sum(split.specialize_tokens.values()) == pytest.approx(1e12 / SIZES[36_000])


def test_the_loss_of_the_seed_is_kept_below_its_limit_or_the_limit_is_named() -> None:
    law = known_law()
    free = Problem(budget_flops=2e12, sizes=SIZES, domains=law.domains)

    def seed_loss(split: Split) -> float:
        bare = replace(split, specialize_tokens=dict.fromkeys(split.specialize_tokens, 0.0))
        return float(losses_of(law, [bare], free)[0, 0])

    first = best_split(law, free)
    limit = seed_loss(first) - 0.03
    held = best_split(law, replace(free, max_general_loss=limit))
    assert seed_loss(held) == pytest.approx(limit, rel=1e-5)
    assert held.pretrain_share > first.pretrain_share
    with pytest.raises(SplitError, match="max_general_loss: 1 cannot be reached with this budget; the lowest is 2"):
        best_split(law, replace(free, max_general_loss=1.0))


def test_from_scratch_is_only_chosen_where_the_law_has_seen_it() -> None:
    theta = known_theta(n_domains=1)
    names = [parameter.name for parameter in FORMS["law-8"].parameters]
    theta[..., [names.index("c"), names.index("b")]] = 2.0, 0.02  # pretraining is nearly useless
    seen, unseen = (law_of(theta, support=replace(SUPPORT, pretrain_tokens=(low, 4e6))) for low in (0.0, 0.1e6))
    problem = Problem(budget_flops=2e12, sizes=SIZES, domains=seen.domains)
    assert best_split(seen, problem).pretrain_tokens < 0.1e6
    assert best_split(unseen, problem).pretrain_tokens == pytest.approx(0.1e6)


def test_a_domain_that_first_gets_worse_is_left_out_when_that_is_better() -> None:
    """A bump in the loss just after branching, as a fresh optimizer gives: not convex, so equal gains can mislead."""

    class Bumpy(Law):
        def loss(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
            smooth = super().loss(n_params, pretrain_tokens, specialize_tokens)
            return smooth + np.minimum(np.asarray(specialize_tokens) / 1e3, 1.0) * (np.arange(smooth.shape[-1]) == 0)

    law = law_of(known_theta(n_domains=2), kind=Bumpy)
    problem = Problem(budget_flops=5e11, sizes={36_000: SIZES[36_000]}, domains=law.domains)
    assert best_split(law, problem).specialize_tokens["domain-0"] == 0.0


def test_the_curve_touches_the_best_split_and_lies_above_it() -> None:
    law = known_law(n_draws=8)
    problem = Problem(budget_flops=2e12, sizes=SIZES, domains=law.domains)
    split = best_split(law, problem)
    best = mean_loss(law, [split], problem)[0]
    curve = loss_curve(law, problem, n_params=split.n_params, shares=[0.05, 0.5, split.pretrain_share, 0.95])
    assert curve.loss[2] == pytest.approx(best, rel=1e-9)
    assert (curve.loss >= best * (1 - 1e-9)).all()
    assert ((curve.low < curve.loss) & (curve.loss < curve.high)).all()


def test_domains_that_the_law_does_not_know_are_named() -> None:
    law = known_law(n_domains=2)
    with pytest.raises(SplitError, match="unknown domain 'domain-9'"):
        best_split(law, Problem(budget_flops=1e12, sizes=SIZES, domains=("domain-0", "domain-9")))
    with pytest.raises(SplitError, match="'domain-1' that the problem leaves out"):
        best_split(law, Problem(budget_flops=1e12, sizes=SIZES, domains=("domain-0",)))
