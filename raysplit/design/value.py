"""What observations are worth: how much they are expected to improve the split at the target budget.

The posterior over laws is a set of B equally likely draws. Under draw b the split that is best under draw a loses
R[b, a] (regret, a share of the loss). Today the best choice is the split whose regret is least on average. Observations
move those averages, and after them another split may be best. They are worth the expected drop of the least average:
the expected value of sample information (Raiffa & Schlaifer 1961, chapter 4).

Regrets and observations are taken as jointly normal with the draws' covariance, as the knowledge gradient does for
correlated beliefs (Frazier, Powell & Dayanik 2009, equation 11). Weighing the draws by likelihood instead would be
exact for these B laws, but an observation with less noise than the draws' spread would then seem to settle everything:
among 64 draws hardly two agree on it, among all laws very many do.

Notation
    B   draws, both as possible truths and, through their best splits, as possible decisions (A = B of them)
    X   scalars that could be observed: the log loss of one domain at one (N, D, D')
    M   candidate groups of up to m observations made together
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from raysplit.design.criteria import expecting
from raysplit.law.starts import unit_points
from raysplit.split import Problem
from raysplit.split.replay import losses_of_best
from raysplit.split.surface import LawLike

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_OUTCOMES = 32
"""Outcomes over which the expectation is taken."""
_CHUNK = 256
_SHARED_ERROR = 0.3
"""How much observations of one branch err together (its trunk's luck, the form's misfit there), as a correlation."""


class NoisyLaw(LawLike, Protocol):
    """A law that also knows the noise of one observation; `raysplit.law.Law` is one."""

    @property
    def noise(self) -> Array: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """What the draws say of the decision and of what could be observed; observing gives another belief."""

    regret: Array
    """(B, A) R[b, a]: what the split that is best under draw a loses when draw b is true, as a share of the loss."""
    target: Array
    """(B, A) log loss of each of those splits under each draw."""
    foreseen: Array
    """(B, X) what each draw foresees."""
    noise: Array
    """(X,) standard deviation of each observation, infinite for one that is not made."""

    @property
    def expected_regret(self) -> float:
        """Mean regret of the split that is best on average today, a share of the loss, at least 0."""
        return max(float(self.regret.mean(axis=0).min()), 0.0)

    def expecting(self, group: Sequence[int]) -> "Belief":
        """The belief with a group of observations on its way, whose outcome is not known."""
        wanted = np.concatenate([self.regret, self.target], axis=1)
        foreseen, wanted = expecting(self.foreseen, wanted, group, self._noise_of(group))
        regret, target = np.split(wanted, [self.regret.shape[1]], axis=1)
        return replace(self, foreseen=foreseen, regret=regret, target=target)

    def seen(self, group: Sequence[int], observed: Sequence[float]) -> "Belief":
        """The belief after a group's observations came out as ``observed``, log losses."""
        belief, noise = self, self._noise_of(group)
        for index, value in zip(group, observed, strict=True):
            here = belief.foreseen[:, index] - belief.foreseen[:, index].mean()
            if not np.isfinite(noise[index]):
                continue
            news = (value - belief.foreseen[:, index].mean()) / ((here @ here) + len(here) * noise[index] ** 2)
            moved = {name: getattr(belief, name) for name in ("regret", "target", "foreseen")}
            shift = {name: news * (here @ (x - x.mean(axis=0))) for name, x in moved.items()}
            belief = replace(belief, noise=noise).expecting([index])
            belief = replace(belief, **{name: getattr(belief, name) + shift[name] for name in moved})
        return replace(belief, noise=self.noise)

    def values(self, groups: Index) -> Array:
        """Expected drop of regret by each group (M, m) of observations, (M,); an index of -1 stands for none."""
        chunks = [self._values(groups[i : i + _CHUNK]) for i in range(0, len(groups), _CHUNK)]
        return np.concatenate([np.zeros(0), *chunks])

    def _values(self, groups: Index) -> Array:
        mean = self.regret.mean(axis=0)
        told = self.told(groups, self.regret)  # (M, m, A)
        outcomes = mean + np.matmul(_normals(groups.shape[1]), told)  # (M, outcomes, A)
        # An average regret below zero is the normal's tail and not a gain.
        after = np.maximum(outcomes.min(axis=-1), 0.0).mean(axis=-1)
        return np.maximum(self.expected_regret - after, 0.0)

    def told(self, groups: Index, wanted: Array) -> Array:
        """By how much the mean of ``wanted`` (B, Q) moves with each independent standard piece of news, (M, m, Q).

        Its squares sum to the variance that the group takes off.
        """
        apart, root = self._in_noise(groups)
        crossed = np.matmul(apart.transpose(0, 2, 1), (wanted - wanted.mean(axis=0)) / np.sqrt(len(wanted)))
        return np.asarray(np.linalg.solve(root, crossed), dtype=float)

    def information(self, groups: Index) -> Array:
        """Nats that each group (M, m) is expected to tell of the law, (M,): half the log determinant."""
        _, root = self._in_noise(groups)
        return np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)

    def _in_noise(self, groups: Index) -> tuple[Array, Array]:
        """What the draws foresee of each group in units of its noise (M, B, m), and a root of its covariance."""
        there = groups >= 0
        size = there.sum(axis=1)
        n_draws = len(self.foreseen)
        root = 1.0 / np.sqrt(n_draws)
        apart = (self.foreseen[:, groups] - self.foreseen.mean(axis=0)[groups]) * np.where(there, root, 0.0)
        apart = apart.transpose(1, 0, 2)  # (M, B, m)
        noise = np.where(there, self.noise[groups], 1.0) * _inflation(size)[:, None]
        noise = np.where(np.isfinite(noise), noise, 1e6)
        # In units of the noise, so that the matrix is never near singular.
        apart = apart / noise[:, None, :]
        system = np.matmul(apart.transpose(0, 2, 1), apart) + np.eye(groups.shape[1])
        return apart, np.linalg.cholesky(system)

    def _noise_of(self, group: Sequence[int]) -> Array:
        noise = self.noise.copy()
        noise[list(group)] *= _inflation(np.array(len(group)))
        return noise


def belief_of(law: NoisyLaw, problem: Problem, n: Array, d: Array, s: Array) -> Belief:
    """The belief that a law's draws give, of every domain's log loss at P points (P,).

    ``foreseen`` has P x K columns: the domains (in the law's order) of the first point, then of the second.

    Raises:
        SplitError: no split satisfies the problem.
    """
    losses, lowest = losses_of_best(law, problem)  # (B truths, B splits)
    regret = np.maximum(losses / lowest[:, None] - 1.0, 0.0)
    points = (np.asarray(x, dtype=float)[None, :, None] for x in (n, d, s))
    foreseen = np.log(law.loss(*points)).reshape(law.n_draws, -1)
    return Belief(regret=regret, target=np.log(losses), foreseen=foreseen, noise=np.tile(law.noise, len(n)))


def _inflation(size: NDArray[np.intp]) -> Array:
    """By how much each observation of a group of so many is noisier for the error that they share."""
    return np.sqrt(1 + _SHARED_ERROR * np.maximum(size - 1, 0))


def _normals(n_dimensions: int) -> Array:
    """(outcomes, m) standard normals that fill the space evenly, each with its opposite, so that they average zero."""
    half = ndtri(np.clip(unit_points(n_dimensions, _OUTCOMES // 2, seed=0), 1e-6, 1 - 1e-6))
    half /= np.sqrt((half**2).mean(axis=0))
    return np.concatenate([half, -half])
