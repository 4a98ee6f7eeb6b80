"""The learning rate of a training: now, and its peak so far."""

from typing import Any

from transformers import TrainerState

_LOOKS = 10_000
"""At about so many steps of a schedule its rate is looked at."""


def learning_rate(lr_scheduler: Any, optimizer: Any) -> float:
    """The learning rate of the next step, the highest of the parameter groups; 0 where it cannot be known."""
    for read in (
        lambda: [float(rate) for rate in lr_scheduler.get_last_lr()],
        lambda: [float(group["lr"]) for group in optimizer.param_groups],
    ):
        try:
            return max(read())
        except Exception:  # schedulers are many: none, not stepped yet, or with a rate of its own for each weight
            continue
    return 0.0


def peak_before(state: TrainerState, lr_scheduler: Any, optimizer: Any) -> float:
    """The highest learning rate of the steps that a resumed training has behind it, and of the next step.

    It comes from the log and from the schedule, computed anew. Where the schedule is no function of the step, it comes
    from the log and the optimizer's first rate.
    """
    now = learning_rate(lr_scheduler, optimizer)
    if state.global_step == 0:
        return now
    logged = [float(entry["learning_rate"]) for entry in state.log_history or [] if "learning_rate" in entry]
    return max([now, *logged, *(_scheduled(lr_scheduler, state.global_step) or _first(optimizer))])


def _scheduled(lr_scheduler: Any, n_steps: int) -> list[float]:
    """Rates up to a step of a schedule that is a function of the step, as most of transformers' are; else none."""
    scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)  # accelerate's wrapper
    try:
        every = max(1, n_steps // _LOOKS)
        return [
            float(base) * float(factor(step))
            for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for step in (*range(0, n_steps, every), n_steps)
        ]
    except Exception:
        return []


def _first(optimizer: Any) -> list[float]:
    groups = getattr(optimizer, "param_groups", [])
    return [float(group[key]) for group in groups for key in ("initial_lr", "max_lr") if group.get(key) is not None]
