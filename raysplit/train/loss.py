"""The mean cross-entropy of a model's next tokens, without the logits of all of them at once.

Logits of s tokens take 12 V s bytes: in fp32, with their log-probabilities and gradient, for V rows of the embedding.
Above `LOSS_CHUNK_TOKENS` they are made for one chunk at a time, and made again in the backward pass, which adds a third
to the head's arithmetic. torch 2.13's own `linear_cross_entropy` makes nothing twice, but gives the loss of bf16 in
bf16, 2 % off (LOG 2026-11-30), and reads the head's weights where DeepSpeed's stage 3 has not gathered them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from raysplit.design.memory import LOSS_CHUNK_TOKENS

PLAIN_HEADS = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox", "olmo2")
"""Model types whose logits are the head of the last hidden states and nothing else. Others make whole logits."""


class NextTokenLoss(PreTrainedModel):
    """A mixin for causal models: the forward pass gives the loss and not the logits."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss in nats over ``tokens`` (B, T + 1), of which each but the first is a target; a scalar in fp32."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
        if self.config.model_type not in PLAIN_HEADS:
            logits = super().forward(input_ids=inputs).logits
            return F.cross_entropy(logits.flatten(0, 1).float(), targets)
        hidden = self.base_model(input_ids=inputs).last_hidden_state
        return mean_loss(self.get_output_embeddings(), hidden.flatten(0, 1), targets)


def for_training(kind: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class of a causal model whose forward pass gives the loss."""
    return type(kind.__name__, (NextTokenLoss, kind), {})


def mean_loss(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, *, chunk_tokens: int = LOSS_CHUNK_TOKENS
) -> torch.Tensor:
    """Mean cross-entropy in nats, in fp32.

    Args:
        head: hidden states (n, d) -> logits (n, V).
        hidden: (n, d) last hidden states.
        targets: (n,) token numbers.
        chunk_tokens: most tokens that there are logits of at a time.
    """
    if len(targets) <= chunk_tokens:
        return F.cross_entropy(head(hidden).float(), targets)
    chunks = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    sums: list[Any] = [checkpoint(_summed, head, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(sums).sum() / len(targets)


def _summed(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")
