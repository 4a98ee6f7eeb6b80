"""A process group of one rank for the tests of training, and a small text to train on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysplit.space import Space, parse_space

CONTEXT, VOCAB = 32, 96


@pytest.fixture(scope="session")
def one_rank() -> Iterator[None]:
    """What a worker of a lane finds when training begins: threads, DeepSpeed, and a group of ranks (one).

    One for the session, since DeepSpeed keeps the first group that it meets for as long as the process lives.
    """
    import torch.distributed as dist

    from raysplit.machines import ComputeSpec
    from raysplit.train.runtime import prepare_worker

    prepare_worker(ComputeSpec())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
            patch.setenv(name, value)
        if not dist.is_initialized():  # `raysplit plan` in an earlier test has begun one
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        yield


@pytest.fixture(scope="session")
def text() -> np.ndarray:
    return read_text()


def read_text() -> np.ndarray:
    """Bytes of this interpreter's own `os` module, as tokens below VOCAB."""
    raw = np.frombuffer(Path(os.__file__).read_bytes(), dtype=np.uint8)
    return np.minimum(np.maximum(raw.astype(np.int64) - 31, 0), VOCAB - 1)


@pytest.fixture
def windows(text: np.ndarray) -> Callable[[int, int], np.ndarray]:
    """(first window, how many) -> windows (n, CONTEXT + 1)."""

    def cut(start: int, n: int) -> np.ndarray:
        return np.stack([text[i * CONTEXT : i * CONTEXT + CONTEXT + 1] for i in range(start, start + n)])

    return cut


class Texts:
    """Two domains out of one text, read as the corpus promises: a pure function of (seed, position)."""

    domains = ("library", "license")

    def __init__(self, text: np.ndarray) -> None:
        half = len(text) // 2
        self._of = {"library": text[:half], "license": text[half:] ^ 1}

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
    ) -> np.ndarray:
        out = []
        for i in range(n_sequences)[part[0] :: part[1]]:
            at = start_tokens // context_length + i + branch_tokens // context_length
            every = round(1 / replay_share) if replay_share else 0
            replayed = every and at % every == 1 % every
            name = self.domains[at % 2] if domain is None or replayed else domain
            text = self._of[name]
            start = (at * 7919 + seed * 104729) % (len(text) - context_length - 2)
            out.append(text[start : start + context_length + 1])
        return np.stack(out)

    def validation(self, domain: str, *, context_length: int, max_tokens: int) -> np.ndarray:
        text = self._of[domain]
        n = max_tokens // context_length
        return np.stack([text[i * 50 : i * 50 + context_length + 1] for i in range(n)])


def make_space(tmp_path: Path, **training: Any) -> Space:
    """A space of two sizes and two domains with steps of 256 tokens in two micro-batches.

    A ``zero_stage`` is that of a lone rank too, which in fp32 would have 0.
    """
    shapes = [{"up_to": "1T", "zero_stage": training["zero_stage"]}] if "zero_stage" in training else []
    return parse_space(
        {
            "name": "tests",
            "corpus": {
                "domains": {name: {"kind": "files", "path": str(tmp_path)} for name in ("library", "license")},
                "max_epochs": 1000,
            },
            "model": {"sizes": ["14k", "28k"], "context_length": CONTEXT},
            "training": {
                "batch_tokens": 8 * CONTEXT,
                "micro_batch_sequences": 4,
                "learning_rate": {"reference": 1e-2, "reference_params": "14k"},
                "warmup_tokens": 1024,
                "validation_tokens": 1024,
                **training,
            },
            "sweep": {"pretrain_tokens": [2048, 4096], "specialize_tokens": [1024, 2048], "policy": "grid"},
            "target": {"budget_flops": 1e10},
            "compute": {"shapes": shapes},
        },
        origin="tests",
    )
