"""A loss that has run away is recognised; one that is merely poor never is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.train.watch import RISE, WINDOWS, Watch

VOCAB = 512
BLIND = math.log(VOCAB)


def complaints(losses: list[float]) -> list[str]:
    watch = Watch(vocab_size=VOCAB)
    return [watch.complaint([loss], loss) for loss in losses]


@given(
    first=st.floats(0.5, BLIND),
    factors=st.lists(st.floats(0.9, 1.0), min_size=1, max_size=40),
    noise=st.lists(st.floats(0.9, 1.1), min_size=41, max_size=41),
)
def test_a_loss_that_falls_or_stays_is_never_diverged_however_poor_and_noisy(
    first: float, factors: list[float], noise: list[float]
) -> None:
    losses = [first]
    for factor in factors:
        losses.append(losses[-1] * factor)
    assert not any(complaints([loss * shake for loss, shake in zip(losses, noise, strict=False)]))


@given(st.floats(0.5, 2.0), st.lists(st.floats(0.5, 20.0), max_size=WINDOWS - 1))
def test_a_short_spike_is_forgiven(trained: float, spike: list[float]) -> None:
    assert not any(complaints([trained, *spike, trained, *spike, trained]))


@given(best=st.floats(0.5, BLIND), above=st.floats(1.01, 10.0), n_well=st.integers(1, 20))
def test_what_stays_above_the_stated_limit_is_diverged(best: float, above: float, n_well: int) -> None:
    limit = max((best + BLIND) / 2, RISE * best)
    said = complaints([best] * n_well + [limit * above] * WINDOWS)
    assert not any(said[:-1])
    assert f"above {limit:.4g} for 50 steps" in said[-1]


def test_training_that_never_gets_below_a_blind_guess_is_diverged_only_well_above_it() -> None:
    assert not any(complaints([1.2 * BLIND] * 50))
    assert any(complaints([1.3 * BLIND] * WINDOWS))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_no_number_is_diverged_at_once(loss: float) -> None:
    watch = Watch(vocab_size=VOCAB)
    assert watch.complaint([], loss) == f"training loss is {loss}"
    assert watch.complaint([3.0, loss], 3.0) == f"training loss is {loss}"


@given(st.lists(st.floats(0.5, 20.0), max_size=30), st.integers(1, 7))
def test_the_verdict_does_not_depend_on_when_one_looks(losses: list[float], at_once: int) -> None:
    one_by_one = complaints(losses)
    watch = Watch(vocab_size=VOCAB)
    looks = [losses[i : i + at_once] for i in range(0, len(losses), at_once)]
    together = [watch.complaint(look, look[-1]) for look in looks]
    first = next(filter(None, one_by_one), "")
    assert next(filter(None, together), "") == first
