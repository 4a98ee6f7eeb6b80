"""Which machines a size gets: as the space says, as memory asks, or a refusal that names the nearest shape."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.design.lane_shapes import LaneShape, bytes_of, fits, lane_shape_of, widest_lane_shape
from raysplit.errors import SpaceError
from raysplit.ladder import shape_for
from raysplit.space import Space, parse_space
from tests.test_space import changed

VOCAB = 49_152


def space_of(compute: dict[str, Any], **training: Any) -> Space:
    raw = changed("compute", compute)
    raw["model"] = {"sizes": ["125M", "1.3B", "7B"], "context_length": 2048}
    raw["corpus"]["tokenizer"] = {"kind": "huggingface", "name": "somebody/something", "vocab_size": VOCAB}
    raw["training"] |= {"batch_tokens": 2**20, "micro_batch_sequences": 16, "precision": "bf16"} | training
    raw["sweep"] = {"pretrain_tokens": ["1B"], "specialize_tokens": ["250M"]}
    raw["target"]["budget_flops"] = "1e22"
    return parse_space(raw, origin="space.yaml")


NODES: dict[str, Any] = {"device": "cuda", "nodes": 8, "gpus_per_node": 8, "device_memory": "80G", "lanes": 64}


def test_without_shapes_and_memory_every_size_has_the_same_lane() -> None:
    space = space_of({"workers_per_lane": 2, "cpus_per_worker": 3}, zero_stage=2, micro_batch_sequences=8)
    assert {lane_shape_of(space, n) for n in (10**6, 10**8, 10**10)} == {
        LaneShape(
            n_workers=2, n_nodes=1, cpus_per_worker=3, gpus_per_worker=0, zero_stage=2, micro_batch_sequences=8,
            activation_checkpointing=False,
        )
    }  # fmt: skip


def test_a_written_shape_holds_and_the_rest_is_as_the_space_has_it() -> None:
    shapes = [
        {"up_to": "200M", "gpus_per_worker": 0.5, "cpus_per_worker": 4},
        {"up_to": "7B", "workers": 16, "nodes": 4, "zero_stage": 3, "micro_batch_sequences": 2,
         "activation_checkpointing": True},
    ]  # fmt: skip
    space = space_of({"device": "cuda", "nodes": 8, "shapes": shapes})
    small, large, beyond = (lane_shape_of(space, n) for n in (125_000_000, 7_000_000_000, 13_000_000_000))
    assert (small.gpus_per_worker, small.cpus_per_worker, small.n_workers, small.micro_batch_sequences) == (
        0.5,
        4,
        1,
        16,
    )
    assert (large.n_workers, large.n_nodes, large.zero_stage, large.micro_batch_sequences) == (16, 4, 3, 2)
    assert large.activation_checkpointing
    assert (beyond.n_workers, beyond.zero_stage) == (1, 1)


def test_reckoned_from_memory_a_size_has_as_few_gpus_as_hold_it() -> None:
    space = space_of(NODES)
    lanes = {n: lane_shape_of(space, n) for n in (125_000_000, 1_300_000_000, 7_000_000_000)}
    workers = [lane.n_workers for lane in lanes.values()]
    assert workers == sorted(workers)
    assert workers[0] == 1
    assert workers[-1] > 1  # 18 bytes of states a parameter are 130 GB
    assert lanes[125_000_000].zero_stage == 1
    for n_params, lane in lanes.items():
        model = space.shape(n_params, VOCAB)
        assert fits(space, model, lane)
        assert (2**20 // 2048) % (lane.n_workers * lane.micro_batch_sequences) == 0


def test_what_a_shape_leaves_out_is_reckoned() -> None:
    lane = lane_shape_of(space_of(NODES | {"shapes": [{"up_to": "7B", "workers": 32}]}), 7_000_000_000)
    assert (lane.n_workers, lane.n_nodes) == (32, 4)
    assert lane.zero_stage in (2, 3)


@given(n_params=st.integers(10**7, 10**10), gigabytes=st.integers(8, 200), nodes=st.integers(1, 8))
def test_more_memory_never_asks_for_more_gpus(n_params: int, gigabytes: int, nodes: int) -> None:
    def workers(memory: int) -> float:
        try:
            return lane_shape_of(
                space_of(NODES | {"nodes": nodes, "device_memory": memory * 10**9}), n_params
            ).n_workers
        except SpaceError:
            return float("inf")

    assert workers(gigabytes + 20) <= workers(gigabytes)


@pytest.mark.parametrize(
    ("compute", "sentences"),
    [
        (
            {"shapes": [{"up_to": "7B", "workers": 1}]},
            ["model of 7.", "1 GPU", "device_memory = 80 GB", "nearest shape that fits: workers: "],
        ),
        ({"nodes": 1, "gpus_per_node": 1}, ["model of 7.", "nothing on 1 GPU fits", "compute.nodes"]),
        ({"device_memory": "2G"}, ["model of 7.", "nothing on 64 GPUs fits"]),
        (
            {"shapes": [{"up_to": "7B", "workers": 8, "zero_stage": 1, "micro_batch_sequences": 16}]},
            ["8 GPUs", "zero_stage: 1", "nearest shape that fits: workers: 8"],
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_the_nearest_that_does(compute: dict[str, Any], sentences: list[str]) -> None:
    with pytest.raises(SpaceError) as refused:
        lane_shape_of(space_of(NODES | compute), 7_000_000_000)
    for sentence in sentences:
        assert sentence in str(refused.value)


def test_the_widest_lane_has_every_gpu_that_the_batch_can_be_divided_over() -> None:
    space = space_of(NODES)
    for n_params in (125_000_000, 7_000_000_000):
        lane = widest_lane_shape(space, n_params, n_workers=64)
        assert (lane.n_workers, lane.n_nodes) == (64, 8)
        assert fits(space, space.shape(n_params, VOCAB), lane)
    three = space_of(NODES | {"nodes": 3})
    assert widest_lane_shape(three, 125_000_000, n_workers=24).n_workers == 16  # 512 sequences do not divide by 24


def test_on_cpus_the_widest_lane_is_of_all_lanes_together() -> None:
    space = parse_space(changed("compute", {"lanes": 2, "cpus_per_worker": 2}), origin="space.yaml")
    lane = widest_lane_shape(space, 14_000, n_workers=space.compute.n_workers)
    assert (lane.n_workers, lane.micro_batch_sequences, lane.cpus_per_worker, lane.gpus_per_worker) == (2, 16, 2, 0)


def test_a_share_of_a_gpu_has_its_share_of_the_memory() -> None:
    shapes = [{"up_to": "200M", "gpus_per_worker": 0.25}]
    whole = lane_shape_of(space_of(NODES), 125_000_000)
    quarter = lane_shape_of(space_of(NODES | {"shapes": shapes}), 125_000_000)
    assert quarter.micro_batch_sequences < whole.micro_batch_sequences
    model = shape_for(125_000_000, vocab_size=VOCAB, context_length=2048)
    assert bytes_of(space_of(NODES), model, quarter).total <= 20e9


@pytest.mark.parametrize(
    ("precision", "workers", "given", "stage"),
    [("fp32", 1, {}, 0), ("fp32", 2, {}, 1), ("bf16", 1, {}, 1), ("fp32", 1, {"zero_stage": 1}, 1)],
)
def test_a_lone_rank_partitions_nothing(precision: str, workers: int, given: dict[str, int], stage: int) -> None:
    shapes = [{"up_to": "1T", "workers": workers, **given}]
    lane = lane_shape_of(space_of({"shapes": shapes}, precision=precision), 125_000_000)
    assert lane.zero_stage == stage
