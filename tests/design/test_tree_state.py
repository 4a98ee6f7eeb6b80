"""Evidence that grows measurement by measurement is the evidence of all of them."""

from hypothesis import given
from hypothesis import strategies as st

from raysplit.design.campaign import whole_grid
from raysplit.design.tree_state import TreeState, key, tree_state_of
from tests.design.doubles import spec

ASKED = spec(scratch=True)
KEYS = [key(trial, milestone) for trial in whole_grid(ASKED).trials for milestone in trial.milestones]


@given(st.permutations(KEYS).map(lambda keys: keys[:25]) | st.just(KEYS))
def test_going_on_from_what_was_known_gives_what_reckoning_anew_does(keys: list[tuple]) -> None:
    losses: dict[tuple, dict[str, float]] = {}
    before: TreeState | None = None
    for at in keys:
        losses[at] = {}
        grown = tree_state_of(ASKED, dict(losses), before=before)
        assert grown == tree_state_of(ASKED, dict(losses))
        before = grown


def test_what_was_known_is_left_as_it_was() -> None:
    first = tree_state_of(ASKED, {KEYS[0]: {}})
    nodes, tokens = set(first.nodes), dict(first.tokens)
    tree_state_of(ASKED, {at: {} for at in KEYS[:9]}, before=first)
    assert (set(first.nodes), first.tokens) == (nodes, tokens)
