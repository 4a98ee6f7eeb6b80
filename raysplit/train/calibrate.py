"""How long a step takes on this machine: a few real steps of each size, on random tokens, are timed and thrown away."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from raysplit.design.lane_shapes import USABLE_SHARE, LaneShape, bytes_of, lane_shape_of
from raysplit.ladder import ModelShape
from raysplit.space import Space
from raysplit.train.engine import Engine
from raysplit.train.launchers import forget_launchers
from raysplit.train.runtime import become_only_rank

_WORK = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    sum(range(10**6))
"""


def seconds_per_token(space: Space, shapes: Iterable[ModelShape], *, n_steps: int = 3) -> dict[int, float]:
    """Non-embedding parameter count -> seconds that one worker of a lane needs for one token of training.

    It is the time of the fastest of ``n_steps`` micro-batches, after a first one that warms up, in this process and on
    its first device, as a lane of one worker. On CPUs the cores that the other lanes will use are kept busy meanwhile.
    Communication between workers, lanes' starts and the fits of the law are not in it.
    """
    forget_launchers()
    # Its group is never destroyed: DeepSpeed keeps the first that it meets for as long as the process lives.
    become_only_rank(space.compute)
    rng = np.random.default_rng(0)
    out = {}
    for shape in shapes:
        lane = _alone(space, shape)
        training = space.training.model_copy(
            update={"batch_tokens": lane.micro_batch_sequences * space.model.context_length}
        )
        engine = Engine(shape, training, lane=lane, seed=0, device=space.compute.device)
        windows = rng.integers(shape.vocab_size, size=(lane.micro_batch_sequences, shape.context_length + 1))
        with _other_lanes(space):
            times = [_timed_step(engine, windows) for _ in range(1 + n_steps)]
        out[shape.n_params_non_embedding] = min(times[1:]) / training.batch_tokens
        engine.close()
    return out


@contextmanager
def _other_lanes(space: Space) -> Iterator[None]:
    """On CPUs, keep as many of the other cores busy as the other workers will: two hardware threads share a core."""
    n_busy = min(os.cpu_count() or 1, space.compute.n_workers) - 1 if space.compute.device == "cpu" else 0
    others = [subprocess.Popen([sys.executable, "-c", _WORK, str(os.getpid())]) for _ in range(n_busy)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def fitting_alone(space: Space, shapes: Iterable[ModelShape]) -> list[ModelShape]:
    """The shapes that one device of this machine holds whole; on CPUs all of them, whose memory is not counted."""
    if space.compute.device == "cpu":
        return list(shapes)
    room = USABLE_SHARE * torch.cuda.get_device_properties(0).total_memory
    return [shape for shape in shapes if bytes_of(space, shape, _alone(space, shape)).total <= room]


def _alone(space: Space, shape: ModelShape) -> LaneShape:
    """One worker of the size's lane as a lane of its own: the same passes, without others to share states with."""
    lane = lane_shape_of(space, shape.n_params_non_embedding, vocab_size=shape.vocab_size)
    return replace(lane, n_workers=1, n_nodes=1, zero_stage=min(lane.zero_stage, 1))


def _timed_step(engine: Engine, windows: np.ndarray) -> float:
    started = time.perf_counter()
    engine.step(windows, learning_rate=0.0).item()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def can_train_on(device: str) -> bool:
    """Whether this machine has the device that a space asks for."""
    return device == "cpu" or torch.cuda.is_available()
