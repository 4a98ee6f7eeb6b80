"""The model ladder: one decoder-only family from about 10k to 7B non-embedding parameters, and its FLOPs.

This module is arithmetic alone, so that budgets can be computed where torch is not installed. `raysplit.train.models`
builds the Hugging Face configuration of a shape.

Notation
    d   hidden size              L   layers              h   heads, head_dim = d / h
    f   feed-forward size        V   vocabulary          T   context length in tokens

The family is Llama's: RMSNorm before attention and before a SwiGLU feed-forward of f ~ 8d/3, rotary positions, no
biases, embeddings tied to the output head. A layer holds 4 d^2 (attention) + 3 d f (feed-forward) + 2 d (norms), so
N ~ 12 d^2 L. The aspect ratio d / L grows from 32 at 10k to 128 at 7B, as in published families of many sizes.
"""

import math
from dataclasses import dataclass
from functools import cache

_MIN_PARAMS, _MAX_PARAMS = 8_000, 2e10


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Shape of one model of the family, or of a base."""

    hidden_size: int
    """d, a multiple of the head size."""
    n_layers: int
    """L."""
    n_heads: int
    """h."""
    feed_forward_size: int
    """f."""
    vocab_size: int
    """V."""
    context_length: int
    """T, tokens in one training sequence."""
    base: str = ""
    """Folder of a base, a Hugging Face model outside the family; empty for the family's own."""
    base_params: int = 0
    """N of a base, counted from its model (`raysplit.train.bases`); 0 for the family's own."""
    base_params_total: int = 0
    """All parameters of a base, those of embeddings included."""
    base_forward_flops: int = 0
    """FLOPs of a base's forward pass, a token."""
    base_trained_params: int = 0
    """Parameters of the adapters, where a base trains these alone; 0 where it trains all."""
    base_training_flops: int = 0
    """FLOPs to train a base's adapters on one token; 0 where all of it is trained."""

    @property
    def n_params_non_embedding(self) -> int:
        """The law's N: all parameters but the tied embedding matrix; of a base, but all embeddings and the head."""
        if self.base:
            return self.base_params
        d = self.hidden_size
        return self.n_layers * (4 * d * d + 3 * d * self.feed_forward_size + 2 * d) + d

    @property
    def n_params_total(self) -> int:
        """All parameters, the tied embedding counted once."""
        if self.base:
            return self.base_params_total
        return self.n_params_non_embedding + self.vocab_size * self.hidden_size

    @property
    def n_params_trained(self) -> int:
        """The parameters that are trained: all, or those of the adapters."""
        return self.base_trained_params or self.n_params_total

    @property
    def forward_flops_per_token(self) -> int:
        """FLOPs of the matrix products in one token's forward pass; a multiply-add is two.

        They are 2 (4 d^2 + 3 d f) L for projections and feed-forward, 4 T d L for scores and values, and 2 d V for the
        output head. Scores and values count over the whole T x T square, as eager attention computes it and torch's
        FlopCounterMode counts it. The embedding look-up, norms, softmax and rotary positions are no matrix products and
        count nothing.
        """
        if self.base:
            return self.base_forward_flops
        d = self.hidden_size
        per_layer = 2 * (4 * d * d + 3 * d * self.feed_forward_size) + 4 * self.context_length * d
        return self.n_layers * per_layer + 2 * d * self.vocab_size

    @property
    def flops_per_token(self) -> int:
        """F(N): FLOPs to train on one token, three times those of the forward pass; of adapters, as counted."""
        return self.base_training_flops or 3 * self.forward_flops_per_token

    @property
    def flops_per_token_6n(self) -> int:
        """The usual approximation 6N (Kaplan 2001.08361, section 2.1), without embeddings and attention scores."""
        return 6 * self.n_params_non_embedding


def _head_size(hidden_size: int) -> int:
    """16 for the tiny models of a CPU sweep, 64 from d = 256, 128 from d = 2048 (Llama's)."""
    return 16 if hidden_size < 256 else 64 if hidden_size < 2048 else 128


def _feed_forward_size(hidden_size: int) -> int:
    """8 d / 3 rounded up to a multiple of 16, or of 128 from d = 256, for whole vector registers and tiles."""
    unit = 16 if hidden_size < 256 else 128
    return math.ceil(8 * hidden_size / 3 / unit) * unit


def shape_for(n_params: int, *, vocab_size: int, context_length: int) -> ModelShape:
    """The shape whose non-embedding parameter count is nearest to ``n_params`` at a sensible aspect ratio.

    It minimises log(N / n_params)^2 + 0.02 log((d / L) / aspect(n_params))^2 over all widths and depths. From 1M up the
    count is met within 15 %, from 30k up within 25 %. Below it is coarser, since one layer is a large step. Equal
    requests give equal shapes, larger ones never smaller shapes. A shape's own count gives that shape again.

    Raises:
        ValueError: ``n_params`` is outside the family (8k to 20B).
    """
    if not _MIN_PARAMS <= n_params <= _MAX_PARAMS:
        raise ValueError(f"no model of {n_params} non-embedding parameters; the ladder goes from 8k to 20B")
    shape = _nearest(n_params, vocab_size, context_length)
    # The aspect ratio asked for changes with N, so the nearest shape to a shape's own count can be another one.
    while (again := _nearest(shape.n_params_non_embedding, vocab_size, context_length)) != shape:
        shape = again
    return shape


@cache
def _nearest(n_params: int, vocab_size: int, context_length: int) -> ModelShape:
    # Log-linear from 32 at 1e4 to 128 at 7e9.
    aspect = 32.0 * 4.0 ** (math.log(n_params / 1e4) / math.log(7e5))
    best: tuple[float, ModelShape] | None = None
    hidden = 32
    while hidden <= 8192:
        feed_forward = _feed_forward_size(hidden)
        per_layer = 4 * hidden**2 + 3 * hidden * feed_forward + 2 * hidden
        near = n_params / per_layer
        for layers in {max(1, math.floor(near)), max(1, math.ceil(near))}:
            shape = ModelShape(
                hidden_size=hidden,
                n_layers=layers,
                n_heads=hidden // _head_size(hidden),
                feed_forward_size=feed_forward,
                vocab_size=vocab_size,
                context_length=context_length,
            )
            size_error = math.log(shape.n_params_non_embedding / n_params)
            aspect_error = math.log(hidden / layers / aspect)
            score = size_error**2 + 0.02 * aspect_error**2
            if best is None or score < best[0]:
                best = (score, shape)
        hidden += _head_size(hidden)
    assert best is not None
    return best[1]
