"""LoRA adapters of a base (Hu et al., arXiv:2106.09685), by `peft`: they are trained, the base's weights are not.

Every linear layer but the output head gets A (r x in) and B (out x r); its output is W x + (alpha / r) B A x. A is
drawn as torch draws a linear layer's weights and B is zero, so that training begins at the base.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import PreTrainedModel

from raysplit.space import LoraSpec
from raysplit.train.export import ADAPTER_WEIGHTS

_NAME = "default"
_BASE_LAYER = ".base_layer."


def adapt(model: PreTrainedModel, lora: LoraSpec) -> None:
    """Put adapters into a model, and let nothing else of it be trained."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(_config(lora), model, adapter_name=_NAME)


def base_name(parameter: str) -> str:
    """Name that the base has for a parameter of the adapted model."""
    return parameter.replace(_BASE_LAYER, ".")


def first_adapter(shapes: Mapping[str, torch.Size], *, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The adapters' first weights, in the order of their names; equal seeds give equal weights."""
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        weight = torch.zeros(shape)
        if ".lora_A." in name:
            bound = 1 / math.sqrt(shape[1])
            weight.uniform_(-bound, bound, generator=generator)
        yield name, weight


def write_adapter(folder: Path, weights: Mapping[str, torch.Tensor], lora: LoraSpec, *, base: str) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` reads.

    Args:
        folder: it exists already.
        weights: name in the adapted model -> weight.
        lora: the adapters' rank and scale.
        base: folder of the base.
    """
    config = _config(lora)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    named = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": weight for name, weight in weights.items()}
    safetensors.torch.save_file(named, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _config(lora: LoraSpec) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.scale * lora.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
