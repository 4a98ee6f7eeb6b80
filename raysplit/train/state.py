"""The state of an engine, one whole parameter after another, whatever its ranks and its ZeRO stage hold of it.

DeepSpeed's `safe_get_*` and `safe_set_*` read and write the fp32 weight and Adam's moments of one parameter. They fail
in three cases: at stage 0 in fp32, where there are only the parameter and torch's own optimizer; before the first step,
when there are no moments; and at stage 3 for a parameter that the ranks do not divide evenly, whose share is therefore
set here. All ranks call each function here together.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from raysplit.train.deepspeed_private import is_partitioned

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's moments, as torch's AdamW names them."""


def parameters_of(engine: Any) -> dict[str, torch.nn.Parameter]:
    """Name -> parameter, in the order in which weights are drawn; tied ones once."""
    return dict(engine.module.named_parameters())


def adam_of(engine: Any) -> torch.optim.Optimizer:
    """Torch's optimizer below DeepSpeed's."""
    found: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return found


def whole_of(engine: Any, parameter: torch.nn.Parameter, what: str) -> torch.Tensor:
    """A copy of a whole parameter's fp32 weight or of one of its moments, in its own shape."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if _is_plain(engine):
        value = parameter if what == WEIGHT else adam_of(engine).state[parameter][what]
        return value.detach().clone()
    found = safe_get_full_fp32_param(parameter) if what == WEIGHT else safe_get_full_optimizer_state(parameter, what)
    assert found is not None
    return found


def assign(engine: Any, parameter: torch.nn.Parameter, values: Mapping[str, torch.Tensor]) -> None:
    """Set a whole parameter's fp32 weight, moments, or both; the same ``values`` on every rank."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    for what, value in values.items():
        if is_partitioned(parameter):
            _assign_share(parameter, value, what)
        elif _is_plain(engine):
            target = parameter.data if what == WEIGHT else adam_of(engine).state[parameter][what]
            target.copy_(value)
        elif what == WEIGHT:
            parameter.data.copy_(value)
            safe_set_full_fp32_param(parameter, value.to(parameter.device))
        else:
            safe_set_full_optimizer_state(parameter, value.to(parameter.device), what)


def assign_frozen(parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    """Set a whole parameter that is not trained, so that no optimizer has it; the same ``value`` on every rank."""
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0, enabled=is_partitioned(parameter)):
        parameter.data.copy_(value)


def adam_steps(engine: Any) -> int:
    """Optimizer steps since the moments were zero; one number, since each step updates every parameter."""
    return int(next(iter(adam_of(engine).state.values()))["step"])


def set_adam_steps(engine: Any, n_steps: int) -> None:
    for state in adam_of(engine).state.values():
        state["step"].fill_(n_steps)


def zero_adam(engine: Any) -> None:
    """Zero Adam's moments and steps."""
    for state in adam_of(engine).state.values():
        for value in state.values():
            value.zero_()


def _is_plain(engine: Any) -> bool:
    return engine.optimizer is adam_of(engine)


def _assign_share(parameter: torch.nn.Parameter, value: torch.Tensor, what: str) -> None:
    """Set, at stage 3, this rank's equal share of the flat parameter; the last share is padded."""
    import deepspeed
    from deepspeed.utils import (
        safe_get_local_fp32_param,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    n_share = safe_get_local_fp32_param(parameter).numel()
    padded = torch.nn.functional.pad(value.flatten(), (0, n_share * dist.get_world_size() - value.numel()))
    share = padded[n_share * dist.get_rank() :][:n_share].to(parameter.device)
    if what == WEIGHT:
        safe_set_local_fp32_param(parameter, share)
        with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0):  # what the forward pass reads
            parameter.data.copy_(value)
    else:
        safe_set_local_optimizer_state(parameter, share, what)
