"""The mean cross-entropy of a model's next tokens, without the logits of all of them at once.

Logits of s tokens take 12 V s bytes: in fp32, with their log-probabilities and gradient. Above `LOSS_CHUNK_TOKENS` they
are made for one chunk at a time and made again in the backward pass, which costs a third of the head's arithmetic.
torch 2.13's own `linear_cross_entropy` makes nothing twice, but gives the loss of bf16 in bf16, 2 % off (LOG
2026-11-30), and reads the head's weights past DeepSpeed's stage 3.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM

from raysplit.design.memory import LOSS_CHUNK_TOKENS


class NextTokenLoss(LlamaForCausalLM):
    """The family's model as it is trained: a forward pass gives the loss and not the logits."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss in nats over ``tokens`` (B, T + 1), of which each but the first is a target; a scalar in fp32."""
        hidden = self.model(input_ids=tokens[:, :-1]).last_hidden_state
        return mean_loss(self.lm_head, hidden.flatten(0, 1), tokens[:, 1:].flatten())


def mean_loss(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, *, chunk_tokens: int = LOSS_CHUNK_TOKENS
) -> torch.Tensor:
    """Mean cross-entropy in nats, in fp32.

    Args:
        head: (n, d) -> logits (n, V).
        hidden: (n, d).
        targets: (n,).
        chunk_tokens: of how many tokens there may be logits at a time.
    """
    if len(targets) <= chunk_tokens:
        return F.cross_entropy(head(hidden).float(), targets)
    chunks = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    sums: list[Any] = [checkpoint(_summed, head, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(sums).sum() / len(targets)


def _summed(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")
