"""What a table of runs can tell: which of N, D and D' it varies, and of which domain.

A prior may regularise a fit; it may not be the answer. A direction in which the runs do not differ is told by none of
them, however narrow the interval that a prior leaves there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

SAME_RATIO = 1.1
"""Ratios that differ by less than this factor are one ratio."""
FEWEST_POINTS = 4
"""Distinct (N, D, D') of a domain below which it has no curve of its own: a floor, and one slope in each stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identified:
    """What the runs vary; see `identify`."""

    n_points: int
    """Distinct (N, D, D'), all domains together."""
    sizes: bool
    """Two sizes or more."""
    pretraining: bool
    """Two D > 0 or more."""
    specialization: bool
    """Two D' or more of some domain, at least one of them positive."""
    scratch: bool
    """Some run has D = 0."""
    one_size_ratio: float | None = None
    """D / N where all sizes keep it: then the terms of N and of D are one."""
    one_branch_ratio: float | None = None
    """D' / D where all branches keep it and no D' = 0 was read: then tokens of both kinds are one."""
    without_specialization: tuple[str, ...] = ()
    """Domains whose D' was never varied, where that of others was."""
    few_points: tuple[str, ...] = ()
    """Domains of fewer than `FEWEST_POINTS` distinct (N, D, D'), where others have as many or more."""
    one_pretraining: bool = False
    """Whether no size has two D, and none has D = 0: then what D does is not told apart from what the size does."""
    unspecialized_sizes: tuple[int, ...] = ()
    """Sizes at which D' was never varied, where it was at others."""
    without_scratch: tuple[str, ...] = ()
    """Domains of which no run has D = 0, where one of another has."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return asdict(self)

    def of_domains(self, renamed: Mapping[str, str]) -> "Identified":
        """The same for some of the domains, ``renamed`` old -> new; what all runs vary together stays as it is."""

        def named(domains: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(renamed[name] for name in domains if name in renamed)

        return replace(
            self,
            without_specialization=named(self.without_specialization),
            few_points=named(self.few_points),
            without_scratch=named(self.without_scratch),
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Identified":
        names = ("without_specialization", "few_points", "unspecialized_sizes", "without_scratch")
        lists = {name: tuple(raw.get(name, ())) for name in names}
        return cls(**{**raw, **lists})


def identify(runs: pd.DataFrame) -> Identified:
    """What a table of runs varies.

    Args:
        runs: columns n_params, pretrain_tokens, specialize_tokens, domain.
    """
    point = ["n_params", "pretrain_tokens", "specialize_tokens"]
    d, s = runs["pretrain_tokens"], runs["specialize_tokens"]
    distinct = runs.drop_duplicates([*point, "domain"]).groupby("domain").size()
    n_branch_lengths, longest = s.groupby(runs["domain"]).nunique(), s.groupby(runs["domain"]).max()
    varied = (n_branch_lengths > 1) & (longest > 0)
    has_few = distinct < FEWEST_POINTS
    n_sizes = runs["n_params"].nunique()
    varied_at = s.groupby([runs["n_params"], runs["domain"]]).nunique().groupby(level=0).max() > 1
    pretrained = d.groupby(runs["domain"]).min() > 0
    both, branched = runs[d > 0], runs[(d > 0) & (s > 0)]
    return Identified(
        n_points=len(runs.drop_duplicates(point)),
        sizes=n_sizes > 1,
        pretraining=d[d > 0].nunique() > 1,
        specialization=bool(varied.any()),
        scratch=bool((d == 0).any()),
        one_size_ratio=_one_ratio(both["pretrain_tokens"] / both["n_params"]) if n_sizes > 1 else None,
        one_branch_ratio=_one_ratio(branched["specialize_tokens"] / branched["pretrain_tokens"])
        if (s > 0).all() and branched["pretrain_tokens"].nunique() > 1
        else None,
        without_specialization=tuple(map(str, varied.index[~varied])) if varied.any() else (),
        few_points=tuple(map(str, has_few.index[has_few])) if not has_few.all() else (),
        one_pretraining=bool((d > 0).all() and (d.groupby(runs["n_params"]).nunique() == 1).all()),
        unspecialized_sizes=tuple(map(int, varied_at.index[~varied_at])) if varied_at.any() else (),
        without_scratch=tuple(map(str, pretrained.index[pretrained])) if not pretrained.all() else (),
    )


def _one_ratio(ratio: "pd.Series[float]") -> float | None:
    """The ratio, where all are one."""
    if len(ratio) < 2 or ratio.max() >= SAME_RATIO * ratio.min():
        return None
    return float(np.median(ratio))
