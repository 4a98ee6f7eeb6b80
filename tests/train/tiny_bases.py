"""Hugging Face folders as teams have them: five architectures, tied and untied, some with several revisions."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from raysplit.space import Space, parse_space
from tests.train.conftest import read_text

END = "<|endoftext|>"
BASE_CONTEXT = 32
ROWS = 260
"""Of the embeddings: three more than the tokenizer has tokens, as padded ones have."""
_COMMON: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 256, "eos_token_id": 256,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_COMMON, num_key_value_heads=2, tie_word_embeddings=False),
    "qwen2": Qwen2Config(
        **_COMMON, num_key_value_heads=2, tie_word_embeddings=True, use_sliding_window=True, sliding_window=8,
        max_window_layers=0,
    ),
    "qwen3": Qwen3Config(**_COMMON, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    "gpt_neox": GPTNeoXConfig(**_COMMON),
    "olmo2": Olmo2Config(**_COMMON, num_key_value_heads=4, pad_token_id=256),
    "mistral": MistralConfig(**_COMMON, num_key_value_heads=2, sliding_window=8),
}  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """Bytes, and the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END])
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, bos_token=END).save_pretrained(folder)


def write_base(folder: Path, kind: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A base with random weights; ``changes`` to its configuration."""
    torch.manual_seed(seed)
    given = {name: value for name, value in CONFIGS[kind].to_dict().items() if name != "layer_types"}
    config = CONFIGS[kind].__class__.from_dict({**given, **changes})
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def bases_space(*checkpoints: dict[str, Any], context_length: int = BASE_CONTEXT, **training: Any) -> Space:
    """A space that starts from these checkpoints, with steps of 256 tokens in two micro-batches."""
    return parse_space(
        {
            "name": "bases",
            "corpus": {
                "domains": {name: {"kind": "files", "path": "."} for name in ("library", "license")},
                "max_epochs": 1000,
            },
            "model": {"checkpoints": list(checkpoints), "context_length": context_length},
            "training": {
                "batch_tokens": 8 * context_length,
                "micro_batch_sequences": 4,
                "learning_rate": {"reference": 1e-2, "reference_params": "14k"},
                "warmup_tokens": 1024,
                "branch_warmup_tokens": 512,
                "validation_tokens": 1024,
                **training,
            },
            "sweep": {"specialize_tokens": [32 * context_length, 64 * context_length], "policy": "grid"},
            "target": {"budget_flops": 1e10},
        },
        origin="tests",
    )


def base_windows(n: int = 8) -> np.ndarray:
    """(n, BASE_CONTEXT + 1) of a text."""
    text = read_text()
    return np.stack([text[i * BASE_CONTEXT : (i + 1) * BASE_CONTEXT + 1] for i in range(n)])


def plain_loss(folder: Path, windows: np.ndarray) -> float:
    """What transformers itself says of a folder, loaded as it is."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.as_tensor(windows)
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1]).logits.float()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))
