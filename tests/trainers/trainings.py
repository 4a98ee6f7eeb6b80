"""Real trainings of a tiny model by `transformers.Trainer`, for its callback to watch."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from raysplit.ladder import shape_for
from raysplit.train.models import build_model
from raysplit.trainers.callback import LiveLawCallback
from tests.trainers.laws_to_tell import FakeLaw

SHAPE = shape_for(8_000, vocab_size=64, context_length=16)
N_STEPS, BATCH = 6, 2
STEP_TOKENS = BATCH * SHAPE.context_length


class Tokens(torch.utils.data.Dataset):
    """Packed: sequences of one repeated pattern, each as long as the next."""

    def __init__(self, n_rows: int = 8, *, first: int = 0) -> None:
        self.n_rows, self.first = n_rows, first

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(SHAPE.context_length) * (self.first + index + 1)) % SHAPE.vocab_size
        return {"input_ids": ids, "labels": ids}


class Padded(Tokens):
    """The same, cut to 3, 8, 13, ... tokens and filled up again."""

    def n_tokens(self, index: int) -> int:
        return 3 + 5 * index % 13

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = super().__getitem__(index)["input_ids"]
        is_text = torch.arange(SHAPE.context_length) < self.n_tokens(index)
        return {
            "input_ids": ids.where(is_text, 0),
            "labels": ids.where(is_text, -100),
            "attention_mask": is_text.long(),
        }


class Stream(torch.utils.data.IterableDataset):
    """A set without a length, that counts how often it was begun."""

    def __init__(self, rows: Tokens) -> None:
        self.rows, self.n_begun = rows, 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self.n_begun += 1
        return (self.rows[i] for i in range(len(self.rows)))


def arguments(folder: Path, **given: Any) -> TrainingArguments:
    """Six steps of a linear schedule with an evaluation every two."""
    return TrainingArguments(
        **{
            "output_dir": str(folder / "out"),
            "use_cpu": True,
            "max_steps": N_STEPS,
            "per_device_train_batch_size": BATCH,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "learning_rate": 1e-2,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "seed": 5,
            "include_num_input_tokens_seen": True,
            **given,
        }
    )


def trainer_of(
    callback: Any,
    folder: Path,
    *,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    of: type[Trainer] = Trainer,
    model: Any = None,
    parts: dict[str, Any] | None = None,
    **given: Any,
) -> Trainer:
    """A trainer of the tiny model; ``parts`` are the trainer's own arguments, the rest is for TrainingArguments."""
    return of(
        model=build_model(SHAPE, seed=0) if model is None else model,
        args=arguments(folder, **given),
        train_dataset=Tokens() if train_dataset is None else train_dataset,
        eval_dataset=Tokens() if eval_dataset is None else eval_dataset,
        callbacks=callback if isinstance(callback, list) else [callback],
        **(parts or {}),
    )


def token_mean(model: torch.nn.Module, rows: Iterable[dict[str, torch.Tensor]]) -> float:
    """Nats per token, a row at a time and without its padding."""
    nats, n_targets = 0.0, 0
    model.eval()
    for row in rows:
        n = int(row["attention_mask"].sum()) if "attention_mask" in row else len(row["input_ids"])
        with torch.no_grad():
            logits = model(input_ids=row["input_ids"][None, :n]).logits[0, :-1]
        labels = row["labels"][1:n]
        nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        n_targets += int((labels != -100).sum())
    return nats / n_targets


def told(law: FakeLaw, callback: LiveLawCallback) -> list[tuple[int, int, int, str, int]]:
    """(N, D, D', domain, seed) of what the law was told."""
    assert callback.run is not None
    callback.run.close()
    seen = sorted(law.told.values(), key=lambda o: (o.pretrain_tokens, o.specialize_tokens, o.domain))
    return [(o.n_params, o.pretrain_tokens, o.specialize_tokens, o.domain, o.seed) for o in seen]
