"""Balanced k-means against a solver of the same transportation problem, and what it promises of sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from raysplit.discover.clusterer import squared_distances
from raysplit.discover.kmeans import balanced_kmeans, capacity_offsets


def blobs(sizes: tuple[int, ...], *, seed: int = 0, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Points about as many corners as there are sizes, and which corner each is of."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes))[kinds] + noise * rng.normal(size=(len(kinds), len(sizes))), kinds


@given(seed=st.integers(0, 10_000), k=st.integers(2, 4), balance=st.floats(1.1, 2.0))
def test_offsets_give_the_cheapest_assignment_under_a_capacity(seed: int, k: int, balance: float) -> None:
    """Within the auction's step and a point a cluster; the solver may cut points in parts, so it is never dearer."""
    rng = np.random.default_rng(seed)
    n = 60
    distances, weights = rng.random((n, k)), rng.uniform(0.5, 1.5, n)
    capacity = balance * weights.sum() / k
    labels = np.argmin(distances + capacity_offsets(distances, weights, capacity=capacity), axis=1)
    assert np.bincount(labels, weights, k).max() <= capacity
    loads = np.kron(np.ones((1, n)), np.eye(k)) * np.repeat(weights, k)  # (k, n k)
    best = linprog(
        (weights[:, None] * distances).ravel(),
        A_ub=loads, b_ub=np.full(k, capacity), A_eq=np.kron(np.eye(n), np.ones(k)), b_eq=np.ones(n),
    )  # fmt: skip
    assert best.fun is not None
    cost = weights @ distances[np.arange(n), labels]
    assert best.fun - 1e-9 <= cost <= best.fun + 1e-3 * weights.sum() + 1.5 * k * np.ptp(distances) / 4


def test_offsets_are_zero_where_nothing_is_full() -> None:
    points, _ = blobs((20, 20, 20))
    distances = squared_distances(points, np.eye(3))
    assert capacity_offsets(distances, np.ones(60), capacity=21.0).tolist() == [0, 0, 0]


def test_clusters_that_are_there_are_found_the_heaviest_first() -> None:
    points, kinds = blobs((10, 30, 20))
    found = balanced_kmeans(points, np.ones(60), k=3, balance=None, seed=0, restarts=5)
    assert found.labels.tolist() == np.array([2, 0, 1])[kinds].tolist()
    assert found.offsets.tolist() == [0, 0, 0]
    assert found.evenness == pytest.approx(1.5)


@pytest.mark.parametrize("balance", [1.1, 1.5])
def test_no_cluster_is_heavier_than_asked(balance: float) -> None:
    points, _ = blobs((200, 40, 30, 30))
    weights = np.random.default_rng(1).lognormal(size=300)
    plain = balanced_kmeans(points, weights, k=4, balance=None, seed=0, restarts=3)
    found = balanced_kmeans(points, weights, k=4, balance=balance, seed=0, restarts=3)
    assert plain.evenness > balance >= found.evenness
    nearest = np.argmin(squared_distances(points, found.centres) + found.offsets, axis=1)
    assert nearest.tolist() == found.labels.tolist(), "the rule that new points follow"
    assert plain.cost < found.cost


def test_what_cannot_be_balanced_is_as_even_as_it_gets() -> None:
    """Equal points stay together, whatever they weigh."""
    points = np.array([[0.0, 1.0]] * 9 + [[1.0, 0.0]])
    found = balanced_kmeans(points, np.ones(10), k=2, balance=1.2, seed=0, restarts=2)
    assert found.evenness == pytest.approx(1.8)


def test_the_seed_decides() -> None:
    points = np.random.default_rng(0).normal(size=(100, 5))
    one, same, other = (
        balanced_kmeans(points, np.ones(100), k=5, balance=1.5, seed=seed, restarts=2) for seed in (0, 0, 1)
    )
    assert one.centres.tobytes() == same.centres.tobytes()
    assert one.centres.tobytes() != other.centres.tobytes()
