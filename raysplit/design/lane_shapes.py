"""Which machines a model size trains on: how many workers, over how many nodes, and what of the model each holds."""

from dataclasses import dataclass

from raysplit.space import Space


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneShape:
    """One lane as it trains a size: its workers are the data-parallel ranks of one DeepSpeed engine."""

    n_workers: int
    n_nodes: int
    """Over which the workers are spread evenly."""
    cpus_per_worker: float
    gpus_per_worker: float
    """Below 1 where several workers share a GPU; 0 on CPUs."""
    zero_stage: int
    micro_batch_sequences: int
    """In one forward pass of one worker."""
    activation_checkpointing: bool


def lane_shape_of(space: Space, n_params: int) -> LaneShape:
    """The lane that trains models of a size.

    Args:
        space: the resolved search space.
        n_params: N of the size.
    """
    compute, training = space.compute, space.training
    return LaneShape(
        n_workers=compute.workers_per_lane,
        n_nodes=1,
        cpus_per_worker=compute.cpus_per_worker,
        gpus_per_worker=1.0 if compute.device == "cuda" else 0.0,
        zero_stage=training.zero_stage,
        micro_batch_sequences=training.micro_batch_sequences,
        activation_checkpointing=training.activation_checkpointing,
    )
