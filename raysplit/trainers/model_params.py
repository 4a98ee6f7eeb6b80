"""A model as the law knows it: causal, and of N parameters."""

from typing import Any

import torch
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from raysplit.errors import RunError
from raysplit.train.deepspeed_private import n_weights_of


def count_params(model: torch.nn.Module) -> int:
    """N of a model: every parameter but those of embeddings and of the output head, each counted once.

    Position embeddings are embeddings. Frozen parameters count, and so do adapters beside the model that they adapt,
    and all experts of a mixture. Weights count in full where DeepSpeed's stage 3 has partitioned them, and where
    bitsandbytes has packed two into a byte.

    Raises:
        RunError: FSDP has flattened the weights, or another method than bitsandbytes has packed them.
    """
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        raise RunError("n_params: cannot be counted in a model that FSDP has flattened: give it")
    method = getattr(getattr(model, "quantization_method", None), "value", None)
    if method not in (None, "bitsandbytes"):
        raise RunError(f"n_params: cannot be counted in weights packed by {method}: give it")
    embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    apart = {id(p) for m in [*embeddings, *([head] if head is not None else [])] for p in m.parameters()}
    once = {id(p): p for p in model.parameters()}
    return sum(_n_weights(p) for key, p in once.items() if key not in apart)


def _n_weights(parameter: torch.nn.Parameter) -> int:
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    return n_weights_of(parameter) if shape is None else int(shape.numel())


def check_causal(model: Any) -> None:
    """Refuse a model whose loss is no mean over the next tokens.

    Raises:
        RunError: the model is an encoder-decoder, or has the loss of another task.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    loss_function = LOSS_MAPPING.get(getattr(inner, "loss_type", None), ForCausalLMLoss)
    if getattr(getattr(inner, "config", None), "is_encoder_decoder", False) or loss_function is not ForCausalLMLoss:
        raise RunError(f"LiveLawCallback: the law is of causal language models, and {type(inner).__name__} is none")
