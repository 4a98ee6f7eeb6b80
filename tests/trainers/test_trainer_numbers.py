"""What the Trainer's callback says of a training: which loss, of which evaluation, after how many tokens."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raysplit.errors import RunError
from raysplit.train.models import build_model
from raysplit.trainers.callback import LiveLawCallback
from raysplit.trainers.rates import learning_rate
from tests.trainers.laws_to_tell import FakeLaw

pytest.importorskip("accelerate", reason="transformers.Trainer needs the package accelerate")

from transformers import (
    BertConfig,
    BertForMaskedLM,
    EarlyStoppingCallback,
    EvalPrediction,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
)

from tests.trainers.trainings import N_STEPS, SHAPE, STEP_TOKENS, Padded, Stream, Tokens, token_mean, told, trainer_of

CONTEXT = SHAPE.context_length


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What raysplit has warned of so far."""
    caplog.set_level(logging.WARNING, logger="raysplit")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "raysplit"]


def law_and_callback(**given: Any) -> tuple[FakeLaw, LiveLawCallback]:
    law = FakeLaw(domains=("law", "code", "test", "aux"))
    return law, LiveLawCallback(law, **{"domain": "law", "pretrain_tokens": 10_000, "patience_seconds": 30.0, **given})


def losses(law: FakeLaw, callback: LiveLawCallback) -> dict[str, float]:
    """By domain, what the law was told; each once."""
    told(law, callback)
    assert len({o.domain for o in law.told.values()}) == len(law.told)
    return {o.domain: o.loss for o in law.told.values()}


class TestResumed:
    """From a checkpoint of the same training, in another process as it were."""

    @pytest.mark.parametrize(
        ("schedule", "at", "given"),
        [
            ("linear", 4, {}),
            ("linear", 2, {"warmup_steps": 3}),
            ("cosine_with_min_lr", 4, {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
            ("warmup_stable_decay", 4, {"warmup_steps": 1, "lr_scheduler_kwargs": {"num_decay_steps": 3}}),
        ],
    )
    def test_a_schedule_that_ends_low_is_reported(
        self, tmp_path: Path, schedule: str, at: int, given: dict[str, Any], heard: Callable[[], list[str]]
    ) -> None:
        given = {"lr_scheduler_type": schedule, "eval_steps": N_STEPS, **given}
        _, first = law_and_callback(may_stop=False)
        trainer_of(first, tmp_path, save_strategy="steps", save_steps=at, **given).train()
        law, callback = law_and_callback()
        trainer = trainer_of(callback, tmp_path, **given)
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{at}"))
        assert [row[2] for row in told(law, callback)] == [N_STEPS * STEP_TOKENS]
        assert heard() == []

    @pytest.mark.parametrize(
        ("schedule", "given", "share"),
        [
            ("constant", {}, "100%"),
            ("constant_with_warmup", {"warmup_steps": 40}, "100%"),
            ("inverse_sqrt", {"warmup_steps": 1}, "41%"),
            ("reduce_lr_on_plateau", {"eval_steps": 2}, "100%"),
        ],
    )
    def test_one_that_does_not_is_told_apart(
        self, tmp_path: Path, schedule: str, given: dict[str, Any], share: str, heard: Callable[[], list[str]]
    ) -> None:
        given = {"lr_scheduler_type": schedule, "eval_steps": N_STEPS, **given}
        _, first = law_and_callback(may_stop=False)
        trainer_of(first, tmp_path, save_strategy="steps", save_steps=4, **given).train()
        law, callback = law_and_callback()
        trainer = trainer_of(callback, tmp_path, **given)
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
        assert told(law, callback) == []
        assert [f"its learning rate at {share} of the peak" in said for said in heard()] == [True, True]

    @pytest.mark.parametrize(("schedule", "n_told"), [("constant", 0), ("linear", 1)])
    def test_when_it_had_finished(self, tmp_path: Path, schedule: str, n_told: int) -> None:
        given: dict[str, Any] = {"lr_scheduler_type": schedule, "eval_strategy": "no"}
        trainer_of([], tmp_path, save_strategy="steps", save_steps=N_STEPS, **given, max_steps=8).train()
        law, callback = law_and_callback()
        trainer = trainer_of(callback, tmp_path, **given, max_steps=8)
        trainer.train(resume_from_checkpoint=True)
        trainer.evaluate()
        assert len(told(law, callback)) == n_told

    def test_with_an_optimizer_and_schedule_of_its_own(self, tmp_path: Path) -> None:
        def own(callback: Any, **given: Any) -> Trainer:
            model = build_model(SHAPE, seed=0)
            weights = list(model.parameters())
            groups: list[dict[str, Any]] = [{"params": weights[:1], "lr": 1e-4}, {"params": weights[1:]}]
            optimizer = torch.optim.AdamW(groups, lr=1e-2)
            one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[1e-4, 1e-2], total_steps=N_STEPS + 1)
            return trainer_of(
                callback, tmp_path, model=model, parts={"optimizers": (optimizer, one_cycle)}, eval_steps=6, **given
            )

        own([], save_strategy="steps", save_steps=5).train()
        law, callback = law_and_callback()
        own(callback).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-5"))
        assert len(told(law, callback)) == 1

    def test_from_a_checkpoint_that_has_counted_nothing(self, tmp_path: Path) -> None:
        saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "no"}
        trainer_of([], tmp_path, **saved, include_num_input_tokens_seen="no").train()
        _, callback = law_and_callback()
        with pytest.raises(RunError, match="checkpoint of step 4 has counted no tokens; give tokens_per_step"):
            trainer_of(callback, tmp_path).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))


class NotAtTheEnd(TrainerCallback):
    """Leaves out the evaluation that the trainer would make after the last step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_evaluate &= state.global_step < state.max_steps


class TestWhichEvaluation:
    def test_that_of_the_last_step_and_no_later_one(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        law, callback = law_and_callback()
        trainer = trainer_of(callback, tmp_path)
        trainer.train()
        last = trainer.state.log_history[-2]["eval_loss"]
        trainer.evaluate()
        trainer.evaluate(Tokens(first=20))
        trainer.evaluate(Tokens(first=20), metric_key_prefix="test")
        trainer.evaluate({"law": Tokens(first=20)})
        trainer.predict(Tokens(first=20))
        assert losses(law, callback) == {"law": last}
        assert len(law.asked) == 2  # nothing is asked once the training has ended
        assert heard() == []

    def test_the_best_weights_are_not_the_last(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        def worse_and_worse(_: EvalPrediction) -> dict[str, float]:
            worse_and_worse.calls += 1  # type: ignore[attr-defined]
            return {"score": -worse_and_worse.calls}  # type: ignore[attr-defined]

        worse_and_worse.calls = 0  # type: ignore[attr-defined]
        law, callback = law_and_callback()
        trainer = trainer_of(
            [callback, NotAtTheEnd()], tmp_path, parts={"compute_metrics": worse_and_worse}, eval_steps=4,
            save_strategy="steps", save_steps=4, load_best_model_at_end=True, metric_for_best_model="score",
            greater_is_better=True,
        )  # fmt: skip
        trainer.train()
        assert trainer.state.best_global_step == 4
        trainer.evaluate()
        trainer.evaluate()
        assert told(law, callback) == []
        assert [said.split(":")[0] for said in heard()] == [
            "no evaluation at the last step of 'law'",
            "load_best_model_at_end has loaded the weights of step 4",
        ]

    def test_a_set_other_than_in_training_is_not_the_runs(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        law, callback = law_and_callback()
        trainer = trainer_of([callback, NotAtTheEnd()], tmp_path)
        trainer.train()
        trainer.evaluate(Tokens(first=20))
        assert "evaluated after the training was another set than in it" in heard()[-1]
        mine = trainer.evaluate()["eval_loss"]
        trainer.evaluate(Tokens(first=20))
        assert losses(law, callback) == {"law": mine}

    def test_a_datasets_own_copies_are_one_set(self, tmp_path: Path) -> None:
        from datasets import Dataset

        def rows(first: int) -> Dataset:
            made = [Tokens(first=first)[i] for i in range(8)]
            return Dataset.from_dict({"text": ["x"] * 8, **{k: [r[k].tolist() for r in made] for k in made[0]}})

        law, callback = law_and_callback()
        sets = {"train_dataset": rows(0), "eval_dataset": rows(0)}
        trainer = trainer_of([callback, NotAtTheEnd()], tmp_path, **sets)
        trainer.train()
        trainer.evaluate(rows(20))
        mine = trainer.evaluate()["eval_loss"]
        assert losses(law, callback) == {"law": mine}

    def test_only_sets_are_domains(self, tmp_path: Path) -> None:
        def more(_: EvalPrediction) -> dict[str, float]:
            return {"aux_loss": 1.5, "loss_runtime": 2.0}

        law, callback = law_and_callback(domain="", pretrain_tokens=None)
        sets = {"law": Tokens(), "code": Tokens(first=9)}
        trainer = trainer_of(callback, tmp_path, eval_dataset=sets, parts={"compute_metrics": more})
        trainer.train()
        trainer.evaluate(Tokens(first=20), metric_key_prefix="eval_test")
        assert set(losses(law, callback)) == {"law", "code"}

    def test_none_of_the_domain(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        law, callback = law_and_callback(domain="biology")
        trainer_of(callback, tmp_path, eval_dataset={"law": Tokens(), "code": Tokens()}).train()
        assert told(law, callback) == []
        assert [said.split(":")[0] for said in heard()] == [
            "no evaluation at the last step of 'biology', only of code, law"
        ]

    def test_early_stopping_ends_no_schedule(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        law, callback = law_and_callback()
        stopping = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=100.0)
        trainer = trainer_of(
            [callback, stopping], tmp_path, save_strategy="steps", save_steps=2, load_best_model_at_end=True,
            metric_for_best_model="loss",
        )  # fmt: skip
        trainer.train()
        assert trainer.state.global_step == 4
        trainer.evaluate()
        assert told(law, callback) == []
        assert len(law.asked) == 2
        assert heard() == ["stopped before the end of its schedule, the training is not reported to the live law"]

    def test_on_start_and_at_an_epochs_end(self, tmp_path: Path) -> None:
        law, callback = law_and_callback()
        trainer_of(
            callback, tmp_path, eval_on_start=True, eval_strategy="epoch", max_steps=-1, num_train_epochs=2
        ).train()
        assert [row[2] for row in told(law, callback)] == [8 * STEP_TOKENS]
        assert [o.specialize_tokens for o in law.asked] == [4 * STEP_TOKENS]

    def test_a_model_trained_before_is_another_run(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        law, callback = law_and_callback()
        trainer = trainer_of(callback, tmp_path)
        trainer.train()
        assert len(told(law, callback)) == 1
        trainer.train()
        trainer.evaluate()
        assert len(law.told) == 1
        assert "this model was trained before" in heard()[-1]
        again = trainer_of(callback, tmp_path, seed=6)
        again.train()
        assert len(told(law, callback)) == 2


class TestWhichLoss:
    @pytest.mark.parametrize("rows_of_batch", [1, 3, 8])
    def test_each_token_counts_once(self, tmp_path: Path, rows_of_batch: int) -> None:
        rows = Padded(7, first=3)
        law, callback = law_and_callback()
        trainer = trainer_of(
            callback, tmp_path, train_dataset=Padded(), eval_dataset=rows, per_device_eval_batch_size=rows_of_batch,
            include_num_input_tokens_seen="non_padding",
        )  # fmt: skip
        trainer.train()
        exact = token_mean(trainer.model, (rows[i] for i in range(7)))
        assert losses(law, callback) == {"law": pytest.approx(exact, rel=1e-6)}
        if rows_of_batch == 1:
            assert trainer.state.log_history[-2]["eval_loss"] != pytest.approx(exact, rel=1e-3)

    def test_a_smoothed_loss_is_measured_plain(self, tmp_path: Path) -> None:
        law, callback = law_and_callback()
        trainer = trainer_of(callback, tmp_path, label_smoothing_factor=0.2)
        trainer.train()
        exact = token_mean(trainer.model, (Tokens()[i] for i in range(8)))
        assert trainer.state.log_history[-2]["eval_loss"] != pytest.approx(exact, rel=1e-3)
        assert losses(law, callback) == {"law": pytest.approx(exact, rel=1e-6)}

    def test_so_is_a_loss_of_ones_own(self, tmp_path: Path) -> None:
        def twice(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            return 2 * torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

        class Weighted(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                inputs = {k: v for k, v in inputs.items() if k != "weights"}
                return super().compute_loss(model, inputs, *args, **kwargs)

        class WithWeights(Tokens):
            def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
                return {**super().__getitem__(index), "weights": torch.tensor(0.5)}

        law, callback = law_and_callback()
        rows = WithWeights()
        trainer = trainer_of(
            callback, tmp_path, of=Weighted, train_dataset=rows, eval_dataset=rows, remove_unused_columns=False,
            parts={"compute_loss_func": twice},
        )  # fmt: skip
        trainer.train()
        exact = token_mean(trainer.model, (Tokens()[i] for i in range(8)))
        assert losses(law, callback) == {"law": pytest.approx(exact, rel=1e-6)}

    def test_what_else_is_in_a_models_loss_is_left_out(self, tmp_path: Path) -> None:
        """A router's loss; and GPT-2's, which transformers 5.23 divides by the first label of each row too."""
        mixture = MixtralConfig(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=2, output_router_logits=True, router_aux_loss_coef=0.05,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        gpt2 = GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=None)
        for number, model in enumerate((MixtralForCausalLM(mixture), GPT2LMHeadModel(gpt2))):
            law, callback = law_and_callback()
            trainer = trainer_of(callback, tmp_path / str(number), model=model)
            trainer.train()
            exact = token_mean(trainer.model, (Tokens()[i] for i in range(8)))
            assert trainer.state.log_history[-2]["eval_loss"] != pytest.approx(exact, rel=1e-3)
            assert losses(law, callback) == {"law": pytest.approx(exact, rel=1e-6)}

    def test_labels_that_are_shifted_already(self, tmp_path: Path, heard: Callable[[], list[str]]) -> None:
        class Bare(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = torch.nn.Embedding(64, 64)

            def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                logits = self.table(input_ids)
                return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits

        class Shifted(Tokens):
            def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
                ids = super().__getitem__(index)["input_ids"]
                return {"input_ids": ids[:-1], "labels": ids[1:]}

        law, callback = law_and_callback(n_params=1000)
        trainer_of(
            callback, tmp_path, model=Bare(), train_dataset=Shifted(), eval_dataset=Shifted(), learning_rate=1.0
        ).train()
        assert told(law, callback) == []
        assert "are its labels shifted already" in heard()[0]

    def test_randomness_is_left_alone(self, tmp_path: Path) -> None:
        def trained(callbacks: list[Any]) -> list[float]:
            model = build_model(SHAPE, seed=0)
            for layer in model.model.layers:
                layer.self_attn.attention_dropout = 0.5
            trainer = trainer_of(callbacks, tmp_path, model=model)
            trainer.train()
            return [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]

        assert trained([law_and_callback()[1]]) == trained([])


class TestTokens:
    def test_padding_is_no_text(self, tmp_path: Path) -> None:
        rows = Padded()
        law, callback = law_and_callback()
        trainer_of(
            callback, tmp_path, train_dataset=rows, include_num_input_tokens_seen="non_padding", max_steps=8
        ).train()
        in_set = sum(rows.n_tokens(i) for i in range(8))
        assert [row[2] for row in told(law, callback)] == [2 * in_set]

    @pytest.mark.parametrize("counting", [True, "all"])
    def test_counted_it_is_refused(self, tmp_path: Path, counting: Any) -> None:
        _, callback = law_and_callback()
        with pytest.raises(RunError, match=r"counts padding as tokens, and \d+% of the training .* set 'non_padding'"):
            trainer_of(callback, tmp_path, train_dataset=Padded(), include_num_input_tokens_seen=counting).train()

    def test_without_a_mask_nothing_tells_it(self, tmp_path: Path) -> None:
        class Unmasked(Padded):
            def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
                return {k: v for k, v in super().__getitem__(index).items() if k != "attention_mask"}

        _, callback = law_and_callback()
        with pytest.raises(RunError, match="with an attention_mask in the batches"):
            trainer_of(
                callback, tmp_path, train_dataset=Unmasked(), include_num_input_tokens_seen="non_padding"
            ).train()

    @pytest.mark.parametrize(("rows", "n_told"), [(Tokens(), 1), (Padded(), 0)])
    def test_a_stream_is_not_begun_to_look(
        self, tmp_path: Path, rows: Tokens, n_told: int, heard: Callable[[], list[str]]
    ) -> None:
        stream, law, callback = Stream(rows), *law_and_callback()
        trainer_of(callback, tmp_path, train_dataset=stream, eval_dataset=Stream(rows), max_steps=4).train()
        assert stream.n_begun == 1
        assert len(told(law, callback)) == n_told
        assert [said for said in heard() if "counts padding" in said] == heard()

    @pytest.mark.parametrize(
        ("n_rows", "accumulated", "n_steps", "n_passed"),
        [
            (8, 3, 4, 16),  # four batches an epoch: three in its first step, one in its second
            (8, 3, 5, 16 + 6),
            (7, 2, 4, 14),  # the last batch of an epoch has one row
            (7, 8, 3, 21),  # an epoch is one short step
            (8, 1, 6, 12),
        ],
    )
    def test_short_steps_are_not_whole_ones(
        self, tmp_path: Path, n_rows: int, accumulated: int, n_steps: int, n_passed: int
    ) -> None:
        law, callback = law_and_callback(tokens_per_step=accumulated * STEP_TOKENS)
        trainer = trainer_of(
            callback, tmp_path, train_dataset=Tokens(n_rows), gradient_accumulation_steps=accumulated,
            max_steps=n_steps, eval_steps=n_steps,
        )  # fmt: skip
        trainer.train()
        assert [row[2] for row in told(law, callback)] == [n_passed * CONTEXT]
        assert trainer.state.num_input_tokens_seen == n_passed * CONTEXT

    @pytest.mark.parametrize("tokens_per_step", [0, -1, 1.5])
    def test_a_step_without_tokens(self, tokens_per_step: Any) -> None:
        with pytest.raises(RunError, match="tokens_per_step: "):
            law_and_callback(tokens_per_step=tokens_per_step)


class TestModels:
    def test_that_are_not_causal(self, tmp_path: Path) -> None:
        small = {"vocab_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
        masked = BertForMaskedLM(BertConfig(hidden_size=8, **small))
        both = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4))
        for model in (masked, both):
            _, callback = law_and_callback()
            with pytest.raises(RunError, match=f"and {type(model).__name__} is none"):
                trainer_of(callback, tmp_path, model=model).train()

    def test_a_learning_rate_that_cannot_be_read_is_none(self) -> None:
        assert learning_rate(None, None) == 0.0


def test_a_fault_of_ours_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Callable[[], list[str]]
) -> None:
    def broken(*_: Any) -> float:
        raise ZeroDivisionError("none")

    law, callback = law_and_callback()
    trainer = trainer_of(callback, tmp_path)
    monkeypatch.setattr("raysplit.trainers.callback.learning_rate", broken)
    trainer.train()
    trainer.evaluate()
    assert trainer.state.global_step == N_STEPS
    assert told(law, callback) == []
    assert heard()[0] == "the live law is told nothing of this: ZeroDivisionError: none"
