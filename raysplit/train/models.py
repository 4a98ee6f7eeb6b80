"""Hugging Face models of the ladder."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raysplit.ladder import ModelShape


def model_config(shape: ModelShape, *, attention: str = "sdpa") -> LlamaConfig:
    """The Hugging Face configuration of a shape; ``attention`` is one of transformers' implementations.

    Weights start from a normal of standard deviation 0.4 / sqrt(d): 0.07 at d = 32, the usual 0.02 at d = 400, and
    falling with the width from there on.
    """
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.feed_forward_size,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads,
        max_position_embeddings=shape.context_length,
        tie_word_embeddings=True,
        initializer_range=0.4 / shape.hidden_size**0.5,
        attn_implementation=attention,
        use_cache=False,
    )


def build_model(shape: ModelShape, *, seed: int, activation_checkpointing: bool = False) -> LlamaForCausalLM:
    """A freshly initialised model; equal (shape, seed) give equal weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(model_config(shape))
    if activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model
