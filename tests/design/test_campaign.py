"""The rounds of a sweep, what they may ask for and how they end. Every law here is known, none fitted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.design.campaign import Finish, Round, enlarged, judge, next_round, opening, whole_grid
from raysplit.design.candidates import believe
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Checkpoints, Trial
from raysplit.design.tree_state import TreeState, chain, is_orphan, key, remaining, tree_state_of
from raysplit.law import FORMS, Law
from raysplit.space import DesignName
from tests.design.doubles import PRETRAIN, SIZES, SPECIALIZE, carried_out, every_point, measured, points, spec
from tests.split.doubles import known_law, known_theta, law_of

LAW = known_law(n_domains=2, n_draws=8, jitter=0.15)
BELIEF = believe(spec(), LAW)
CERTAIN = known_law(n_domains=2, n_draws=1)

specs = st.builds(
    spec,
    n_domains=st.integers(1, 5),
    sizes=st.integers(1, 4).map(lambda n: (10_000, 20_000, 40_000, 80_000)[:n]),
    pretrain_grid=st.integers(1, 6).map(lambda n: [250_000 * 2**i for i in range(n)]),
    specialize_grid=st.integers(1, 5).map(lambda n: [125_000 * 2**i for i in range(n)]),
    scratch=st.booleans(),
)


def can_all_start(trials: tuple[Trial, ...], tree_state: TreeState | None = None) -> bool:
    """Whether every branch's root is there or on the way of a trunk in the same round."""
    reach = {(t.n_params, t.seed): (0, *t.milestones) for t in trials if t.is_trunk}
    there = tree_state.nodes if tree_state else Checkpoints()
    return all(
        t.root in there or t.pretrain_tokens in (0, *reach.get((t.n_params, t.seed), ())) for t in trials if t.domain
    )


@given(specs)
def test_the_opening_can_start_and_touches_the_smaller_sizes_and_every_domain(asked: ResolvedSpec) -> None:
    trials = opening(asked).trials
    assert can_all_start(trials)
    assert len(set(map(chain, trials))) == len(trials)
    assert set(points(trials)) <= every_point(asked)
    assert {(t.n_params, t.domain) for t in trials} == {(n, k) for n in asked.sizes[:3] for k in ("", *asked.domains)}
    first_branch = next(i for i, t in enumerate(trials) if t.domain)
    assert not any(t.is_trunk for t in trials[first_branch:])  # lanes that wait for no one come first


def test_the_opening_varies_its_ratios() -> None:
    asked = spec(n_domains=3, sizes=(10_000, 20_000, 40_000))
    branches = [t for t in opening(asked).trials if t.domain]
    assert len({t.pretrain_tokens / t.n_params for t in branches}) >= 4
    assert len({m / t.pretrain_tokens for t in branches for m in t.milestones}) >= 3


@given(specs)
def test_the_whole_grid_is_every_point_once(asked: ResolvedSpec) -> None:
    asked_for = points(whole_grid(asked).trials)
    assert len(asked_for) == len(set(asked_for))
    assert set(asked_for) == every_point(asked)
    assert can_all_start(whole_grid(asked).trials)


def test_repeats_come_along() -> None:
    again = Trial(n_params=SIZES[0], seed=1, domain="", pretrain_tokens=PRETRAIN[0], milestones=(PRETRAIN[0],))
    asked = spec(repeats=(again,))
    assert again in opening(asked).trials
    assert again in whole_grid(asked).trials


@given(st.data())
def test_evidence_does_not_depend_on_the_order_of_measurements(data: st.DataObject) -> None:
    asked = spec(scratch=True)
    known = measured(asked, whole_grid(asked).trials).losses
    some = data.draw(st.lists(st.sampled_from(list(known)), unique=True, max_size=12))
    assert tree_state_of(asked, {k: known[k] for k in some}) == tree_state_of(
        asked, {k: known[k] for k in reversed(some)}
    )


def test_evidence_of_the_grid_pays_for_each_token_once() -> None:
    asked = spec()
    paid = sum(
        6.0 * n * (PRETRAIN[-1] + sum(PRETRAIN) / 4)
        + 6.0 * n * len(PRETRAIN) * 2 * (0.75 * SPECIALIZE[-1] + sum(SPECIALIZE) / 4)
        for n in SIZES
    )
    assert measured(asked, whole_grid(asked).trials).spent_flops == pytest.approx(paid)


def test_a_closed_chain_has_nothing_left_and_a_closed_trunk_orphans_its_branches() -> None:
    asked = spec()
    trunk, *_ = whole_grid(asked).trials
    near, far = (
        Trial(n_params=trunk.n_params, seed=0, domain="domain-0", pretrain_tokens=d, milestones=SPECIALIZE)
        for d in (PRETRAIN[0], PRETRAIN[-1])
    )
    got_to_first = [replace(trunk, milestones=PRETRAIN[:1])]
    tree_state = measured(asked, got_to_first, closed=[chain(trunk)])
    assert remaining(trunk, tree_state) == ()
    assert not is_orphan(near, tree_state)
    assert remaining(near, tree_state) == SPECIALIZE
    assert is_orphan(far, tree_state)
    assert remaining(far, tree_state) == ()
    of_another_seed = replace(far, seed=1)
    assert not is_orphan(of_another_seed, tree_state)


def test_a_branch_from_scratch_waits_for_nothing() -> None:
    """Of a size that was never trained too: a sweep once waited for ever for its trunk."""
    asked = spec(scratch=True)
    nothing = measured(asked, [])
    branch = Trial(n_params=SIZES[-1], seed=0, domain="domain-0", pretrain_tokens=0, milestones=SPECIALIZE)
    assert nothing.can_start(branch)
    failed = measured(
        asked, [], closed=[Trial(n_params=SIZES[-1], seed=0, domain="", pretrain_tokens=0, milestones=())]
    )
    assert not is_orphan(branch, failed)
    assert remaining(branch, failed) == SPECIALIZE
    # And so say the whole grid's trials, branches before trunks.
    assert all(nothing.can_start(trial) for trial in whole_grid(asked).trials if trial.root.pretrain_tokens == 0)


def test_where_trunks_are_not_shared_nothing_waits_and_each_branch_pays_its_own() -> None:
    asked = spec()
    alone = replace(asked, tree=replace(asked.tree, shares_trunks=False))
    trials = whole_grid(asked).trials
    pretraining = sum(6.0 * n * len(asked.domains) * sum(PRETRAIN) for n in SIZES)
    run_on = sum(6.0 * n * PRETRAIN[-1] / 4 for n in SIZES)  # beside the last cooldown, for branches to leave
    paid = measured(asked, trials).spent_flops + pretraining - run_on
    assert measured(alone, trials).spent_flops == pytest.approx(paid)
    nothing = measured(alone, [], closed=[chain(trial) for trial in trials if trial.is_trunk])
    assert all(remaining(trial, nothing) and nothing.can_start(trial) for trial in trials if trial.domain)
    for tree_state in (nothing, measured(alone, opening(alone).trials)):
        decision = next_round(alone, tree_state, BELIEF)
        assert isinstance(decision, Round)
        assert carried_out(alone, decision.planned, tree_state).spent_flops <= alone.budget_flops


@pytest.fixture(scope="module")
def opened() -> TreeState:
    """Evidence of the opening of `spec()`."""
    asked = spec()
    return measured(asked, opening(asked).trials)


@settings(max_examples=12)
@given(
    budget=st.floats(0.5e12, 6e12),
    scratch=st.booleans(),
    lanes=st.integers(1, 4),
    stopped=st.integers(0, 3),
    rounds=st.integers(1, 3),
)
def test_a_round_asks_only_for_what_is_open_can_start_and_is_affordable(
    budget: float, scratch: bool, lanes: int, stopped: int, rounds: int
) -> None:
    asked = spec(budget_flops=budget, scratch=scratch, lanes=lanes)
    first = opening(asked).trials
    tree_state = measured(asked, first, closed=[chain(t) for t in first if t.domain][:stopped])
    for _ in range(rounds):
        decision = next_round(asked, tree_state, believe(asked, LAW))
        if isinstance(decision, Finish):
            assert decision.why
            return
        assert decision.trials
        assert can_all_start(decision.trials, tree_state)
        assert len(set(map(chain, decision.trials))) == len(decision.trials)
        assert not {key(t, m) for t in decision.trials for m in t.milestones} & set(tree_state.losses)
        assert not {chain(t) for t in decision.trials} & tree_state.closed
        assert set(points(decision.trials)) <= every_point(asked)
        tree_state = carried_out(asked, decision.planned, tree_state)
        assert tree_state.spent_flops <= budget


@settings(max_examples=8)
@given(budget=st.floats(0.8e12, 6e12), n_added=st.integers(1, 4))
def test_additions_can_start_at_once_are_new_and_affordable(budget: float, n_added: int) -> None:
    asked = spec(budget_flops=budget, lanes=8)
    tree_state = measured(asked, opening(asked).trials)
    within = next_round(asked, tree_state, believe(asked, LAW))
    if isinstance(within, Finish):
        return
    for _ in range(n_added):
        larger = enlarged(asked, tree_state, believe(asked, LAW), within)
        if larger is None:
            break
        trial = larger.planned[-1]
        assert trial.is_trunk or trial.root in tree_state.nodes
        assert chain(trial) not in set(map(chain, within.trials)) | tree_state.closed
        assert not {key(trial, m) for m in trial.milestones} & set(tree_state.losses)
        within = larger
    spent = carried_out(asked, within.planned, tree_state).spent_flops
    assert spent + within.spare_flops * sum(not t.is_trunk for t in within.planned) <= budget * (1 + 1e-9)


@pytest.mark.parametrize("design", ["v-optimal", "mspe", "d-optimal", "cheapest", "random"])
def test_a_classic_design_measures_what_it_has_planned_and_no_more(opened: TreeState, design: DesignName) -> None:
    """To the end of the sweep. Two of them ask for branches of several points here, not to be cut short."""
    asked, tree_state, several = replace(spec(), design=design), opened, 0
    while isinstance(within := next_round(asked, tree_state, BELIEF), Round):
        assert within.trials == within.planned
        for trial in within.planned:
            for milestone in trial.milestones:
                tree_state = carried_out(asked, [replace(trial, milestones=(milestone,))], tree_state)
                assert judge(asked, tree_state, BELIEF, trial, within).go_on == bool(remaining(trial, tree_state))
            several += bool(trial.domain) and len(trial.milestones) > 1
    assert several or design not in ("mspe", "random")


def test_nothing_is_added_that_is_not_worth_its_cost(opened: TreeState) -> None:
    asked = spec()
    within = next_round(asked, opened, BELIEF)
    assert isinstance(within, Round)
    assert enlarged(asked, opened, BELIEF, within)
    assert enlarged(asked, opened, believe(asked, replace(LAW, noise=LAW.noise * 1e6)), within) is None


def only_branches_tell() -> Law:
    """Draws that agree on the pretrained models and differ in what specialization does."""
    names = [parameter.name for parameter in FORMS["law-8"].parameters]
    theta = np.repeat(known_theta(n_domains=2), 8, axis=0)
    moved = [names.index("k"), names.index("c")]
    theta[:, :, moved] *= np.exp(np.random.default_rng(0).normal(0, 0.5, (8, 2, 2)))
    return law_of(theta)


def test_no_budget_is_overrun_by_the_trunks_that_a_round_brings_along(opened: TreeState) -> None:
    law, brought = only_branches_tell(), 0
    for budget in np.linspace(0.6e12, 2.4e12, 40):
        asked = spec(budget_flops=float(budget), lanes=8)
        near = [chain(t) for t in whole_grid(asked).trials if t.domain and t.root in opened.nodes]
        before = measured(asked, opening(asked).trials, closed=near)
        decision = next_round(asked, before, believe(asked, law))
        if isinstance(decision, Round):
            assert carried_out(asked, decision.planned, before).spent_flops <= budget
            brought += any(trial.is_trunk for trial in decision.planned)
    assert brought


def ends_with(decision: Round | Finish) -> str:
    assert isinstance(decision, Finish)
    return decision.why


def test_a_sweep_ends_when_the_answer_is_certain_enough(opened: TreeState) -> None:
    assert "certain enough" in ends_with(next_round(spec(regret_tolerance=0.5), opened, BELIEF))
    assert "certain enough" in ends_with(next_round(spec(), opened, believe(spec(), CERTAIN)))


def test_a_sweep_ends_when_its_budget_is_spent(opened: TreeState) -> None:
    assert "budget is spent" in ends_with(next_round(spec(budget_flops=opened.spent_flops), opened, BELIEF))
    # Even the opening may have been too much.
    assert "budget is spent" in ends_with(next_round(spec(budget_flops=0.1 * opened.spent_flops), opened, BELIEF))


def test_a_sweep_ends_when_all_is_measured() -> None:
    asked = spec()
    whole = measured(asked, whole_grid(asked).trials)
    assert "every point" in ends_with(next_round(asked, whole, BELIEF))


def test_a_sweep_ends_when_nothing_left_is_worth_its_cost(opened: TreeState) -> None:
    deaf = replace(LAW, noise=LAW.noise * 1e6)  # so noisy that no observation tells anything
    assert "worth its cost" in ends_with(next_round(spec(budget_flops=1e13), opened, believe(spec(), deaf)))


def test_without_a_limit_a_round_is_still_a_part_of_the_grid(opened: TreeState) -> None:
    asked = spec(budget_flops=float("inf"))
    decision = next_round(asked, opened, BELIEF)
    assert isinstance(decision, Round)
    whole = measured(asked, whole_grid(asked).trials).spent_flops
    spent = carried_out(asked, decision.planned, opened).spent_flops - opened.spent_flops
    assert 0 < spent < whole / 2
