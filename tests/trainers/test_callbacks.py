"""The Trainer's callback: real trainings of a tiny model, and what the live law hears of them."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raysplit.errors import RunError
from raysplit.train.models import build_model
from raysplit.trainers.callback import LiveLawCallback
from raysplit.trainers.model_params import count_params
from tests.trainers.laws_to_tell import FakeLaw

pytest.importorskip("accelerate", reason="transformers.Trainer needs the package accelerate")

from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, Trainer

from tests.trainers.trainings import N_STEPS, SHAPE, STEP_TOKENS, Tokens, told, trainer_of

Train = Callable[..., Trainer]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train the tiny model for six steps with an evaluation every two."""

    def run(
        callback: LiveLawCallback, *, eval_dataset: Any = None, evaluate: str = "steps", **arguments: Any
    ) -> Trainer:
        trainer = trainer_of(callback, tmp_path, eval_dataset=eval_dataset, eval_strategy=evaluate, **arguments)
        trainer.train()
        return trainer

    return run


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="raysplit")


def test_a_specialist_is_reported_when_its_schedule_has_ended(train: Train, tmp_path: Path) -> None:
    law = FakeLaw()
    callback = LiveLawCallback(law, domain="law", pretrain_tokens=10_000)
    trainer = train(callback)
    assert told(law, callback) == [(SHAPE.n_params_non_embedding, 10_000, N_STEPS * STEP_TOKENS, "law", 5)]
    last = trainer.state.log_history[-2]["eval_loss"]
    assert [o.loss for o in law.told.values()] == [last]
    assert [o.specialize_tokens for o in law.asked] == [2 * STEP_TOKENS, 4 * STEP_TOKENS]
    assert not (tmp_path / "out" / "raysplit_reports.jsonl").exists()


def test_a_pretraining_is_read_on_every_set(train: Train) -> None:
    law = FakeLaw()
    callback = LiveLawCallback(law, tokens_per_step=100, n_params=7, seed=1)
    train(callback, eval_dataset={"law": Tokens(), "code": Tokens()}, include_num_input_tokens_seen=False)
    assert told(law, callback) == [(7, 600, 0, "code", 1), (7, 600, 0, "law", 1)]


def test_the_law_ends_a_training_and_hears_nothing_of_it(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    law = FakeLaw(limit=0.1)
    callback = LiveLawCallback(law, domain="law", pretrain_tokens=0)
    assert train(callback).state.global_step == 2
    assert told(law, callback) == []
    assert "stopped by the live law: the limit is 0.1" in caplog.text


def test_it_may_be_asked_not_to(train: Train) -> None:
    law = FakeLaw(limit=0.1)
    callback = LiveLawCallback(law, domain="law", pretrain_tokens=0, may_stop=False)
    assert train(callback).state.global_step == N_STEPS
    assert len(told(law, callback)) == 1
    assert not law.asked


def test_without_a_law_the_training_is_the_same(train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def nowhere() -> FakeLaw:
        raise RunError("no such cluster")

    callback = LiveLawCallback(nowhere, domain="law", pretrain_tokens=0)
    losses = [entry.get("eval_loss") for entry in train(callback).state.log_history]
    law = FakeLaw()
    other = LiveLawCallback(law, domain="law", pretrain_tokens=0, kept_in=tmp_path / "other.jsonl")
    assert [entry.get("eval_loss") for entry in train(other).state.log_history] == losses
    assert callback.run is not None
    callback.run.close()
    assert callback.run.reporter.n_kept == 1
    assert caplog.text.count("took no question") == 1
    # The next training in the same place takes the report along.
    third = LiveLawCallback(law, domain="law", pretrain_tokens=1)
    train(third)
    assert len(told(law, third)) == 2


class TestNotComparable:
    def test_a_rate_that_never_fell(self, train: Train, caplog: pytest.LogCaptureFixture) -> None:
        law = FakeLaw()
        callback = LiveLawCallback(law, domain="law", pretrain_tokens=0)
        train(callback, lr_scheduler_type="constant")
        assert told(law, callback) == []
        assert "ends with its learning rate at 100% of the peak" in caplog.text

    def test_unless_every_evaluation_is_said_to_be(self, train: Train) -> None:
        law = FakeLaw()
        callback = LiveLawCallback(law, domain="law", pretrain_tokens=0, report="evaluations")
        train(callback, lr_scheduler_type="constant")
        assert [row[2] for row in told(law, callback)] == [n * STEP_TOKENS for n in (2, 4, 6)]

    def test_no_evaluation_at_the_end(self, train: Train, caplog: pytest.LogCaptureFixture) -> None:
        law = FakeLaw()
        callback = LiveLawCallback(law, domain="law", pretrain_tokens=0)
        trainer = train(callback, evaluate="no")
        assert "no evaluation at the last step" in caplog.text
        trainer.evaluate()
        assert len(told(law, callback)) == 1


class TestMistakes:
    def test_tokens_that_cannot_be_counted(self, train: Train) -> None:
        with pytest.raises(RunError, match="Give tokens_per_step, or set include_num_input_tokens_seen='non_padding'"):
            train(LiveLawCallback(FakeLaw(), domain="law"), include_num_input_tokens_seen=False)

    def test_a_domain_that_is_not_named(self, train: Train, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(RunError, match="domain: name the one"):
            train(LiveLawCallback(FakeLaw(), pretrain_tokens=5))
        law = FakeLaw()
        callback = LiveLawCallback(law)
        train(callback)
        assert told(law, callback) == []
        assert caplog.text.count("the live law is told nothing: give LiveLawCallback domain=") == 1

    def test_a_time_that_is_none(self) -> None:
        with pytest.raises(RunError, match="unknown time 'never'"):
            LiveLawCallback(FakeLaw(), report="never")  # type: ignore[arg-type]


class TestCount:
    def test_is_the_ladders(self) -> None:
        assert count_params(build_model(SHAPE, seed=0)) == SHAPE.n_params_non_embedding

    def test_leaves_out_a_head_of_its_own(self) -> None:
        tied = build_model(SHAPE, seed=0)
        config = tied.config
        config.tie_word_embeddings = False
        assert count_params(LlamaForCausalLM(config)) == SHAPE.n_params_non_embedding
        assert count_params(torch.nn.Linear(3, 2)) == 8

    def test_leaves_out_positions(self) -> None:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2))
        assert count_params(model) == sum(p.numel() for p in model.parameters()) - 64 * 16 - 16 * 16

    def test_counts_what_is_frozen_and_what_is_packed(self) -> None:
        model = torch.nn.Linear(3, 2).requires_grad_(False)
        model.weight.quant_state = SimpleNamespace(shape=torch.Size([6, 2]))  # type: ignore[attr-defined]
        assert count_params(model) == 14

    def test_refuses_what_it_cannot_see(self) -> None:
        model = torch.nn.Linear(3, 2)
        model.quantization_method = SimpleNamespace(value="gptq")  # type: ignore[assignment]
        with pytest.raises(RunError, match="n_params: cannot be counted in weights packed by gptq: give it"):
            count_params(model)
        flattened = type("FullyShardedDataParallel", (torch.nn.Linear,), {})(3, 2)
        with pytest.raises(RunError, match="n_params: cannot be counted in a model that FSDP has flattened"):
            count_params(flattened)


def test_two_processes(tmp_path: Path, repository: Path) -> None:
    """They count each row and token once. Only the first asks and reports; were the other not told the answer, it would
    wait for the first for ever.
    """
    script = tmp_path / "job.py"
    script.write_text(JOB)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), *filter(None, sys.path)])}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert [one["stopped"] for one in said] == [{"steps": 2, "asked": 1}, {"steps": 2, "asked": 0}]
    assert [one["n_told"] for one in said] == [1, 0]
    assert said[0]["loss"] == pytest.approx(said[0]["exact"], rel=1e-6)
    assert said[0]["tokens"] == said[0]["counted"]
    assert [one["steps"] for one in said] == [N_STEPS, N_STEPS], "a fault in one process ends no training"
    assert "cannot be measured: it failed in 1 of 2 processes" in done.stderr
    assert "cannot be measured: no memory left" in done.stderr, "the process that failed says why"
    assert "told nothing of this: OSError: the first process fails" in done.stderr


JOB = """
import json
import os
from pathlib import Path

import torch
from tests.trainers.test_callbacks import *
from tests.trainers.trainings import Padded, token_mean

law = FakeLaw(limit=0.1)
callback = LiveLawCallback(law, domain="law", pretrain_tokens=0, patience_seconds=60)
trainer = trainer_of(callback, Path("."), ddp_find_unused_parameters=False)
trainer.train()
said = {"stopped": {"steps": trainer.state.global_step, "asked": len(law.asked)}}

law = FakeLaw()
callback = LiveLawCallback(law, domain="law", pretrain_tokens=0, tokens_per_step=2 * 4 * STEP_TOKENS, may_stop=False)
rows = Padded(7)  # in batches of two for each of the two: the last is filled up with rows of the first
trainer = trainer_of(
    callback, Path("."), train_dataset=Tokens(22), eval_dataset=rows, per_device_eval_batch_size=2,
    gradient_accumulation_steps=4, max_steps=4, eval_steps=4, ddp_find_unused_parameters=False,
)
trainer.train()
if callback.run is not None:
    callback.run.close()
said |= {"n_told": len(law.told), "counted": trainer.state.num_input_tokens_seen}
for told in law.told.values():
    exact = token_mean(trainer.model, (rows[i] for i in range(7)))
    said |= {"loss": told.loss, "exact": exact, "tokens": told.specialize_tokens}


def fails(error):
    raise error


is_first = os.environ["RANK"] == "0"
callback = LiveLawCallback(FakeLaw(), domain="law", pretrain_tokens=0, patience_seconds=60)
trainer = trainer_of(callback, Path("."), ddp_find_unused_parameters=False)
with pytest.MonkeyPatch.context() as patched:
    if not is_first:
        error = torch.OutOfMemoryError("no memory left")
        patched.setattr("raysplit.trainers.loss.batch_losses", lambda *_: fails(error))
    trainer.train()

callback = LiveLawCallback(FakeLaw(), domain="law", pretrain_tokens=0, patience_seconds=60)
trainer = trainer_of(callback, Path("."), ddp_find_unused_parameters=False)
with pytest.MonkeyPatch.context() as patched:
    error = OSError("the first process fails")
    patched.setattr("raysplit.trainers.outside_run.OutsideRun.should_go_on", lambda *_, **__: fails(error))
    trainer.train()
said |= {"steps": trainer.state.global_step}
Path("rank-" + os.environ["RANK"]).write_text(json.dumps(said))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
os._exit(0)  # one time in ten torch 2.13 aborts as the interpreter ends, a thread of gloo's still there
"""
