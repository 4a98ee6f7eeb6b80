"""Carry out the segments of the tree on one lane: load, train, checkpoint, cool down, measure.

Every rank of the lane calls `Lane.measure` with the same trial; the result is the same on all of them.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from raysplit.corpus import Corpus
from raysplit.corpus.by_base import shared_held_out
from raysplit.design.lane_shapes import LaneShape
from raysplit.design.tasks import Measured
from raysplit.design.tree import Checkpoints, Node, Segment, Tree, Trial
from raysplit.errors import CheckpointError, StorageError
from raysplit.ladder import ModelShape
from raysplit.space import GENERAL, Space, TrainingSpec
from raysplit.train.ahead import done_ahead
from raysplit.train.checkpoints import CheckpointManifest, Damaged, check_fits, stored
from raysplit.train.engine import Divergence, Engine
from raysplit.train.held_out import ReadByByte, ReadByToken
from raysplit.train.ranks import agree, is_first
from raysplit.train.saving import Save, open_checkpoint
from raysplit.train.schedule import learning_rate
from raysplit.train.storage import CheckpointStorage
from raysplit.train.watch import STEPS, Watch

_log = logging.getLogger(__name__)

_UNDER_WAY_SECONDS = 600.0
"""A save without a manifest may be under way for so long: a lane that was taken for dead may train the same branch."""
_LOOK_SECONDS = 0.5
"""Time between two looks at the loss, at which progress is told too; each look waits for the device."""
_HOPELESS = 2.0
"""A held-out loss of so many times log(vocabulary), the loss of a blind guess, is a failure and no measurement."""
_ENGINES_PARAMS = 50_000_000
"""Parameters of all engines that a lane keeps. It keeps engines it has used, so that changing size costs nothing."""


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
        part: tuple[int, int] = (0, 1),
    ) -> np.ndarray: ...

    def validation(self, domain: str, *, context_length: int, max_tokens: int) -> np.ndarray: ...


Progress = Callable[[int, float], bool | None]
"""Called now and then with (tokens trained for this measurement so far, last training loss in nats per token). True
from any rank asks all of them to save and stop."""


class Interrupted(Exception):
    """Training was asked to stop, and has saved its state."""


class Lane:
    """One group of ranks that trains one trial at a time, with the engines that it keeps."""

    def __init__(
        self,
        space: Space,
        corpus: Text,
        *,
        shape: LaneShape,
        vocab_size: int,
        checkpoints: str | Path,
        corpora: Mapping[int, Corpus] | None = None,
    ) -> None:
        """Be ready to train; nothing is trained or stored yet.

        Args:
            space: the resolved search space.
            corpus: what to train on.
            shape: of the lane.
            vocab_size: of the corpus' tokenizer.
            checkpoints: folder that every rank sees, or URL (`raysplit.train.storage`).
            corpora: n_params -> the corpus in that base's own tokens, in place of ``corpus``; where losses are in bits
                a byte.

        Raises:
            CorpusError: a domain holds out less than one window, or its documents are not known by their bytes.
            RunError, StorageError: as `CheckpointStorage`.
        """
        self.space, self.corpus, self.shape = space, corpus, shape
        self.vocab_size, self.storage = vocab_size, CheckpointStorage(checkpoints)
        self._save_begun, self._save_every = 0.0, 0.5 * self._save_seconds
        self._engines: dict[tuple[ModelShape, LaneShape], Engine] = {}
        self._writer, self._reader = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("write", "read"))
        self._saving: Save | None = None
        self._nodes: dict[Node, CheckpointManifest] = {}
        self._corpora = corpora or {}
        limits = {"context_length": space.model.context_length, "max_tokens": space.training.validation_tokens}
        names = (*corpus.domains, *([GENERAL] if space.corpus.general else []))
        self._held_out: dict[int, dict[str, ReadByByte]] = {
            n_params: {name: ReadByByte(text=text) for name, text in own.items()}
            for n_params, own in shared_held_out(self._corpora, names, **limits).items()
        }
        self._windows_of = (
            {} if self._corpora else {name: ReadByToken(windows=corpus.validation(name, **limits)) for name in names}
        )

    def turn_to(self, training: TrainingSpec, checkpoints: str | Path) -> None:
        """Train with these hyperparameters from now on, and keep checkpoints in the place ``checkpoints``."""
        if training.batch_tokens != self.space.training.batch_tokens:  # the only one of them that an engine is built on
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
        self.space = self.space.model_copy(update={"training": training})
        self.storage = CheckpointStorage(checkpoints)

    def measure(self, trial: Trial, milestone: int, *, tree: Tree, on_progress: Progress) -> Measured:
        """Train what the tree lacks up to ``milestone``, cool down, and read the held-out loss of every domain.

        Where the space has a general set, its loss is read too, under the name `GENERAL`.

        A damaged checkpoint is passed over: training goes on from the one before it.

        Raises:
            Divergence: the training or held-out loss or a gradient is not finite, the training loss has run away
                (`raysplit.train.watch`), or the held-out loss is hopeless.
            Interrupted: ``on_progress`` returned True; what was trained is saved.
            CheckpointError: the trial's root does not exist, or a checkpoint is of another model.
            StorageError: a checkpoint could not be written or read.
        """
        started = time.perf_counter()
        self._saving = None  # of a measurement that failed, if there is one
        self._nodes = agree(lambda: self._stored_for(trial))
        if trial.root.pretrain_tokens and trial.root not in self._nodes and not tree.is_given(trial.root):
            raise CheckpointError(f"{self.storage.label(trial.root.folder)}: no complete checkpoint")
        engine = self._engine(trial)
        tokens = 0
        if trial.is_trunk and tree.is_given(as_it_is := replace(trial.root, pretrain_tokens=milestone)):
            self._load(engine, as_it_is)
        else:
            tokens = self._train_to(engine, trial, milestone, tree=tree, on_progress=on_progress)
        held_out: Mapping[str, ReadByToken | ReadByByte] = self._held_out.get(trial.n_params, self._windows_of)
        losses = {domain: text.loss(engine) for domain, text in held_out.items()}
        self._settle()
        for domain, loss in losses.items():
            if not math.isfinite(loss):
                raise Divergence(f"held-out loss of {domain} is {loss}")
            guess = held_out[domain].blind_guess(self._vocab_size_of(trial.n_params))
            # A branch may well come to be wrong about other text.
            if (domain == trial.domain or trial.is_trunk) and loss >= _HOPELESS * guess:
                raise Divergence(f"held-out loss of {domain} is {loss:.3g}, that of a blind guess {guess:.3g}")
        return Measured(losses=losses, tokens=tokens, wall_seconds=time.perf_counter() - started)

    def forget_passed(self, trial: Trial, milestone: int, *, tree: Tree) -> None:
        """Delete the checkpoints that a stored measurement has made useless.

        Of a trunk, the starts of this trial's measured cooldowns go, unless a branch leaves there. Those of points that
        it has passed and nobody has measured stay. Of a branch, all but the deepest go. Of both, what was saved within
        segments goes.
        """
        if not is_first():
            return
        try:
            found = self._stored_for(trial)
        except StorageError as error:
            _log.warning("nothing is deleted: %s", error)
            return
        cooled = {tree.cooldown_start(m) for m in trial.milestones if m <= milestone} - {0, *tree.pretrain_grid}
        for node, manifest in found.items():
            if not is_on_chain(node.folder, trial):
                continue
            if manifest.passing:
                passed = node.position <= milestone and (node.cooldown_to or node.position not in tree.pretrain_grid)
            elif trial.is_trunk:
                passed = node.pretrain_tokens in cooled
            else:
                passed = node.specialize_tokens < tree.cooldown_start(milestone)
            if passed:
                self.storage.delete(node.folder)

    def export(self, trial: Trial, folder: Path, *, tokenizer_folder: Path | None) -> None:
        """Write the model as `measure` of ``trial`` has just left it, cooled down, as a Hugging Face folder."""
        self._engine(trial).export(folder, tokenizer_folder=tokenizer_folder)

    def _train_to(self, engine: Engine, trial: Trial, milestone: int, *, tree: Tree, on_progress: Progress) -> int:
        """Train what the tree lacks up to a milestone, and cool down there; returns the tokens trained."""
        # A final run may pretrain on more than the sweep did; below that, both have the same rate.
        horizon = max((self.space.horizon_tokens, *tree.pretrain_grid))
        tokens = 0
        at: Node | None = None
        while True:
            segment = self._next_segment(trial, milestone, tree, at=at)
            if segment.start != at:
                self._settle()
                if not self._load(engine, segment.start):
                    del self._nodes[segment.start]
                    at = None
                    continue
            if segment.domain and not segment.start.domain and self.space.training.branch_optimizer == "reset":
                engine.reset_optimizer()
            try:
                self._train(engine, segment, partial(_told_from, tokens, on_progress), horizon_tokens=horizon)
            except Divergence:
                self._settle()  # what was saved before is sound
                raise
            tokens += segment.tokens
            if segment.cooldown:
                return tokens
            at = segment.end
            self._save(engine, at, passing=False)

    def _next_segment(self, trial: Trial, milestone: int, tree: Tree, *, at: Node | None) -> Segment:
        """The segment to train now; the engine stands ``at`` a node, whose save may still be under way."""
        nodes = Checkpoints(self._nodes if at is None else {*self._nodes, at})
        segment = tree.segments(trial, milestone, nodes)[0]
        root = trial.root
        if segment.start != root or root.pretrain_tokens == 0 or root in nodes or tree.is_given(root):
            return segment
        # The root has proved damaged: the trunk is trained again from where it can be.
        before = (n for n in nodes if not n.domain and not n.cooldown_to and n.position < root.position)
        return Segment(
            start=max(before, default=replace(root, pretrain_tokens=0)), end_tokens=root.pretrain_tokens, domain=""
        )

    def _train(self, engine: Engine, segment: Segment, on_progress: Progress, *, horizon_tokens: int) -> None:
        training = self.space.training
        n_params = segment.start.n_params
        positions = range(segment.start_tokens, segment.end_tokens, training.batch_tokens)
        looked_at, looked, next_look = 0, time.perf_counter(), 1
        saved = looked
        watch = Watch(vocab_size=self._vocab_size_of(n_params))
        skipped_before = engine.skipped_steps  # in training that diverged on the same engine
        window: list[torch.Tensor] = []
        seen: list[torch.Tensor] = []
        read = done_ahead(partial(self._windows, segment), positions, thread=self._reader)
        for n_steps, (position, windows) in enumerate(zip(positions, read, strict=True), start=1):
            rate = learning_rate(segment, position, training=training, n_params=n_params, horizon_tokens=horizon_tokens)
            loss = engine.step(windows, learning_rate=rate)
            window.append(loss)
            if len(window) == STEPS:
                seen.append(torch.stack(window).mean())  # left on the device until the next look
                window.clear()
            if n_steps in (next_look, len(positions)):
                after = position + training.batch_tokens
                is_written = self._saving is None or self._saving.is_written
                is_due = time.perf_counter() - saved >= self._save_every
                # All ranks look at the same steps and see the same means, or one would give up while others wait.
                value, seconds, written, due, *means = engine.mean_over_ranks(
                    loss.item(), time.perf_counter() - looked, is_written, is_due, *(mean.item() for mean in seen)
                )
                seen.clear()
                next_look = n_steps + max(1, int(_LOOK_SECONDS * (n_steps - looked_at) / seconds))
                looked_at, looked = n_steps, time.perf_counter()
                overflowed = engine.skipped_steps > skipped_before
                complaint = "the gradient overflowed" if overflowed else watch.complaint(means, value)
                if complaint:
                    raise Divergence(
                        f"{complaint} after {after} tokens of {segment.start.folder} "
                        f"-> {segment.domain or 'mixture'} {segment.end_tokens}"
                    )
                asked = on_progress(after - segment.start_tokens, value)
                (stop,) = engine.mean_over_ranks(bool(asked))
                if written == 1.0:
                    self._settle()
                if after == segment.end_tokens:
                    return
                if stop or due == 1.0:
                    self._save(engine, segment.node_at(after), passing=True)
                    saved = time.perf_counter()
                if stop:
                    self._settle(must=True)
                    raise Interrupted(f"asked to stop after {after} tokens of {segment.start.folder}")

    def _windows(self, segment: Segment, start_tokens: int) -> torch.Tensor:
        """This rank's windows of one step, in memory from which the device copies while it works."""
        context = self.space.model.context_length
        is_from_trunk = bool(segment.domain and segment.start.pretrain_tokens)
        # What a base has read is no part of our streams, so its branch begins at their start.
        branch_tokens = segment.start.pretrain_tokens if is_from_trunk and not self._base_of(segment.start) else 0
        windows = torch.from_numpy(
            self._corpora.get(segment.start.n_params, self.corpus).batch(
                seed=segment.start.seed,
                context_length=context,
                start_tokens=start_tokens,
                domain=segment.domain or None,
                branch_tokens=branch_tokens,
                n_sequences=self.space.training.batch_tokens // context,
                replay_share=(segment.replay_share or self.space.training.replay_share) if is_from_trunk else 0.0,
                part=(torch.distributed.get_rank(), torch.distributed.get_world_size()),
            )
        )
        return windows.pin_memory() if self.space.compute.device == "cuda" else windows

    def _vocab_size_of(self, n_params: int) -> int:
        corpus = self._corpora.get(n_params)
        return self.vocab_size if corpus is None else corpus.vocab_size

    def _engine(self, trial: Trial) -> Engine:
        shape = self.space.shape(trial.n_params, self.vocab_size)
        return self._engines.get((shape, self.shape)) or self._add_engine(shape, seed=trial.seed)

    def _add_engine(self, shape: ModelShape, *, seed: int) -> Engine:
        kept = [kept.n_params_total for kept, _ in self._engines]
        while self._engines and shape.n_params_total + sum(kept) > _ENGINES_PARAMS:
            self._engines.pop(next(iter(self._engines))).close()
            kept.pop(0)
        engine = Engine(shape, self.space.training, lane=self.shape, seed=seed, device=self.space.compute.device)
        self._engines[shape, self.shape] = engine
        return engine

    @property
    def _save_seconds(self) -> float:
        return 60 * self.space.compute.save_minutes

    def _base_of(self, node: Node) -> str | None:
        """Folder of the base that is a node's trunk; None where the trunk was pretrained here."""
        found = (c for c in self.space.model.revisions(node.n_params) if c.trunk_tokens == node.pretrain_tokens)
        return next((c.counted.folder for c in found if c.counted is not None), None)

    def _stored_for(self, trial: Trial) -> dict[Node, CheckpointManifest]:
        """The checkpoints of a trial's size and seed; what killed saves of this trial have left is deleted."""
        found, torn = stored(self.storage)
        for folder in torn:
            if is_on_chain(folder, trial) and self.storage.seconds_since_written(folder) > _UNDER_WAY_SECONDS:
                self.storage.delete(folder)
        return {
            node: manifest
            for node, manifest in found.items()
            if (node.n_params, node.seed) == (trial.n_params, trial.seed)
        }

    def _save(self, engine: Engine, node: Node, *, passing: bool) -> None:
        """Begin to save the engine's state; one save at a time is under way."""
        self._settle()
        self._save_begun = time.perf_counter()
        self._saving = Save(engine, self.storage, node, passing=passing, writer=self._writer)

    def _settle(self, *, must: bool = False) -> None:
        """Wait for the save that is under way, and delete what it has replaced.

        Training goes on if a save within a segment fails, since the next one makes up for it, unless it ``must``
        succeed.

        Raises:
            StorageError: the save failed, and it was at a segment's end or had to succeed.
        """
        save, self._saving = self._saving, None
        if save is None:
            return
        try:
            manifest = save.finish()
        except StorageError as error:
            if must or not save.passing:
                raise
            _log.warning("training goes on without a save: %s", error)
            return
        # A fault costs at most the time from the beginning of the last save to the end of the next one.
        took_seconds = time.perf_counter() - self._save_begun
        self._save_every = max(0.5 * self._save_seconds, self._save_seconds - took_seconds)
        self._nodes[save.node] = manifest
        before = [n for n, m in self._nodes.items() if m.passing and is_before(n, save.node)]
        for node in sorted(before, key=lambda node: node.position)[:-1]:
            # The last of them stays, in case that the new one proves damaged.
            del self._nodes[node]
            if is_first():
                self.storage.delete(node.folder)

    def _load(self, engine: Engine, node: Node) -> bool:
        """Give the engine the state of a node; returns False where its checkpoint is damaged."""
        base = self._base_of(node)
        if not node.domain and (base is not None or node.position == 0):
            engine.begin(node.seed, folder=base or "")
            return True
        manifest = self._nodes[node]
        check_fits(self.storage.label(node.folder), manifest, engine.shape)
        if base is not None:
            engine.take_base(base)
        try:
            open_checkpoint(engine, self.storage, manifest, reader=self._reader)
        except Damaged as error:
            _log.warning("%s: passed over, since %s", self.storage.label(node.folder), error)
            return False
        return True


def is_on_chain(folder: str, trial: Trial) -> bool:
    """Whether a checkpoint's folder is of a trial's own trunk or branch, beyond its root."""
    own = f"n{trial.n_params}-s{trial.seed}-d"
    own += re.escape(trial.name.removeprefix(own)) + "-" if trial.domain else ""
    return re.fullmatch(own + r"\d+(-to\d+)?", folder) is not None


def is_before(node: Node, later: Node) -> bool:
    """Whether a node comes before another one on the same trunk, branch or cooldown."""
    here, there = (
        replace(n, pretrain_tokens=0) if not n.domain else replace(n, specialize_tokens=0) for n in (node, later)
    )
    return here == there and node.position < later.position


def _told_from(done_tokens: int, on_progress: Progress, tokens: int, loss: float) -> bool | None:
    return on_progress(done_tokens + tokens, loss)
