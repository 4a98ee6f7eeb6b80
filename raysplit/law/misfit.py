"""One form's misfit: what its fits left, split into a smooth function and noise, and drawn with the parameters.

Draws follow Matheron's rule (Wilson et al. 2020, equation 9): g* is drawn from its prior and e* from the noise, the
parameters are refitted to runs moved by -(g* + e*), and g is g* plus what explains the rest, y - L(theta) - g* - e*.
Where the runs are, draws of form and g together agree with them; beyond, g is the prior's again and the parameters
differ by all that g* may have bent them.

Notation
    K   domains          R   runs of a domain          M   features          B   draws
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysplit.law.basis import Basis
from raysplit.law.discrepancy import BranchPoints, Left, Scales, absorbed, coefficients, prior_draws, scales
from raysplit.law.form import Array
from raysplit.law.noise import Noise, Residuals, estimate_noise
from raysplit.law.status import Fitted

_WIDE = 10.0
"""Prior sd of a parameter without one, on the search scale."""


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """The misfit g of one form in every domain, and the noise that is left; made by `misfit_of`."""

    fitted: Fitted
    left: Sequence[Left]
    features: Sequence[Array]
    """(R, M) a domain, the rows not weighted."""
    scales: Scales
    best: Array
    """Coefficients of g at the best fits, (K, M)."""
    noise: Noise
    """What is left when g is taken off."""

    def prior(self, n_draws: int, rng: np.random.Generator) -> Array:
        """Coefficients of g before any run was seen, (B, K, M)."""
        return prior_draws(self.scales, n_draws, rng)

    def at_runs(self, off: Array, k: int) -> Array:
        """g of a domain at its runs, (B, R), by coefficients (B, K, M)."""
        return np.asarray(off[:, k] @ self.features[k].T)

    def given(self, theta: Sequence[Array], off: Array, errors: Sequence[Array]) -> Array:
        """Coefficients (B, K, M) of each draw.

        Args:
            theta: (B, P) a domain, refitted to the runs moved by -(g* + e*).
            off: (B, K, M), g*.
            errors: (B, R) a domain, e*.
        """
        targets = []
        for k, ((_, problem), values, e) in enumerate(zip(self.fitted, theta, errors, strict=True)):
            residual = -problem.residuals(problem.coordinates.to_phi(values))
            residual = np.where(np.isfinite(residual), residual, 0.0)
            targets.append((residual - self.at_runs(off, k) - e) * np.sqrt(problem.weight[0]))
        return off + coefficients(self.left, self.scales, targets)


def misfit_of(fitted: Fitted, clusters: Sequence[NDArray[np.intp]], basis: Basis, *, scale: float = 1.0) -> Misfit:
    """The misfit that a form's fits left.

    Args:
        fitted: One a domain.
        clusters: The branch point of each run, numbered over all domains.
        basis: Of g.
        scale: Factor on the amplitudes found.
    """
    left, features = [], []
    for (fit, problem), cluster in zip(fitted, clusters, strict=True):
        phi, root = problem.coordinates.to_phi(fit.theta)[None], np.sqrt(problem.weight[0])
        own = basis.features(problem.n[0], problem.d[0], problem.s[0])
        features.append(own)
        left.append(
            Left(
                residual=-problem.residuals(phi)[0] * root,
                features=own * root[:, None],
                jacobian=problem.jacobian(phi)[0] * root[:, None],
                branch=BranchPoints.of(cluster),
            )
        )
    found = scales(left, scale=scale)
    best = coefficients(left, found, [one.residual[None] for one in left])[0]
    rest = []
    for k, ((_, problem), one, cluster) in enumerate(zip(fitted, left, clusters, strict=True)):
        sd = problem.coordinates.prior_sd
        root = absorbed(one, np.where(np.isfinite(sd), sd, _WIDE), float(found.amplitude[k]), float(found.noise[k]))
        residual = one.residual - one.features @ best[k]
        rest.append(Residuals(residual=residual, absorb=root, cluster=cluster, sd=float(found.noise[k])))
    return Misfit(fitted=fitted, left=left, features=features, scales=found, best=best, noise=estimate_noise(rest))
