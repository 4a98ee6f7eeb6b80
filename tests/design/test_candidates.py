"""What a sweep could run next, and by which designs it ranks that."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.design.campaign import Round, next_round, opening, whole_grid
from raysplit.design.candidates import CandidateGrid, Candidates, believe, candidates_of
from raysplit.design.designs import DESIGNS
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree_state import TreeState, chain, key, price_together
from raysplit.space import DesignName
from tests.design.doubles import carried_out, every_point, measured, points, spec
from tests.split.doubles import known_law

LAW = known_law(n_domains=2, n_draws=8, jitter=0.15)


def opened(asked: ResolvedSpec) -> TreeState:
    return measured(asked, opening(asked).trials)


def all_of(asked: ResolvedSpec, tree_state: TreeState) -> Candidates:
    return candidates_of(asked, CandidateGrid.of(asked), tree_state)


@given(scratch=st.booleans(), n_measured=st.integers(0, 12))
def test_candidates_are_every_open_point_and_nothing_else(scratch: bool, n_measured: int) -> None:
    asked = spec(scratch=scratch)
    tree_state = measured(asked, [t for t in whole_grid(asked).trials if t.is_trunk][:1] if n_measured else [])
    trials = [t for c in all_of(asked, tree_state).every for t in c.branches]
    known = {(at.n_params, at.domain, *at.point(m)) for at, m in tree_state.losses}
    open_branches = {p for p in every_point(asked) if p[1]} - known
    assert set(points(trials)) == open_branches
    alone = {c.root for c in all_of(asked, tree_state).every if not c.branches}
    assert alone == {(n, d) for n, domain, d, _ in every_point(asked) if not domain} - {(n, d) for n, _, d, _ in known}


@given(st.data())
def test_a_price_is_that_of_the_trials_that_are_taken(data: st.DataObject) -> None:
    asked = spec(scratch=data.draw(st.booleans()))
    tree_state = opened(asked)
    candidates = all_of(asked, tree_state)
    nodes = tree_state.nodes.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        index = int(data.draw(st.sampled_from(np.flatnonzero(candidates.open).tolist())))
        said = float(candidates.prices[index])
        assert said == pytest.approx(price_together(asked, candidates.take(index), nodes))


@given(st.data())
def test_what_is_taken_is_not_offered_again(data: st.DataObject) -> None:
    asked = spec()
    candidates = all_of(asked, opened(asked))
    index = int(data.draw(st.sampled_from(np.flatnonzero(candidates.open).tolist())))
    taken = {chain(t) for t in candidates.take(index)}
    left = [c for c, is_open in zip(candidates.every, candidates.open, strict=True) if is_open]
    assert not taken & {chain(t) for c in left for t in c.branches}


def test_a_branch_is_never_measured_before_the_point_that_it_has_passed() -> None:
    """Its checkpoint is gone by then."""
    asked = spec()
    tree_state = opened(asked)
    deepest: dict[object, int] = {}
    for at, milestone in tree_state.losses:
        deepest[at] = max(milestone, deepest.get(at, 0))
    for candidate in all_of(asked, tree_state).every:
        for trial in candidate.branches:
            assert min(trial.milestones) > deepest.get(chain(trial), 0)


def test_a_paused_branch_is_open_again_and_a_failed_one_is_not() -> None:
    asked = spec()
    tree_state = opened(asked)
    branch = next(chain(t) for t in opening(asked).trials if t.domain)
    again = {chain(t) for c in all_of(asked, replace(tree_state, paused=frozenset([branch]))).every for t in c.branches}
    gone = {chain(t) for c in all_of(asked, replace(tree_state, closed=frozenset([branch]))).every for t in c.branches}
    assert branch in again
    assert branch not in gone


@settings(max_examples=6)
@given(design=st.sampled_from(sorted(DESIGNS)), seed=st.integers(0, 2))
def test_every_design_makes_rounds_that_are_the_same_again(design: DesignName, seed: int) -> None:
    asked = replace(spec(budget_flops=4e12), design=design, seed=seed)
    tree_state = opened(asked)
    decision, again = (next_round(asked, tree_state, believe(asked, LAW)) for _ in range(2))
    assert decision == again
    assert isinstance(decision, Round)
    assert not {key(t, m) for t in decision.planned for m in t.milestones} & set(tree_state.losses)
    assert carried_out(asked, decision.planned, tree_state).spent_flops <= asked.budget_flops


def test_the_cheapest_design_takes_the_cheapest() -> None:
    asked = replace(spec(budget_flops=4e12, lanes=1), design="cheapest")
    tree_state = opened(asked)
    decision = next_round(asked, tree_state, believe(asked, LAW))
    assert isinstance(decision, Round)
    cheapest = float(all_of(asked, tree_state).prices.min())
    first = min(price_together(asked, [trial], tree_state.nodes.copy()) for trial in decision.planned)
    assert first == pytest.approx(cheapest)
