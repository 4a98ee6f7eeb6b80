"""The engine: checkpoints that continue bit for bit, and errors that name what is wrong."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.errors import CheckpointError
from raysplit.train.engine import Engine, deepspeed_config
from tests.train.conftest import CONTEXT, VOCAB, make_space

pytestmark = pytest.mark.usefixtures("one_rank")
Windows = Callable[[int, int], np.ndarray]
MakeEngine = Callable[..., Engine]
SETTINGS = [(stage, precision) for precision in ("fp32", "bf16") for stage in (0, 1, 2, 3)]


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[MakeEngine]:
    made: list[Engine] = []

    def make(size: int = 14_000, seed: int = 0, **training: Any) -> Engine:
        space = make_space(tmp_path, **training)
        shape, lane = space.shape(size, VOCAB), lane_shape_of(space, size)
        made.append(Engine(shape, space.training, lane=lane, seed=seed, device="cpu"))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def train(engine: Engine, windows: Windows, steps: range, learning_rate: float = 1e-2) -> list[float]:
    return [engine.step(windows(8 * i, 8), learning_rate=learning_rate).item() for i in steps]


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_a_checkpoint_continues_bit_for_bit(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path, stage: int, precision: str
) -> None:
    probe = windows(500, 4)
    engine = make_engine(zero_stage=stage, precision=precision)
    train(engine, windows, range(3))
    engine.save(tmp_path / "at 3", about={}, probe=probe)
    onwards = train(engine, windows, range(3, 6))
    held_out = engine.loss_on(windows(600, 7))
    engine.load(tmp_path / "at 3", probe=probe)
    assert train(engine, windows, range(3, 6)) == onwards
    assert engine.loss_on(windows(600, 7)) == held_out

    other = make_engine(
        zero_stage=stage, precision=precision, seed=1
    )  # as after a crash: another process, other weights
    other.load(tmp_path / "at 3", probe=probe)
    assert train(other, windows, range(3, 6)) == onwards

    untouched = make_engine(zero_stage=stage, precision=precision)
    assert train(untouched, windows, range(6))[3:] == onwards, "saving changed what follows"


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_the_configuration_arrives_at_deepspeed(
    make_engine: MakeEngine, windows: Windows, stage: int, precision: str
) -> None:
    engine = make_engine(
        zero_stage=stage, precision=precision, gradient_clip=0.25, adam_beta1=0.8, adam_beta2=0.9, weight_decay=0.3
    )
    inner = engine._engine
    assert inner.zero_optimization_stage() == stage
    assert inner.bfloat16_enabled() == (precision == "bf16")
    assert {p.dtype for p in inner.module.parameters()} == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert inner.gradient_clipping() == 0.25
    assert inner.train_batch_size() == 8
    assert inner.train_micro_batch_size_per_gpu() == 4
    assert inner.gradient_accumulation_steps() == 2
    groups = inner.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(group["betas"] == (0.8, 0.9) for group in groups)
    before = inner.global_steps
    train(engine, windows, range(2), learning_rate=0.003)
    assert inner.global_steps == before + 2, "one optimizer step for each batch, its micro-batches accumulated"
    assert all(group["lr"] == 0.003 for group in inner.optimizer.param_groups)


def test_activation_checkpointing_changes_memory_and_not_the_losses(make_engine: MakeEngine, windows: Windows) -> None:
    plain, thrifty = make_engine(), make_engine(activation_checkpointing=True)
    assert thrifty._engine.module.model.layers[0].gradient_checkpointing
    assert train(plain, windows, range(3)) == pytest.approx(train(thrifty, windows, range(3)), rel=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_stages_and_micro_batches_are_the_same_mathematics(
    make_engine: MakeEngine, windows: Windows, stage: int
) -> None:
    reference = train(make_engine(zero_stage=1), windows, range(5))
    assert train(make_engine(zero_stage=stage), windows, range(5)) == pytest.approx(reference, rel=1e-5)
    assert train(make_engine(zero_stage=stage, micro_batch_sequences=8), windows, range(5)) == pytest.approx(
        reference, rel=1e-5
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_is_that_of_a_bare_pytorch_loop(make_engine: MakeEngine, windows: Windows, precision: str) -> None:
    """Losses of AdamW on the same model: loss mean over the batch, clipped gradient, decayed matrices."""
    from raysplit.train.models import build_model

    engine = make_engine(precision=precision, gradient_clip=0.5)
    spec = engine.training
    model = build_model(engine.shape, seed=0)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": norms, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(spec.adam_beta1, spec.adam_beta2),
    )
    losses = []
    for i in range(8):
        tokens = torch.from_numpy(windows(8 * i, 8))
        logits = model(input_ids=tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert train(engine, windows, range(8)) == pytest.approx(losses, rel=1e-4 if precision == "fp32" else 2e-2)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_reset_optimizer_is_a_fresh_one_on_the_same_weights(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path, stage: int, precision: str
) -> None:
    probe = windows(500, 4)
    carried = make_engine(zero_stage=stage, precision=precision)
    train(carried, windows, range(4))
    carried.save(tmp_path / "at 4", about={}, probe=probe)
    after_carry = train(carried, windows, range(4, 8))
    carried.load(tmp_path / "at 4", probe=probe)
    carried.reset_optimizer()
    after_reset = train(carried, windows, range(4, 8))
    assert after_carry[0] == after_reset[0], "the first loss is of the same weights"
    assert after_carry[1:] != after_reset[1:]

    # Adam's first step is learning rate x sign of the gradient, nearly; its moments say so exactly.
    carried.load(tmp_path / "at 4", probe=probe)
    carried.reset_optimizer()
    train(carried, windows, range(4, 5))
    assert _step_counts(carried) == {1.0}
    fresh = make_engine(zero_stage=stage, precision=precision, seed=3)
    train(fresh, windows, range(4, 5))
    assert _step_counts(fresh) == {1.0}


def test_reset_is_what_adam_does_from_the_loaded_weights(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path
) -> None:
    """Against torch's own AdamW, newly made on the exported weights."""
    from transformers import AutoModelForCausalLM

    engine = make_engine()
    train(engine, windows, range(4))
    engine.export(tmp_path / "model", tokenizer_folder=None)
    engine.reset_optimizer()
    ours = train(engine, windows, range(4, 8))

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    spec = engine.training
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": spec.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(spec.adam_beta1, spec.adam_beta2),
    )
    theirs = []
    for i in range(4, 8):
        tokens = torch.from_numpy(windows(8 * i, 8))
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.gradient_clip)
        optimizer.step()
        theirs.append(loss.item())
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_weights_follow_the_seed_alone(make_engine: MakeEngine, windows: Windows) -> None:
    first = make_engine(seed=5).loss_on(windows(0, 8))
    torch.manual_seed(99)
    assert make_engine(seed=5).loss_on(windows(0, 8)) == first
    assert make_engine(seed=6).loss_on(windows(0, 8)) != first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_stage_starts_from_the_same_weights(make_engine: MakeEngine, windows: Windows, precision: str) -> None:
    """Near log V before any training, the embedding being small; stage 3 once began at 30 nats."""
    losses = [make_engine(zero_stage=stage, precision=precision).loss_on(windows(0, 8)) for stage in (0, 1, 2, 3)]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6 if precision == "fp32" else 1e-3)
    assert losses[0] == pytest.approx(np.log(VOCAB), rel=0.1)


def test_the_held_out_loss_does_not_depend_on_its_batches(make_engine: MakeEngine, windows: Windows) -> None:
    engine = make_engine()
    train(engine, windows, range(2))
    whole = engine.loss_on(windows(600, 11))
    parts = [engine.loss_on(windows(600 + i, 1)) for i in range(11)]
    assert whole == pytest.approx(np.mean(parts), rel=1e-6)
    unread = make_engine()
    assert train(unread, windows, range(3))[2:] == train(engine, windows, range(2, 3)), "reading changed what follows"


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_an_exported_model_loads_with_the_same_loss(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path, stage: int, precision: str
) -> None:
    from transformers import AutoModelForCausalLM

    engine = make_engine(zero_stage=stage, precision=precision)
    train(engine, windows, range(4))
    folder = tmp_path / "with spaces" / "expert"
    engine.export(folder, tokenizer_folder=None)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.num_parameters() == engine.shape.n_params_total
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    tokens = torch.from_numpy(windows(600, 16))
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1]).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()
    assert loss == pytest.approx(engine.loss_on(windows(600, 16)), rel=1e-6 if precision == "fp32" else 5e-3)
    more = train(engine, windows, range(4, 6))
    assert np.isfinite(more).all()


def test_a_checkpoint_of_another_size_is_refused(make_engine: MakeEngine, windows: Windows, tmp_path: Path) -> None:
    small, large = make_engine(14_000), make_engine(28_000)
    small.save(tmp_path / "small", about={}, probe=windows(0, 2))
    with pytest.raises(
        CheckpointError, match=rf"small: holds a model of {small.shape.n_params_non_embedding} .* needs"
    ):
        large.load(tmp_path / "small", probe=windows(0, 2))


def test_a_checkpoint_of_another_world_size_is_refused(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path
) -> None:
    engine = make_engine()
    engine.save(tmp_path / "two", about={}, probe=windows(0, 2))
    manifest = json.loads((tmp_path / "two" / "raysplit.json").read_text())
    (tmp_path / "two" / "raysplit.json").write_text(json.dumps({**manifest, "n_workers": 2}))
    with pytest.raises(CheckpointError, match=r"two: was saved by 2 workers, .*workers_per_lane"):
        engine.load(tmp_path / "two", probe=windows(0, 2))


def test_a_missing_checkpoint_is_named(make_engine: MakeEngine, windows: Windows, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no complete checkpoint"):
        make_engine().load(tmp_path / "nowhere", probe=windows(0, 2))


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_damaged_checkpoint_is_named(make_engine: MakeEngine, windows: Windows, tmp_path: Path, stage: int) -> None:
    engine = make_engine(zero_stage=stage)
    engine.save(tmp_path / "whole", about={}, probe=windows(0, 2))
    states = sorted(p for p in (tmp_path / "whole" / "state").rglob("*") if p.is_file())
    assert states
    for i, state in enumerate(states):
        for damage in ("missing", "cut"):
            broken = tmp_path / f"{damage}-{i}"
            shutil.copytree(tmp_path / "whole", broken)
            victim = broken / state.relative_to(tmp_path / "whole")
            if damage == "missing":
                victim.unlink()
            else:
                os.truncate(victim, victim.stat().st_size // 2)
            with pytest.raises(CheckpointError, match=broken.name):
                engine.load(broken, probe=windows(0, 2))


def test_other_weights_under_the_same_name_are_noticed(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path
) -> None:
    engine = make_engine()
    train(engine, windows, range(3))
    engine.save(tmp_path / "node", about={}, probe=windows(0, 2))
    manifest = json.loads((tmp_path / "node" / "raysplit.json").read_text())
    manifest["probe_loss"] *= 1.01
    (tmp_path / "node" / "raysplit.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"node: the loaded model has loss .* where .* was saved"):
        engine.load(tmp_path / "node", probe=windows(0, 2))


def test_an_interrupted_save_leaves_the_old_checkpoint(
    make_engine: MakeEngine, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    engine.save(tmp_path / "node", about={"try": 1}, probe=windows(0, 2))

    def killed(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("raysplit.train.engine.os.replace", killed)
        with pytest.raises(OSError, match="full"):
            engine.save(tmp_path / "other", about={"try": 2}, probe=windows(0, 2))
    assert not (tmp_path / "other").exists()
    engine.load(tmp_path / "node", probe=windows(0, 2))
    engine.save(tmp_path / "other", about={"try": 3}, probe=windows(0, 2))
    assert json.loads((tmp_path / "other" / "raysplit.json").read_text())["try"] == 3


def test_the_configuration_shares_a_batch_over_workers(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    config = deepspeed_config(space.training, lane_shape_of(space, 14_000), n_workers=2, context_length=CONTEXT)
    assert config["gradient_accumulation_steps"] == 1
    assert config["train_batch_size"] == 8


def _step_counts(engine: Engine) -> set[float]:
    optimizer = engine._engine.optimizer
    optimizer = getattr(optimizer, "optimizer", optimizer)
    return {float(state["step"]) for state in optimizer.state.values()}
