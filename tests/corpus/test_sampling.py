"""Streams: every window once an epoch, every share within a window, the same at any position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.corpus.sampling import MAX_PERIOD, mixture_of, shuffled_windows
from raysplit.errors import CorpusError


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    raw = draw(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6))
    return {f"domain{i}": value / sum(raw) for i, value in enumerate(raw)}


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 5))
def test_an_epoch_visits_every_window_once(n: int, seed: int, epoch: int) -> None:
    visited = shuffled_windows(np.arange(epoch * n, (epoch + 1) * n), n_windows=n, seed=seed, domain="code")
    assert np.array_equal(np.sort(visited), np.arange(n))


@given(n=st.integers(1, 10**12), start=st.integers(0, 10**13))
def test_windows_stay_inside_a_domain_of_any_size(n: int, start: int) -> None:
    visited = shuffled_windows(start + np.arange(20), n_windows=n, seed=1, domain="code")
    assert visited.min() >= 0
    assert visited.max() < n


def test_epochs_seeds_and_domains_are_shuffled_differently() -> None:
    n = 1000
    orders = [
        shuffled_windows(np.arange(n) + epoch * n, n_windows=n, seed=seed, domain=domain)
        for epoch, seed, domain in [(0, 0, "code"), (1, 0, "code"), (0, 1, "code"), (0, 0, "law")]
    ]
    for i, one in enumerate(orders):
        # A random permutation leaves about one element in its place.
        assert np.count_nonzero(one == np.arange(n)) < 12
        for other in orders[:i]:
            assert np.count_nonzero(one == other) < 12


def test_a_stream_looks_shuffled() -> None:
    """Neighbours in the stream lie as far apart in the text as independent draws do: a third of it."""
    n = 20_000
    order = shuffled_windows(np.arange(n), n_windows=n, seed=3, domain="code")
    assert np.abs(np.diff(order)).mean() / n == pytest.approx(1 / 3, abs=0.01)


@given(shares=shares(), position=st.integers(0, 5 * MAX_PERIOD))
def test_every_domain_keeps_within_one_window_of_its_share(shares: dict[str, float], position: int) -> None:
    mixture = mixture_of(shares)
    given_windows = {name: mixture.windows_given(position, name) for name in shares}
    assert sum(given_windows.values()) == position
    for name, count in given_windows.items():
        assert abs(count - mixture.shares[name] * position) < 1
        assert mixture.shares[name] == pytest.approx(shares[name], abs=1 / MAX_PERIOD)


@given(shares=shares())
def test_within_a_period_no_domain_ever_drifts_a_whole_window(shares: dict[str, float]) -> None:
    mixture = mixture_of(shares)
    taken = mixture.order[:, None] == np.arange(len(shares))
    positions = np.arange(1, len(mixture.order) + 1)[:, None]
    drift = np.cumsum(taken, axis=0) - positions * np.array(list(mixture.shares.values()))
    assert np.abs(drift).max() < 1


@pytest.mark.parametrize(
    ("shares", "period"),
    [({"a": 1.0}, 1), ({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, 4), ({"a": 0.5, "b": 0.3, "c": 0.2}, 10)],
)
def test_round_shares_are_met_exactly_by_a_short_period(shares: dict[str, float], period: int) -> None:
    mixture = mixture_of(shares)
    assert len(mixture.order) == period
    assert mixture.shares == pytest.approx(shares, abs=1e-15)


@given(shares=shares(), start=st.integers(0, 100_000), n=st.integers(1, 300))
def test_located_places_follow_each_other_in_every_domain(shares: dict[str, float], start: int, n: int) -> None:
    mixture = mixture_of(shares)
    numbers, places = mixture.locate(start + np.arange(n))
    for k, name in enumerate(mixture.domains):
        first = mixture.windows_given(start, name)
        assert np.array_equal(places[numbers == k], first + np.arange(np.count_nonzero(numbers == k)))


def test_a_share_below_one_window_in_a_period_is_refused() -> None:
    with pytest.raises(CorpusError, match="domain 'tiny'"):
        mixture_of({"big": 1 - 1e-7, "tiny": 1e-7})
