"""LoRA adapters in a folder as peft writes it: which base they belong to, and what they add. No model is loaded."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import safe_open

from raysplit.errors import ExpertError
from raysplit.train.export import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_KIND = "LORA"
_BASE_FIELD = "base_model_name_or_path"


def base_of(folder: Path) -> Path | None:
    """Folder of the base that a folder's adapters belong to; None where it holds a model and no adapters.

    Raises:
        ExpertError: the adapters are of another kind than LoRA, or their base or weights are not there.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        kind, name = config["peft_type"], config[_BASE_FIELD]
        base = Path(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExpertError(f"{path}: cannot be read: {error!r}; it needs peft_type and {_BASE_FIELD}") from error
    if kind != _KIND:
        raise ExpertError(f"{path}: peft_type {kind!r} is not supported; valid: {_KIND}")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ExpertError(f"{folder}: holds no weights ({ADAPTER_WEIGHTS})")
    if not (base / "config.json").is_file():
        raise ExpertError(
            f"{folder}: its adapters belong to the base {name}, which is no Hugging Face folder here; put the base "
            f"there, or write the folder where it lies into {path} as {_BASE_FIELD}"
        )
    return base


def n_adapter_weights(folder: Path) -> int:
    """Entries of all matrices of a folder's adapters, each of which multiplies once for a token."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="numpy") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
