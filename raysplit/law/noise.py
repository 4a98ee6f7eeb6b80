"""How observations err around a form: by how much, and how much runs of one trunk err together.

The log residual of a run of domain k on the branch point c = (N, seed, D) is taken as

    e = sigma_k (sqrt(x) u_c + sqrt(v - x) u_kc + sqrt(1 - v) u) / sqrt(weight),      all u standard normal,

so two runs of one domain from one branch point correlate by v, those of two domains by x <= v. All branches of a branch
point share its trunk's luck and, where the form is wrong, its misfit; both are in the residuals and so in sigma, v, x.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.law.form import Array

_FEW_PAIRS = 20.0
"""Correlations from few pairs are drawn towards zero as if this many more had shown none."""
_MAX_CORRELATION = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The three numbers of the model above."""

    sd: Array
    """sigma, (K,)."""
    within: float
    """v"""
    across: float
    """x"""
    freedom: float
    """Degrees of freedom behind sigma, all domains together."""

    def draw(
        self, cluster: NDArray[np.intp], domain: NDArray[np.intp], weight: Array, n_draws: int, rng: np.random.Generator
    ) -> Array:
        """Errors (n_draws, R) for runs of these branch points (R,), domains (R,) and weights (R,).

        sigma itself is drawn too, from its scaled inverse chi-square, so that few runs give the wide tails of Student.
        """
        n_clusters, n_domains = int(cluster.max()) + 1, len(self.sd)
        shared = rng.standard_normal((n_draws, n_clusters))[:, cluster]
        own = rng.standard_normal((n_draws, n_clusters * n_domains))[:, cluster * n_domains + domain]
        alone = rng.standard_normal((n_draws, cluster.size))
        mix = (
            np.sqrt(self.across) * shared + np.sqrt(self.within - self.across) * own + np.sqrt(1 - self.within) * alone
        )
        spread = np.sqrt(self.freedom / rng.chisquare(self.freedom, (n_draws, 1)))
        return np.asarray(spread * mix * self.sd[domain] / np.sqrt(weight))


def estimate_noise(
    *,
    residual: Array,
    leverage: Array,
    weight: Array,
    cluster: NDArray[np.intp],
    domain: NDArray[np.intp],
    sd: Array,
    effective: float,
) -> Noise:
    """Estimate the model from the log residuals (R,) of one form over all domains.

    Args:
        residual: log L - log y, each domain fitted on its own.
        leverage: Diagonal of the hat matrix.
        weight: Of each run in the fit.
        cluster: Branch point of each run, from zero.
        domain: Domain of each run, from zero.
        sd: Robust residual sd of each domain, (K,).
        effective: Parameters fitted, all domains together.
    """
    # Standardised for what the fit absorbed, and cut like the fit cuts outliers.
    unit = residual * np.sqrt(weight) / (sd[domain] * np.sqrt(np.maximum(1.0 - leverage, 0.1)))
    unit = np.clip(unit, -2.5, 2.5)
    unit = unit / max(float(np.sqrt(np.mean(unit**2))), 1e-12)
    by_domain = pd.Series(unit).groupby([cluster, domain]).agg(["sum", "count"])
    by_cluster = pd.Series(unit).groupby(cluster).agg(["sum", "count"])
    squares = float((unit**2).sum())
    same_pairs = float((by_domain["count"] ** 2).sum() - unit.size)
    same = float((by_domain["sum"] ** 2).sum()) - squares
    other_pairs = float((by_cluster["count"] ** 2).sum() - unit.size) - same_pairs
    other = float((by_cluster["sum"] ** 2).sum()) - squares - same
    # The residuals of a fit correlate by about -p/R even where the errors do not.
    within = (same + same_pairs * float(leverage.mean())) / (same_pairs + 2 * _FEW_PAIRS)
    across = other / (other_pairs + 2 * _FEW_PAIRS)
    within = min(max(within, 0.0), _MAX_CORRELATION)
    return Noise(
        sd=sd, within=within, across=min(max(across, 0.0), within), freedom=max(residual.size - effective, 4.0)
    )


def repeated_seed_sd(runs: pd.DataFrame) -> tuple[float, int]:
    """Log sd of one observation from runs that differ only in their seed, and its degrees of freedom (0: none)."""
    if "seed" not in runs:
        return float("nan"), 0
    log_loss = np.log(runs["loss"])
    keys = [runs[name] for name in ("n_params", "pretrain_tokens", "specialize_tokens", "domain")]
    grouped = log_loss.groupby(keys)
    freedom = int((grouped.transform("count") > 1).sum() - (grouped.count() > 1).sum())
    if not freedom:
        return float("nan"), 0
    return float(np.sqrt(((log_loss - grouped.transform("mean")) ** 2).sum() / freedom)), freedom
