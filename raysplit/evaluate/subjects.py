"""Subjects of an evaluation: a model alone, or the experts of a run under a routing, by arithmetic on their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from raysplit.evaluate.items import EvaluationTask
from raysplit.evaluate.requests import Requests
from raysplit.experts import routing as routers
from raysplit.experts.folders import Experts
from raysplit.experts.loaded import TokenScores
from raysplit.experts.mixture import mixture, sums
from raysplit.experts.routing import Assigns, RouterName, Routing


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One subject of an evaluation, a column of its tables."""

    name: str
    experts: Experts
    how: Routing | str
    """A routing of the experts, or the name of the one that is alone."""

    @property
    def is_by_label(self) -> bool:
        """Whether the label of a document says which expert reads it."""
        return isinstance(self.how, Routing) and self.how.router == "label"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores that one model gives to a task's requests."""

    log_probs: np.ndarray
    """(n,) float32, nats: log-probability of every token but the first of each request, one request after another."""
    is_greedy: np.ndarray
    """(n,) bool: whether no token was likelier."""
    context_log_likelihoods: np.ndarray
    """(items,) nats: log-likelihood of each context that routers may read."""

    @classmethod
    def of(cls, scored: TokenScores, requests: Requests) -> Self:
        """Split the scores of `Requests.sequences` into those of requests and of contexts."""
        n = int(_offsets(requests.tokens)[-1])
        return cls(
            log_probs=scored.log_probs[:n],
            is_greedy=scored.is_greedy[:n],
            context_log_likelihoods=sums(scored.log_probs[n:], _offsets(requests.contexts)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SubjectScores:
    """Scores that a subject gives to a task's r requests."""

    log_likelihoods: np.ndarray
    """(r,) nats: log-likelihood of each continuation."""
    is_greedy: np.ndarray | None
    """(r,) bool: whether greedy decoding gives the continuation; None for a mixture, whose distribution is not kept."""
    flops_per_token: float
    """Mean inference FLOPs per token of the task, with the router's."""


def _offsets(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """(r + 1,) where each sequence's scored tokens begin."""
    return np.cumsum([0, *(len(tokens) - 1 for tokens in sequences)])


def subjects_of(
    experts: Experts,
    *,
    label: str,
    routers_wanted: Sequence[RouterName],
    tops: Sequence[int | None],
    alone: bool = True,
) -> list[Subject]:
    """Each model alone; and each router at each top-k, where there is more than one model to choose from.

    Args:
        experts: of a run, or one folder.
        label: stands before the names, so that two runs can be told apart; empty for none.
        routers_wanted: the routers.
        tops: the numbers of experts that are kept; None for all.
        alone: whether models alone are subjects too where there are several to choose from.
    """
    before = f"{label}:" if label else ""
    n_candidates = int(routers.candidates(experts).sum())
    each = [Subject(name=f"{before}{name}", experts=experts, how=name) for name in experts.names]
    found = each if alone or n_candidates < 2 else []
    if n_candidates < 2:
        return found
    ways = []
    for router in routers_wanted:
        for top in tops if router != "label" else (1,):
            kept = None if top is None or top >= n_candidates else top
            # Uniform weights that do not follow the text would be those of no router; that they follow is the point.
            ways.append(Routing(router=router, top=kept if router != "uniform" else None, updated=router == "uniform"))
            if router == "centre" and kept is None:
                ways.append(Routing(router=router, top=None, updated=True))
    found += [Subject(name=f"{before}{how.name}", experts=experts, how=how) for how in dict.fromkeys(ways)]
    return found


def outcome(
    subject: Subject,
    task: EvaluationTask,
    requests: Requests,
    scores: Mapping[str, Scores],
    *,
    clusterer: Assigns | None,
    labels: Mapping[str, str],
    flops: Mapping[str, float],
) -> SubjectScores:
    """A subject's scores on a task.

    Args:
        subject: the subject.
        task: the task.
        requests: the task's requests.
        scores: name of each of the subject's models -> its scores.
        clusterer: for the router ``centre``.
        labels: `key_of` a document -> its domain, for the router ``label``.
        flops: name of each model -> its forward FLOPs per token.
    """
    offsets = _offsets(requests.tokens)
    scored = np.concatenate(
        [
            np.arange(len(tokens) - 1) >= len(tokens) - 1 - n
            for tokens, n in zip(requests.tokens, requests.n_scored, strict=True)
        ]
    )
    if isinstance(subject.how, str):
        alone = scores[subject.how]
        return SubjectScores(
            log_likelihoods=sums(np.where(scored, alone.log_probs, 0.0), offsets),
            is_greedy=sums(scored & ~alone.is_greedy, offsets) == 0,
            flops_per_token=flops[subject.how],
        )
    names = subject.experts.names
    weights = item_weights(subject.experts, task, requests, scores, subject.how, clusterer=clusterer, labels=labels)
    tokens = mixture(
        np.stack([scores[name].log_probs for name in names]),
        weights[requests.item].T,
        offsets,
        updated=subject.how.updated,
    )
    return SubjectScores(
        log_likelihoods=sums(np.where(scored, tokens, 0.0), offsets),
        is_greedy=None,
        flops_per_token=_flops_per_token(subject, task, requests, weights, clusterer=clusterer, flops=flops),
    )


def item_weights(
    experts: Experts,
    task: EvaluationTask,
    requests: Requests,
    scores: Mapping[str, Scores],
    how: Routing,
    *,
    clusterer: Assigns | None,
    labels: Mapping[str, str],
) -> np.ndarray:
    """(items, K) log-weights of the experts, chosen once for each item by its shared context."""
    found = router_scores(experts, task, scores, how.router, clusterer=clusterer, labels=labels)
    is_empty = np.array([len(context) < 2 for context in requests.contexts])
    if how.router == "label":
        is_empty = np.zeros(len(task.items), dtype=bool)
    return routers.log_weights(experts, found, how, is_empty=is_empty)


def router_scores(
    experts: Experts,
    task: EvaluationTask,
    scores: Mapping[str, Scores],
    router: RouterName,
    *,
    clusterer: Assigns | None,
    labels: Mapping[str, str],
) -> np.ndarray:
    """(items, K) scores of a router. An item has a label if its document's domain is one of these experts'."""
    if router == "centre":
        assert clusterer is not None
        return routers.centre_scores(experts, clusterer, [item.routed_by for item in task.items])
    if router == "likelihood":
        likelihoods = np.stack([scores[name].context_log_likelihoods for name in experts.names], axis=1)
        return routers.likelihood_scores(experts, likelihoods)
    if router == "label":
        known = [labels.get(item.document, "") for item in task.items]
        return routers.label_scores(experts, [label if label in experts.serving else "" for label in known])
    return routers.uniform_scores(experts, len(task.items))


def fitted(
    subject: Subject,
    task: EvaluationTask,
    requests: Requests,
    scores: Mapping[str, Scores],
    *,
    clusterer: Assigns | None,
) -> Subject:
    """The subject at the temperature that fits a task of held-out documents best; label and uniform have none."""
    how = subject.how
    if isinstance(how, str) or how.router in ("label", "uniform"):
        return subject
    experts = subject.experts
    after = [len(tokens) - 1 - n for tokens, n in zip(requests.tokens, requests.n_scored, strict=True)]
    scored = np.concatenate([np.arange(len(t) - 1) >= n for t, n in zip(requests.tokens, after, strict=True)])
    temperature = routers.fit_temperature(
        experts,
        router_scores(experts, task, scores, how.router, clusterer=clusterer, labels={}),
        np.stack([scores[name].log_probs[scored] for name in experts.names]),
        np.cumsum([0, *requests.n_scored]),
        how,
    )
    return replace(subject, how=how.at(temperature))


def _flops_per_token(
    subject: Subject,
    task: EvaluationTask,
    requests: Requests,
    weights: np.ndarray,
    *,
    clusterer: Assigns | None,
    flops: Mapping[str, float],
) -> float:
    """FLOPs of all forward passes and of the router's choices, divided by the tokens of the requests."""
    assert isinstance(subject.how, Routing)
    each = np.array([flops[name] for name in subject.experts.names])
    kept = weights > -np.inf  # (items, K)
    per_token = (kept * each).sum(axis=1)  # (items,)
    n_tokens = np.array([len(tokens) for tokens in requests.tokens])
    total = float((per_token[requests.item] * n_tokens).sum())
    if subject.how.router == "centre":
        assert clusterer is not None
        total += sum(clusterer.flops(item.routed_by) for item in task.items)
    elif subject.how.router == "likelihood":
        n_read = np.array([len(context) for context in requests.contexts])
        total += float(
            (routers.likelihood_flops(subject.experts, each, n_read, n_kept=int(kept.sum(axis=1).max()))).sum()
        )
    return total / float(n_tokens.sum())
