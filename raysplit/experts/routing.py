"""Which experts a text goes to: scores of a router, made into weights, of which the largest are kept.

Every router looks at the context alone, never at what is to be predicted. Its scores (n texts, K experts) become
weights w ~ exp(score / T), T fitted on held-out text. For the nearest centre the score is -d2, d2 the *squared*
distance from the text to the centre, so that the kernel is exp(-d2 / T), as the paper on c-BTM has it (2303.14177; its
code squares twice).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self, get_args

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from raysplit.corpus.manifest import MANIFEST_FILE, read_manifest
from raysplit.errors import ExpertError, unknown
from raysplit.experts.folders import Experts
from raysplit.experts.mixture import mixture

RouterName = Literal["centre", "likelihood", "label", "uniform"]
ROUTERS: tuple[RouterName, ...] = get_args(RouterName)
PREFIX_BYTES = 256
"""Of a document, that routers see."""
CORPUS_FOLDER = "corpus"
_TEMPERATURES = (1e-3, 1e4)


class Assigns(Protocol):
    """What routing needs of `raysplit.discover`'s clusterer."""

    @property
    def domains(self) -> Sequence[str]:
        """Of its centres, in the order of the columns of `distances`."""

    def distances(self, texts: Sequence[str]) -> np.ndarray:
        """(n, k) squared distances from each text to each centre."""

    @property
    def centres(self) -> np.ndarray:
        """(k, d)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """How texts are sent to experts."""

    router: RouterName
    """centre: of the clusterer's centres the nearest; likelihood: the experts' own, of the context; label: the text's
    domain, where it is known; uniform: all alike."""
    top: int | None = 1
    """How many experts are kept; None for all."""
    updated: bool = False
    """Whether the weights then follow the likelihood of the tokens read."""
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.router not in ROUTERS:
            raise ExpertError(unknown("router", self.router, ROUTERS))
        if self.top is not None and self.top < 1:
            raise ExpertError(f"top = {self.top}: at least one expert must be kept; give a number from 1, or all")
        if not self.temperature > 0:
            raise ExpertError(f"temperature = {self.temperature}: must be above 0")

    @property
    def name(self) -> str:
        """``centre top 1``, ``uniform all updated``."""
        kept = "all" if self.top is None else f"top {self.top}"
        return f"{self.router} {kept}" + (" updated" if self.updated else "")

    def at(self, temperature: float) -> Self:
        return replace(self, temperature=temperature)


def centre_scores(experts: Experts, clusterer: Assigns, texts: Sequence[str]) -> np.ndarray:
    """(n, K) -d2 to the nearest of the centres that an expert serves; -inf for one that serves none.

    Raises:
        ExpertError: the clusterer knows a domain that no expert serves.
    """
    if unserved := [domain for domain in clusterer.domains if domain not in experts.serving]:
        raise ExpertError(
            f"{experts.origin}: no expert serves {', '.join(unserved)}, which the clusterer knows; "
            f"there are {', '.join(experts.serving)}"
        )
    nearness = -clusterer.distances(texts)  # (n, k)
    servers = np.array([experts.names.index(experts.serving[domain]) for domain in clusterer.domains])
    columns = [
        nearness[:, servers == number].max(axis=1, initial=-np.inf) for number in range(len(experts.names))
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def likelihood_scores(experts: Experts, context_log_likelihoods: np.ndarray) -> np.ndarray:
    """(n, K) of the context's log-likelihoods (n, K) in nats; -inf for a model that serves no domain."""
    return np.where(candidates(experts), context_log_likelihoods, -np.inf)


def label_scores(experts: Experts, labels: Sequence[str]) -> np.ndarray:
    """(n, K): 0 for the expert that serves the label, -inf for the others; a row without a label has no 0.

    Raises:
        ExpertError: a label is no domain of these experts.
    """
    scores = np.full((len(labels), len(experts.names)), -np.inf)
    for row, label in zip(scores, labels, strict=True):
        if label:
            if label not in experts.serving:
                raise ExpertError(f"{experts.origin}: {unknown('domain', label, experts.serving)}")
            row[experts.names.index(experts.serving[label])] = 0.0
    return scores


def uniform_scores(experts: Experts, n_texts: int) -> np.ndarray:
    """(n, K) zeros, -inf for a model that serves no domain."""
    return np.tile(np.where(candidates(experts), 0.0, -np.inf), (n_texts, 1))


def candidates(experts: Experts) -> np.ndarray:
    """(K,) whether a model serves a domain; the seed, where every domain has an expert, is only the fallback."""
    serving = set(experts.serving.values())
    return np.array([name in serving for name in experts.names])


def log_weights(experts: Experts, scores: np.ndarray, routing: Routing, *, is_empty: np.ndarray) -> np.ndarray:
    """(n, K) normalised log-weights of the experts that are kept; -inf for the others.

    A text that is empty, or of which the router knows nothing, goes to the seed; where there is none, to all alike.

    Args:
        experts: the columns.
        scores: (n, K) of the router.
        routing: temperature, and how many are kept.
        is_empty: (n,) texts of which nothing has been read.
    """
    scores = scores / routing.temperature
    known = ~is_empty & (scores > -np.inf).any(axis=1)
    fallback = uniform_scores(experts, 1)[0]
    if experts.seed is not None:
        fallback = np.where(np.array(experts.names) == experts.seed, 0.0, -np.inf)
    scores = np.where(known[:, None], scores, fallback)
    if routing.top is not None and routing.top < scores.shape[1]:
        order = np.argsort(-scores, axis=1, kind="stable")  # of two alike the first
        ranks = np.argsort(order, axis=1, kind="stable")
        scores = np.where(ranks < routing.top, scores, -np.inf)
    return scores - logsumexp(scores, axis=1, keepdims=True)


def fit_temperature(
    experts: Experts, scores: np.ndarray, log_probs: np.ndarray, offsets: np.ndarray, routing: Routing
) -> float:
    """The T at which held-out texts are likeliest under all experts with fixed weights.

    Args:
        experts: the columns.
        scores: (n, K) of the router on the texts' contexts.
        log_probs: (K, tokens) of what follows the contexts, of all texts one after another.
        offsets: (n + 1,) where each text's tokens begin.
        routing: names the router.
    """
    all_fixed = replace(routing, top=None, updated=False)
    nothing = np.zeros(len(scores), dtype=bool)

    def loss(log_temperature: float) -> float:
        weights = log_weights(experts, scores, all_fixed.at(float(np.exp(log_temperature))), is_empty=nothing)
        return -float(mixture(log_probs, weights.T, offsets, updated=False).mean())

    low, high = np.log(_TEMPERATURES)
    # A coarse grid first: far from the optimum the loss is flat on both sides.
    grid = np.linspace(low, high, 25)
    best = int(np.argmin([loss(value) for value in grid]))
    bounds = (grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)])
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-2})
    return float(np.exp(found.x))


def prefix_of(text: str) -> str:
    """The first `PREFIX_BYTES` bytes of a text, whole characters and, where there is a blank, whole words."""
    raw = text.encode(errors="replace")
    if len(raw) <= PREFIX_BYTES:
        return text
    prefix = raw[:PREFIX_BYTES].decode(errors="ignore")
    words = prefix.rsplit(None, 1)
    if text[len(prefix)].isspace() or len(words) < 2:
        return prefix.rstrip() or prefix
    return words[0]


def clusterer_of(run_folder: Path) -> Assigns | None:
    """The clusterer that found the run's domains, as its corpus names it; None where they were given.

    Raises:
        CorpusError: it is gone or damaged.
    """
    from raysplit.discover.clusterer import Clusterer as Discovered

    if not (run_folder / CORPUS_FOLDER / MANIFEST_FILE).exists():
        return None
    recorded = read_manifest(run_folder / CORPUS_FOLDER).spec.clusterer
    if recorded is None:
        return None
    # Where the run was moved with its discovery, that lies in it still.
    here = run_folder / "discovery" / Path(recorded).parent.name / Path(recorded).name
    return Discovered.load(here if here.is_dir() else recorded)


def centre_flops(clusterer: Assigns, text: str) -> float:
    """At most so many FLOPs choose the nearest centre: each of a text's n-grams (of two lengths) adds a row of the
    rotation, and the vector is held against each centre.
    """
    n_centres, n_dimensions = clusterer.centres.shape
    return float(2 * n_dimensions * (2 * len(text) + n_centres))


def likelihood_flops(experts: Experts, flops_per_token: np.ndarray, n_tokens: np.ndarray, *, n_kept: int) -> np.ndarray:
    """(n,) FLOPs of reading contexts of ``n_tokens`` (n,) in every candidate.

    Less those of the ``n_kept`` that are chosen, which go on from what they have read.
    """
    every = flops_per_token[candidates(experts)]
    return n_tokens * every.mean() * (len(every) - n_kept)
