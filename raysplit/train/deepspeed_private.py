"""Every private name of DeepSpeed's that is used, each with the reason why no public one will do.

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


def forbid_memory_reports() -> None:
    """Keep DeepSpeed's optimizer for bf16 from collecting garbage and printing its memory eight times.

    That takes three seconds for each engine, and no option or log level stops it.
    """
    from deepspeed.runtime import bf16_optimizer

    bf16_optimizer.see_memory_usage = lambda *_, **__: None


def link_moments(engine: Any) -> None:
    """Let `safe_get_full_optimizer_state` find Adam's moments, once a first step has made them.

    Stages 1 and 2 link them to the parameters after the first group's step, when the second group has none yet, and
    never again.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def is_partitioned(parameter: torch.nn.Parameter) -> bool:
    """Whether stage 3 has partitioned a parameter, so that only a share is here; no public name tells that."""
    return hasattr(parameter, "ds_id")


def shape_of(parameter: torch.nn.Parameter) -> torch.Size:
    """Shape of the whole parameter; a share has one dimension."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def n_weights_of(parameter: torch.nn.Parameter) -> int:
    """Number of weights of the whole parameter."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
