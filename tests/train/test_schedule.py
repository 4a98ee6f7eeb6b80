"""The learning rate as a function of position: warm-up, constant, cooldown to nearly nothing."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.design.tree import Node, Segment
from raysplit.space import TrainingSpec
from raysplit.train.schedule import learning_rate
from tests.train.conftest import make_space

BATCH = 256
N = 14_000
TRAINING: TrainingSpec = make_space(Path("."), branch_warmup_tokens=512).training
HORIZON = 100_000
PEAK = TRAINING.learning_rate.peak(N, HORIZON)


def rates(segment: Segment, training: TrainingSpec = TRAINING, horizon_tokens: int = HORIZON) -> list[float]:
    positions = range(segment.start_tokens, segment.end_tokens, BATCH)
    return [
        learning_rate(segment, position, training=training, n_params=N, horizon_tokens=horizon_tokens)
        for position in positions
    ]


def segment(*, start: int, n_steps: int, cooldown: bool, domain: str = "", root: int = 0) -> Segment:
    at = (
        Node(n_params=N, seed=0, pretrain_tokens=root, domain=domain if start else "", specialize_tokens=start)
        if domain
        else Node(n_params=N, seed=0, pretrain_tokens=start)
    )
    return Segment(
        start=at, end_tokens=start + n_steps * BATCH, domain=domain, cooldown_tokens=cooldown * n_steps * BATCH
    )


@given(n_steps=st.integers(4, 200))
def test_warms_up_in_a_straight_line_and_stays(n_steps: int) -> None:
    found = rates(segment(start=0, n_steps=n_steps, cooldown=False))
    warm = TRAINING.warmup_tokens // BATCH
    assert found[:warm] == pytest.approx([PEAK * (i + 1) / warm for i in range(min(warm, n_steps))])
    assert all(rate == PEAK for rate in found[warm - 1 :])


@given(start=st.integers(8, 400), n_steps=st.integers(1, 200))
def test_a_cooldown_falls_in_a_straight_line_to_nearly_zero(start: int, n_steps: int) -> None:
    found = rates(segment(start=start * BATCH, n_steps=n_steps, cooldown=True))
    assert all(a > b for a, b in pairwise(found))
    assert 0 < found[-1] == pytest.approx(PEAK / (n_steps + 1))
    assert found[0] == pytest.approx(PEAK * n_steps / (n_steps + 1))
    falls = {round((a - b) / PEAK, 12) for a, b in pairwise(found)}
    assert len(falls) <= 1


@given(cut=st.integers(1, 49))
def test_a_resumed_run_has_the_rates_of_an_uninterrupted_one(cut: int) -> None:
    whole = rates(segment(start=0, n_steps=50, cooldown=False))
    first = rates(segment(start=0, n_steps=cut, cooldown=False))
    assert first + rates(segment(start=cut * BATCH, n_steps=50 - cut, cooldown=False)) == whole


def test_a_branch_warms_up_as_long_as_what_it_starts_from_asks() -> None:
    scratch = rates(segment(start=0, n_steps=10, cooldown=False, domain="law", root=0))
    branch = rates(segment(start=0, n_steps=10, cooldown=False, domain="law", root=4096))
    later = rates(segment(start=2048, n_steps=10, cooldown=False, domain="law", root=4096))
    assert scratch == rates(segment(start=0, n_steps=10, cooldown=False))
    assert branch[0] == PEAK / 2
    assert branch[1] == PEAK
    assert set(later) == {PEAK}


def test_a_branch_has_its_own_share_of_the_trunk_s_rate() -> None:
    half = make_space(Path("."), branch_warmup_tokens=512, branch_rate_factor=0.5).training
    at = segment(start=0, n_steps=10, cooldown=False, domain="law", root=4096)
    assert rates(at, half) == [0.5 * rate for rate in rates(at)]
    for same in (
        segment(start=0, n_steps=10, cooldown=False, domain="law", root=0),
        segment(start=0, n_steps=10, cooldown=False),
    ):
        assert rates(same, half) == rates(same)


def test_the_rate_follows_the_horizon_and_not_the_end_of_a_trunk() -> None:
    rule = {"reference": 1e-2, "reference_params": "14k", "reference_tokens": HORIZON, "token_exponent": -0.5}
    falling = make_space(Path("."), learning_rate=rule).training
    short, long = (segment(start=0, n_steps=n, cooldown=False) for n in (20, 40))
    assert rates(short, falling) == rates(long, falling)[:20]
    assert rates(short, falling, 4 * HORIZON) == pytest.approx([rate / 2 for rate in rates(short, falling)])
