"""The inner problem against brute force, on every form and on losses that saturate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from benchmarks.law.split_recovery import CENTRES
from raysplit.law import FORMS, Law
from raysplit.law.form import Array
from raysplit.split.allocate import allocate, pour
from raysplit.split.surface import MeanSurface
from tests.split.doubles import law_of

UNIQUE_TOKENS = 3e4


class Repeated(Law):
    """Tokens beyond the unique ones count for less and less, as repeated data do (2305.16264, eq. 5)."""

    def loss(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
        return super().loss(n_params, pretrain_tokens, self._worth(np.asarray(specialize_tokens, dtype=float))[0])

    def slope(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
        worth, rate = self._worth(np.asarray(specialize_tokens, dtype=float))
        return super().slope(n_params, pretrain_tokens, worth) * rate

    def _worth(self, s: Array) -> tuple[Array, Array]:
        unique = UNIQUE_TOKENS * 10.0 ** np.arange(len(self.domains))
        rate = np.exp(-np.maximum(s / unique - 1, 0) / 5)
        return np.where(s < unique, s, unique * (1 + 5 * (1 - rate))), rate


def random_law(form: str, *, seed: int, kind: type[Law] = Law) -> Law:
    rng = np.random.default_rng(seed)
    medians = np.array([CENTRES[form][parameter.name] for parameter in FORMS[form].parameters])
    return law_of(medians * np.exp(rng.normal(0, 0.4, (1, 3, medians.size))), form=form, kind=kind)


def simplex(total: float, *, points: int = 121) -> Array:
    """Every share-out of a total among three domains on a grid, denser near zero."""
    first, second = np.meshgrid(np.linspace(0, 1, points) ** 2, np.linspace(0, 1, points))
    return total * np.stack([first, second * (1 - first), (1 - first) * (1 - second)], axis=-1).reshape(-1, 3)


@pytest.mark.parametrize("total", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("form", list(CENTRES))
@pytest.mark.parametrize("kind", [Law, Repeated])
def test_no_share_out_on_a_grid_is_better(form: str, total: float, kind: type[Law]) -> None:
    for seed in range(3):
        law = random_law(form, seed=seed, kind=kind)
        surface = MeanSurface(law, law.domains, [1 / 6, 3 / 6, 2 / 6])
        n, d = np.full((1, 1), 36e3), np.full((1, 1), 1e6)
        s = allocate(surface, n, d, np.full((1, 1), total), np.full(3, np.inf))
        if "cooldown" not in form or s.sum() > 0:  # a little is better not spent where a cooled seed is there
            assert s.sum() == pytest.approx(total, rel=1e-12)
        grid = simplex(total)[None]
        lowest = surface.loss(n, d, grid).min()
        # When a domain has been left at the seed, the others share its tokens in proportion, which is not quite exact.
        slack = 1e-9
        assert surface.loss(n, d, s)[0, 0] <= lowest * (1 + slack)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), n=st.integers(1, 6))
def test_pouring_meets_the_total_within_the_caps_at_one_level(data: st.DataObject, n: int) -> None:
    def numbers(low: float, high: float) -> Array:
        return np.array([data.draw(st.lists(st.floats(low, high), min_size=n, max_size=n))])

    a, b, caps = numbers(-10, 10), numbers(1e-3, 10), numbers(0, 10)
    total = caps.sum(axis=-1) * data.draw(st.floats(0, 1))
    s = pour(a, b, caps, total)
    assert s.sum() == pytest.approx(total[0], abs=1e-9)
    assert ((s >= 0) & (s <= caps)).all()
    inside = (s > 1e-9) & (s < caps - 1e-9)
    levels = ((s - a) / b)[inside]
    if levels.size:
        assert np.ptp(levels) <= 1e-5 * (1 + np.abs(levels).max())
        dry = (s <= 1e-9) & (caps > 1e-9)
        assert ((-a / b)[dry] >= levels.min() - 1e-5 * (1 + np.abs(levels).max())).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_best_point_is_the_same_where_corners_are_asked_only_near_it(seed: int) -> None:
    law = random_law("law-2+cooldown", seed=seed)
    surface = MeanSurface(law, law.domains, [1 / 6, 3 / 6, 2 / 6])
    d = np.geomspace(3e4, 3e6, 12)[None]
    n, rest = np.full_like(d, 36e3), 3.2e6 - d
    every, near = (allocate(surface, n, d, rest, np.full(3, np.inf), behind=b) for b in (np.inf, 0.0))
    losses, asked = (surface.loss(n, d, s)[0] for s in (every, near))
    best = np.argmin(losses)
    assert (every[0] == near[0]).all(axis=-1)[best]
    assert np.argmin(asked) == best
    assert (asked >= losses).all()
