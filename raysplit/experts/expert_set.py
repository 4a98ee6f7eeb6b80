"""The experts of a run as one object, which routes a text, scores it and generates from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from raysplit.errors import ExpertError
from raysplit.experts import routing as routers
from raysplit.experts.cost import forward_flops_per_token
from raysplit.experts.folders import Experts, read_experts
from raysplit.experts.generation import Piece, Sampling, write
from raysplit.experts.loaded import ModelCache, Precision, device_of
from raysplit.experts.routing import Assigns, Routing
from raysplit.experts.tokens import TextTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Where one text goes, and what that costs."""

    weights: dict[str, float]
    """Expert -> weight, of the experts that are kept, the largest first; they sum to 1."""
    is_fallback: bool
    """Whether the router knew nothing of the text. The seed goes on from it, or without a seed the first experts, which
    count alike: one under top 1."""
    router_flops: float
    """FLOPs of choosing, once for each text, beyond what the chosen experts compute anyway."""
    flops_per_token: float
    """FLOPs of the chosen experts' forward passes for each token."""


class ExpertSet:
    """Experts on one device, loaded when first used.

    Args:
        experts: as `read_experts` finds them.
        clusterer: has the domains' centres; None where the domains were given.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        precision: of the weights in memory.
        n_kept: most models in memory; a mixture of more experts holds more.

    Raises:
        ExpertError: there is no such device, or the tokenizer cannot be loaded.
    """

    def __init__(
        self,
        experts: Experts,
        *,
        clusterer: Assigns | None = None,
        device: str = "auto",
        precision: Precision = "stored",
        n_kept: int = 8,
    ) -> None:
        if n_kept < 1:
            raise ExpertError(f"n_kept = {n_kept}: at least one model must stay in memory")
        self.experts, self.clusterer = experts, clusterer
        self.tokens = TextTokens.of(next(iter(experts.folders.values())).tokenizer_folder)
        self.models = ModelCache(experts, device=device_of(device), precision=precision, n_kept=n_kept)

    @classmethod
    def open(cls, *sources: Path | str, device: str = "auto", precision: Precision = "stored", n_kept: int = 8) -> Self:
        """The experts of a run folder with its clusterer, or those of a list of Hugging Face folders.

        Raises:
            ExpertError, RunError: as `read_experts`, and as the class.
            CorpusError: the run's clusterer is gone or damaged.
        """
        paths = [Path(source) for source in sources]
        experts = read_experts(*paths)
        clusterer = routers.clusterer_of(paths[0]) if experts.is_run else None
        return cls(experts, clusterer=clusterer, device=device, precision=precision, n_kept=n_kept)

    @property
    def names(self) -> tuple[str, ...]:
        return self.experts.names

    @cached_property
    def flops_per_token(self) -> np.ndarray:
        """(K,) forward FLOPs of each expert."""
        return np.array([float(forward_flops_per_token(folder)) for folder in self.experts.folders.values()])

    def default_routing(self, *, top: int | None = 1) -> Routing:
        """Routing by the nearest centre where there is a clusterer, else by the experts' likelihoods."""
        return Routing(router="likelihood" if self.clusterer is None else "centre", top=top)

    def route(self, texts: Sequence[str], how: Routing, *, labels: Sequence[str] = ()) -> list[Route]:
        """Where each text goes, by its first `PREFIX_BYTES` bytes.

        Args:
            texts: the contexts.
            how: the routing.
            labels: the texts' domains, for the router ``label``.

        Raises:
            ExpertError: the router needs a clusterer or labels and there are none, a label is no domain, or a model
                cannot be loaded.
        """
        weights, fallback, router_flops = self._weights([routers.prefix_of(text) for text in texts], how, labels)
        routes = []
        for row, is_fallback, flops in zip(np.exp(weights), fallback, router_flops, strict=True):
            kept = [int(k) for k in np.argsort(-row, kind="stable") if row[k] > 0]
            routes.append(
                Route(
                    weights={self.names[k]: float(row[k]) for k in kept},
                    is_fallback=bool(is_fallback),
                    router_flops=float(flops),
                    flops_per_token=float(self.flops_per_token[kept].sum()),
                )
            )
        return routes

    def generate(
        self, prompt: str, how: Routing | str, sampling: Sampling, *, label: str = ""
    ) -> tuple[Route, Iterator[Piece]]:
        """Generate from a prompt; an empty one begins a document.

        Args:
            prompt: the text to go on from.
            how: the routing, or the name of one expert.
            sampling: how to draw and when to stop.
            label: the prompt's domain, for the router ``label``.

        Returns:
            The route, and the text piece by piece as it is asked for.

        Raises:
            ExpertError: the prompt fills the context, the expert is unknown, or as `route`.
        """
        prompt_tokens = self.prompt_tokens(prompt)
        if isinstance(how, str):
            self.experts.check_known(how)
            own = float(self.flops_per_token[self.names.index(how)])
            route = Route(weights={how: 1.0}, is_fallback=False, router_flops=0.0, flops_per_token=own)
        else:
            [route] = self.route([prompt], how, labels=[label] if label else ())
        updated = not isinstance(how, str) and how.updated
        prefix = self.tokens.encode([routers.prefix_of(prompt)])[0]
        pieces = write(
            [self.models.take(name).reader() for name in route.weights],
            np.log(list(route.weights.values())),
            prompt_tokens,
            self.tokens,
            sampling,
            room=self.experts.context_length - len(prompt_tokens),
            updated=updated,
            update_from=len(prefix) if not isinstance(how, str) and how.router == "likelihood" else 0,
        )
        return route, pieces

    def prompt_tokens(self, prompt: str) -> np.ndarray:
        """(n,) tokens of a prompt, n >= 1; of an empty one the end of text.

        Raises:
            ExpertError: it leaves no room in the context for a token.
        """
        [tokens] = self.tokens.encode([prompt])
        if len(tokens) >= self.experts.context_length:
            raise ExpertError(
                f"the prompt has {len(tokens):,} tokens, and these experts read {self.experts.context_length:,} with "
                "what they write; shorten it, from its beginning to be gone on from its end"
            )
        return tokens if len(tokens) else np.array([self.tokens.end_of_text])

    def context_log_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        """(n, K) nats: log-likelihood of each text under each expert, as the beginning of a document."""
        begun = [np.concatenate([[self.tokens.end_of_text], tokens]) for tokens in self.tokens.encode(texts)]
        some = [number for number, tokens in enumerate(begun) if len(tokens) > 1]
        found = np.zeros((len(texts), len(self.names)))
        for k, name in enumerate(self.names):
            scores = self.models.take(name).score([begun[number] for number in some])
            found[some, k] = [each.log_probs.sum(dtype=np.float64) for each in scores]
        return found

    def _weights(
        self, texts: Sequence[str], how: Routing, labels: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, K) log-weights, (n,) whether they are the fallback, (n,) FLOPs of choosing."""
        is_empty = np.array([not text.strip() for text in texts], dtype=bool)
        flops = np.zeros(len(texts))
        if how.router == "centre":
            if self.clusterer is None:
                raise ExpertError(
                    f"{self.experts.origin}: has no clusterer, which the router centre needs; take "
                    "likelihood, or discover the domains with `raysplit corpus discover`"
                )
            scores = routers.centre_scores(self.experts, self.clusterer, texts)
            flops = np.array([self.clusterer.flops(text) for text in texts])
        elif how.router == "likelihood":
            scores = routers.likelihood_scores(self.experts, self.context_log_likelihoods(texts))
            n_tokens = np.array([len(tokens) for tokens in self.tokens.encode(texts)])
            kept = min(how.top or len(self.names), int(routers.candidates(self.experts).sum()))
            flops = routers.likelihood_flops(self.experts, self.flops_per_token, n_tokens, n_kept=kept)
        elif how.router == "label":
            if len(labels) != len(texts):
                raise ExpertError(
                    f"the router label needs the domain of each text; known: {', '.join(self.experts.serving)}"
                )
            scores = routers.label_scores(self.experts, labels)
        else:
            scores = routers.uniform_scores(self.experts, len(texts))
        if how.router == "label":
            is_empty = np.zeros(len(texts), dtype=bool)  # a label says where an empty text goes too
        weights = routers.log_weights(self.experts, scores, how, is_empty=is_empty)
        return weights, is_empty | ~(scores > -np.inf).any(axis=1), flops
