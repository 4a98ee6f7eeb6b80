"""From the losses of domains to a benchmark: the second of two laws, as in OLMo's ladder (arXiv:2412.04403).

    B = b + sum_k a_k H_k,  a_k >= 0        acc = g + (1 - g) / (1 + exp((B - m) / s))

    B    bits per byte of the benchmark's right answers        H_k  bits per byte of domain k's held-out text
    acc  its accuracy                                          g    accuracy of a guess
    a_k, b  slopes and intercept, fitted                       m, s  middle and width of the sigmoid, fitted

The ladder's first law predicts B from N and D. Here the law of the losses predicts each H_k from N, D and D', and this
law predicts the benchmark from them. It is fitted to all that was evaluated: models alone, routed experts, mixtures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import curve_fit, nnls

from raysplit.errors import TaskError, unknown
from raysplit.evaluate.held_out import HELD_OUT
from raysplit.evaluate.metrics import Metric
from raysplit.evaluate.results import Evaluation

_RIDGE = 1e-2
"""Ridge as a share of the domains' squared spread. Their bits move together; without a ridge one domain gets all."""
_LEAST_BEYOND_DOMAINS = 2
"""Subjects that are needed beyond one for each domain."""
_TRUSTED = 0.5
"""Least share of the variance over left-out subjects that a trusted law explains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """How accuracy follows bits per byte."""

    chance: float
    middle: float
    """m: bits per byte at which accuracy is half way between chance and 1."""
    width: float
    """s, bits per byte."""

    def at(self, bits: float) -> float:
        return self.chance + (1 - self.chance) / (1 + math.exp(min(50.0, (bits - self.middle) / self.width)))


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkLaw:
    """The law of one benchmark by the domains' losses."""

    task: str
    slopes: Mapping[str, float]
    """Domain -> a_k: rise of the benchmark's bits per byte for each bit per byte of the domain; none is negative."""
    intercept: float
    """b, bits per byte."""
    error: float
    """Root mean square error over subjects that were left out one at a time, bits per byte."""
    spread: float
    """Standard deviation of B over the subjects, bits per byte."""
    n_subjects: int
    accuracy: Accuracy | None
    """None where accuracy is at chance, or the task has none."""

    @property
    def foretold(self) -> float:
        """Share of the variance over left-out subjects that the law explains: 1 - (error / spread)^2."""
        return 1.0 - (self.error / self.spread) ** 2

    @property
    def is_trusted(self) -> bool:
        return self.foretold >= _TRUSTED and any(self.slopes.values())

    def bits(self, domain_bits: Mapping[str, float]) -> float:
        """B, bits per byte, at these bits per byte of the domains."""
        return self.intercept + sum(slope * domain_bits[name] for name, slope in self.slopes.items())

    def weights(self, bytes_per_token: Mapping[str, float]) -> dict[str, float]:
        """Domain -> weight of a nat per token of its loss for the benchmark; the largest is 1.

        A domain that has no effect gets a thousandth, so that the split still gives it tokens.
        """
        raw = {name: slope / bytes_per_token[name] for name, slope in self.slopes.items()}
        top = max(raw.values())
        return {name: max(value / top, 1e-3) if top > 0 else 1.0 for name, value in raw.items()}


def fit_benchmark(evaluation: Evaluation, task: str) -> BenchmarkLaw:
    """Fit the second law to what `raysplit eval` found.

    Raises:
        TaskError: the task or the held-out losses were not evaluated, or too few subjects were.
    """
    known = [record.name for record in evaluation.tasks if record.name.partition("/")[0] != HELD_OUT]
    if task not in known:
        raise TaskError(f"--objective: {unknown('evaluated task', task, known)}; `raysplit eval RUN --tasks` adds one")
    domains = [r.name.partition("/")[2] for r in evaluation.tasks if r.name.startswith(f"{HELD_OUT}/")]
    if not domains:
        raise TaskError(
            f"--objective {task}: no held-out loss was evaluated; run `raysplit eval RUN --tasks held-out,{task}`"
        )
    bits = _figures(evaluation, "bits_per_byte")
    names = [f"{HELD_OUT}/{domain}" for domain in domains]
    subjects = [s.name for s in evaluation.subjects if all((each, s.name) in bits for each in (*names, task))]
    least = len(domains) + _LEAST_BEYOND_DOMAINS
    if len(subjects) < least:
        raise TaskError(
            f"--objective {task}: {len(subjects)} models and mixtures were evaluated, and the losses of "
            f"{len(domains)} domains need {least}; evaluate more, such as the baselines with --variants"
        )
    h = np.array([[bits[name, subject] for name in names] for subject in subjects])  # (n, K)
    b = np.array([bits[task, subject] for subject in subjects])
    slopes, intercept = _line(h, b)
    left_out = []
    for number in range(len(subjects)):
        kept = np.arange(len(subjects)) != number
        own_slopes, own_intercept = _line(h[kept], b[kept])
        left_out.append(own_intercept + h[number] @ own_slopes - b[number])
    return BenchmarkLaw(
        task=task,
        slopes=dict(zip(domains, slopes.tolist(), strict=True)),
        intercept=intercept,
        error=float(np.sqrt(np.mean(np.square(left_out)))),
        spread=max(float(b.std(ddof=1)), 1e-12),
        n_subjects=len(subjects),
        accuracy=_accuracy(evaluation, task, subjects, b),
    )


def sentences(law: BenchmarkLaw, domain_bits: Mapping[str, float]) -> list[str]:
    """Sentences on what the law predicts of the benchmark at a split, and how far that is to be trusted."""
    bits = law.bits(domain_bits)
    counted = sorted(((slope, name) for name, slope in law.slopes.items() if slope > 1e-3), reverse=True)
    said = [
        f"objective {law.task}: {bits:.3f} bits per byte of the right answer expected, {law.error:.3f} either way "
        f"(root mean square over {law.n_subjects} models and mixtures left out one at a time, which share experts)"
    ]
    if law.accuracy is not None:
        said.append(f"accuracy {law.accuracy.at(bits):.3f} expected from that; {law.accuracy.chance:.3f} is chance")
    else:
        said.append("accuracy: at chance in what was evaluated, so nothing is said of it")
    said.append("it follows " + (", ".join(f"{name} ({s:.2f})" for s, name in counted) or "none of the domains"))
    if not law.is_trusted:
        said.append(
            f"DO NOT TRUST this split for {law.task}: the domains' losses foretell {max(law.foretold, 0.0):.0%} of how "
            "models differ there"
        )
    else:
        said.append(f"the domains' losses foretell {law.foretold:.0%} of how models differ there")
    return said


def _figures(evaluation: Evaluation, metric: Metric) -> dict[tuple[str, str], float]:
    return {(f.task, f.subject): f.value.mean for f in evaluation.findings if f.metric == metric}


def _line(h: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes (K,), none negative, and intercept, by least squares with a ridge, of centred columns."""
    centre, mean = h.mean(axis=0), float(b.mean())
    ridge = np.sqrt(_RIDGE * len(b)) * np.diag(np.full(h.shape[1], max(float(h.std(axis=0).mean()), 1e-12)))
    slopes, _ = nnls(np.concatenate([h - centre, ridge]), np.concatenate([b - mean, np.zeros(h.shape[1])]))
    return slopes, mean - float(centre @ slopes)


def _accuracy(evaluation: Evaluation, task: str, subjects: Sequence[str], bits: np.ndarray) -> Accuracy | None:
    [record] = [record for record in evaluation.tasks if record.name == task]
    found = {f.subject: f.value for f in evaluation.findings if (f.task, f.metric) == (task, "accuracy")}
    chance = record.chance
    if chance is None or any(subject not in found for subject in subjects):
        return None
    if sum(found[subject].low > chance for subject in subjects) < len(subjects) / 2:
        return None

    def curve(x: np.ndarray, middle: float, width: float) -> np.ndarray:
        return np.asarray(chance + (1 - chance) / (1 + np.exp(np.clip((x - middle) / width, -50, 50))))

    measured = np.array([found[subject].mean for subject in subjects])
    try:
        (middle, width), _ = curve_fit(
            curve, bits, measured, p0=(float(bits.mean()), 0.5), bounds=([0.0, 1e-3], [np.inf, np.inf])
        )
    except RuntimeError:  # no fit was found
        return None
    return Accuracy(chance=chance, middle=float(middle), width=float(width))
