"""The engine: checkpoints that continue bit for bit, and errors that name what is wrong."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.tree import Node
from raysplit.errors import RunError
from raysplit.train.engine import Engine, _share_of_batch
from raysplit.train.loss import mean_loss
from raysplit.train.saving import Save, open_checkpoint
from raysplit.train.storage import CheckpointStorage
from tests.train.conftest import VOCAB, make_space

pytestmark = pytest.mark.usefixtures("one_rank")
Windows = Callable[[int, int], np.ndarray]
MakeEngine = Callable[..., Engine]
Keep = Callable[..., Callable[[Engine], None]]
NODE = Node(n_params=14_000, seed=0, pretrain_tokens=768)
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


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """(engine) -> what gives an engine the state that this one has now."""
    storage = CheckpointStorage(tmp_path / "checkpoints")
    with ThreadPoolExecutor(1) as thread:

        def save(engine: Engine, node: Node = NODE) -> Callable[[Engine], None]:
            manifest = Save(engine, storage, node, passing=False, writer=thread).finish()
            return lambda other: open_checkpoint(other, storage, manifest, reader=thread)

        yield save


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_a_checkpoint_continues_bit_for_bit(
    make_engine: MakeEngine, windows: Windows, keep: Keep, stage: int, precision: str
) -> None:
    engine = make_engine(zero_stage=stage, precision=precision)
    train(engine, windows, range(3))
    go_back = keep(engine)
    onwards = train(engine, windows, range(3, 6))
    held_out = engine.loss_on(windows(600, 7))
    go_back(engine)
    assert train(engine, windows, range(3, 6)) == onwards
    assert engine.loss_on(windows(600, 7)) == held_out

    # As after a crash: another process, other weights.
    other = make_engine(zero_stage=stage, precision=precision, seed=1)
    go_back(other)
    assert train(other, windows, range(3, 6)) == onwards

    untouched = make_engine(zero_stage=stage, precision=precision)
    assert train(untouched, windows, range(6))[3:] == onwards, "saving changed what follows"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_of_any_stage_opens_at_every_other_to_the_bit(
    make_engine: MakeEngine, windows: Windows, keep: Keep, precision: str
) -> None:
    """Weights, moments and steps; what the stages then make of it differs by the order of sums."""
    engines = [make_engine(zero_stage=stage, precision=precision, seed=stage) for stage in (1, 3, 0, 2)]
    train(engines[0], windows, range(3))
    for one, other in pairwise(engines):
        keep(one)(other)
        assert other.adam_steps == one.adam_steps
        for name in one.parameter_shapes:
            for what in ("weight", "exp_avg", "exp_avg_sq"):
                assert torch.equal(one.whole(name, what), other.whole(name, what)), (name, what)
        losses = [train(each, windows, range(3, 5)) for each in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5 if precision == "fp32" else 2e-4)


def test_a_save_is_of_the_moment_when_it_was_begun(make_engine: MakeEngine, windows: Windows, tmp_path: Path) -> None:
    engine, storage = make_engine(), CheckpointStorage(tmp_path)
    writer, begun = ThreadPoolExecutor(1), threading.Event()
    writer.submit(begun.wait)
    save = Save(engine, storage, NODE, passing=False, writer=writer)
    first = engine.loss_on(windows(600, 4))
    train(engine, windows, range(2))
    assert not save.is_written
    begun.set()
    manifest = save.finish()
    open_checkpoint(engine, storage, manifest, reader=writer)
    assert engine.loss_on(windows(600, 4)) == first
    writer.shutdown()


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_the_configuration_arrives_at_deepspeed(
    make_engine: MakeEngine, windows: Windows, stage: int, precision: str
) -> None:
    engine = make_engine(
        zero_stage=stage, precision=precision, gradient_clip=0.25, adam_beta1=0.8, adam_beta2=0.9, weight_decay=0.3
    )
    inner = engine._engine
    assert inner.zero_optimization_stage() == (stage or int(precision == "bf16")), "fp32 sums need stage 1"
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


@pytest.mark.parametrize(
    "change", [{"micro_batch_sequences": 8}, *({"zero_stage": stage} for stage in (1, 2, 3))], ids=str
)
def test_stages_and_micro_batches_are_the_same_mathematics(
    make_engine: MakeEngine, windows: Windows, change: dict[str, int]
) -> None:
    """On one rank, where no stage partitions anything; `test_ranks` has the same on two."""
    plain = train(make_engine(zero_stage=0, micro_batch_sequences=4), windows, range(5))
    other = train(make_engine(**{"zero_stage": 0, "micro_batch_sequences": 4, **change}), windows, range(5))
    assert other == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 1), ("bf16", 1), ("bf16", 2), ("bf16", 3)])
def test_a_step_is_that_of_a_bare_pytorch_loop(
    make_engine: MakeEngine, windows: Windows, precision: str, stage: int
) -> None:
    """Two micro-batches summed in fp32, the gradient clipped, AdamW on fp32 weights with decayed matrices."""
    from raysplit.train.models import build_model

    engine = make_engine(precision=precision, zero_stage=stage, gradient_clip=0.5)
    spec = engine.training
    model = build_model(engine.shape, seed=0)
    masters = [parameter.detach().clone() for parameter in model.parameters()]
    model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in masters if p.ndim >= 2], "weight_decay": spec.weight_decay},
            {"params": [p for p in masters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(spec.adam_beta1, spec.adam_beta2),
    )
    losses = []
    for i in range(8):
        parts = []
        for master in masters:
            master.grad = torch.zeros_like(master)
        for tokens in torch.from_numpy(windows(8 * i, 8)).split(4):
            logits = model(input_ids=tokens[:, :-1]).logits.float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            (loss / 2).backward()
            parts.append(loss.item())
            for master, parameter in zip(masters, model.parameters(), strict=True):
                assert master.grad is not None
                assert parameter.grad is not None
                master.grad += parameter.grad.float()
                parameter.grad = None
        torch.nn.utils.clip_grad_norm_(masters, 0.5)
        optimizer.step()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            parameter.data.copy_(master)
        losses.append(sum(parts) / 2)
    assert train(engine, windows, range(8)) == pytest.approx(losses, rel=1e-5 if precision == "fp32" else 3e-4)
    progress = [abs(a - b) / a for a, b in pairwise(losses)]
    assert min(progress) > 3e-3, "one step more or less would be seen"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_reset_optimizer_is_a_fresh_one_on_the_same_weights(
    make_engine: MakeEngine, windows: Windows, keep: Keep, stage: int, precision: str
) -> None:
    carried = make_engine(zero_stage=stage, precision=precision)
    train(carried, windows, range(4))
    go_back = keep(carried)
    after_carry = train(carried, windows, range(4, 8))
    go_back(carried)
    carried.reset_optimizer()
    after_reset = train(carried, windows, range(4, 8))
    assert after_carry[0] == after_reset[0], "the first loss is of the same weights"
    assert after_carry[1:] != after_reset[1:]

    # Adam's first step is learning rate x sign of the gradient, nearly; its moments say so exactly.
    go_back(carried)
    carried.reset_optimizer()
    train(carried, windows, range(4, 5))
    assert carried.adam_steps == 1
    fresh = make_engine(zero_stage=stage, precision=precision, seed=3)
    train(fresh, windows, range(4, 5))
    assert fresh.adam_steps == 1


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


def test_a_seed_is_where_every_engine_begins_and_can_begin_again(make_engine: MakeEngine, windows: Windows) -> None:
    engine, fresh = make_engine(seed=3), make_engine(seed=4)
    train(engine, windows, range(2))
    engine.begin(4)
    assert train(engine, windows, range(2)) == train(fresh, windows, range(2))


def test_ranks_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(RunError, match="3 workers cannot share a batch of 8 sequences evenly; choose"):
        _share_of_batch(8, n_workers=3)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_loss_in_chunks_trains_alike(
    make_engine: MakeEngine, windows: Windows, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    whole = train(make_engine(zero_stage=stage), windows, range(4))
    monkeypatch.setattr(mean_loss, "__kwdefaults__", {"chunk_tokens": 48})
    assert train(make_engine(zero_stage=stage), windows, range(4)) == pytest.approx(whole, rel=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with a C++ compiler")
# What torch's compiler meets in its own autograd functions, where another test has used them before.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_model_trains_alike(make_engine: MakeEngine, windows: Windows) -> None:
    plain = train(make_engine(), windows, range(4))
    torch.compiler.reset()
    counted = torch._dynamo.utils.counters
    counted.clear()
    assert train(make_engine(compile=True), windows, range(4)) == pytest.approx(plain, rel=1e-5)
    assert counted["stats"]["unique_graphs"] == 1, "it was compiled, as a whole and once"
