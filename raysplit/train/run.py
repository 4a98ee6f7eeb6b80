"""Carry out the segments of the tree on one lane: load, train, checkpoint, cool down, measure.

Every rank of the lane calls `Lane.measure` with the same trial; the result is the same on all of them.
"""

import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from raysplit.design.lane_shapes import LaneShape
from raysplit.design.tasks import Measured
from raysplit.design.tree import Checkpoints, Node, Segment, Tree, Trial
from raysplit.ladder import ModelShape
from raysplit.space import Space, TrainingSpec
from raysplit.train.checkpoints import stored_nodes
from raysplit.train.engine import Divergence, Engine
from raysplit.train.schedule import learning_rate
from raysplit.train.watch import STEPS, Watch

_PROBE_SEQUENCES = 8
_LOOK_SECONDS = 0.5
"""How often about progress is told and the loss looked at; each look waits for the device."""
_HOPELESS = 2.0
"""A held-out loss of so many times log(vocabulary), which needs no training, is no measurement but a failure."""
_ENGINES_PARAMS = 50_000_000
"""A lane keeps the engines it has used, so that changing size costs nothing, up to so many parameters in all."""


class Text(Protocol):
    """What training asks of a corpus; `raysplit.corpus.Corpus` is one."""

    @property
    def domains(self) -> tuple[str, ...]: ...

    def batch(
        self,
        *,
        seed: int,
        context_length: int,
        start_tokens: int,
        n_sequences: int,
        domain: str | None = None,
        branch_tokens: int = 0,
        replay_share: float = 0.0,
    ) -> np.ndarray: ...

    def validation(self, domain: str, *, context_length: int, max_tokens: int) -> np.ndarray: ...


Progress = Callable[[int, float], None]
"""Called now and then with (tokens trained for this measurement so far, last training loss)."""


class Lane:
    """One group of ranks that trains one trial at a time, with the engines it has warmed up."""

    def __init__(self, space: Space, corpus: Text, *, shape: LaneShape, vocab_size: int, checkpoints: Path) -> None:
        self.space, self.corpus, self.shape = space, corpus, shape
        self.vocab_size, self.checkpoints = vocab_size, checkpoints
        self._engines: dict[ModelShape, Engine] = {}
        context = space.model.context_length
        self._validation = {
            domain: corpus.validation(domain, context_length=context, max_tokens=space.training.validation_tokens)
            for domain in corpus.domains
        }
        self._probe = np.concatenate([windows[:_PROBE_SEQUENCES] for windows in self._validation.values()])

    def turn_to(self, training: TrainingSpec, checkpoints: Path) -> None:
        """Train with these hyperparameters from now on, and keep checkpoints in this folder."""
        if training.batch_tokens != self.space.training.batch_tokens:  # the only one of them that an engine is built on
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
        self.space = self.space.model_copy(update={"training": training})
        self.checkpoints = checkpoints

    def measure(self, trial: Trial, milestone: int, *, tree: Tree, on_progress: Progress) -> Measured:
        """Train what the tree lacks up to ``milestone``, cool down, and read every domain's held-out loss.

        Raises:
            Divergence: the training or held-out loss or a gradient is not finite, the training loss has run away
                (`raysplit.train.watch`), or the held-out loss is hopeless.
            CheckpointError: the trial's root does not exist, or a checkpoint is damaged.
        """
        started = time.perf_counter()
        # One rank looks at the disk for all, since they must not differ in what they train.
        nodes = _agree(lambda: self._nodes(trial))
        if trial.root.pretrain_tokens == 0 and trial.root not in nodes:
            self._fresh(trial)
            nodes |= {trial.root}
        segments = tree.segments(trial, milestone, Checkpoints(nodes))
        engine = self._engine(trial)
        tokens = 0
        at: Node | None = None
        for segment in segments:
            if segment.start != at:
                self._load(engine, segment.start)
                if segment.domain and not segment.start.domain and self.space.training.branch_optimizer == "reset":
                    engine.reset_optimizer()
            # A final run may pretrain on more than the sweep did; below that, both have the same rate.
            horizon = max((self.space.horizon_tokens, *tree.pretrain_grid))
            self._train(engine, segment, partial(_told_from, tokens, on_progress), horizon_tokens=horizon)
            tokens += segment.tokens
            at = None if segment.cooldown else segment.end
            if at is not None:
                self._save(engine, at)
        losses = {domain: engine.loss_on(windows) for domain, windows in self._validation.items()}
        for domain, loss in losses.items():
            # A branch may well come to be wrong about the other domains.
            bound = _HOPELESS * math.log(self.vocab_size) if domain == trial.domain or trial.is_trunk else math.inf
            if not loss < bound:
                raise Divergence(
                    f"held-out loss of {domain} is {loss:.3g}, that of a blind guess {bound / _HOPELESS:.3g}"
                )
        return Measured(losses=losses, tokens=tokens, wall_seconds=time.perf_counter() - started)

    def forget_passed(self, trial: Trial, milestone: int, *, tree: Tree) -> None:
        """Delete the checkpoints that a stored measurement has made useless.

        Of a trunk the starts of this trial's measured cooldowns, where no branch leaves; those of points that it has
        passed and nobody has measured stay. Of a branch all but the deepest.
        """
        if torch.distributed.get_rank() != 0:
            return
        cooled = {tree.cooldown_start(m) for m in trial.milestones if m <= milestone} - {0, *tree.pretrain_grid}
        for node in self._nodes(trial):
            if trial.is_trunk:
                passed = not node.domain and node.pretrain_tokens in cooled
            else:
                passed = (node.domain, node.pretrain_tokens) == (trial.domain, trial.pretrain_tokens) and (
                    node.specialize_tokens < tree.cooldown_start(milestone)
                )
            if passed:
                shutil.rmtree(self.checkpoints / node.folder, ignore_errors=True)

    def export(self, trial: Trial, folder: Path, *, tokenizer_folder: Path | None) -> None:
        """Write the model as `measure` of ``trial`` has just left it, cooled down, as a Hugging Face folder."""
        self._engine(trial).export(folder, tokenizer_folder=tokenizer_folder)

    def _train(self, engine: Engine, segment: Segment, on_progress: Progress, *, horizon_tokens: int) -> None:
        training = self.space.training
        n_params = segment.start.n_params
        positions = range(segment.start_tokens, segment.end_tokens, training.batch_tokens)
        looked_at, looked, next_look = 0, time.perf_counter(), 1
        watch = Watch(vocab_size=self.vocab_size)
        window: list[torch.Tensor] = []
        seen: list[torch.Tensor] = []
        for n_steps, position in enumerate(positions, start=1):
            windows = self._batch(
                domain=segment.domain or None,
                seed=segment.start.seed,
                start_tokens=position,
                branch_tokens=segment.start.pretrain_tokens if segment.domain else 0,
            )
            rate = learning_rate(segment, position, training=training, n_params=n_params, horizon_tokens=horizon_tokens)
            loss = engine.step(windows, learning_rate=rate)
            window.append(loss)
            if len(window) == STEPS:
                seen.append(torch.stack(window).mean())  # left on the device until the next look
                window.clear()
            if n_steps in (next_look, len(positions)):
                after = position + training.batch_tokens
                # All ranks look at the same steps and see the same mean, or one would give up while others wait for it.
                value, seconds, *means = engine.mean_over_ranks(
                    loss.item(), time.perf_counter() - looked, *(mean.item() for mean in seen)
                )
                seen.clear()
                next_look = n_steps + max(1, int(_LOOK_SECONDS * (n_steps - looked_at) / seconds))
                looked_at, looked = n_steps, time.perf_counter()
                complaint = "the gradient overflowed" if engine.skipped_steps else watch.complaint(means, value)
                if complaint:
                    raise Divergence(
                        f"{complaint} after {after} tokens of {segment.start.folder} "
                        f"-> {segment.domain or 'mixture'} {segment.end_tokens}"
                    )
                on_progress(after - segment.start_tokens, value)

    def _batch(self, *, domain: str | None, seed: int, start_tokens: int, branch_tokens: int) -> np.ndarray:
        """This rank's share of one step's windows."""
        context = self.space.model.context_length
        windows = self.corpus.batch(
            seed=seed,
            context_length=context,
            start_tokens=start_tokens,
            domain=domain,
            branch_tokens=branch_tokens,
            n_sequences=self.space.training.batch_tokens // context,
            replay_share=self.space.training.replay_share if branch_tokens else 0.0,
        )
        rank, n_workers = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return np.ascontiguousarray(windows[rank::n_workers])

    def _engine(self, trial: Trial) -> Engine:
        shape = self.space.shape(trial.n_params, self.vocab_size)
        return self._engines.get(shape) or self._add_engine(shape, seed=trial.seed)

    def _add_engine(self, shape: ModelShape, *, seed: int) -> Engine:
        while self._engines and shape.n_params_total + sum(s.n_params_total for s in self._engines) > _ENGINES_PARAMS:
            self._engines.pop(next(iter(self._engines))).close()
        engine = Engine(shape, self.space.training, lane=self.shape, seed=seed, device=self.space.compute.device)
        self._engines[shape] = engine
        return engine

    def _fresh(self, trial: Trial) -> None:
        """Begin a trunk, or a branch from none: new weights of its seed, saved as its checkpoint at zero tokens."""
        shape = self.space.shape(trial.n_params, self.vocab_size)
        if shape in self._engines:
            self._engines.pop(shape).close()
        self._save(self._add_engine(shape, seed=trial.seed), trial.root)

    def _nodes(self, trial: Trial) -> set[Node]:
        return {
            node
            for node in stored_nodes(self.checkpoints)
            if (node.n_params, node.seed) == (trial.n_params, trial.seed)
        }

    def _save(self, engine: Engine, node: Node) -> None:
        engine.save(self.checkpoints / node.folder, about={"node": node_to_dict(node)}, probe=self._probe)

    def _load(self, engine: Engine, node: Node) -> None:
        engine.load(self.checkpoints / node.folder, probe=self._probe)


def _told_from(done_tokens: int, on_progress: Progress, tokens: int, loss: float) -> None:
    on_progress(done_tokens + tokens, loss)


def _agree(look: Callable[[], set[Node]]) -> set[Node]:
    """What the first rank sees, on every rank."""
    seen = [look() if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(seen, src=0)
    assert seen[0] is not None
    return seen[0]


def node_to_dict(node: Node) -> dict[str, int | str]:
    return {name: getattr(node, name) for name in Node.__dataclass_fields__}
