"""The outer problem: the best D at each N, and the best N.

D is searched globally on a grid between its bounds, dense at both ends where the loss bends most, and then by zooming
in on the cell around the lowest point; every point of the grid solves the inner problem (`raysplit.split.allocate`).
All sizes, draws and points go through numpy at once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from raysplit.errors import SplitError
from raysplit.quantities import format_count
from raysplit.split.allocate import allocate
from raysplit.split.problem import Array, Problem, Split
from raysplit.split.surface import DrawSurface, LawLike, MeanSurface, guide_of

_GRID = np.linspace(0.0, 1.0, 25) ** 2 * (3 - 2 * np.linspace(0.0, 1.0, 25))
_ZOOMS_EXACT, _ZOOMS_ROUGH = 16, 8
"""Each zoom halves the range of D: 16 leave 2e-6 of it, 8 leave 5e-4, whose loss is within 1e-7 of the best."""
_BEHIND = 0.02
"""A size that is this share above the best one on the grid has lost: zooming in gains far less."""
_FAR_BEHIND = 0.05
"""A D that the law's best guess has this share above the best D of its size is no draw's best: who gets tokens there at
all is not asked. Where one split is wanted, the best D of all sizes is meant, and sizes so far behind are left out."""
_BARRED = 1e6
"""Where losses begin that stand for a breach of `max_general_loss`, the worse the higher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitsBySize:
    """The best split at each size, for each draw of a law (or for its mean: B = 1)."""

    domains: tuple[str, ...]
    n_params: tuple[int, ...]
    """(J,) sizes that the budget can pay for."""
    pretrain_tokens: Array
    """(B, J)"""
    specialize_tokens: Array
    """(B, J, K)"""
    loss: Array
    """(B, J) weighted loss under the draw that the split is best for."""

    def split(self, draw: int, size: int) -> Split:
        """Split of one draw at one size, both by index."""
        return Split(
            n_params=self.n_params[size],
            pretrain_tokens=float(self.pretrain_tokens[draw, size]),
            specialize_tokens=dict(zip(self.domains, map(float, self.specialize_tokens[draw, size]), strict=True)),
        )

    @property
    def best_size(self) -> Array:
        """(B,) index of each draw's best size."""
        return np.argmin(self.loss, axis=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawSplits(Sequence[Split]):
    """Each draw's best split over all sizes; a sequence of `Split`, and the arrays behind it."""

    by_size: SplitsBySize

    def __len__(self) -> int:
        return len(self.by_size.loss)

    @overload
    def __getitem__(self, draw: int) -> Split: ...
    @overload
    def __getitem__(self, draw: slice) -> list[Split]: ...
    def __getitem__(self, draw: int | slice) -> Split | list[Split]:
        if isinstance(draw, slice):
            return [self[i] for i in range(*draw.indices(len(self)))]
        return self.by_size.split(draw, int(self.by_size.best_size[draw]))

    def __iter__(self) -> Iterator[Split]:
        return (self[draw] for draw in range(len(self)))

    @property
    def loss(self) -> Array:
        """(B,) weighted loss of each split under its own draw."""
        return self.by_size.loss.min(axis=1)


def best_by_size(law: LawLike, problem: Problem) -> SplitsBySize:
    """Best split at each size under the mean of the law's draws.

    Raises:
        SplitError: no split satisfies the constraints; the message names the one that fails.
    """
    grid = _Grid.of(law, problem)
    surface = MeanSurface(law, problem.domains, problem.weights)
    return _search(surface, problem, grid, grid.tried(surface, problem), zooms=_ZOOMS_EXACT, every_size=True)


def best_split(law: LawLike, problem: Problem, *, rough: bool = False) -> Split:
    """The split of lowest weighted loss under the mean of the law's draws; with ``rough``, D is found to three digits.

    Raises:
        SplitError: as `best_by_size`.
    """
    zooms = _ZOOMS_ROUGH if rough else _ZOOMS_EXACT
    grid = _Grid.of(law, problem, every_size=False)
    surface = MeanSurface(law, problem.domains, problem.weights)
    tried = grid.tried(surface, problem)
    found = _search(surface, problem, grid, tried, zooms=zooms, every_size=False, by_guide=rough)
    return found.split(0, int(found.best_size[0]))


def best_split_per_draw(law: LawLike, problem: Problem) -> DrawSplits:
    """For each draw of the law the split that would be best if that draw were true.

    A size that no draw has for its best, nor within 2 % of it, is searched on the grid of D alone: its D are a few per
    cent off.

    Raises:
        SplitError: as `best_by_size`.
    """
    grid = _Grid.of(law, problem)
    surface = DrawSurface(law, problem.domains, problem.weights)
    tried = grid.tried(surface, problem)
    return DrawSplits(by_size=_search(surface, problem, grid, tried, zooms=_ZOOMS_ROUGH, every_size=False))


def best_by_size_and_draw(law: LawLike, problem: Problem) -> tuple[SplitsBySize, DrawSplits]:
    """`best_by_size` and `best_split_per_draw`, the work that they share done once.

    Raises:
        SplitError: as `best_by_size`.
    """
    grid = _Grid.of(law, problem)
    mean, each = (kind(law, problem.domains, problem.weights) for kind in (MeanSurface, DrawSurface))
    of_draws = _evaluate(each, problem, grid.n, grid.d, grid.specialize_tokens)
    of_mean = (x.mean(axis=0, keepdims=True) for x in of_draws)
    tried = [_with_losses(problem, grid.d, grid.specialize_tokens, *losses) for losses in (of_mean, of_draws)]
    by_size = _search(mean, problem, grid, tried[0], zooms=_ZOOMS_EXACT, every_size=True)
    return by_size, DrawSplits(by_size=_search(each, problem, grid, tried[1], zooms=_ZOOMS_ROUGH, every_size=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    """The D that are tried first at each size, with the tokens of the domains that the law's best guess gives them."""

    sizes: tuple[int, ...]
    n: Array  # (1, J, 1)
    d: Array  # (1, J, points)
    total: Array  # (1, J, 1)
    guide: DrawSurface
    specialize_tokens: Array  # (1, J, points, K)

    @classmethod
    def of(cls, law: LawLike, problem: Problem, *, every_size: bool = True) -> "_Grid":
        sizes, low, high, total = _ranges(problem, law.support.pretrain_tokens[0])
        n = np.array(sizes, dtype=float)[None, :, None]
        kink = np.array([problem.least_spending_all(*bounds) for bounds in zip(low, high, total, strict=True)])
        low, high, total, kink = (x[None, :, None] for x in (low, high, total, kink))
        # The kink where a data cap begins to bind may be far narrower than a cell of the grid.
        d: Array = np.sort(np.concatenate([low + (high - low) * _GRID, kink], axis=-1), axis=-1)
        guide = guide_of(law, problem.domains, problem.weights)
        # Along the last axis the lowest loss is looked for.
        points = [x if every_size else x.reshape(1, 1, -1) for x in np.broadcast_arrays(n, d, total)]
        s = specialize_best(guide, problem, *points, behind=_FAR_BEHIND).reshape(len(d), *d.shape[1:], -1)
        grid = cls(sizes=sizes, n=n, d=d, total=total, guide=guide, specialize_tokens=s)
        return grid if every_size or problem.max_general_loss < math.inf else grid._without_far_sizes()

    def _without_far_sizes(self) -> "_Grid":
        lowest = np.nan_to_num(self.guide.loss(self.n, self.d, self.specialize_tokens), nan=np.inf).min(axis=(0, 2))
        near = lowest <= (1.0 + _FAR_BEHIND) * lowest.min()
        arrays = {name: getattr(self, name)[:, near] for name in ("n", "d", "total", "specialize_tokens")}
        return replace(self, sizes=tuple(np.array(self.sizes)[near].tolist()), **arrays)

    def tried(self, surface: DrawSurface, problem: Problem) -> "_Tried":
        """What a surface says of it."""
        return _tried(surface, problem, self.n, self.d, self.specialize_tokens)


@dataclass(frozen=True, slots=True)
class _Tried:
    """D that were tried for each draw and size: (B, J, points), the experts (B, J, points, K)."""

    d: Array
    left: Array
    right: Array
    """The D tried beside each, or itself at an end."""
    specialize_tokens: Array
    loss: Array
    """`_BARRED` and more where it breaks `max_general_loss`."""
    general: Array

    @property
    def in_question(self) -> NDArray[np.bool_]:
        """(J,) whether a size may still be the best of some draw, by the lowest of each."""
        lowest = self.loss.min(axis=1, keepdims=True)
        return np.asarray(((self.loss <= (1 + _BEHIND) * lowest) | (self.loss >= _BARRED)).any(axis=(0, 2)))

    @property
    def lowest(self) -> "_Tried":
        """The best of the D, the first of several: (B, J, 1)."""
        best = np.argmin(self.loss, axis=2)[..., None]
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        tokens = np.take_along_axis(arrays.pop("specialize_tokens"), best[..., None], axis=2)
        picked = {name: np.take_along_axis(values, best, axis=2) for name, values in arrays.items()}
        return _Tried(**picked, specialize_tokens=tokens)

    def of(self, sizes: NDArray[np.bool_]) -> "_Tried":
        """These sizes alone."""
        return _Tried(*(getattr(self, field.name)[:, sizes] for field in fields(self)))

    def or_better(self, other: "_Tried") -> "_Tried":
        """With another allocation at the same D where its loss is lower."""
        lower = other.loss < self.loss
        loss, general = (np.where(lower, getattr(other, x), getattr(self, x)) for x in ("loss", "general"))
        tokens = np.where(lower[..., None], other.specialize_tokens, self.specialize_tokens)
        return replace(self, specialize_tokens=tokens, loss=loss, general=general)

    def or_beside(self, halves: "_Tried") -> "_Tried":
        """The best of one D and of two more (B, J, 2), half way to its left and half way to its right."""
        middle = replace(self, left=halves.d[..., :1], right=halves.d[..., 1:])
        beside = replace(
            halves,
            left=np.concatenate([self.left, self.d], axis=2),
            right=np.concatenate([self.d, self.right], axis=2),
        )
        every = (np.concatenate([getattr(x, field.name) for x in (middle, beside)], axis=2) for field in fields(self))
        return _Tried(*every).lowest

    def with_(self, sizes: NDArray[np.bool_], found: "_Tried") -> "_Tried":
        """With what was found for these sizes in their place."""
        every = _Tried(*(getattr(self, field.name).copy() for field in fields(self)))
        for field in fields(self):
            getattr(every, field.name)[:, sizes] = getattr(found, field.name)
        return every


def _search(
    surface: DrawSurface,
    problem: Problem,
    grid: _Grid,
    tried: _Tried,
    *,
    zooms: int,
    every_size: bool,
    by_guide: bool = False,
) -> SplitsBySize:
    """From the grid as tried, zoom in on the best D of each draw, at every size or at those that may be the best.

    On the grid the law's best guess shares the tokens out among the domains; the surface itself does from then on, or
    only at the end.
    """
    sizes, n, total = grid.sizes, grid.n, grid.total
    found = tried.lowest
    refined = found.in_question | every_size
    at, n, total = found.of(refined), n[:, refined], total[:, refined]

    def shared_out(at: _Tried) -> _Tried:
        s = specialize_best(surface, problem, n, at.d, total, _shares(at.specialize_tokens))
        return at.or_better(_tried(surface, problem, n, at.d, s))

    at = at if by_guide else shared_out(at)
    guide = grid.guide if by_guide else surface
    for _ in range(zooms):
        d = np.concatenate([0.5 * (at.left + at.d), 0.5 * (at.d + at.right)], axis=2)
        s = specialize_best(guide, problem, n, d, total, _shares(at.specialize_tokens), keeps_out=True)
        at = at.or_beside(_tried(surface, problem, n, d, s))
    at = shared_out(at) if by_guide else at
    found = found.with_(refined, at)
    if not np.isfinite(found.loss).any(axis=1).all():
        raise SplitError(
            f"the law predicts no finite loss for N = {format_count(sizes[0])} to "
            f"{format_count(sizes[-1])} at this budget"
        )
    if found.loss.shape[0] == 1 and found.loss.min() >= _BARRED:
        raise SplitError(
            f"max_general_loss: {problem.max_general_loss:.6g} cannot be reached with this budget; "
            f"the lowest is {found.general.min():.6g}"
        )
    return SplitsBySize(
        domains=problem.domains,
        n_params=sizes,
        pretrain_tokens=found.d[..., 0],
        specialize_tokens=found.specialize_tokens[..., 0, :],
        loss=found.loss[..., 0],
    )


def _shares(tokens: Array) -> Array:
    """Each domain's share of the tokens, (..., K); all 1 where there are no tokens."""
    total = tokens.sum(axis=-1, keepdims=True)
    return np.where(total > 0, tokens / np.maximum(total, 1e-300), 1.0)


def _tried(surface: DrawSurface, problem: Problem, n: Array, d: Array, s: Array) -> _Tried:
    """Rising D (1 or B, J, points) with these tokens of the domains (1 or B, J, points, K)."""
    return _with_losses(problem, d, s, *_evaluate(surface, problem, n, d, s))


def _with_losses(problem: Problem, d: Array, s: Array, loss: Array, general: Array) -> _Tried:
    """The same, their losses at hand: (B, J, points) weighted, and of the un-branched seed."""
    d, s = np.broadcast_to(d, loss.shape), np.broadcast_to(s, (*loss.shape, s.shape[-1]))
    return _Tried(
        d=d,
        left=np.concatenate([d[..., :1], d[..., :-1]], axis=2),
        right=np.concatenate([d[..., 1:], d[..., -1:]], axis=2),
        specialize_tokens=s,
        loss=np.where(general <= problem.max_general_loss, loss, _BARRED * (1.0 + general)),
        general=general,
    )


def _ranges(problem: Problem, lowest: float) -> tuple[tuple[int, ...], Array, Array, Array]:
    """Sizes that the budget can pay for, with the lowest and highest D and the tokens to spend at each, (J,)."""
    found: dict[int, tuple[float, float, float]] = {}
    problems: list[SplitError] = []
    for n_params in problem.sizes:
        try:
            # A budget near the smallest D measured still leaves room to move.
            least = min(lowest, 0.05 * problem.affordable_tokens(n_params))
            found[n_params] = problem.pretrain_range(n_params, lowest=least)
        except SplitError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    low, high, total = np.array(list(found.values())).T
    return tuple(found), low, high, total


def specialize_best(
    surface: DrawSurface,
    problem: Problem,
    n: Array,
    d: Array,
    total: Array,
    start: Array | None = None,
    *,
    keeps_out: bool = False,
    behind: float = math.inf,
) -> Array:
    """Best D'_k (B, *points, K) at each N and D, when ``total`` tokens are to be spent; all (1 or B, *points).

    ``start``, ``keeps_out`` and ``behind`` as in `raysplit.split.allocate.allocate`.
    """
    rest, caps = np.maximum(total - problem.n_seeds * d, 0.0), problem.specialize_caps(d, n)
    if problem.accounting == "shared":
        return allocate(surface, n, d, rest, caps, start=start, keeps_out=keeps_out, behind=behind)
    shape = (surface.n_draws, *np.broadcast_shapes(n.shape, rest.shape)[1:], len(problem.domains))
    s = np.broadcast_to(np.minimum(rest[..., None], caps), shape)
    none = np.zeros_like(s)
    return np.where(surface.losses(n, d, none) < surface.losses(n, d, s), none, s)  # the seed may be the better expert


def _evaluate(surface: DrawSurface, problem: Problem, n: Array, d: Array, s: Array) -> tuple[Array, Array]:
    """Weighted loss and weighted loss of the un-branched seed at each point, (B, J, points)."""
    loss = np.nan_to_num(surface.loss(n, d, s), nan=np.inf)  # some forms have no loss where a domain sees no token
    is_limited = problem.max_general_loss < np.inf and not problem.bases  # of bases it limits each expert's D'
    general = surface.loss(n, d, np.zeros_like(s)) if is_limited else -np.inf
    return loss, np.broadcast_to(general, loss.shape)
