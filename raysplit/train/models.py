"""Hugging Face models of the ladder and of bases, and their first weights."""

from collections.abc import Iterator, Mapping

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from raysplit.ladder import ModelShape
from raysplit.train.bases import base_config, base_model_class, base_weights
from raysplit.train.loss import for_training


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


def build_model(shape: ModelShape, *, seed: int) -> PreTrainedModel:
    """A model with its first weights; equal (shape, seed) give equal weights, which are those an engine begins with."""
    model = undrawn_model(shape)
    for parameter, weight in zip(model.parameters(), drawn_weights(shape, seed=seed), strict=True):
        parameter.data.copy_(weight)
    return model


def undrawn_model(shape: ModelShape, *, trains: bool = False) -> PreTrainedModel:
    """A model whose weights are not set yet; the forward pass of one that ``trains`` gives the loss.

    Weights are set afterwards (`first_weights`), because transformers' own initialisation does not see those that
    DeepSpeed's stage 3 partitions as they are made. It leaves them as torch made them: the first loss was then 30 nats
    instead of 4.6 (LOG 2026-11-23).
    """
    if shape.base:
        config: PreTrainedConfig = base_config(shape.base)
        kind = base_model_class(config)
    else:
        config, kind = model_config(shape), LlamaForCausalLM
    with torch.random.fork_rng():
        return (for_training(kind) if trains else kind)(config)


def first_weights(
    shape: ModelShape, *, seed: int, folder: str, parameters: Mapping[str, torch.Size]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and first weight of each whole parameter, one at a time: drawn from a seed, or a base's own in ``folder``.

    Raises:
        CheckpointError: as `raysplit.train.bases.base_weights`.
    """
    if shape.base:
        return base_weights(folder or shape.base, parameters)
    return zip(parameters, drawn_weights(shape, seed=seed), strict=True)


def drawn_weights(shape: ModelShape, *, seed: int) -> Iterator[torch.Tensor]:
    """First weight of each whole parameter, in the model's order, one at a time: matrices are drawn, norms are one."""
    config = model_config(shape)
    with torch.device("meta"):
        parameters = list(LlamaForCausalLM(config).parameters())
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        if parameter.ndim >= 2:
            # On the CPU, so that every device gets the same numbers.
            drawn = torch.empty(parameter.shape, device="cpu")
            yield drawn.normal_(std=config.initializer_range, generator=generator)
        else:
            yield torch.ones(parameter.shape, device="cpu")
