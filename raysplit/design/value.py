"""What an observation is worth: how much it is expected to improve the split at the target budget.

The posterior over laws is a set of B equally likely draws. Under draw b the split that is best under draw a loses
R[b, a] (regret, a share of the loss). Today one must take the split that is best on average; after an observation the
draws that foresaw it weigh more, and another split may be best. The expected drop is the observation's value, the
expected value of sample information (Raiffa & Schlaifer 1961, chapter 4), by importance weights over the draws.

Notation
    B   draws, both as possible truths and, through their best splits, as possible decisions
    M   candidate observations
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from raysplit.split import Problem, best_split_per_draw, losses_of
from raysplit.split.surface import LawLike

Array = NDArray[np.float64]

_CHUNK = 256  # candidates at once: 256 x B x B doubles are 8 MB at B = 64


class NoisyLaw(LawLike, Protocol):
    """A law that also knows the noise of one observation; `raysplit.law.Law` is one."""

    @property
    def noise(self) -> Array: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """What the draws say of the decision, with what has been seen since they were made.

    Observing is multiplying in a likelihood, so beliefs compose: `seen` after one observation, `expecting` for trials
    that are on their way.
    """

    regret: Array
    """(B, B) R[b, a]: what the split that is best under draw a loses when draw b is true, as a share of the loss."""
    log_weights: Array
    """(B,) unnormalised log probability of each draw."""
    apart: Array
    """(B, B) squared distance between what two draws foresee of the trials on their way, in standard deviations."""

    @property
    def probability(self) -> Array:
        """(B,)"""
        return _softmax(self.log_weights)

    @property
    def expected_regret(self) -> float:
        """Of the split that is best on average today."""
        return float((self.probability @ self.regret).min())

    def seen(self, foreseen: Array, observed: float, noise: float) -> "Belief":
        """The belief after a log loss ``observed`` where the draws had ``foreseen`` (B,), with a noise of that sd."""
        log_likelihood = -0.5 * ((foreseen - observed) / noise) ** 2
        return Belief(regret=self.regret, log_weights=self.log_weights + log_likelihood, apart=self.apart)

    def expecting(self, apart: Array) -> "Belief":
        """The belief with more observations on their way, which foresee (B, B) ``apart``."""
        return Belief(regret=self.regret, log_weights=self.log_weights, apart=self.apart + apart)

    def values(self, apart: Array) -> Array:
        """Expected drop of regret for each candidate's (M, B, B) ``apart``, beyond the trials on their way, (M,)."""
        without = self._value(self.apart[None])[0]
        chunks = [self._value(self.apart + apart[i : i + _CHUNK]) for i in range(0, len(apart), _CHUNK)]
        return np.maximum(np.concatenate([np.zeros(0), *chunks]) - without, 0.0)

    def _value(self, apart: Array) -> Array:
        probability = self.probability
        # The outcome is drawn from draw j plus noise, and judged by draw b with the same noise: their squared distance
        # enters over 2 x 2 sigma^2, which averages the likelihood over the outcome's noise.
        after = _softmax(self.log_weights - 0.25 * apart)  # (M, B outcomes, B truths)
        best_after = (after @ self.regret).min(axis=-1)  # (M, B outcomes)
        # The averaged likelihood is not exactly a posterior; no observation can make the decision worse, though.
        return np.maximum(self.expected_regret - best_after @ probability, 0.0)


def belief_of(law: LawLike, problem: Problem) -> Belief:
    """The belief that a law's draws give before anything else is seen.

    Raises:
        SplitError: no split satisfies the problem.
    """
    best = best_split_per_draw(law, problem)
    losses = losses_of(law, list(best), problem)  # (B truths, B splits)
    regret = np.maximum(losses / best.loss[:, None] - 1.0, 0.0)
    n_draws = len(regret)
    return Belief(regret=regret, log_weights=np.zeros(n_draws), apart=np.zeros((n_draws, n_draws)))


def foreseen_log_loss(law: LawLike, n_params: Array, pretrain_tokens: Array, specialize_tokens: Array) -> Array:
    """Log loss of every domain that each draw foresees at M points, (B, M, K)."""
    points = (np.asarray(x, dtype=float)[None, :, None] for x in (n_params, pretrain_tokens, specialize_tokens))
    return np.log(law.loss(*points))


def distances(foreseen: Array, noise: Array) -> Array:
    """(M, B, B) squared distances in standard deviations of (B, M, K) foreseen log losses, summed over domains.

    ``noise`` (M, K) is the standard deviation of each observation, infinite for a domain that a point does not measure.
    """
    scaled = foreseen / noise  # (B, M, K)
    return ((scaled[:, None] - scaled[None]) ** 2).sum(axis=-1).transpose(2, 0, 1)


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
