"""A fitted law: the loss of every domain, with its uncertainty, as one value that never changes."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from raysplit.errors import LawError, unknown
from raysplit.law.basis import N_FEATURES, Basis
from raysplit.law.forgetting import Forgetting
from raysplit.law.form import Array, Form
from raysplit.law.forms import FORMS
from raysplit.law.identified import Identified
from raysplit.law.repetition import Repetition
from raysplit.law.scratch import Scratch
from raysplit.law.shares import domain_at, is_at
from raysplit.law.status import Fit, FitStatus
from raysplit.law.warm import WarmStart
from raysplit.quantities import format_count

SCHEMA_VERSION = 3
SAFE_EXTRAPOLATION = 4.0
"""A law warns where it is asked for more than this many times what the runs span."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """What the runs span: least and greatest N, D and D'; 0 where it was measured, D = 0 in every domain."""

    n_params: tuple[float, float]
    pretrain_tokens: tuple[float, float]
    specialize_tokens: tuple[float, float]

    @classmethod
    def of(cls, runs: pd.DataFrame) -> "Support":
        names = ("n_params", "pretrain_tokens", "specialize_tokens")
        span = {name: (float(runs[name].min()), float(runs[name].max())) for name in names}
        d = runs["pretrain_tokens"]
        if (d.groupby(runs["domain"]).min() > 0).any():
            span["pretrain_tokens"] = (float(d[d > 0].min()), float(d.max()))
        return cls(**span)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One form's part of a law."""

    form: Form
    weight: float
    """Of its best fit in the law's best guess; the weights of all members sum to one."""
    theta: Array  # (K, P), the best fits
    draws: NDArray[np.intp]  # which of the law's draws are this form's
    draw_theta: Array  # (len(draws), K, P)
    misfit: Array | None = (
        None  # (K, M), coefficients of g at the best fits (`raysplit.law.discrepancy`); None for none
    )
    draw_misfit: Array | None = None  # (len(draws), K, M)

    def of_domains(self, own: list[int]) -> "Member":
        """This form's part for some of the domains, given by their positions."""
        return replace(
            self,
            theta=self.theta[own],
            draw_theta=self.draw_theta[:, own],
            misfit=None if self.misfit is None else self.misfit[own],
            draw_misfit=None if self.draw_misfit is None else self.draw_misfit[:, own],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Predicted loss, nats per token, with an interval; arrays of the shape asked for."""

    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a law's intervals did on runs held out from it (`raysplit.split.calibration`)."""

    level: float
    """Probability of the intervals that were asked for."""
    coverage: float
    """Share of the held-out losses that were inside."""
    n_losses: int
    stretch: float
    """Factor by which the misfit's amplitude was then widened, at least 1."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """Loss L(N, D, D') of K domains as draws from a joint posterior: draw b is one world, the same for all domains.

    `loss` and `slope` take arrays that broadcast together to at least two axes, the first of them draws (size 1 or
    ``n_draws``) and the last domains (size 1 or K), and answer (n_draws, *points, K).
    """

    domains: tuple[str, ...]
    n_draws: int
    members: tuple[Member, ...]
    fits: Mapping[str, Mapping[str, Fit]]
    """By form and domain, the forms that were left out included."""
    pooling: Mapping[str, float]
    """By form, how strongly the domains borrow from each other (`raysplit.law.pooling`); 0 not at all."""
    noise: Array  # (K,)
    """Log sd of one observation around the law: the luck of its trunk and its own."""
    seed_noise: float | None
    """Log sd between runs that differ only in their seed; None where no run was repeated."""
    support: Support
    basis: Basis | None = None
    """Of the smooth function by which the forms themselves are off; None where they are taken to be right."""
    scratch: Scratch | None = None
    """What no pretraining costs; None where no run with D = 0 stands beside some with D > 0."""
    shared_noise: float = 0.0
    """Correlation between the noise of two domains' runs of one trunk."""
    calibration: Calibration | None = None
    """None where too few runs could be held out."""
    repetition: Repetition | None = None
    """Where tokens repeat: the forms are asked about fresh ones."""
    identified: Identified | None = None
    """What the runs vary; None for a law that was made and not fitted."""
    replay_shares: tuple[float, ...] = ()
    """The p of the runs behind it. Where there are several, each domain is one of `domains` at each of them."""
    forgetting: Forgetting | None = None
    """What experts lose elsewhere; None where that was not measured, or too seldom."""
    is_point: bool = field(default=False)
    """Whether this is the best guess alone, see `point`."""

    @property
    def point(self) -> "Law":
        """The best guess as a law of one draw: the weighted mean of the losses of the forms' best fits."""
        return replace(self, n_draws=1, is_point=True)

    def warm_start(self, *, explores: bool = True) -> WarmStart:
        """Where this law's fits ended, for the next one's to go on from; ``explores`` as there."""
        return WarmStart(
            explores=explores,
            theta={
                form: {domain: tuple(map(float, fit.theta)) for domain, fit in by_domain.items()}
                for form, by_domain in self.fits.items()
            },
            pooling=dict(self.pooling),
            misfit_scale=self.calibration.stretch if self.calibration else 1.0,
        )

    def at_share(self, share: float | None = None) -> "Law":
        """The law of the runs at one replayed share, its domains by their own names; itself where there is one share.

        Args:
            share: None takes the least share of the runs.

        Raises:
            LawError: no run had this share.
        """
        if len(self.replay_shares) < 2:
            return self
        share = self.replay_shares[0] if share is None else share
        if share not in self.replay_shares:
            raise LawError(unknown("replay_share", share, self.replay_shares))
        own = [k for k, name in enumerate(self.domains) if is_at(name, share)]
        renamed = {self.domains[k]: domain_at(self.domains[k]) for k in own}
        return replace(
            self,
            domains=tuple(renamed.values()),
            members=tuple(member.of_domains(own) for member in self.members),
            fits={
                form: {renamed[name]: fit for name, fit in fits.items() if name in renamed}
                for form, fits in self.fits.items()
            },
            noise=self.noise[own],
            scratch=None if self.scratch is None else self.scratch.of_domains(own),
            identified=None if self.identified is None else self.identified.of_domains(renamed),
            repetition=None
            if self.repetition is None
            else self.repetition.renamed({domain: name for name, domain in renamed.items()}),
            replay_shares=(share,),
        )

    @property
    def from_scratch(self) -> frozenset[str]:
        """Domains that have a run without pretraining; what others would reach at D = 0 is not known."""
        if self.scratch is None:
            if self.identified is not None and self.identified.scratch:
                return frozenset(self.domains).difference(self.identified.without_scratch)
            return frozenset(self.domains if self.support.pretrain_tokens[0] == 0 else ())
        return frozenset(name for name, known in zip(self.domains, self.scratch.known, strict=True) if known)

    @property
    def form_weights(self) -> dict[str, float]:
        return {member.form.name: member.weight for member in self.members}

    def loss(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
        """Nats per token, (n_draws, *points, K); see the class for the shapes.

        Raises:
            LawError: the shapes do not fit the law.
        """
        return self._evaluate("loss", n_params, pretrain_tokens, specialize_tokens)

    def slope(self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike) -> Array:
        """dL/dD', nats per token per token, (n_draws, *points, K); as `loss`."""
        return self._evaluate("slope", n_params, pretrain_tokens, specialize_tokens)

    def _evaluate(self, what: str, *inputs: ArrayLike) -> Array:
        arrays = [np.asarray(x, dtype=float) for x in inputs]
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        if len(shape) < 2 or shape[0] not in (1, self.n_draws) or shape[-1] not in (1, len(self.domains)):
            raise LawError(
                f"inputs broadcast to {shape}; a law of {self.n_draws} draws and {len(self.domains)} domains takes "
                f"(1 or {self.n_draws}, ..., 1 or {len(self.domains)})"
            )
        arrays = [x.reshape((1,) * (len(shape) - x.ndim) + x.shape) for x in arrays]
        worth: Array | float = 1.0
        if self.repetition is not None:
            fresh, worth = self.repetition.specialize(arrays[2], self.domains)
            arrays = [arrays[0], self.repetition.pretrain(arrays[1]), fresh]
        lacking, pretrained = None, arrays
        if self.scratch is not None:
            lacking, pretrained = self.scratch.penalty(arrays, draw=not self.is_point), self.scratch.pretrained(arrays)
        # The best guess is made of one world a form.
        worlds = [np.array([i]) if self.is_point else member.draws for i, member in enumerate(self.members)]
        n_worlds, between = sum(map(len, worlds)), (1,) * (len(shape) - 2)
        loss = np.empty((n_worlds, *shape[1:-1], len(self.domains)))
        slope = np.zeros_like(loss)
        misfit = np.zeros((n_worlds, len(self.domains), N_FEATURES))
        wants_slope = what == "slope"
        for member, own in zip(self.members, worlds, strict=True):
            theta = member.theta[None] if self.is_point else member.draw_theta
            theta = theta.reshape(len(own), *between, *theta.shape[1:])
            mine = [x if len(x) == 1 else x[own] for x in pretrained]
            if wants_slope:
                loss[own], slope[own] = member.form.loss_and_slope(theta, *mine)
            else:
                loss[own] = member.form.loss(theta, *mine)
            known = member.misfit if self.is_point else member.draw_misfit
            misfit[own] = 0.0 if known is None else known
        if self.basis is not None:
            g, by_tokens = self.basis.evaluate(misfit, *pretrained, slope=wants_slope)
            off = np.exp(g, out=g)
            loss *= off
            if by_tokens is not None:
                slope = slope * off + loss * by_tokens
        if self.is_point:
            weights: Array = np.array([member.weight for member in self.members])
            loss, slope = (np.tensordot(weights, x, axes=1)[None] for x in (loss, slope))
        if lacking is not None:
            factor = np.exp(lacking[0])
            slope = (slope + loss * lacking[1]) * factor
            loss = loss * factor
        return slope * worth if wants_slope else loss

    def noise_at(self, pretrain_tokens: ArrayLike) -> Array:
        """Log sd of one observation after so many tokens (*points), (*points, K): larger from scratch."""
        d = np.asarray(pretrain_tokens, dtype=float)[..., None]
        if self.scratch is None:
            return np.broadcast_to(self.noise, (*d.shape[:-1], len(self.domains)))
        return np.where(d < self.scratch.least_tokens, np.maximum(self.scratch.noise, self.noise), self.noise)

    def predict(
        self,
        domain: str,
        n_params: ArrayLike,
        pretrain_tokens: ArrayLike,
        specialize_tokens: ArrayLike,
        *,
        level: float = 0.9,
        noise: bool = True,
    ) -> Prediction:
        """Loss of one domain with the central interval of probability ``level``.

        Args:
            domain: One of `domains`.
            n_params, pretrain_tokens, specialize_tokens: Arrays that broadcast together.
            level: Probability that the interval covers.
            noise: Whether the interval is for a measurement (the default) or for the law itself.

        Raises:
            LawError: an unknown domain or a level outside (0, 1).
        """
        if domain not in self.domains:
            raise LawError(unknown("domain", domain, self.domains))
        if not 0 < level < 1:
            raise LawError(f"level = {level!r} must lie between 0 and 1")
        k = self.domains.index(domain)
        n, d, s = np.broadcast_arrays(*(np.asarray(x, float) for x in (n_params, pretrain_tokens, specialize_tokens)))
        inputs = [x[None, ..., None] for x in (n, d, s)]
        mean, draws = self.point.loss(*inputs)[0, ..., k], self.loss(*inputs)[..., k]
        low, high = measured_span(draws, self.noise_at(d)[..., k] if noise else None, level)
        return Prediction(mean=mean, low=low, high=high)

    def extrapolation(
        self, n_params: ArrayLike, pretrain_tokens: ArrayLike, specialize_tokens: ArrayLike
    ) -> dict[str, Array]:
        """By which factor each quantity lies outside what the runs span, 1 inside; infinite for an unmeasured zero."""
        out = {}
        for name, asked in (
            ("n_params", n_params), ("pretrain_tokens", pretrain_tokens), ("specialize_tokens", specialize_tokens),
        ):  # fmt: skip
            low, high = getattr(self.support, name)
            x = np.asarray(asked, dtype=float)
            with np.errstate(divide="ignore", invalid="ignore"):
                below, above = np.where(x < low, low / x, 1.0), np.where(x > high, x / high, 1.0)
            out[name] = np.maximum(below, above)
        return out

    def warnings(
        self, n_params: ArrayLike = (), pretrain_tokens: ArrayLike = (), specialize_tokens: ArrayLike = ()
    ) -> tuple[str, ...]:
        """What to know before trusting the law, at these points if any are given: flawed fits, extrapolation."""
        out = []
        for member in self.members:
            flawed: dict[str, list[str]] = {}
            for domain, fit in self.fits[member.form.name].items():
                if fit.status is not FitStatus.CONVERGED:
                    flawed.setdefault(fit.message, []).append(domain)
            out += [f"{', '.join(domains)}: {message}" for message, domains in flawed.items()]
        factors = self.extrapolation(n_params, pretrain_tokens, specialize_tokens)
        for (name, factor), asked in zip(factors.items(), (n_params, pretrain_tokens, specialize_tokens), strict=True):
            worst = float(factor.max(initial=1.0))
            if worst > SAFE_EXTRAPOLATION:
                low, high = getattr(self.support, name)
                by = "where none was measured" if np.isinf(worst) else f"by a factor of {worst:.3g}"
                furthest = float(np.ravel(asked)[np.argmax(factor)])
                nearer = math.sqrt(furthest * (high if furthest > high else low))
                out.append(
                    f"extrapolates {name} {by}: the runs span {format_count(low)} to {format_count(high)}; "
                    f"a run at {format_count(nearer)} would help most"
                )
        return tuple(out)

    def to_json(self) -> str:
        """The law as JSON text; `from_json` reads it back."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """The law as plain values that JSON can hold; `from_dict` reads them back."""
        return {
            "schema_version": SCHEMA_VERSION,
            "domains": self.domains,
            "n_draws": self.n_draws,
            "is_point": self.is_point,
            "pooling": dict(self.pooling),
            "noise": self.noise.tolist(),
            "seed_noise": self.seed_noise,
            "support": {name: getattr(self.support, name) for name in Support.__dataclass_fields__},
            "shared_noise": self.shared_noise,
            "basis": None if self.basis is None else asdict(self.basis),
            "scratch": None if self.scratch is None else self.scratch.to_dict(),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "repetition": None if self.repetition is None else self.repetition.to_dict(),
            "identified": None if self.identified is None else self.identified.to_dict(),
            "replay_shares": self.replay_shares,
            "forgetting": None if self.forgetting is None else self.forgetting.to_dict(),
            "members": [
                {
                    "form": member.form.name,
                    "parameters": [p.name for p in member.form.parameters],
                    "weight": member.weight,
                    "theta": member.theta.tolist(),
                    "draws": member.draws.tolist(),
                    "draw_theta": member.draw_theta.tolist(),
                    "misfit": None if member.misfit is None else member.misfit.tolist(),
                    "draw_misfit": None if member.draw_misfit is None else member.draw_misfit.tolist(),
                }
                for member in self.members
            ],
            "fits": {
                form: {domain: _fit_to_dict(fit) for domain, fit in by_domain.items()}
                for form, by_domain in self.fits.items()
            },
        }

    @classmethod
    def from_json(cls, text: str, *, forms: Mapping[str, Form] = FORMS) -> "Law":
        """Read what `to_json` wrote; ``forms`` knows the forms by name.

        Raises:
            LawError: not such a text, another schema version, or a form that is unknown or has other parameters.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise _no_law(error) from error
        return cls.from_dict(raw, forms=forms)

    @classmethod
    def from_dict(cls, raw: Any, *, forms: Mapping[str, Form] = FORMS) -> "Law":
        """Read what `to_dict` gave; errors as of `from_json`."""
        try:
            version = raw["schema_version"]
        except (TypeError, KeyError) as error:
            raise _no_law(error) from error
        if version != SCHEMA_VERSION:
            raise LawError(f"law of schema version {version!r}; this raysplit reads {SCHEMA_VERSION}")
        try:
            return cls(
                domains=tuple(raw["domains"]),
                n_draws=raw["n_draws"],
                is_point=raw["is_point"],
                pooling=raw["pooling"],
                noise=np.array(raw["noise"]),
                seed_noise=raw["seed_noise"],
                support=Support(**{name: tuple(span) for name, span in raw["support"].items()}),
                shared_noise=raw["shared_noise"],
                basis=None if raw["basis"] is None else Basis(**{key: tuple(x) for key, x in raw["basis"].items()}),
                scratch=None if raw["scratch"] is None else Scratch.from_dict(raw["scratch"]),
                calibration=None if raw["calibration"] is None else Calibration(**raw["calibration"]),
                repetition=None if raw["repetition"] is None else Repetition.from_dict(raw["repetition"]),
                identified=None if raw.get("identified") is None else Identified.from_dict(raw["identified"]),
                replay_shares=tuple(raw.get("replay_shares", ())),
                forgetting=None if raw.get("forgetting") is None else Forgetting.from_dict(raw["forgetting"]),
                members=tuple(_member_from(member, forms, len(raw["domains"])) for member in raw["members"]),
                fits={
                    form: {domain: _fit_from(fit) for domain, fit in by_domain.items()}
                    for form, by_domain in raw["fits"].items()
                },
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _no_law(error) from error


def measured_span(draws: Array, noise: Array | float | None, level: float) -> tuple[Array, Array]:
    """Central interval of a measured loss, from its draws (n_draws, *points) and the log sd (*points) of its luck."""
    if noise is not None:
        # Each draw stands for a normal of its own; 32 equally likely values of it are close enough.
        normal = ndtri((np.arange(32) + 0.5) / 32).reshape(-1, *(1,) * (draws.ndim - 1))
        draws = (draws[:, None] * np.exp(noise * normal)).reshape(-1, *draws.shape[1:])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    return np.asarray(low), np.asarray(high)


def _fit_to_dict(fit: Fit) -> dict[str, Any]:
    return {**fit.__dict__, "theta": fit.theta.tolist(), "status": fit.status.name}


def _fit_from(raw: Mapping[str, Any]) -> Fit:
    return Fit(**{**raw, "theta": np.array(raw["theta"]), "status": FitStatus[raw["status"]]})


def _member_from(raw: Mapping[str, Any], forms: Mapping[str, Form], n_domains: int) -> Member:
    name = raw["form"]
    if name not in forms:
        raise LawError(unknown("form", name, forms))
    own = [p.name for p in forms[name].parameters]
    if own != raw["parameters"]:
        raise LawError(
            f"form {name!r} has parameters {', '.join(own)}; the law was written with {', '.join(raw['parameters'])}"
        )
    return Member(
        form=forms[name], weight=raw["weight"], theta=np.array(raw["theta"], dtype=float),
        draws=np.array(raw["draws"], dtype=np.intp),
        draw_theta=np.array(raw["draw_theta"], dtype=float).reshape(-1, n_domains, len(own)),
        misfit=None if raw["misfit"] is None else np.array(raw["misfit"]),
        draw_misfit=None
        if raw["draw_misfit"] is None
        else np.array(raw["draw_misfit"], dtype=float).reshape(-1, n_domains, N_FEATURES),
    )  # fmt: skip


def _no_law(error: Exception) -> LawError:
    what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
    return LawError(f"not a law, as `raysplit fit` writes one: {what}")
