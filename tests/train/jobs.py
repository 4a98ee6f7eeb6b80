"""What the processes of `tests.train.processes` are given to do."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import tree_of
from raysplit.design.tree import Trial
from raysplit.machines import ComputeSpec
from raysplit.space import Space
from raysplit.train import run
from raysplit.train.bases import with_bases
from raysplit.train.engine import Engine
from raysplit.train.run import Lane
from raysplit.train.runtime import prepare_worker
from tests.train.conftest import VOCAB, Texts, make_space, read_text
from tests.train.tiny_bases import ROWS, base_windows, bases_space

LOG = "steps.log"


def lane_in(folder: Path, *, save_minutes: float = 10.0, **training: Any) -> Lane:
    space = make_space(folder, **training)
    space = space.model_copy(update={"compute": space.compute.model_copy(update={"save_minutes": save_minutes})})
    shape = lane_shape_of(space, 14_000)
    return Lane(space, Texts(read_text()), shape=shape, vocab_size=VOCAB, checkpoints=folder / "checkpoints")


def size(space: Space) -> int:
    return space.shape(14_000, VOCAB).n_params_non_embedding


def trunk(space: Space, *milestones: int) -> Trial:
    return Trial(n_params=size(space), seed=0, domain="", pretrain_tokens=milestones[-1], milestones=milestones)


def branch(space: Space, root: int, *milestones: int) -> Trial:
    return Trial(n_params=size(space), seed=0, domain="library", pretrain_tokens=root, milestones=milestones)


def measure(folder: Path, tasks: Sequence[tuple[int | None, int]], training: dict[str, Any]) -> list[Any]:
    """What a lane measures: for (None, D) a trunk, for (D, D') a branch of it."""
    lane = lane_in(folder, **training)
    out = []
    for root, milestone in tasks:
        trial = trunk(lane.space, milestone) if root is None else branch(lane.space, root, milestone)
        out.append(lane.measure(trial, milestone, tree=tree_of(lane.space), on_progress=lambda tokens, loss: None))
    return out


def base_losses(
    folder: Path, kinds: Sequence[str], stages: Sequence[int], precision: str
) -> dict[tuple[str, int], tuple[float, float]]:
    """(kind, ZeRO stage) -> loss that a base's branch begins with, read in a step that moves nothing, and held out."""
    windows = base_windows()
    mine = windows[dist.get_rank() :: dist.get_world_size()]
    found = {}
    for kind in kinds:
        space = with_bases(bases_space({"path": str(folder / kind)}, precision=precision))
        shape = space.shape(space.model.sizes[0], 0)
        for stage in stages:
            lane = replace(lane_shape_of(space, space.model.sizes[0]), zero_stage=stage)
            engine = Engine(shape, space.training, lane=lane, seed=0, device="cpu")
            first, *_ = engine.mean_over_ranks(engine.step(mine, learning_rate=0.0).item())
            found[kind, stage] = first, engine.loss_on(windows)
            engine.close()
    return found


def adapted_losses(folder: Path, stages: Sequence[int]) -> dict[int, list[dict[str, float]]]:
    """ZeRO stage -> losses of ``folder/base`` as it is, and of its branch by adapters, exported to ``folder/STAGE``."""
    found = {}
    for stage in stages:
        space = with_bases(
            bases_space({"path": str(folder / "base"), "pretrain_tokens": "1M"}, lora={"rank": 4}, zero_stage=stage)
        )
        [n_params] = space.model.sizes
        shape = lane_shape_of(space, n_params)
        kept = folder / f"kept-{stage}"
        lane = Lane(space, Texts(read_text()), shape=shape, vocab_size=ROWS, checkpoints=kept)
        as_it_is = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=10**6, milestones=(10**6,))
        branch = Trial(n_params=n_params, seed=0, domain="library", pretrain_tokens=10**6, milestones=(2048,))
        found[stage] = [
            dict(lane.measure(trial, trial.milestones[0], tree=tree_of(space), on_progress=lambda *_: None).losses)
            for trial in (as_it_is, branch)
        ]
        lane.export(branch, folder / str(stage), tokenizer_folder=None)
    return found


def stop_at(folder: Path, milestone: int, tokens: int, rank: int) -> str:
    """A trunk that one rank is told to leave once so many tokens are trained."""
    lane = lane_in(folder)
    trial = trunk(lane.space, milestone)

    def tell(trained: int, loss: float) -> bool:
        return trained >= tokens and dist.get_rank() == rank

    try:
        lane.measure(trial, milestone, tree=tree_of(lane.space), on_progress=tell)
    except run.Interrupted as error:
        return str(error)
    return "was not stopped"


def measure_deterministically(folder: Path, milestone: int) -> Any:
    """A trunk with the kernels that `compute.deterministic` asks for."""
    prepare_worker(ComputeSpec(deterministic=True))
    return measure(folder, [(None, milestone)], {})


def measure_logged(folder: Path, milestone: int, save_steps: int, step_seconds: float) -> Any:
    """A trunk, saved every so many steps of this slow training; each step and save goes into a log, by position.

    The clock of the lane is the number of its steps, so that a busy machine changes nothing.
    """
    lane = lane_in(folder, save_minutes=save_steps / 60)
    batch = lane.space.training.batch_tokens
    with (folder / LOG).open("a", buffering=1) as log:
        n_steps = 0
        step, train = Engine.step, Lane._train

        def logged_step(self: Engine, windows: Any, *, learning_rate: float) -> Any:
            nonlocal n_steps
            made = step(self, windows, learning_rate=learning_rate)
            if learning_rate:
                n_steps += 1
                time.sleep(step_seconds)
                while lane._saving is not None and not lane._saving.is_written:
                    time.sleep(0.001)  # a busy machine writes no slower than it steps
                log.write(f"step {segment_at[0]} {segment_at[1]}\n")
                segment_at[1] += batch
            return made

        def logged_train(self: Lane, engine: Engine, segment: Any, *args: Any, **named: Any) -> None:
            segment_at[:] = [f"{segment.end_tokens}-{int(segment.cooldown)}", segment.start_tokens]
            train(self, engine, segment, *args, **named)

        segment_at: list[Any] = ["", 0]
        Engine.step, Lane._train = logged_step, logged_train  # type: ignore[method-assign]
        setattr(run, "time", SimpleNamespace(perf_counter=lambda: n_steps))  # noqa: B010
        trial = trunk(lane.space, milestone)
        return lane.measure(trial, milestone, tree=tree_of(lane.space), on_progress=lambda tokens, loss: None)
