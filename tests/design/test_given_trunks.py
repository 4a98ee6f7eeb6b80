"""Trunks that exist cost nothing, and no other is ever trained."""

from dataclasses import replace

import pytest

from raysplit.design.campaign import opening, whole_grid
from raysplit.design.candidates import CandidateGrid, candidates_of
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Node, Trial
from raysplit.design.tree_state import price_together, tree_state_of
from raysplit.split import Base
from raysplit.sweep.grid_spec import spec_of_grid

GIVEN = ((14_000, 1_000_000), (36_000, 500_000), (36_000, 2_000_000))


@pytest.fixture
def spec() -> ResolvedSpec:
    asked = spec_of_grid(
        flops_per_token=[14_000, 36_000], pretrain_tokens=[500_000, 1_000_000, 2_000_000],
        specialize_tokens=[125_000, 250_000], domains=["a", "b"], target_flops=1e12,
    )  # fmt: skip
    bases = {n: Base(name=f"base-{n}", pretrain_tokens=float(d)) for n, d in GIVEN}
    return replace(asked, problem=replace(asked.problem, bases=bases), tree=replace(asked.tree, given=GIVEN))


def trunk(n_params: int, tokens: int, seed: int = 0) -> Trial:
    return Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=tokens, milestones=(tokens,))


def branch(n_params: int, tokens: int, *milestones: int, seed: int = 0) -> Trial:
    return Trial(n_params=n_params, seed=seed, domain="a", pretrain_tokens=tokens, milestones=milestones)


def test_a_given_trunk_is_read_and_not_trained(spec: ResolvedSpec) -> None:
    assert price_together(spec, [trunk(36_000, 2_000_000, seed=7)]) == 0
    cost = price_together(spec, [branch(36_000, 2_000_000, 125_000)])
    cooldown_from = spec.tree.cooldown_start(125_000)
    assert cost == spec.flops_per_token[36_000] * 125_000
    [constant, cooldown] = spec.tree.segments(
        branch(36_000, 2_000_000, 125_000), 125_000, tree_state_of(spec, {}).nodes
    )
    assert constant.start == Node(n_params=36_000, seed=0, pretrain_tokens=2_000_000)
    assert constant.end_tokens == cooldown.start.position == cooldown_from


def test_the_grid_and_the_opening_have_the_trunks_that_exist_and_no_others(spec: ResolvedSpec) -> None:
    for trials in (whole_grid(spec).trials, opening(spec).trials):
        roots = {(t.n_params, t.pretrain_tokens) for t in trials if t.domain}
        read = {(t.n_params, m) for t in trials if not t.domain for m in t.milestones}
        assert roots <= read <= set(GIVEN)
    assert {(t.n_params, t.pretrain_tokens) for t in whole_grid(spec).trials if t.domain} == set(GIVEN)
    points = CandidateGrid.of(spec).index
    assert {(n, d) for n, d, _ in points} == set(GIVEN)


def test_what_is_open_next_costs_its_branches_alone(spec: ResolvedSpec) -> None:
    state = tree_state_of(spec, {})
    candidates = candidates_of(spec, CandidateGrid.of(spec), state)
    for candidate, price in zip(candidates.every, candidates.prices, strict=True):
        assert candidate.root in GIVEN
        assert price == candidate.branch_flops
    assert all(state.can_start(branch(n, d, 125_000)) for n, d in GIVEN)


def test_each_replayed_share_is_a_branch_of_its_own(spec: ResolvedSpec) -> None:
    several = replace(spec, replay_shares=(0.0, 0.2))
    grid, state = CandidateGrid.of(several), tree_state_of(several, {})
    assert grid.domains == ("a at 0", "a at 0.2", "b at 0", "b at 0.2")
    here, there = (replace(branch(36_000, 2_000_000, 125_000), replay_share=share) for share in (0.0, 0.2))
    assert (here.name, there.name) == ("n36000-s0-d2000000-a", "n36000-s0-d2000000-a-p0.2")
    assert grid.columns(here, [125_000]) != grid.columns(there, [125_000])
    assert len(grid.columns(trunk(36_000, 2_000_000), [2_000_000])) == 4, "a base as it is counts at every share"
    assert price_together(several, [here, there]) == 2 * price_together(several, [here]), "nothing is shared"
    for trials in (opening(several).trials, whole_grid(several).trials):
        assert {trial.replay_share for trial in trials if trial.domain} == {0.0, 0.2}
    plain, tried = (
        candidates_of(each, CandidateGrid.of(each), tree_state_of(each, {})).every for each in (spec, several)
    )
    assert sum(bool(c.branches) for c in tried) == 2 * sum(bool(c.branches) for c in plain)
    after = tree_state_of(several, {(replace(here, milestones=()), 125_000): {"a": 2.0, "b": 2.0}})
    left = candidates_of(several, grid, after).every
    assert not any(t.milestones[0] == 125_000 for c in left for t in c.branches if t.name == here.name)
    assert any(t.milestones[0] == 125_000 for c in left for t in c.branches if t.name == there.name)
    assert state.can_start(there)
