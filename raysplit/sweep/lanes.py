"""The backend that trains: lanes, each a Ray Train job of DeepSpeed workers that carries out task after task.

A Ray Train run for each trial costs 15-50 s of start-up on two cores; a task in a warm lane starts in 0.2 s (LOG
2026-11-23).
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.actor import ActorHandle
from ray.train.torch import TorchConfig, TorchTrainer
from rich.console import Console

from raysplit.design.lane_shapes import LaneShape, lane_shape_of
from raysplit.design.tasks import Failed, Outcome, Task
from raysplit.errors import LaneError
from raysplit.quantities import format_seconds
from raysplit.space import Space
from raysplit.sweep.broker import CLOSE, IDLE, LaneQueue, lane_error, start_broker
from raysplit.sweep.causes import cause_of, first_of, was_killed, write_traceback
from raysplit.sweep.display import Display
from raysplit.sweep.folder import RunFolder

_MAX_RESTARTS = 20
_MAX_FAILED_STARTS = 5
"""Of a worker group that Ray could not even set up."""
_GRACE_SECONDS = 5.0
"""How long lanes may take to end by themselves."""
_QUIET = {
    # Lanes report through the broker; Train's own log lines and health chatter would bury the live table.
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneConfig:
    """What every worker of a lane knows."""

    number: int
    space: Space
    """Resolved."""
    folder: RunFolder
    corpus_folder: Path
    shape: LaneShape
    broker: ActorHandle
    law: ActorHandle | None
    """The law actor, which hears of every outcome; None where nobody keeps them."""


class _TellBroker(ray.train.UserCallback):
    """Runs in a lane's controller, which alone sees that a worker has died without a word."""

    def __init__(self, broker: ActorHandle, lane: int) -> None:
        self._broker, self._lane = broker, lane

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        rank, error = first_of(worker_exceptions)
        how = f"{cause_of(error)} (rank {rank})"
        ray.get(self._broker.died.remote(self._lane, how, without_a_word=was_killed(error)))


class LaneHost:
    """Runs one lane's Ray Train job; a process of its own, so that one lane's end is not another's."""

    def run(self, config: LaneConfig) -> None:
        os.environ.update(_QUIET)
        shape, on_gpu = config.shape, config.space.compute.device == "cuda"
        each = {"CPU": shape.cpus_per_worker} | ({"GPU": shape.gpus_per_worker} if on_gpu else {})
        TorchTrainer(
            _serve,
            train_loop_config={"lane": config},
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=shape.n_workers,
                use_gpu=on_gpu,
                resources_per_worker=each,
            ),
            run_config=ray.train.RunConfig(
                name=f"lane-{config.number}",
                storage_path=str(config.folder.path / "ray" / "train"),
                failure_config=ray.train.FailureConfig(
                    max_failures=_MAX_RESTARTS, controller_failure_limit=_MAX_FAILED_STARTS
                ),
                callbacks=[_TellBroker(config.broker, config.number)],
            ),
        ).fit()


class Lanes:
    """The lanes of one command, as a `raysplit.sweep.backend.Backend`."""

    def __init__(self, space: Space, *, run_folder: Path, corpus_folder: Path, law: ActorHandle | None) -> None:
        """Start the lanes; they need some 15 s, `wait_until_ready` says when they have come up.

        Args:
            space: the resolved search space.
            run_folder: where checkpoints go; on storage that every node shares.
            corpus_folder: of the built corpus, likewise.
            law: the law actor that outcomes are recorded with.
        """
        n_lanes = space.compute.lanes
        self.broker: ActorHandle = start_broker(n_lanes, stall_seconds=space.compute.stall_seconds)
        self.queue = LaneQueue(self.broker)
        shape = lane_shape_of(space, min(space.model.sizes))
        config = LaneConfig(
            number=0, space=space, shape=shape, folder=RunFolder(path=run_folder), corpus_folder=corpus_folder,
            broker=self.broker, law=law,
        )  # fmt: skip
        self._hosts = [ray.remote(num_cpus=0)(LaneHost).remote() for _ in range(n_lanes)]
        self._runs = [host.run.remote(replace(config, number=number)) for number, host in enumerate(self._hosts)]
        for number, run in enumerate(self._runs):
            self.broker.follow.remote(number, [run])

    def wait_until_ready(self) -> float:
        """Wait for every lane; returns the seconds it took.

        Raises:
            LaneError: a lane's worker group ended instead of starting; with what ended it.
        """
        started = time.perf_counter()
        try:
            ray.get(self.broker.all_joined.remote())
        except ray.exceptions.RayError as error:
            raise lane_error(error) from None
        return time.perf_counter() - started

    def submit(self, task: Task) -> Future[Outcome]:
        """As `raysplit.sweep.backend.Backend` has it."""
        return self.queue.submit(task)

    def close(self) -> None:
        """End the lanes: idle ones go by themselves, those in the midst of a trial (after Ctrl-C) are killed."""
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that died has no lanes to send home
            ray.get(self.broker.close.remote())
            ray.wait(self._runs, num_returns=len(self._runs), timeout=_GRACE_SECONDS)
        for host in self._hosts:
            ray.kill(host)
        ray.kill(self.broker)


@contextmanager
def running_lanes(
    space: Space, folder: RunFolder, *, law: ActorHandle | None, console: Console, title: str
) -> Iterator[Lanes]:
    """The lanes of a command for the length of a ``with`` block, and a table of what they do.

    Args:
        space: the resolved search space.
        folder: of the run, its corpus built.
        law: as `Lanes` takes it.
        console: where to say how it goes.
        title: of the table.

    Raises:
        LaneError: machines were at fault, as often as was put up with.
    """
    lanes = Lanes(space, run_folder=folder.path, corpus_folder=folder.corpus, law=law)
    try:
        n_lanes, n_workers = space.compute.lanes, space.compute.workers_per_lane
        console.print(f"starting {n_lanes} lanes of {n_workers} DeepSpeed workers ...", end=" ")
        console.print(f"up after {format_seconds(lanes.wait_until_ready())}")
        with Display(console, law=law, broker=lanes.broker, title=title):
            yield lanes
    except LaneError as error:
        raise LaneError(f"{error}; what was done is kept, and the same command continues") from error
    finally:
        lanes.close()


def _serve(config: dict[str, Any]) -> None:
    """What every rank runs; the broker is told what ends it before Ray Train ends the others."""
    lane: LaneConfig = config["lane"]
    try:
        _work(lane)
    except Exception as error:
        rank = ray.train.get_context().get_world_rank()
        last_words = write_traceback(error, lane.folder.lane_log(lane.number), rank=rank)
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that is gone has sent the lanes home
            ray.get(lane.broker.say.remote(lane.number, last_words))
        raise


def _work(config: LaneConfig) -> None:
    """The training loop of a rank: fetch a task on rank 0, tell the others, carry it out together."""
    # torch and DeepSpeed only here, so that the driver never loads them.
    import torch
    import torch.distributed as dist

    from raysplit.corpus import Corpus
    from raysplit.train.run import Lane
    from raysplit.train.runtime import prepare_worker

    space, broker, number = config.space, config.broker, config.number
    prepare_worker(space.compute)
    corpus = Corpus.open(config.corpus_folder)
    lane = Lane(space, corpus, shape=config.shape, vocab_size=corpus.vocab_size, checkpoints=config.folder.checkpoints)
    first = dist.get_rank() == 0
    start = ray.get(broker.join.remote(number, ray.get_runtime_context().current_actor)) if first else 0

    def tell(tokens: int, loss: float) -> None:
        if first:
            broker.progress.remote(number, tokens, loss)

    while True:
        inbox: list[Any] = [ray.get(broker.fetch.remote(number, start)) if first else None]
        dist.broadcast_object_list(inbox, src=0, device=torch.device("cpu") if space.compute.device == "cpu" else None)
        if inbox[0] == CLOSE:
            return
        if inbox[0] == IDLE:
            continue
        outcome = _carry_out(inbox[0], lane, corpus, config, law=config.law if first else None, on_progress=tell)
        if first:
            ray.get(broker.finish.remote(number, start, outcome))


def _carry_out(
    task: Task,
    lane: Any,
    corpus: Any,
    config: LaneConfig,
    *,
    law: ActorHandle | None,
    on_progress: Callable[[int, float], None],
) -> Outcome:
    """Train, measure and record; whatever else goes wrong ends this start of the lane."""
    from raysplit.design.setup import tree_of
    from raysplit.train.engine import Divergence

    trial, milestone = task.trial, task.milestone
    # A trial of a tuning study brings its own hyperparameters, and a folder where no one else's checkpoints lie.
    lane.turn_to(task.training or config.space.training, Path(task.checkpoints or config.folder.checkpoints))
    tree = tree_of(lane.space)
    if task.waypoints:
        tree = replace(tree, pretrain_grid=task.waypoints)
    outcome: Outcome
    try:
        outcome = lane.measure(trial, milestone, tree=tree, on_progress=on_progress)
    except Divergence as error:
        outcome = Failed(why=str(error))
    if law is not None:
        ray.get(law.record.remote(trial, milestone, outcome))  # on disk before anything it came from is deleted
    if isinstance(outcome, Failed):
        return outcome
    if task.export_to:
        lane.export(trial, Path(task.export_to), tokenizer_folder=corpus.tokenizer_path)
    lane.forget_passed(trial, milestone, tree=tree)
    return outcome
