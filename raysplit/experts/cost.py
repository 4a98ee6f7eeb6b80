"""What a model and a choice of experts cost at inference, in matrix-product FLOPs; a multiply-add is two."""

from functools import cache
from pathlib import Path


@cache
def forward_flops_per_token(path: Path) -> int:
    """Of one token's forward pass of the model in a Hugging Face folder, without loading its weights.

    Twice the weights of every matrix that multiplies (the output head with them, the look-up of embeddings not), and
    4 T d L for scores and values over the whole context, as `raysplit.ladder` counts; so both agree on its family.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = sum(
        module.weight.numel()
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding)
        and isinstance(getattr(module, "weight", None), torch.Tensor)
        and module.weight.ndim == 2
    )
    n_heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    attention = 4 * config.max_position_embeddings * n_heads * head_size * config.num_hidden_layers
    return 2 * matrices + attention
