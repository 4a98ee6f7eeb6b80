"""What a model costs at inference, in FLOPs of matrix products; a multiply-add is two."""

import math
from functools import cache
from pathlib import Path

from safetensors import safe_open

from raysplit.errors import ExpertError
from raysplit.experts.folders import ExpertFolder
from raysplit.train.export import ADAPTER_WEIGHTS


@cache
def forward_flops_per_token(folder: ExpertFolder) -> int:
    """FLOPs of one token's forward pass through the model in a folder; its weights are not loaded.

    Two for each weight of a matrix that multiplies, with the output head and adapters and without embeddings; and
    4 T d L for attention over the whole context (T tokens, width d, L layers). `raysplit.ladder` counts the same way,
    so both agree on the models of its family.

    Raises:
        ExpertError: its configuration makes no model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder.config_folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # each architecture checks its own fields in its own way
        raise ExpertError(f"{folder.config_folder}: its config.json makes no model: {error!r}") from error
    matrices = sum(
        module.weight.numel()
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding)
        and isinstance(getattr(module, "weight", None), torch.Tensor)
        and module.weight.ndim == 2
    )
    if folder.base is not None:
        matrices += _n_adapter_weights(folder.path)
    n_heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    attention = 4 * config.max_position_embeddings * n_heads * head_size * config.num_hidden_layers
    return 2 * matrices + attention


def _n_adapter_weights(folder: Path) -> int:
    """Entries of all matrices of a folder's adapters; nothing but their shapes is read."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="numpy") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
