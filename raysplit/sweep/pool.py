"""The pool of lanes: Ray Train jobs that live as long as the sweep, each a DeepSpeed group that trains task after task.

A Ray Train run for each trial costs 15-50 s of start-up on two cores; a task in a warm lane starts in 0.2 s (LOG
2026-11-23).
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.actor import ActorHandle
from ray.train.torch import TorchConfig, TorchTrainer

from raysplit.errors import CheckpointError, RaysplitError
from raysplit.live.state import trial_from_dict
from raysplit.space import Space
from raysplit.sweep.broker import CLOSE, IDLE, start_broker
from raysplit.sweep.causes import TellBroker, cause_of, write_traceback
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


class LaneHost:
    """Runs one lane's Ray Train job; a process of its own, so that one lane's end is not another's."""

    def run(self, lane: int, config: dict[str, Any]) -> None:
        os.environ.update(_QUIET)
        try:
            self._train(lane, config)
        finally:
            ray.get(config["broker"].leave.remote(lane))

    def _train(self, lane: int, config: dict[str, Any]) -> None:
        space: Space = config["space"]
        compute = space.compute
        TorchTrainer(
            _serve,
            train_loop_config={**config, "lane": lane},
            torch_config=TorchConfig(backend="nccl" if compute.device == "cuda" else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=compute.workers_per_lane,
                use_gpu=compute.device == "cuda",
                resources_per_worker={"CPU": compute.cpus_per_worker}
                | ({"GPU": 1} if compute.device == "cuda" else {}),
            ),
            run_config=ray.train.RunConfig(
                name=f"lane-{lane}",
                storage_path=str(config["run_folder"] / "ray" / "train"),
                failure_config=ray.train.FailureConfig(
                    max_failures=_MAX_RESTARTS, controller_failure_limit=_MAX_FAILED_STARTS
                ),
                callbacks=[TellBroker(config["broker"], lane)],
            ),
        ).fit()


class Pool:
    """The lanes of one sweep, and the broker to reach them."""

    def __init__(self, space: Space, *, run_folder: Path, corpus_folder: Path, law: ActorHandle | None) -> None:
        """Start the lanes; they need some 15 s, `wait_until_ready` says when they have come up.

        Args:
            space: the resolved search space.
            run_folder: where checkpoints go; on storage that every node shares.
            corpus_folder: of the built corpus, likewise.
            law: the law actor that measurements are stored with.
        """
        self.broker: ActorHandle = start_broker(space.compute.lanes, stall_seconds=space.compute.stall_seconds)
        config = {
            "space": space,
            "run_folder": run_folder,
            "checkpoints": RunFolder(path=run_folder).checkpoints,
            "corpus_folder": corpus_folder,
            "broker": self.broker,
            "law": law,
        }
        self._hosts = [ray.remote(num_cpus=0)(LaneHost).remote() for _ in range(space.compute.lanes)]
        self._runs = [host.run.remote(lane, config) for lane, host in enumerate(self._hosts)]

    def wait_until_ready(self) -> float:
        """Wait for every lane; returns the seconds it took.

        Raises:
            RaysplitError: a lane's worker group ended instead of starting; with what ended it.
        """
        started = time.perf_counter()
        joined = self.broker.all_joined.remote()
        while not ray.wait([joined], timeout=1.0)[0]:
            self.check()
        return time.perf_counter() - started

    def check(self) -> None:
        """Notice a lane that has ended though the sweep goes on, or a cause that ends each that starts.

        Raises:
            RaysplitError: with the cause.
        """
        ended, _ = ray.wait(self._runs, num_returns=len(self._runs), timeout=0)
        for run in ended:
            lane = self._runs.index(run)
            try:
                ray.get(run)
            except ray.exceptions.RayError as error:
                raise RaysplitError(f"lane {lane} has failed for good: {self._cause(lane, error)}") from error
            raise RaysplitError(f"lane {lane} has ended before the sweep")
        if hopeless := _answer(self.broker.hopeless.remote()):
            raise RaysplitError(hopeless)

    def _cause(self, lane: int, error: ray.exceptions.RayError) -> str:
        """What its workers said, else what Ray says."""
        with contextlib.suppress(ray.exceptions.RayError):
            if cause := ray.get(self.broker.lanes.remote())[lane]["cause"]:
                return str(cause)
        return cause_of(error)

    def run_all(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have the lanes carry out tasks, and wait for all of them; results in the tasks' order.

        Raises:
            RaysplitError: no lane is left that could; with what ended them.
        """
        return [self.result(run) for run in [self.broker.run.remote(body) for body in bodies]]

    def result(self, run: ray.ObjectRef) -> dict[str, Any]:
        """The result of a task that the broker was asked to have carried out, once it is there.

        Raises:
            RaysplitError: no lane is left that could; with what ended them.
        """
        result: dict[str, Any] = _answer(run)
        return result

    def close(self) -> None:
        """End the lanes: idle ones go by themselves, those in the midst of a trial (after Ctrl-C) are killed."""
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that died has no lanes to send home
            ray.get(self.broker.close.remote())
            ray.wait(self._runs, num_returns=len(self._runs), timeout=_GRACE_SECONDS)
        for host in self._hosts:
            ray.kill(host)
        ray.kill(self.broker)


def _answer(call: ray.ObjectRef) -> Any:
    """What the broker answers.

    Raises:
        RaysplitError: its own, or it has died.
    """
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RaysplitError):
            raise error.cause from None
        raise
    except ray.exceptions.RayActorError as error:
        raise RaysplitError(f"the process that hands out trials has ended: {cause_of(error)}") from error


def _serve(config: dict[str, Any]) -> None:
    """What every rank runs; the broker is told what ends it before Ray Train ends the others."""
    try:
        _work(config)
    except Exception as error:
        rank = ray.train.get_context().get_world_rank()
        log = RunFolder(path=config["run_folder"]).lane_log(config["lane"])
        last_words = write_traceback(error, log, rank=rank)
        with contextlib.suppress(ray.exceptions.RayError):  # a broker that is gone has sent the lanes home
            ray.get(config["broker"].say.remote(config["lane"], last_words))
        raise


def _work(config: dict[str, Any]) -> None:
    """The training loop of a rank: fetch a task on rank 0, tell the others, carry it out together."""
    # torch and DeepSpeed only here, so that the driver never loads them.
    import torch
    import torch.distributed as dist

    from raysplit.corpus import Corpus
    from raysplit.train.run import Lane
    from raysplit.train.runtime import prepare_worker

    space: Space = config["space"]
    prepare_worker(space.compute)
    corpus = Corpus.open(config["corpus_folder"])
    lane = Lane(space, corpus, vocab_size=corpus.vocab_size, checkpoints=config["checkpoints"])
    broker, number, first = config["broker"], config["lane"], dist.get_rank() == 0
    me = ray.get_runtime_context().current_actor if first else None
    start = ray.get(broker.join.remote(number, me)) if first else 0
    while True:
        inbox: list[Any] = [ray.get(broker.fetch.remote(number, start)) if first else None]
        dist.broadcast_object_list(inbox, src=0, device=torch.device("cpu") if space.compute.device == "cpu" else None)
        body = inbox[0]
        if body["kind"] == CLOSE:
            return
        if body["kind"] == IDLE:
            continue
        result = _carry_out(body, lane, corpus, config, first=first)
        if first:
            ray.get(broker.finish.remote(number, start, result))


def _carry_out(body: dict[str, Any], lane: Any, corpus: Any, config: dict[str, Any], *, first: bool) -> dict[str, Any]:
    from raysplit.design.setup import tree_of
    from raysplit.train.engine import Divergence

    space, broker, law, number = config["space"], config["broker"], config["law"], config["lane"]
    trial, milestone = trial_from_dict(body["trial"]), body["milestone"]

    def tell(tokens: int, loss: float) -> None:
        if first:
            broker.progress.remote(number, tokens, loss)

    # A trial of a tuning study brings its own hyperparameters, and a folder where no one else's checkpoints lie.
    lane.turn_to(body.get("training", space.training), Path(body.get("checkpoints", config["checkpoints"])))
    tree = tree_of(lane.space)
    tree = dataclasses.replace(tree, pretrain_grid=tuple(body.get("waypoints", tree.pretrain_grid)))
    try:
        measured = lane.measure(trial, milestone, tree=tree, on_progress=tell)
    except (Divergence, CheckpointError) as error:
        return {"failed": str(error)}
    numbers = {"losses": measured.losses, "tokens": measured.tokens, "wall_seconds": measured.wall_seconds}
    if first and law is not None:
        ray.get(law.record.remote(trial, milestone, **numbers))  # on disk before anything it came from is deleted
    if folder := body.get("export_to"):
        lane.export(trial, Path(folder), tokenizer_folder=corpus.tokenizer_path)
    lane.forget_passed(trial, milestone, tree=tree)
    return numbers
