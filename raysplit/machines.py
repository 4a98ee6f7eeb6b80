"""The section `compute` of a search space: which machines there are, and what each model size gets of them."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from raysplit.errors import unknown
from raysplit.ladder import shape_for
from raysplit.section import Count, Fraction, PositiveCount, PositiveQuantity, Section, without_password

PEAK_FLOPS_PER_SECOND = {
    "A100": 312e12,
    "H100-PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""Peak FLOP/s of one GPU in dense bf16 matrix products, from NVIDIA's data sheets (half of those "with sparsity")."""

ZERO_STAGES = (0, 1, 2, 3)
_STORES = ("s3", "gs", "abfs", "file")


def _a_stage(stage: int) -> int:
    if stage not in ZERO_STAGES:
        raise ValueError(unknown("ZeRO stage", stage, ZERO_STAGES))
    return stage


ZeroStage = Annotated[Count, AfterValidator(_a_stage)]


class ShapeSpec(Section):
    """How models up to a size are trained. What is left out is reckoned, or is as `compute` and `training` have it."""

    up_to: PositiveCount
    """Non-embedding parameters, as in `model.sizes`: of the largest size that this is for."""
    workers: PositiveCount | None = None
    """Data-parallel ranks of a lane."""
    nodes: PositiveCount | None = None
    """Over which the workers are spread evenly; as few as hold them when left out."""
    gpus_per_worker: Annotated[PositiveQuantity, Field(le=1)] | None = None
    """Below 1 where lanes of one worker share a GPU; 1 when left out."""
    cpus_per_worker: PositiveQuantity | None = None
    """That of `compute` when left out."""
    zero_stage: ZeroStage | None = None
    """As in `training`; reckoned from `device_memory` when left out."""
    micro_batch_sequences: PositiveCount | None = None
    """As in `training`; reckoned likewise."""
    activation_checkpointing: bool | None = None
    """As in `training`; reckoned likewise."""


class ComputeSpec(Section):
    """Lanes are Ray Train jobs that carry out trial after trial; each has the workers that its model size needs."""

    device: Literal["cpu", "cuda"] = "cpu"
    """On which workers train."""
    lanes: PositiveCount = 1
    """The most lanes at a time."""
    workers_per_lane: PositiveCount = 1
    """Data-parallel DeepSpeed ranks of a lane where no shape says otherwise; the least that are reckoned from
    `device_memory`."""
    cpus_per_worker: PositiveQuantity = 1.0
    """Which Ray reserves for a rank, and its threads."""
    shapes: tuple[ShapeSpec, ...] = ()
    """By model size, rising; a size takes the first that is for it. Sizes above the last are as if there were none."""
    device_memory: PositiveCount | None = None
    """Bytes of one GPU, from which is reckoned what shapes leave out; every size has the same shape when left out."""
    gpus_per_node: PositiveCount = 8
    """Over which lanes of several workers are laid out."""
    nodes: PositiveCount | None = None
    """Of GPUs that there are at most; as many as `lanes` of `workers_per_lane` fill when left out."""
    gpu: str | None = None
    """Its name, for times that are reckoned where they cannot be measured."""
    utilization: Fraction = 0.4
    """Share of the peak of `gpu` that training is reckoned to reach."""
    save_minutes: PositiveQuantity = 10.0
    """Between two saves of what is being trained: the most that the death of a worker costs."""
    storage: str | None = None
    """For checkpoints: a folder that every node sees, or a URL (s3://, gs://, abfs:// or file://); the run folder when
    left out."""
    deterministic: bool = False
    """Kernels that give the same bits each time, which some GPU kernels do not; slower."""
    stall_seconds: PositiveQuantity = 1800.0
    """A lane that has said nothing for so long, and for ten times as long as its model size has ever been silent, is
    started again, and another takes its trial."""

    @field_validator("shapes")
    @classmethod
    def _rising(cls, shapes: tuple[ShapeSpec, ...]) -> tuple[ShapeSpec, ...]:
        sizes = [shape.up_to for shape in shapes]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"up_to must rise from shape to shape, got {sizes}")
        return shapes

    @field_validator("gpu")
    @classmethod
    def _has_a_peak(cls, gpu: str | None) -> str | None:
        if gpu is not None and gpu not in PEAK_FLOPS_PER_SECOND:
            raise ValueError(unknown("GPU", gpu, PEAK_FLOPS_PER_SECOND))
        return gpu

    @field_validator("storage")
    @classmethod
    def _is_reachable(cls, storage: str | None) -> str | None:
        if storage is None or "://" not in storage:
            return storage
        if (scheme := storage.split("://")[0]) not in _STORES:
            raise ValueError(unknown("kind of storage", scheme, _STORES))
        return without_password(storage)

    @model_validator(mode="after")
    def _of_one_device(self) -> Self:
        if self.device == "cpu":
            for field in ("device_memory", "nodes", "gpu"):
                if (value := getattr(self, field)) is not None:
                    raise ValueError(f"{field} = {value!r} means nothing to device 'cpu', only to cuda")
        return self

    @model_validator(mode="after")
    def _shapes_can_be_had(self) -> Self:
        for i, shape in enumerate(self.shapes):
            if problem := self._problem_with(shape):
                raise ValueError(f"shapes.{i} (up_to {shape.up_to}): {problem}")
        return self

    def _problem_with(self, shape: ShapeSpec) -> str:
        """What is wrong with a shape on these machines; empty where nothing is."""
        workers = shape.workers or self.workers_per_lane
        nodes = shape.nodes or 1
        if workers % nodes:
            return f"{workers} workers cannot be spread evenly over {nodes} nodes; divide by {divisors(workers)}"
        if self.device == "cpu":
            return "" if shape.gpus_per_worker is None else "gpus_per_worker means nothing to device 'cpu'"
        if (shape.gpus_per_worker or 1) < 1 < workers:
            return f"{workers} workers of one lane cannot share a GPU, as NCCL refuses it; give each gpus_per_worker 1"
        if shape.nodes is not None and workers / nodes > self.gpus_per_node:
            return (
                f"{workers // nodes} workers a node are more than its {self.gpus_per_node} GPUs (gpus_per_node); give "
                f"it {-(-workers // self.gpus_per_node)} nodes"
            )
        if self.nodes is not None and workers > self.nodes * self.gpus_per_node:
            return f"{workers} workers are more than the {self.nodes * self.gpus_per_node} GPUs (nodes x gpus_per_node)"
        return ""

    def shape_for(self, n_params: int) -> ShapeSpec | None:
        """The shape for models of N = ``n_params``; None where none is.

        The ladder meets a size of 350M with a model of a little more or less. A shape with ``up_to: 350M`` is for both.
        """
        return next((shape for shape in self.shapes if n_params <= max(shape.up_to, _on_the_ladder(shape.up_to))), None)

    @property
    def n_workers(self) -> int:
        """The most ranks at a time: those that fill ``nodes``, else those of all lanes, or of the largest shape."""
        if self.nodes is not None:
            return self.nodes * self.gpus_per_node
        return max(self.lanes * self.workers_per_lane, *(shape.workers or 1 for shape in self.shapes), 1)


def _on_the_ladder(n_params: int) -> int:
    try:
        return shape_for(n_params, vocab_size=1, context_length=1).n_params_non_embedding  # neither counts for N
    except ValueError:  # beyond the family
        return n_params


def divisors(n: int) -> list[int]:
    """The divisors of a whole number, rising."""
    return sorted({d for k in range(1, int(n**0.5) + 1) if n % k == 0 for d in (k, n // k)})


def fewest_nodes(n_workers: int, *, per_node: int) -> int:
    """The fewest nodes over which ``n_workers`` spread evenly, at most ``per_node`` on each."""
    return min(nodes for nodes in divisors(n_workers) if n_workers // nodes <= per_node)
