"""Which window of which domain comes at which position: pure functions of (seed, position), no state.

A domain's training tokens are cut into windows of `context_length` targets. The domain's stream visits them in a
permutation that (seed, domain, epoch) fixes; the mixture's stream interleaves the domain streams by share. A branch
goes on with its domain's stream where the trunk left it. A branch that replays goes on with the mixture's stream as
well. So no path sees a window twice within an epoch.

Notation
    W       windows of one domain
    p       position in a domain's stream, windows; epoch p // W
    s       position in the mixture's stream, windows
    q, r    position in a branch, windows; the share of the branch's windows that come from the mixture
    P, n_k  period of the mixture, and how many of its windows come from domain k; the share realised is n_k / P
"""

import hashlib
import heapq
from dataclasses import dataclass

import numpy as np

from raysplit.errors import CorpusError

MAX_PERIOD = 16_384
_EXACT = 1e-9  # rounding of a share that was written with a dozen digits
_FEISTEL_ROUNDS = 6


def shuffled_windows(positions: np.ndarray, *, n_windows: int, seed: int, domain: str) -> np.ndarray:
    """Windows that a domain's stream visits at ``positions``.

    Args:
        positions: (n,) places in the stream, windows; not negative.
        n_windows: W.
        seed: of the run; with the domain's name and the epoch it fixes the permutation.
        domain: the domain's name.

    Returns:
        (n,) int64 window numbers in [0, W); any W positions of one epoch give each window once.
    """
    epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), n_windows)
    windows = np.empty_like(places)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        windows[chosen] = _permute(places[chosen], n=n_windows, key=_key(seed, domain, int(epoch)))
    return windows


def _key(seed: int, domain: str, epoch: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{epoch}/{domain}".encode(), digest_size=8).digest(), "little")


def _permute(values: np.ndarray, *, n: int, key: int) -> np.ndarray:
    """Image of ``values`` under a keyed permutation of [0, n), without a table of n entries.

    A balanced Feistel network is a bijection of the even-bit range above n, whatever its round function (Luby and
    Rackoff 1988); values that land at n or above walk on along their cycle until they are back inside (Black and
    Rogaway 2002). The range is at most 4 n, so at most four steps are expected.
    """
    half_bits = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    round_keys = _mix(np.arange(1, _FEISTEL_ROUNDS + 1, dtype=np.uint64) ^ np.uint64(key))
    out: np.ndarray = values.astype(np.uint64)
    outside = np.ones(out.shape, dtype=bool)
    while outside.any():
        left, right = out[outside] >> half_bits, out[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        out[outside] = (left << half_bits) | right
        outside = out >= n
    return out.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): scatters 64-bit words; products wrap on purpose."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A periodic order of domains in which every domain keeps within one window of its share at every position."""

    domains: tuple[str, ...]
    order: np.ndarray
    """(P,) domain number of each window of the period."""
    rank: np.ndarray
    """(P,) how many earlier windows of the period come from the same domain."""
    counts: np.ndarray
    """(K,) n_k, windows of each domain in a period."""

    @property
    def shares(self) -> dict[str, float]:
        """The shares realised, n_k / P."""
        return {name: float(n) / len(self.order) for name, n in zip(self.domains, self.counts, strict=True)}

    def windows_given(self, position: int, domain: str) -> int:
        """How many of the mixture's first ``position`` windows came from ``domain``."""
        return int(self.windows_given_at(np.array([position]), domain)[0])

    def windows_given_at(self, positions: np.ndarray, domain: str) -> np.ndarray:
        """(n,) `windows_given` at each of ``positions`` (n,)."""
        k = self.domains.index(domain)
        periods, rest = np.divmod(np.asarray(positions, dtype=np.int64), len(self.order))
        before = np.concatenate([[0], np.cumsum(self.order == k)])
        return periods * self.counts[k] + before[rest]

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of the mixture's ``positions``: the domain number, and the position in that domain's stream."""
        periods, slots = np.divmod(np.asarray(positions, dtype=np.int64), len(self.order))
        chosen = self.order[slots]
        return chosen, periods * self.counts[chosen] + self.rank[slots]


def replayed_windows(positions: np.ndarray, share: float) -> np.ndarray:
    """How many of a branch's first q windows come from the mixture, for each q in ``positions``: floor(q r).

    So the count is less than one window below the share r at every position. The window at q comes from the mixture if
    the count at q + 1 is higher than at q.

    Args:
        positions: (n,) q, windows.
        share: r, in [0, 1].

    Returns:
        (n,) int64 windows.
    """
    return np.floor(np.asarray(positions, dtype=np.float64) * share).astype(np.int64)


def mixture_of(shares: dict[str, float]) -> Mixture:
    """The mixture's order for these shares.

    Shares become whole windows of a period P: the shortest one that is exact, or `MAX_PERIOD` when none is (each share
    is then off by less than 1 / P). Within the period, window j of domain k may come from floor(j P / n_k) on and must
    come before ceil((j + 1) P / n_k); taking the earliest deadline first meets all of them and keeps every domain less
    than one window from its share (Baruah, Cohen, Plaxton and Varvel 1996, "Proportionate progress").

    Raises:
        CorpusError: a share is too small to be given one window in a period.
    """
    domains = tuple(shares)
    counts = _apportion(np.array([shares[name] for name in domains]))
    if not counts.all():
        name = domains[int(np.argmin(counts))]
        raise CorpusError(
            f"mixture: the share of domain {name!r} is {shares[name]:.3g}; the smallest is {1 / MAX_PERIOD:.3g}"
        )
    period = int(counts.sum())
    order = np.empty(period, dtype=np.int64)
    rank = np.empty(period, dtype=np.int64)
    waiting = [(0, k, 0) for k in range(len(domains))]  # (may come from, domain, j)
    ready: list[tuple[int, int, int]] = []  # (must come before, domain, j)
    for slot in range(period):
        while waiting and waiting[0][0] <= slot:
            _, k, j = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(j + 1) * period // int(counts[k])), k, j))
        _, k, j = heapq.heappop(ready)
        order[slot], rank[slot] = k, j
        if j + 1 < counts[k]:
            heapq.heappush(waiting, ((j + 1) * period // int(counts[k]), k, j + 1))
    return Mixture(domains=domains, order=order, rank=rank, counts=counts)


def _apportion(shares: np.ndarray) -> np.ndarray:
    """(K,) whole windows of the shortest exact period, or of `MAX_PERIOD` by largest remainder."""
    periods = np.arange(len(shares), MAX_PERIOD + 1)[:, None]
    whole = np.rint(shares * periods).astype(np.int64)  # (periods, K)
    misses = np.abs(shares * periods - whole).max(axis=1)
    exact = (whole.sum(axis=1) == periods[:, 0]) & (misses < _EXACT * periods[:, 0])
    if exact.any():
        return whole[np.argmax(exact)]
    quotas = shares * MAX_PERIOD
    counts = np.floor(quotas).astype(np.int64)
    largest_remainders = np.argsort(counts - quotas, kind="stable")
    counts[largest_remainders[: MAX_PERIOD - int(counts.sum())]] += 1
    return counts
