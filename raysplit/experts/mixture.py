"""Mixtures of token probabilities: arithmetic on the log-probabilities that each expert gives to the same tokens.

Notation
    K   experts        n   tokens of all sequences, one after another        r   sequences
    p_k(x_t)   probability that expert k gives to token t given the tokens before it
    w_k        weight of expert k before the first token: the prior

With fixed weights p(x_t) = sum_k w_k p_k(x_t). Updated weights are the posterior, w_k(t) ~ w_k prod_{s<t} p_k(x_s).
Then the probabilities of the tokens multiply to sum_k w_k prod_t p_k(x_t), the probability of a sequence that comes
from one of the experts.
"""

import numpy as np
from scipy.special import logsumexp


def mixture(log_probs: np.ndarray, log_weights: np.ndarray, offsets: np.ndarray, *, updated: bool) -> np.ndarray:
    """Log-probability of each token under the mixture.

    Args:
        log_probs: (K, n) nats.
        log_weights: (K, r) log w_k of each sequence, normalised over K; -inf leaves an expert out.
        offsets: (r + 1,) where each sequence begins among the tokens; the last one is n.
        updated: whether the weights are the posterior of the tokens read.

    Returns:
        (n,) nats.
    """
    sequence = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))  # (n,)
    weights = log_weights[:, sequence]  # (K, n)
    if updated:
        read = np.cumsum(log_probs, axis=1, dtype=np.float64)
        before = np.concatenate([np.zeros((len(read), 1)), read], axis=1)  # (K, n + 1), exclusive
        weights = weights + before[:, :-1] - before[:, offsets[sequence]]
        weights = weights - logsumexp(weights, axis=0)
    return logsumexp(weights + log_probs, axis=0)


def sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(..., r) sum of each sequence's ``values`` (..., n); an empty sequence sums to 0."""
    total = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1, dtype=np.float64)], axis=-1)
    return total[..., offsets[1:]] - total[..., offsets[:-1]]
