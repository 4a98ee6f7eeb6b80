"""LoRA adapters of a base (Hu et al. 2106.09685), by `peft`: its weights stay, and two thin matrices beside each learn.

Every linear layer but the output head gets A (r x in) and B (out x r); its output is W x + (alpha / r) B A x. A is
drawn as torch draws a linear layer's weights and B is zero, so that training begins at the base.
"""

import importlib.util
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import PreTrainedModel

from raysplit.errors import SpaceError
from raysplit.space import LoraSpec

_NAME = "default"
_BASE_LAYER = ".base_layer."
WEIGHTS = "adapter_model.safetensors"


def check_peft() -> None:
    """Refuse adapters where nothing can make them.

    Raises:
        SpaceError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise SpaceError("training.lora: needs peft, which is not installed: pip install 'raysplit[lora]'")


def adapted_layers(model: PreTrainedModel) -> list[torch.nn.Linear]:
    """The layers that get an adapter, as peft's ``all-linear`` has them; the model has none yet."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]


def n_adapter_params(model: PreTrainedModel, lora: LoraSpec) -> int:
    """Entries of all A and B of a model without adapters, which may be on the meta device."""
    return sum(lora.rank * (layer.in_features + layer.out_features) for layer in adapted_layers(model))


def adapt(model: PreTrainedModel, lora: LoraSpec) -> None:
    """Put adapters into a model, and let nothing else of it be trained."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(_config(lora), model, adapter_name=_NAME)


def base_name(parameter: str) -> str:
    """As the base calls a parameter of the adapted model."""
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
    """Write what `peft.PeftModel.from_pretrained` reads.

    Args:
        folder: which exists.
        weights: by name, as the adapted model has them.
        lora: by which they were made.
        base: folder of the model that they are of.
    """
    config = _config(lora)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    named = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": weight for name, weight in weights.items()}
    safetensors.torch.save_file(named, folder / WEIGHTS, metadata={"format": "pt"})


def _config(lora: LoraSpec) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.scale * lora.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
