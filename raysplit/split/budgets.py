"""Budgets as people have them: GPU-hours, dollars or tokens, and the FLOPs that they are."""

from raysplit.errors import SplitError, unknown
from raysplit.machines import PEAK_FLOPS_PER_SECOND


def peak_flops_per_second(gpu: str) -> float:
    """Peak of one GPU by name.

    Raises:
        SplitError: the name is not in `PEAK_FLOPS_PER_SECOND`.
    """
    if gpu not in PEAK_FLOPS_PER_SECOND:
        raise SplitError(unknown("GPU", gpu, PEAK_FLOPS_PER_SECOND))
    return PEAK_FLOPS_PER_SECOND[gpu]


def flops_of_tokens(tokens: float, *, flops_per_token: float) -> float:
    """FLOPs to train on that many tokens; ``flops_per_token`` is F(N), the family's own or 6N.

    Raises:
        SplitError: a number is not positive and finite.
    """
    _check(tokens=tokens, flops_per_token=flops_per_token)
    return tokens * flops_per_token


def flops_of_gpu_hours(gpu_hours: float, *, peak_flops_per_second: float, utilization: float) -> float:
    """FLOPs that GPU-hours deliver at a model FLOP utilization between 0 and 1, measured or assumed.

    Raises:
        SplitError: a number is not positive and finite, or the utilization is above 1.
    """
    _check(gpu_hours=gpu_hours, peak_flops_per_second=peak_flops_per_second, utilization=utilization)
    if utilization > 1:
        raise SplitError(f"utilization is a share of the peak, at most 1, got {utilization!r}")
    return gpu_hours * 3600 * peak_flops_per_second * utilization


def gpu_hours_of_flops(flops: float, *, peak_flops_per_second: float, utilization: float) -> float:
    """GPU-hours that FLOPs take; the inverse of `flops_of_gpu_hours`, errors as of it."""
    return flops / flops_of_gpu_hours(1.0, peak_flops_per_second=peak_flops_per_second, utilization=utilization)


def flops_of_dollars(
    dollars: float, *, dollars_per_gpu_hour: float, peak_flops_per_second: float, utilization: float
) -> float:
    """FLOPs that dollars buy; errors as of `flops_of_gpu_hours`."""
    _check(dollars=dollars, dollars_per_gpu_hour=dollars_per_gpu_hour)
    hours = dollars / dollars_per_gpu_hour
    return flops_of_gpu_hours(hours, peak_flops_per_second=peak_flops_per_second, utilization=utilization)


def _check(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise SplitError(f"{name} must be positive and finite, got {value!r}")
