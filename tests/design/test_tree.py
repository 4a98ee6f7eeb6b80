"""Each token is trained once: segments, and the marginal price of an observation."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from raysplit.design.tree import Checkpoints, Node, Tree, Trial
from raysplit.space import CooldownStart
from tests.design.strategies import measurements, tokens_alone, train, trees

QUARTER = Tree(cooldown_start=CooldownStart(fraction=0.25), pretrain_grid=(8, 16))


def trunk(*milestones: int) -> Trial:
    return Trial(n_params=10, seed=0, domain="", pretrain_tokens=milestones[-1], milestones=milestones)


def branch(root: int, *milestones: int, domain: str = "a") -> Trial:
    return Trial(n_params=10, seed=0, domain=domain, pretrain_tokens=root, milestones=milestones)


@given(st.data())
def test_segments_join_up_from_a_checkpoint_that_exists_to_the_cooldown(data: st.DataObject) -> None:
    tree = data.draw(trees())
    nodes = Checkpoints()
    for trial, milestone in data.draw(measurements(tree=tree)):
        if trial.is_trunk:
            nodes.add(trial.root)
        *constant, cooldown = tree.segments(trial, milestone, nodes)
        at = constant[0].start if constant else cooldown.start
        for segment in constant:
            assert not segment.cooldown
            assert segment.start == at
            assert at in nodes
            assert segment.tokens > 0
            at = segment.end
            nodes.add(at)
        assert cooldown.cooldown
        assert cooldown.start in nodes
        assert (cooldown.start_tokens, cooldown.end_tokens) == (tree.cooldown_start(milestone), milestone)
        assert cooldown.tokens > 0
        assert {segment.domain for segment in (*constant, cooldown)} == {trial.domain}
        if trial.is_trunk:  # branches may leave here
            assert replace(trial.root, pretrain_tokens=milestone) in nodes


@given(st.data())
def test_a_shared_plan_costs_no_more_than_runs_of_their_own(data: st.DataObject) -> None:
    tree = data.draw(trees())
    made = data.draw(measurements(tree=tree))
    assert train(tree, made, Checkpoints()) <= sum(tokens_alone(tree, trial, milestone) for trial, milestone in made)


@given(st.data())
def test_without_shared_trunks_every_branch_pays_its_own_way_once(data: st.DataObject) -> None:
    tree = replace(data.draw(trees()), shares_trunks=False)
    nodes = Checkpoints()
    begun: set[tuple[int, str, int]] = set()
    for trial, milestone in data.draw(measurements(tree=tree)):
        assert tree.can_start(trial, nodes)
        shared = replace(tree, shares_trunks=True).missing_tokens(trial, [milestone], Checkpoints([*nodes, trial.root]))
        at = (trial.n_params, trial.domain, trial.pretrain_tokens)
        own = trial.pretrain_tokens if trial.domain and at not in begun else 0
        first = tree.cooldown_start(milestone) == 0  # a cooldown from the root on leaves no checkpoint
        if not first:
            begun.add(at)
        price = tree.missing_tokens(trial, [milestone], nodes)
        assert price == shared + own or (trial.is_trunk and price < shared)  # no branch needs it to run on
        train(tree, [(trial, milestone)], nodes)


@given(st.data())
def test_measuring_more_never_makes_an_observation_dearer(data: st.DataObject) -> None:
    tree = data.draw(trees())
    made = data.draw(measurements(tree=tree))
    wanted, milestone = data.draw(st.sampled_from(made))
    nodes = Checkpoints()
    before = tree.missing_tokens(wanted, [milestone], nodes)
    for one in made:
        train(tree, [one], nodes)
        after = tree.missing_tokens(wanted, [milestone], nodes)
        assert after <= before
        before = after


@given(st.data())
def test_a_price_is_what_a_lane_then_trains(data: st.DataObject) -> None:
    tree = data.draw(trees())
    nodes = Checkpoints()
    for trial, milestone in data.draw(measurements(tree=tree)):
        price = tree.missing_tokens(trial, [milestone], nodes)
        assert price == train(tree, [(trial, milestone)], nodes)


@given(trees())
def test_a_chain_trains_its_length_once_and_every_cooldown_beside_it(tree: Tree) -> None:
    # A trunk's next cooldown that begins before its last milestone would train the tokens between them again.
    assume(all(tree.cooldown_start(later) >= d for d, later in pairwise(tree.pretrain_grid)))
    cooldowns = sum(d - tree.cooldown_start(d) for d in tree.pretrain_grid)
    longest = tree.pretrain_grid[-1]
    assert tree.missing_tokens(trunk(*tree.pretrain_grid), tree.pretrain_grid, Checkpoints()) == longest + cooldowns
    # A branch ends in its last cooldown: nothing leaves it later.
    expert = branch(longest, *tree.pretrain_grid)
    trained = tree.missing_tokens(expert, expert.milestones, Checkpoints([expert.root]))
    assert trained == tree.cooldown_start(longest) + cooldowns


def test_a_longer_branch_goes_on_from_the_shorter_one() -> None:
    nodes = Checkpoints([branch(8, 8).root])
    assert train(QUARTER, [(branch(8, 8), 8)], nodes) == 8
    again = QUARTER.segments(branch(8, 16), 16, nodes)
    assert [(segment.start_tokens, segment.end_tokens) for segment in again] == [(6, 12), (12, 16)]


def test_a_branch_before_its_trunk_pays_for_the_trunk() -> None:
    assert QUARTER.missing_tokens(branch(16, 8), [8], Checkpoints()) == 16 + 8
    half_way = Node(n_params=10, seed=0, pretrain_tokens=8)
    assert QUARTER.missing_tokens(branch(16, 8), [8], Checkpoints([half_way])) == 8 + 8
    of_another_seed = replace(half_way, seed=1)
    assert QUARTER.missing_tokens(branch(16, 8), [8], Checkpoints([of_another_seed])) == 16 + 8


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,5}", fullmatch=True)
nodes_ = st.builds(
    Node,
    n_params=st.integers(1, 20),
    seed=st.integers(0, 3),
    pretrain_tokens=st.integers(0, 20),
    domain=st.just(""),
    specialize_tokens=st.just(0),
    cooldown_to=st.integers(0, 20),
) | st.builds(
    Node,
    n_params=st.integers(1, 20),
    seed=st.integers(0, 3),
    pretrain_tokens=st.integers(0, 20),
    domain=names | st.sampled_from(["a", "a-1", "a-1-1", "1-1"]),
    specialize_tokens=st.integers(1, 20),
    cooldown_to=st.integers(0, 20),
)


@given(nodes_, nodes_)
def test_two_checkpoints_never_share_a_folder(one: Node, other: Node) -> None:
    assert (one.folder == other.folder) == (one == other)


def test_an_unfinished_cooldown_goes_on_and_nothing_else_does_from_it() -> None:
    """Its rate falls as if it had never stopped, since the segment knows the whole cooldown."""
    trial = branch(8, 16, 24)
    cooling = replace(trial.root, domain="a", specialize_tokens=14, cooldown_to=16)
    nodes = Checkpoints({trial.root, replace(cooling, specialize_tokens=12, cooldown_to=0), cooling})
    (rest,) = QUARTER.segments(trial, 16, nodes)
    assert (rest.start, rest.tokens, rest.cooldown_tokens) == (cooling, 2, 4)
    constant, other = QUARTER.segments(trial, 24, nodes)
    assert (constant.start_tokens, constant.end_tokens) == (12, 18)
    assert (other.tokens, other.cooldown_tokens) == (6, 6)
    assert rest.node_at(15) == replace(cooling, specialize_tokens=15)
    assert len({node.folder for node in nodes}) == 3
