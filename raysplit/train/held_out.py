"""Held-out text as a lane reads it: windows of a domain, or whole documents whose bytes are known."""

import math
from dataclasses import dataclass

import numpy as np

from raysplit.corpus.corpus import HeldOutDocuments
from raysplit.train.engine import Engine


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadByToken:
    """Read by the token: a loss is nats per token over windows (n, context_length + 1)."""

    windows: np.ndarray

    def loss(self, engine: Engine) -> float:
        """Of the model as it is."""
        return engine.loss_on(self.windows)

    def blind_guess(self, vocab_size: int) -> float:
        """Loss of a model that knows nothing."""
        return math.log(vocab_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadByByte:
    """Read by the byte: a loss is the bits of every token of whole documents, over the bytes of their text."""

    text: HeldOutDocuments

    def loss(self, engine: Engine) -> float:
        """Of the model as it is."""
        nats = 0.0
        for rows in (self.text.windows, self.text.rest):
            if n_targets := len(rows) * (rows.shape[1] - 1):
                nats += n_targets * engine.loss_on(rows)
        return nats / math.log(2) / self.text.n_bytes

    def blind_guess(self, vocab_size: int) -> float:
        """Loss of a model that knows nothing."""
        return self.text.n_targets * math.log2(vocab_size) / self.text.n_bytes
