"""The loop of every rank of a lane: the first rank fetches a task and tells the others, and all carry it out."""

import contextlib
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util import get_current_placement_group

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.tasks import Failed, Outcome, Task
from raysplit.errors import StorageError
from raysplit.lanes.broker import CLOSE, IDLE
from raysplit.lanes.causes import write_traceback
from raysplit.lanes.law_client import ActorLaw
from raysplit.pool.placement import Footprint
from raysplit.pool.troubles import Trouble, kind_of
from raysplit.run_folder.folder import RunFolder
from raysplit.space import Space


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneConfig:
    """Settings that every worker of a lane gets."""

    number: int
    footprint: Footprint
    spots: tuple[str, ...]
    """The node of each worker."""
    space: Space
    """The resolved search space."""
    folder: RunFolder
    corpus_folder: Path
    broker: ActorHandle
    law: ActorHandle | None
    """The law actor, which records every outcome; None where outcomes are not recorded."""


def serve(config: dict[str, Any]) -> None:
    """The training loop that Ray Train runs on every rank; the broker is told of an exception that ends it."""
    import ray.train

    lane: LaneConfig = config["lane"]
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:  # before what may hang, so that what was placed can be cleared away
        here = ray.get_runtime_context().current_actor
        ray.get(lane.broker.placed.remote(lane.number, here, get_current_placement_group()))
    try:
        _work(lane)
    except Exception as error:
        trouble = _told(error, lane, rank=rank)
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that is gone has sent the lanes home
            ray.get(lane.broker.say.remote(lane.number, trouble))
        raise


def _told(error: Exception, lane: LaneConfig, *, rank: int) -> Trouble:
    """An exception as the broker is told of it; the rest is in the lane's log."""
    return Trouble(kind=kind_of(error), cause=write_traceback(error, lane.folder.lane_log(lane.number), rank=rank))


class _StorageAway(Exception):
    """A checkpoint could not be written or read, as every rank knows: they are as ready for a task as before."""

    def __init__(self, why: StorageError) -> None:
        super().__init__(str(why))
        self.why = why


def _work(config: LaneConfig) -> None:
    # What is missing is told before the seconds that torch and DeepSpeed take to load; the driver never loads them.
    from raysplit.corpus import Corpus
    from raysplit.train.checkpoints import check_shared

    space, broker, number = config.space, config.broker, config.number
    corpus = Corpus.open(config.corpus_folder)
    checkpoints = config.folder.checkpoints_at(space.compute.storage)
    check_shared(checkpoints)

    import torch
    import torch.distributed as dist

    from raysplit.corpus.by_base import corpora_of
    from raysplit.train.run import Interrupted, Lane
    from raysplit.train.runtime import prepare_worker

    prepare_worker(space.compute)
    shape = lane_shape_of(space, min(space.model.sizes))
    lane = Lane(
        space,
        corpus,
        shape=shape,
        vocab_size=corpus.vocab_size,
        checkpoints=checkpoints,
        corpora=corpora_of(space, corpus) if space.counts_bytes else None,
    )
    first = dist.get_rank() == 0
    if first:
        ray.get(broker.join.remote(number))
    teller = _Teller(broker, number) if first else None
    while True:
        inbox: list[Any] = [ray.get(broker.fetch.remote(number)) if first else None]
        dist.broadcast_object_list(inbox, src=0, device=torch.device("cpu") if space.compute.device == "cpu" else None)
        if inbox[0] == CLOSE:
            return
        if inbox[0] == IDLE:
            continue
        try:
            outcome = _carry_out(inbox[0], lane, corpus, config, is_first=first, on_progress=teller or _say_nothing)
        except Interrupted:
            if first:
                ray.get(broker.give_back.remote(number))
        except _StorageAway as away:
            if first and not ray.get(broker.put_off.remote(number, _told(away.why, config, rank=0))):
                raise away.why from None
        else:
            if first:
                ray.get(broker.finish.remote(number, outcome))


class _Teller:
    """Tells the broker of progress without waiting, and returns its answer to the message before."""

    def __init__(self, broker: ActorHandle, number: int) -> None:
        self._broker, self._number = broker, number
        self._answer: Any = None

    def __call__(self, tokens: int, loss: float) -> bool:
        save_now = False
        if self._answer is not None:
            there, _ = ray.wait([self._answer], timeout=0)
            if not there:
                return False
            save_now = ray.get(self._answer)
        self._answer = None if save_now else self._broker.progress.remote(self._number, tokens, loss)
        return save_now


def _say_nothing(tokens: int, loss: float) -> bool:
    return False


def _carry_out(task: Task, lane: Any, corpus: Any, config: LaneConfig, *, is_first: bool, on_progress: Any) -> Outcome:
    """Train, measure and record. A divergence is an outcome; an exception but `_StorageAway` ends the lane."""
    from raysplit.design.resolved_spec import tree_of
    from raysplit.train.engine import Divergence

    trial, milestone = task.trial, task.milestone
    # A trial of a tuning study brings its own hyperparameters, and a folder for its checkpoints alone.
    checkpoints = task.checkpoints or config.folder.checkpoints_at(config.space.compute.storage)
    lane.turn_to(task.training or config.space.training, checkpoints)
    lane.shape = task.lane_shape or lane_shape_of(config.space, trial.n_params)
    tree = tree_of(lane.space)
    if task.waypoints:
        tree = replace(tree, pretrain_grid=task.waypoints)
    outcome: Outcome
    try:
        outcome = lane.measure(trial, milestone, tree=tree, on_progress=on_progress)
    except Divergence as error:
        outcome = Failed(why=str(error))
    except StorageError as error:
        raise _StorageAway(error) from error
    if config.law is not None and is_first:
        # The outcome is on disk before the checkpoints it came from are deleted.
        ActorLaw(config.law, while_waiting=partial(on_progress, milestone, math.nan)).record(trial, milestone, outcome)
    if isinstance(outcome, Failed):
        return outcome
    if task.export_to:
        lane.export(trial, Path(task.export_to), tokenizer_folder=corpus.tokenizer_path)
    lane.forget_passed(trial, milestone, tree=tree)
    return outcome
