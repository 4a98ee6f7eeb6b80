"""How many bytes of its device a rank takes: by formula, so that it is known where there is neither GPU nor torch.

Notation
    P   parameters with the embedding      n   ranks      b   bytes of a weight: 4 in fp32, 2 in bf16
    s   tokens of a micro-batch            d, f, h, L, V  as in `raysplit.ladder`

States are divided over the ranks as by ZeRO (Rajbhandari 1910.02054, section 5). From stage 1 on these are the
optimizer's 12 P (fp32 weights and Adam's two moments), from stage 2 on also the gradients' 4 P (accumulated in fp32),
in stage 3 also the weights' b P. In fp32 at stage 0 the weights are their own master copy, and the optimizer holds 8 P;
bf16 begins at stage 1.

Activations are what a layer keeps for its backward pass, counted for this family with fused attention in the manner of
Korthikanti 2205.05198, section 4.1. Each norm keeps its input in fp32, the normalised values, its output and a root:
(4 + 2 b) d + 4. Attention keeps queries, keys, values, its output and a logarithm for each head: 4 b d + 4 h. The
feed-forward keeps gate, SiLU of the gate, up and their product: 4 b f. Where activations are computed twice, a layer
keeps its input, b d, and one layer at a time has all of it.

Beside them stands what is there for a moment: log-probabilities, their gradient and that of the logits in fp32, 12 V a
token; the backward pass of the last norm, 20 d a token (counted in torch, as the tests do); or the backward pass of a
layer that was computed again, with the gradients of gate, up and its output, b (2 f + d) a token.

What DeepSpeed adds is as version 0.19 allocates it.
"""

from dataclasses import dataclass
from typing import Literal

from raysplit.ladder import ModelShape

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's `reduce_bucket_size`: allocated whole, however small the model is."""
LIVE_ELEMENTS = 1_000_000_000
"""DeepSpeed's `stage3_max_live_parameters`: most gathered weights."""
LOSS_CHUNK_TOKENS = 4096
"""Tokens whose logits are there at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankBytes:
    """Bytes that one rank holds."""

    weights: float
    gradients: float
    optimizer: float
    """Master weights and moments."""
    buffers: float
    """For gradients on their way, and for gathered weights."""
    activations: float
    """Those that are kept, and the most that is there for a moment beside them."""
    reducing: float
    """Copies of gradients while they are reduced, when the activations are gone."""

    @property
    def states(self) -> float:
        """Kept from step to step."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """At its most: where the backward pass begins, or where gradients are reduced."""
        return self.states + self.buffers + max(self.activations, self.reducing)


def bytes_a_rank(
    model: ModelShape,
    *,
    precision: Literal["fp32", "bf16"],
    n_workers: int,
    zero_stage: int,
    micro_batch_sequences: int,
    activation_checkpointing: bool,
) -> RankBytes:
    """Bytes that one of ``n_workers`` ranks holds as it trains a model.

    Args:
        model: its shape.
        precision: of weights and activations.
        n_workers: n.
        zero_stage: 0 to 3.
        micro_batch_sequences: in one forward pass of one rank.
        activation_checkpointing: whether activations are computed twice.
    """
    n_params, is_fp32 = model.n_params_total, precision == "fp32"
    weight = 4 if is_fp32 else 2
    stage = zero_stage if is_fp32 else max(zero_stage, 1)
    in_bucket = min(n_params, BUCKET_ELEMENTS)
    # In bf16, stage 1 reduces its fp32 gradients where they lie.
    buffers = weight * BUCKET_ELEMENTS * (stage >= 1 + (not is_fp32))
    if stage == 3:
        buffers += weight * min(n_params, LIVE_ELEMENTS)
        reducing = 2 * weight * in_bucket
    elif stage == 1 and not is_fp32:
        reducing = 4 * in_bucket + 2 * weight * n_params
    else:
        one_in_fp32 = 4 * model.vocab_size * model.hidden_size * (not is_fp32)
        reducing = weight * in_bucket + one_in_fp32
    tokens = micro_batch_sequences * model.context_length
    return RankBytes(
        weights=weight * n_params / (n_workers if stage >= 3 else 1),
        gradients=4 * n_params / (n_workers if stage >= 2 else 1),
        optimizer=12 * n_params / n_workers if stage >= 1 else 8 * n_params,
        buffers=float(buffers),
        activations=float(_activations(model, weight=weight, tokens=tokens, computed_twice=activation_checkpointing)),
        reducing=float(reducing),
    )


def _activations(model: ModelShape, *, weight: int, tokens: int, computed_twice: bool) -> int:
    d, vocabulary = model.hidden_size, model.vocab_size
    norm = (4 + 2 * weight) * d + 4
    layer = 2 * norm + 4 * weight * d + 4 * model.n_heads + 4 * weight * model.feed_forward_size
    kept = model.n_layers * (weight * d if computed_twice else layer)
    at_logits = tokens * norm + 12 * vocabulary * min(tokens, LOSS_CHUNK_TOKENS)
    at_last_norm = tokens * (norm + 20 * d)
    at_a_layer = tokens * (layer + 2 * weight * model.feed_forward_size + weight * d) * computed_twice
    return tokens * kept + max(at_logits, at_last_norm, at_a_layer)
