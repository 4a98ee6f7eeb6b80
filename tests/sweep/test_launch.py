"""What is refused before a sweep starts anything."""

import pytest

from raysplit.errors import RunError
from raysplit.sweep.launch import check_opening
from tests.design.doubles import spec


def test_a_budget_below_the_opening_round_is_refused() -> None:
    with pytest.raises(RunError, match=r"sweep\.budget_flops = 1e\+06 is less than the .* FLOPs of the opening"):
        check_opening(spec(budget_flops=1e6))
    check_opening(spec(budget_flops=4e12))
    check_opening(spec(budget_flops=1e6, policy="grid"))  # which spends what the grid takes, and says so in its plan
