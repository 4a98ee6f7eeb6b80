"""Lanes are put where they fit, and where they leave large nodes whole."""

import hypothesis.strategies as st
from hypothesis import given

from raysplit.pool.placement import Footprint, on_these, place, without, words
from tests.pool.simulated_cluster import footprint

NODES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 16)), max_size=6)
ROOMS = st.builds(
    lambda nodes, each, gpus, cpus: Footprint(
        n_workers=nodes * each, n_nodes=nodes, gpus_per_worker=gpus, cpus_per_worker=cpus
    ),
    st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.5, 1.0, 2.0]),
)  # fmt: skip


@given(nodes=NODES, queued=ROOMS)
def test_a_lane_takes_no_more_than_there_is_and_is_spread_evenly(
    nodes: list[tuple[int, int]], queued: Footprint
) -> None:
    free = {f"n{i}": {"GPU": float(gpus), "CPU": float(cpus)} for i, (gpus, cpus) in enumerate(nodes)}
    spots = place(queued, free)
    if spots is None:
        each = queued.n_workers // queued.n_nodes
        roomy = [n for n in free.values() if all(n[r] >= each * amount for r, amount in queued.of_a_worker.items())]
        assert len(roomy) < queued.n_nodes
        return
    assert len(spots) == queued.n_workers
    assert {spots.count(name) for name in spots} == {queued.n_workers // queued.n_nodes}
    assert all(amount >= 0 for have in without(free, queued, spots).values() for amount in have.values())


def test_workers_that_want_whole_gpus_do_not_count_on_halves() -> None:
    whole = Footprint(n_workers=2, n_nodes=1, gpus_per_worker=1.0, cpus_per_worker=1.0)
    assert place(whole, {"a": {"GPU": 1.5, "CPU": 8.0}, "b": {"GPU": 2.5, "CPU": 8.0}}) == ("b", "b")
    assert place(whole, {"a": {"GPU": 1.5, "CPU": 8.0}}) is None


def test_where_nodes_are_small_a_lane_spreads_over_more_of_them() -> None:
    four = footprint(n_workers=4)
    assert on_these(four, [{"CPU": 2.0}, {"CPU": 2.0}]) == footprint(n_workers=4, n_nodes=2)
    assert on_these(four, [{"CPU": 1.0}] * 3) is None


def test_nodes_in_words() -> None:
    assert words([{"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}, {}]) == (
        "2 x 1 GPU and 2 CPU, neither CPU nor GPU"
    )
    assert words([]) == "nothing"
