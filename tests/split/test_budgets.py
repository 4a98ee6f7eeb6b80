"""Budgets in other units."""

import pytest

from raysplit.errors import SplitError
from raysplit.split.budgets import (
    flops_of_dollars,
    flops_of_gpu_hours,
    flops_of_tokens,
    gpu_hours_of_flops,
    peak_flops_per_second,
)


def test_units_convert_both_ways() -> None:
    peak = peak_flops_per_second("H100")
    flops = flops_of_gpu_hours(10, peak_flops_per_second=peak, utilization=0.4)
    assert flops == pytest.approx(10 * 3600 * 989e12 * 0.4)
    assert gpu_hours_of_flops(flops, peak_flops_per_second=peak, utilization=0.4) == pytest.approx(10)
    bought = flops_of_dollars(20, dollars_per_gpu_hour=2, peak_flops_per_second=peak, utilization=0.4)
    assert bought == pytest.approx(flops)
    assert flops_of_tokens(2e9, flops_per_token=6e8) == pytest.approx(1.2e18)


def test_wrong_values_are_named() -> None:
    with pytest.raises(SplitError, match=r"unknown GPU 'H10'.*did you mean 'H100'"):
        peak_flops_per_second("H10")
    with pytest.raises(SplitError, match="utilization is a share of the peak"):
        flops_of_gpu_hours(1, peak_flops_per_second=1e15, utilization=40)
    with pytest.raises(SplitError, match="gpu_hours must be positive and finite, got -1"):
        flops_of_gpu_hours(-1, peak_flops_per_second=1e15, utilization=0.4)
