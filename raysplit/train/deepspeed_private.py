"""Every name of DeepSpeed's that it does not promise, with why none that it promises will do.

`tests/test_private_names.py` tells when another version than `TRIED_WITH` is installed, and that no other module of the
package has such names. Nothing here loads DeepSpeed by itself.
"""

from typing import Any

import torch

TRIED_WITH = "0.19.8"


def forbid_compiling() -> None:
    """Keep DeepSpeed's shared-memory collective from being compiled.

    That takes a minute on the first start, hangs after a killed compile, is no faster on two cores, and has no option.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def whole_weights(engine: Any) -> dict[str, torch.Tensor]:
    """Of a model that stage 3 has partitioned, on the first rank; `save_16bit_model` writes a file in its stead."""
    weights: dict[str, torch.Tensor] = engine._zero3_consolidated_16bit_state_dict()
    return weights


def is_partitioned(parameter: torch.nn.Parameter) -> bool:
    """Whether stage 3 holds a parameter, of which only a share is here; there is no public word for it."""
    return hasattr(parameter, "ds_id")


def n_dims_of(parameter: torch.nn.Parameter) -> int:
    """Of the whole parameter: a share has one."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def n_weights_of(parameter: torch.nn.Parameter) -> int:
    """Of the whole parameter."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
