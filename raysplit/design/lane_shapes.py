"""Which machines a model size trains on: how many workers, over how many nodes, and what of the model each holds.

What the space says holds. What it leaves out is computed from the memory of one GPU where the space gives that
(`compute.device_memory`); otherwise it is the same for every size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from raysplit.design.memory import RankBytes, bytes_a_rank
from raysplit.errors import SpaceError
from raysplit.ladder import ModelShape
from raysplit.machines import ZERO_STAGES, ShapeSpec, divisors, fewest_nodes
from raysplit.quantities import counted, format_bytes, format_count
from raysplit.space import Space, TrainingSpec

USABLE_SHARE = 0.9
"""Share of a GPU's memory that a lane may take. The rest is for CUDA's context, NCCL, workspaces of kernels and
fragments of the allocator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneShape:
    """One lane as it trains a size: its workers are the data-parallel ranks of one DeepSpeed engine."""

    n_workers: int
    n_nodes: int
    """Nodes over which the workers are spread evenly."""
    cpus_per_worker: float
    gpus_per_worker: float
    """Below 1 where several workers share a GPU; 0 on CPUs."""
    zero_stage: int
    micro_batch_sequences: int
    """Sequences in one forward pass of one worker."""
    activation_checkpointing: bool


def lane_shape_of(space: Space, n_params: int, *, vocab_size: int | None = None) -> LaneShape:
    """The lane that trains models of a size.

    Where it is computed from the memory, it has as few workers as hold the model. Among those lanes, one that keeps its
    activations comes before one that computes them twice, then the lowest ZeRO stage, then the largest micro-batch.

    Args:
        space: the resolved search space.
        n_params: N of the size.
        vocab_size: of the tokenizer; as the space says when left out.

    Raises:
        SpaceError: nothing that agrees with the space fits into memory and divides the batch; names the nearest that
            does.
    """
    given = space.compute.shape_for(n_params) or ShapeSpec(up_to=n_params)
    if space.compute.device_memory is None:
        return _as_written(space, given)
    model = _model(space, n_params, vocab_size)
    fitting = (lane for lane in _lanes(space, given) if fits(space, model, lane))
    lane = next(fitting, None)
    if lane is None:
        raise SpaceError(_why_none_fits(space, model, given))
    return lane


def widest_lane_shape(space: Space, n_params: int, *, n_workers: int, vocab_size: int | None = None) -> LaneShape:
    """The lane of the most workers, up to ``n_workers``, that divide a step's batch; at least the size's own lane.

    Raises:
        SpaceError: as `lane_shape_of`.
    """
    own = lane_shape_of(space, n_params, vocab_size=vocab_size)
    model = _model(space, n_params, vocab_size)
    for workers in reversed(_worker_counts(space)):
        if own.n_workers < workers <= n_workers:
            wide = ShapeSpec(up_to=n_params, workers=workers, cpus_per_worker=own.cpus_per_worker)
            if lane := next((lane for lane in _lanes(space, wide) if fits(space, model, lane)), None):
                return lane
    return own


def check_lanes(space: Space) -> None:
    """Refuse a space with a size, of the sweep or of the final run, that its machines cannot train.

    Raises:
        SpaceError: as `lane_shape_of`.
    """
    for n_params in sorted({*space.model.sizes, *(space.target.model_sizes or ())}):
        lane_shape_of(space, _model(space, n_params, None).n_params_non_embedding)


def bytes_of(space: Space, model: ModelShape, lane: LaneShape) -> RankBytes:
    """Bytes that one worker of a lane holds, at its most."""
    return bytes_a_rank(
        model,
        precision=space.training.precision,
        n_workers=lane.n_workers,
        zero_stage=lane.zero_stage,
        micro_batch_sequences=lane.micro_batch_sequences,
        activation_checkpointing=lane.activation_checkpointing,
    )


def fits(space: Space, model: ModelShape, lane: LaneShape) -> bool:
    """Whether a worker's share lies within its GPU's memory; where that is unknown, everything does."""
    memory = space.compute.device_memory
    return memory is None or bytes_of(space, model, lane).total <= USABLE_SHARE * lane.gpus_per_worker * memory


def _model(space: Space, n_params: int, vocab_size: int | None) -> ModelShape:
    return space.shape(n_params, vocab_size or space.corpus.tokenizer.vocab_size)


def _as_written(space: Space, given: ShapeSpec) -> LaneShape:
    training, checkpointing = space.training, given.activation_checkpointing
    workers = given.workers or space.compute.workers_per_lane
    return _lane(
        space,
        given,
        n_workers=workers,
        zero_stage=given.zero_stage if given.zero_stage is not None else _lowest_stage(training, workers),
        micro_batch_sequences=given.micro_batch_sequences or training.micro_batch_sequences,
        activation_checkpointing=training.activation_checkpointing if checkpointing is None else checkpointing,
    )


def _lowest_stage(training: TrainingSpec, n_workers: int) -> int:
    """The stage that the space asks for; a lone rank has nothing to partition, and in fp32 is faster at stage 0."""
    return 0 if n_workers == 1 and training.precision == "fp32" else training.zero_stage


def _lanes(space: Space, given: ShapeSpec) -> Iterator[LaneShape]:
    """Every lane that divides a step's batch and agrees with what is given, the best first."""
    training = space.training
    twice = [True] if training.activation_checkpointing else [False, True]
    for workers in _worker_counts(space) if given.workers is None else [given.workers]:
        micro_batches = _micro_batches(space, given, n_workers=workers)
        stages = [stage for stage in ZERO_STAGES if stage >= _lowest_stage(training, workers)]
        for checkpointing in twice if given.activation_checkpointing is None else [given.activation_checkpointing]:
            for stage in stages if given.zero_stage is None else [given.zero_stage]:
                for micro in micro_batches:
                    yield _lane(
                        space,
                        given,
                        n_workers=workers,
                        zero_stage=stage,
                        micro_batch_sequences=micro,
                        activation_checkpointing=checkpointing,
                    )


def _micro_batches(space: Space, given: ShapeSpec, *, n_workers: int) -> list[int]:
    """Micro-batch sizes, in sequences, that divide a worker's share of a step, the largest first."""
    each, rest = divmod(_sequences(space), n_workers)
    if given.micro_batch_sequences is not None:
        return [given.micro_batch_sequences] if rest == 0 and each % given.micro_batch_sequences == 0 else []
    most = space.training.micro_batch_sequences
    return [] if rest else [micro for micro in reversed(divisors(each)) if micro <= most]


def _lane(
    space: Space,
    given: ShapeSpec,
    *,
    n_workers: int,
    zero_stage: int,
    micro_batch_sequences: int,
    activation_checkpointing: bool,
) -> LaneShape:
    compute, on_gpu = space.compute, space.compute.device == "cuda"
    return LaneShape(
        n_workers=n_workers,
        n_nodes=given.nodes or (fewest_nodes(n_workers, per_node=compute.gpus_per_node) if on_gpu else 1),
        cpus_per_worker=given.cpus_per_worker or compute.cpus_per_worker,
        gpus_per_worker=(given.gpus_per_worker or 1.0) if on_gpu else 0.0,
        zero_stage=zero_stage,
        micro_batch_sequences=micro_batch_sequences,
        activation_checkpointing=activation_checkpointing,
    )


def _sequences(space: Space) -> int:
    """Sequences of one step."""
    return space.training.batch_tokens // space.model.context_length


def _worker_counts(space: Space) -> list[int]:
    """How many workers a lane may have, rising: they divide the batch, and above one node they fill whole nodes."""
    compute = space.compute
    return [
        n
        for n in divisors(_sequences(space))
        if compute.workers_per_lane <= n <= compute.n_workers
        if compute.device == "cpu" or n <= compute.gpus_per_node or n % compute.gpus_per_node == 0
    ]


def _why_none_fits(space: Space, model: ModelShape, given: ShapeSpec) -> str:
    """Names the size, what it was to be trained with, and the nearest shape that fits."""
    compute = space.compute
    assert compute.device_memory is not None
    free = ShapeSpec(up_to=given.up_to)
    tried, others = list(_lanes(space, given)), list(_lanes(space, free))
    said = f"compute: a model of {format_count(model.n_params_non_embedding)} parameters"
    least_of = min((lane for lane in tried or others), key=lambda lane: bytes_of(space, model, lane).total)
    least = bytes_of(space, model, least_of).total
    room = USABLE_SHARE * least_of.gpus_per_worker * compute.device_memory
    said += (
        f" takes at least {format_bytes(least)} a GPU on {counted(least_of.n_workers, 'GPU')} "
        f"({describe_lane(least_of)}), where device_memory = {format_bytes(compute.device_memory)} leaves "
        f"{format_bytes(room)}"
    )
    if fitting := [lane for lane in others if fits(space, model, lane)]:
        nearest = min(fitting, key=lambda lane: abs(lane.n_workers - least_of.n_workers))
        return f"{said}; the nearest shape that fits: {describe_lane(nearest)}"
    return f"{said}; nothing on {counted(compute.n_workers, 'GPU')} fits: take more of them (compute.nodes) or larger"


def describe_lane(lane: LaneShape) -> str:
    """A lane in the words of `compute.shapes`."""
    words = f"workers: {lane.n_workers}, nodes: {lane.n_nodes}, zero_stage: {lane.zero_stage}, micro_batch_sequences: "
    return (
        f"{words}{lane.micro_batch_sequences}, activation_checkpointing: {str(lane.activation_checkpointing).lower()}"
    )
