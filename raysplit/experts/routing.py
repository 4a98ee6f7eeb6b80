"""Which experts a text goes to: a router's scores become weights, of which the largest are kept.

Every router reads the context alone, never what is to be predicted. Its scores (n texts, K experts) become weights
w ~ exp(score / T). The temperature T is fitted on held-out text. For the router of the nearest centre the score is -d2,
where d2 is the *squared* distance from the text to the centre. So the kernel is exp(-d2 / T), as in the paper on c-BTM
(arXiv:2303.14177, whose code squares the distance twice).
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
"""UTF-8 bytes of a document's beginning that routers read."""
CORPUS_FOLDER = "corpus"
_TEMPERATURES = (1e-3, 1e4)


class Assigns(Protocol):
    """What routing needs of `raysplit.discover`'s clusterer."""

    @property
    def domains(self) -> Sequence[str]:
        """Names of its k domains, in the order of the columns of `distances`."""

    def distances(self, texts: Sequence[str]) -> np.ndarray:
        """(n, k) squared distances from each text to each centre."""

    def flops(self, text: str) -> float:
        """FLOPs of the distances of one text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """How texts are sent to experts."""

    router: RouterName
    """What scores the experts. centre: how near the text is to their domains' centres; likelihood: how likely each
    finds the context; label: the text's domain, where it is known; uniform: nothing, all are alike."""
    top: int | None = 1
    """How many experts are kept; None for all."""
    updated: bool = False
    """Whether the weights change with each token read, to the posterior (`raysplit.experts.mixture`)."""
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.router not in ROUTERS:
            raise ExpertError(unknown("router", self.router, ROUTERS))
        if self.top is not None and self.top < 1:
            raise ExpertError(f"top = {self.top}: at least one expert must be kept; give a number from 1, or all")
        if not 0 < self.temperature < np.inf:
            raise ExpertError(f"temperature = {self.temperature}: must be above 0 and finite")

    @property
    def name(self) -> str:
        """Name in tables, such as ``centre top 1`` or ``uniform all updated``."""
        kept = "all" if self.top is None else f"top {self.top}"
        return f"{self.router} {kept}" + (" updated" if self.updated else "")

    def at(self, temperature: float) -> Self:
        return replace(self, temperature=temperature)


def centre_scores(experts: Experts, clusterer: Assigns, texts: Sequence[str]) -> np.ndarray:
    """(n, K) -d2 to the nearest of the centres that each expert serves; -inf for an expert that serves none.

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
    """(n, K) the contexts' log-likelihoods (n, K), nats; -inf for a model that serves no domain."""
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
    """(K,) whether each model serves a domain. Where every domain has an expert, the seed is the fallback alone."""
    serving = set(experts.serving.values())
    return np.array([name in serving for name in experts.names])


def log_weights(experts: Experts, scores: np.ndarray, routing: Routing, *, is_empty: np.ndarray) -> np.ndarray:
    """(n, K) normalised log-weights of the experts that are kept; -inf for the others.

    A text that is empty, or of which the router knows nothing, goes to the seed. Where there is no seed, all experts
    score alike for it, and of those the first ``routing.top`` are kept.

    Args:
        experts: the K columns.
        scores: (n, K) of the router.
        routing: its temperature, and how many experts are kept.
        is_empty: (n,) whether nothing of the text has been read.
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
    """The temperature T at which held-out texts are likeliest under the mixture of all experts with fixed weights.

    Args:
        experts: the K columns.
        scores: (n, K) of the router on the texts' contexts.
        log_probs: (K, tokens) nats of what follows the contexts, one text after another.
        offsets: (n + 1,) where each text's tokens begin.
        routing: names the router.

    Returns:
        T, between 1e-3 and 1e4.
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
    """At most the first `PREFIX_BYTES` bytes of a text: whole characters and, where there is a blank, whole words."""
    raw = text.encode(errors="replace")
    if len(raw) <= PREFIX_BYTES:
        return text
    prefix = raw[:PREFIX_BYTES].decode(errors="ignore")
    words = prefix.rsplit(None, 1)
    if text[len(prefix)].isspace() or prefix[-1].isspace() or len(words) < 2:
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


def likelihood_flops(experts: Experts, flops_per_token: np.ndarray, n_tokens: np.ndarray, *, n_kept: int) -> np.ndarray:
    """(n,) FLOPs of reading contexts of ``n_tokens`` (n,) in the candidates that are not chosen.

    The ``n_kept`` chosen ones read the context anyway, to go on from it. Candidates count with their mean FLOPs.
    """
    every = flops_per_token[candidates(experts)]
    return n_tokens * every.mean() * (len(every) - n_kept)
