"""The mathematics of mixtures: exact against what they are defined by, for any experts and weights."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from raysplit.experts.mixture import mixture, sums


@st.composite
def told(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K, n) log-probabilities, (K, r) log-weights of which some may be -inf, (r + 1,) offsets."""
    k, lengths = draw(st.integers(1, 5)), draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offsets = np.cumsum([0, *lengths])
    log_probs = -rng.exponential(draw(st.sampled_from([0.1, 3.0, 30.0])), size=(k, offsets[-1]))
    weights = rng.dirichlet(np.ones(k), size=len(lengths)).T * (rng.random((k, len(lengths))) < 0.7)
    weights[0] += 1e-3
    with np.errstate(divide="ignore"):
        return log_probs, np.log(weights / weights.sum(axis=0)), offsets


@given(told())
def test_updated_weights_give_the_sequence_likelihood_of_one_expert_drawn_by_the_prior(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    log_probs, log_weights, offsets = case
    found = sums(mixture(log_probs, log_weights, offsets, updated=True), offsets)
    exact = logsumexp(log_weights + sums(log_probs, offsets), axis=0)
    np.testing.assert_allclose(found, exact, atol=1e-5)


@given(told())
def test_fixed_weights_mix_each_token(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    log_probs, log_weights, offsets = case
    found = mixture(log_probs, log_weights, offsets, updated=False)
    for number, (start, end) in enumerate(pairwise(offsets)):
        probs = np.exp(log_weights[:, number]) @ np.exp(log_probs[:, start:end])
        np.testing.assert_allclose(np.exp(found[start:end]), probs, rtol=1e-9)


@given(told())
def test_a_mixture_of_all_loses_at_most_ln_k_to_the_best_expert(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Over a sequence where the weights follow the text; at every token where they are fixed."""
    log_probs, _, offsets = case
    k = len(log_probs)
    alike = np.full((k, len(offsets) - 1), -np.log(k))
    followed = sums(mixture(log_probs, alike, offsets, updated=True), offsets)
    assert (followed >= sums(log_probs, offsets).max(axis=0) - np.log(k) - 1e-8).all()
    fixed = mixture(log_probs, alike, offsets, updated=False)
    assert (fixed >= log_probs.max(axis=0, initial=-np.inf) - np.log(k) - 1e-8).all()


@given(told())
def test_no_token_is_likelier_than_its_likeliest_expert_says(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    log_probs, log_weights, offsets = case
    for updated in (False, True):
        assert (mixture(log_probs, log_weights, offsets, updated=updated) <= log_probs.max(axis=0) + 1e-8).all()
