"""The question that a split answers: a budget, what may be chosen, what counts; and the answer's shape.

Notation
    N   n_params, non-embedding parameters          D    pretrain_tokens, tokens of the mixture
    D'  specialize_tokens, one per domain           F    FLOPs to train a model of N parameters on one token
    C   budget_flops                                T    tokens that C buys at N
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from raysplit.errors import SplitError, unknown
from raysplit.quantities import format_count, format_flops
from raysplit.runs import UNTOLD_TOKENS, LossUnit

Array = NDArray[np.float64]
Accounting = Literal["shared", "per-expert"]
Seeds = Literal["shared", "independent"]

FORWARD_SHARE = 1 / 3
"""A forward pass costs a third of a training step, the backward pass twice the forward (Kaplan 2001.08361, 2.1)."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One way to spend a budget."""

    n_params: int
    pretrain_tokens: float
    specialize_tokens: Mapping[str, float]

    @property
    def total_tokens(self) -> float:
        """D + sum over domains of D'."""
        return self.pretrain_tokens + math.fsum(self.specialize_tokens.values())

    @property
    def pretrain_share(self) -> float:
        """D / (D + sum over domains of D')."""
        return self.pretrain_tokens / self.total_tokens

    def flops(self, problem: "Problem") -> float:
        """What the split costs under the problem's accounting, FLOPs."""
        return problem.flops(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """A pretrained model that exists: a seed that costs nothing more."""

    name: str = ""
    pretrain_tokens: float = float(UNTOLD_TOKENS)

    available_tokens: Mapping[str, float] = field(default_factory=dict)
    """As `Problem.available_tokens`, in this base's own tokens; where bases of several tokenizers are compared."""

    @property
    def is_told(self) -> bool:
        """Whether its D is known."""
        return self.pretrain_tokens != UNTOLD_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A budget and the splits it may buy.

    Raises:
        SplitError: a number is not positive, a domain is unknown or a constraint contradicts another.
    """

    budget_flops: float
    """C, for training and, where `inference_tokens` is given, for serving."""
    sizes: Mapping[int, float]
    """Sizes the answer may choose between: n_params -> F(N), FLOPs per training token (the family's own, or 6N)."""
    domains: tuple[str, ...]
    weights: Sequence[float] = ()
    """How much each domain's loss counts; kept normalised to sum to one. Equal when left out."""
    accounting: Accounting = "shared"
    """shared: F(N) (D + sum_k D'_k), one seed and K experts. per-expert: F(N) (D + D'), each expert reckoned alone."""
    seeds: Seeds = "shared"
    """shared: all experts leave one seed. independent: each is pretrained by itself, on as many tokens, and the budget
    pays F(N) sum_k (D + D'_k); of an expert that is reckoned alone that is the same."""
    max_pretrain_tokens: float = math.inf
    """The most mixture tokens there are, or are allowed."""
    max_specialize_tokens: Mapping[str, float] = field(default_factory=dict)
    """The most tokens of a domain its expert may see after branching; unlimited where absent."""
    available_tokens: Mapping[str, float] = field(default_factory=dict)
    """The most tokens of a domain that seed and expert together may see: its `mixture` share of D, and D'."""
    max_epochs: float = 1.0
    """How often `available_tokens` reads each text; for the baseline of one pass."""
    mixture: Mapping[str, float] = field(default_factory=dict)
    """Share of each domain in the pretraining mixture, for `available_tokens`; the shares sum to at most one."""
    bases: Mapping[int, Base] = field(default_factory=dict)
    """n_params -> the base of that size. With any, the answer starts from one of them that is among the sizes, and the
    budget pays for specialization only."""
    max_general_loss: float = math.inf
    """Highest weighted loss of the un-branched seed over the domains, for a seed that must itself stay of use. With
    bases, the highest general loss of each of their experts (`raysplit.split.replay`). In `loss_unit`."""
    max_general_rise: float = math.inf
    """By which share an expert's general loss may be above its base's; for bases only."""
    inference_tokens: float = 0.0
    """Tokens to be served over the experts' life, at F(N) / 3 each; part of the budget."""
    loss_unit: LossUnit = "nats/token"
    """Of the losses that the law speaks of, for the answer to say."""
    price: str = ""
    """Where F(N) is from, for the answer to say (`raysplit.split.price`)."""

    def __post_init__(self) -> None:
        if self.accounting not in get_args(Accounting):
            raise SplitError(unknown("accounting", self.accounting, get_args(Accounting)))
        if self.seeds not in get_args(Seeds):
            raise SplitError(unknown("seeds", self.seeds, get_args(Seeds)))
        if self.seeds == "independent" and self.bases:
            raise SplitError("seeds: independent experts have nothing in common, so no base can be given")
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise SplitError(f"domains must be distinct and at least one, got {list(self.domains)}")
        weights = tuple(self.weights) or (1.0,) * len(self.domains)
        if len(weights) != len(self.domains):
            raise SplitError(f"weights: {len(weights)} for {len(self.domains)} domains")
        positive = {
            name: getattr(self, name)
            for name in ("budget_flops", "max_pretrain_tokens", "max_epochs", "max_general_loss", "max_general_rise")
        }
        positive |= {f"weights: {name}": w for name, w in zip(self.domains, weights, strict=True)}
        positive |= {f"sizes: {n}": f for n, f in self.sizes.items()} | {"sizes": float(len(self.sizes))}
        for name, value in positive.items():
            if not value > 0:
                raise SplitError(f"{name} must be positive, got {value!r}")
        if not all(map(math.isfinite, (self.budget_flops, *weights, *self.sizes.values()))):
            raise SplitError("budget_flops, weights and FLOPs per token must be finite")
        for what in ("max_specialize_tokens", "available_tokens", "mixture"):
            for name, value in getattr(self, what).items():
                if name not in self.domains:
                    raise SplitError(f"{what}: " + unknown("domain", name, self.domains))
                if not value >= 0:
                    raise SplitError(f"{what}: {name} must not be negative, got {value!r}")
        for name in self.available_tokens:
            if name not in self.mixture:
                raise SplitError(f"available_tokens: {name}: mixture does not say its share of the pretraining tokens")
        if not math.fsum(self.mixture.values()) <= 1 + 1e-9:
            raise SplitError(f"mixture: the shares sum to {math.fsum(self.mixture.values()):g}, more than one")
        if self.max_general_rise < math.inf and not self.bases:
            raise SplitError("max_general_rise: is what an expert may lose beside its base, and there are no bases")
        if not self.inference_tokens >= 0:
            raise SplitError(f"inference_tokens must not be negative, got {self.inference_tokens!r}")
        if self.bases and not (common := [n for n in self.sizes if n in self.bases]):
            raise SplitError("bases: " + unknown("model size", next(iter(self.bases)), self.sizes))
        for base in self.bases.values():
            if not 0 <= base.pretrain_tokens <= self.max_pretrain_tokens:
                raise SplitError(f"bases: {base.pretrain_tokens!r} tokens is outside 0 to {self.max_pretrain_tokens:g}")
        if self.bases:
            for what in ("sizes", "bases"):
                object.__setattr__(self, what, {n: getattr(self, what)[n] for n in common})
        total = math.fsum(weights)
        object.__setattr__(self, "weights", tuple(w / total for w in weights))

    @property
    def n_seeds(self) -> int:
        """How often the budget pays for D."""
        return len(self.domains) if self.seeds == "independent" and self.accounting == "shared" else 1

    def paid_pretrain_tokens(self, n_params: int) -> float:
        """Pretraining tokens that cost nothing at a size, because its base exists."""
        return self.bases[n_params].pretrain_tokens if self.bases else 0.0

    def specialize_caps(self, pretrain_tokens: Array, n_params: Array | float | None = None) -> Array:
        """Most tokens of each domain after pretraining on D, (..., K) for D of shape (...); infinite without a cap.

        ``n_params`` (...) are the sizes of bases, which may each have tokens of their own.
        """
        alone = np.array([self.max_specialize_tokens.get(name, math.inf) for name in self.domains])
        seen = np.array([self.mixture.get(name, 0.0) for name in self.domains]) * pretrain_tokens[..., None]
        return np.minimum(alone, np.maximum(self.text_tokens(n_params) - seen, 0.0))

    def text_tokens(self, n_params: Array | float | None = None) -> Array:
        """`available_tokens` of each domain, (K,), or (..., K) at sizes (...) of bases with tokens of their own."""
        shared = np.array([self.available_tokens.get(name, math.inf) for name in self.domains])
        if n_params is None or not any(base.available_tokens for base in self.bases.values()):
            return shared
        sizes = sorted(self.bases)
        own = [[self.bases[n].available_tokens.get(name, math.inf) for name in self.domains] for n in sizes]
        return np.asarray(np.array(own)[np.searchsorted(sizes, n_params)])

    @property
    def pretrain_cap(self) -> float:
        """The most mixture tokens that the caps allow; infinite without a cap."""
        shares = ((tokens, self.mixture[name]) for name, tokens in self.available_tokens.items())
        return min([self.max_pretrain_tokens, *(tokens / share for tokens, share in shares if share > 0)])

    def spendable_tokens(self, pretrain_tokens: float, n_params: float | None = None) -> float:
        """The most tokens that the data caps let one spend, in T's accounting, after pretraining on D; rises with D."""
        caps = self.specialize_caps(np.array(pretrain_tokens), n_params)
        return self.n_seeds * pretrain_tokens + float(caps.sum() if self.accounting == "shared" else caps.max())

    def affordable_tokens(self, n_params: int) -> float:
        """T, tokens that the budget buys at a size, a base's own tokens included; below zero when none."""
        bought = self.budget_flops / self.sizes[n_params] - FORWARD_SHARE * self.inference_tokens
        return bought + self.paid_pretrain_tokens(n_params)

    def tokens(self, split: Split) -> float:
        """T of a split: D for each seed and sum_k D'_k, or D and the longest D'_k where each is reckoned alone."""
        experts = split.specialize_tokens.values()
        return self.n_seeds * split.pretrain_tokens + (
            math.fsum(experts) if self.accounting == "shared" else max(experts)
        )

    def flops(self, split: Split) -> float:
        """What a split costs under this problem's accounting, FLOPs."""
        trained = self.tokens(split) - self.paid_pretrain_tokens(split.n_params)
        return self.sizes[split.n_params] * (trained + FORWARD_SHARE * self.inference_tokens)

    def pretrain_share(self, split: Split) -> float:
        """Of all tokens that are paid for, those of pretraining: D / T, of independent seeds K D / T."""
        return self.n_seeds * split.pretrain_tokens / self.tokens(split)

    def pretrain_range(self, n_params: int, *, lowest: float = 0.0) -> tuple[float, float, float]:
        """(lowest D, highest D, tokens to spend) at a size; ``lowest`` is the least D that the law can speak of.

        The tokens to spend are T, or what data there is where caps leave part of the budget without use. At a small D
        the caps may not let all of them be spent, which can still be the better split: pretraining on a domain's last
        text takes it from its expert.

        Raises:
            SplitError: no D satisfies the constraints; the message names the one that fails.
        """
        total = self.affordable_tokens(n_params)
        if total < self.paid_pretrain_tokens(n_params) + 1:
            served = f" beside {format_count(self.inference_tokens)} inference tokens" if self.inference_tokens else ""
            raise SplitError(
                f"budget_flops: {format_flops(self.budget_flops)} buys no training token at N = "
                f"{format_count(n_params)}{served}"
            )
        if self.bases:
            tokens = self.bases[n_params].pretrain_tokens
            total = min(total, self.spendable_tokens(tokens, n_params))
            if total <= tokens:
                alone = [self.max_specialize_tokens.get(name, math.inf) for name in self.domains]
                what = "available_tokens" if any(alone) else "max_specialize_tokens"
                raise SplitError(f"{what}: no domain may be specialized, and the base is given")
            return tokens, tokens, total
        high = min(total / self.n_seeds, self.pretrain_cap)
        total = min(total, self.spendable_tokens(high))
        if total <= 0:
            raise SplitError("available_tokens, max_specialize_tokens: the caps leave no token to train on")
        return min(lowest, high), high, total

    def least_spending_all(self, low: float, high: float, total: float) -> float:
        """Smallest D of a `pretrain_range` from which on the caps let all its tokens be spent: a kink of the loss."""
        enough = total * (1 - 1e-12)  # rounding
        if self.spendable_tokens(low) >= enough:
            return low
        return float(brentq(lambda d: self.spendable_tokens(d) - enough, low, high, xtol=1e-9 * total))


BASELINE_SHARES = {"pretraining only": 1.0, "80/20": 0.8, "50/50": 0.5, "from scratch": 0.0}
"""What people do without a law: share of the tokens that goes into pretraining."""


def fixed_share(problem: Problem, *, n_params: int, share: float) -> Split:
    """Spend ``share`` of the budget's tokens at a size on pretraining one seed and the rest by domain weight.

    Caps do not hold here: the split is what a rule of thumb asks for; see `breaks_cap`.

    Raises:
        SplitError: the size is not one of the problem's, or the budget buys no tokens at it.
    """
    if n_params not in problem.sizes:
        raise SplitError(unknown("model size", n_params, problem.sizes))
    *_, total = replace(
        problem, seeds="shared", max_pretrain_tokens=math.inf, max_specialize_tokens={}, available_tokens={}
    ).pretrain_range(n_params)
    weights = problem.weights if problem.accounting == "shared" else (1.0,) * len(problem.domains)
    experts = {name: (1.0 - share) * total * weight for name, weight in zip(problem.domains, weights, strict=True)}
    return Split(n_params=n_params, pretrain_tokens=share * total, specialize_tokens=experts)


def breaks_cap(problem: Problem, split: Split) -> bool:
    """Whether a split asks for more tokens than the problem allows."""
    caps = problem.specialize_caps(np.array(split.pretrain_tokens), split.n_params)
    experts = np.array([split.specialize_tokens[name] for name in problem.domains])
    return split.pretrain_tokens > problem.pretrain_cap or bool((experts > caps).any())


def baselines(problem: Problem, *, n_params: int) -> dict[str, Split]:
    """The usual rules of thumb at one size, by name; those that a cap rules out are left out.

    From a base the rules are: no training, equal tokens of every domain, and one pass over each domain's text, or over
    as large a part of each as the budget pays for.

    Raises:
        SplitError: as `fixed_share`.
    """
    if problem.bases:
        splits = _from_base(problem, n_params)
    else:
        splits = {name: fixed_share(problem, n_params=n_params, share=share) for name, share in BASELINE_SHARES.items()}
    return {name: split for name, split in splits.items() if not breaks_cap(problem, split)}


def _from_base(problem: Problem, n_params: int) -> dict[str, Split]:
    tokens, _, total = problem.pretrain_range(n_params)
    n_paid = len(problem.domains) if problem.accounting == "shared" else 1
    once = dict(zip(problem.domains, (problem.text_tokens(n_params) / problem.max_epochs).tolist(), strict=True))
    passed = math.fsum(once.values()) if problem.accounting == "shared" else max(once.values())
    part = min(1.0, (total - tokens) / passed)
    experts = {
        "no training": dict.fromkeys(problem.domains, 0.0),
        "equal tokens": dict.fromkeys(problem.domains, (total - tokens) / n_paid),
        "one pass": {name: part * own for name, own in once.items()},
    }
    if math.isinf(passed):  # nobody said how much text there is
        del experts["one pass"]
    splits = {
        name: Split(n_params=n_params, pretrain_tokens=tokens, specialize_tokens=own) for name, own in experts.items()
    }
    return {name: split for name, split in splits.items() if problem.tokens(split) <= total * (1 + 1e-9)}
