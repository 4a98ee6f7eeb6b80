"""From log-likelihoods to figures, each with an interval, and differences between subjects over the same items.

    bits_per_byte      -log2 p(right continuation) / its UTF-8 bytes
    loss               -ln p / its tokens; for held-out documents alone, since other tasks compare across tokenizers
    prob_per_char      p(right continuation) ^ (1 / its characters): DataDecide's CORRECT_PROB (2504.11393, section 3.3)
    accuracy           whether the right choice is the likeliest; of one continuation, whether greedy decoding gives it
    accuracy_per_char  the same with log-likelihoods divided by characters, lm-eval's acc_norm

A figure of a task is the mean over its items. For documents it is all bits over all bytes, or all nats over all tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysplit.evaluate.items import EvaluationTask
from raysplit.evaluate.requests import Requests
from raysplit.split import Interval

Metric = Literal["bits_per_byte", "loss", "prob_per_char", "accuracy", "accuracy_per_char"]
LOWER_IS_BETTER: tuple[Metric, ...] = ("bits_per_byte", "loss")
LEVEL = 0.95
_RESAMPLES = 1000
_BLOCK = 100
"""Resamples at a time; their counts take 11 MB for a task of 14,042 items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """One metric of one subject, item by item."""

    values: np.ndarray
    """(items,) the metric of each item."""
    weights: np.ndarray
    """(items,) weights of the mean: 1, or the bytes or tokens of documents."""

    @property
    def mean(self) -> float:
        return float((self.values * self.weights).sum() / self.weights.sum())


def figures_of(
    task: EvaluationTask, requests: Requests, log_likelihoods: np.ndarray, is_greedy: np.ndarray | None
) -> dict[Metric, Figures]:
    """Every metric that the task has for a subject.

    Args:
        task: the task.
        requests: its r requests.
        log_likelihoods: (r,) nats of their continuations.
        is_greedy: (r,) whether greedy decoding gives the continuation; None where that is not known.
    """
    right = requests.first[:-1] + np.array([item.gold for item in task.items])  # (items,) number of the request
    nats = -log_likelihoods[right]
    n_bytes, n_tokens = requests.n_bytes[right], requests.n_scored[right]
    n_characters = np.array([n for item in task.items for n in item.n_characters])  # (r,)
    ones = np.ones(len(right))
    found: dict[Metric, Figures] = {
        "bits_per_byte": Figures(
            values=nats / math.log(2) / n_bytes, weights=n_bytes.astype(float) if task.is_document else ones
        )
    }
    if task.is_document:
        found["loss"] = Figures(values=nats / n_tokens, weights=n_tokens.astype(float))
        return found
    found["prob_per_char"] = Figures(values=np.exp(-nats / n_characters[right]), weights=ones)
    if task.n_choices > 1:
        scores = {"accuracy": log_likelihoods, "accuracy_per_char": log_likelihoods / n_characters}
        for metric, score in scores.items():
            chosen = np.array([np.argmax(each) for each in np.split(score, requests.first[1:-1])])
            found[metric] = Figures(  # type: ignore[index]
                values=(chosen == right - requests.first[:-1]).astype(float), weights=ones
            )
    elif is_greedy is not None:
        found["accuracy"] = Figures(values=is_greedy[right].astype(float), weights=ones)
    return found


def resampled_means(figures: Mapping[str, Figures], *, seed: int = 0) -> dict[str, np.ndarray]:
    """(resamples,) bootstrap means of each subject's figures; every subject has the same draws of items.

    So the difference of two subjects is paired: an item that is hard for both moves both.
    """
    [n_items] = {len(each.values) for each in figures.values()}
    draw = np.random.default_rng([seed, n_items])
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for _ in range(_RESAMPLES // _BLOCK):
        counts = draw.multinomial(n_items, np.full(n_items, 1 / n_items), size=_BLOCK)  # (block, items)
        for name, each in figures.items():
            blocks[name].append(counts @ (each.values * each.weights) / (counts @ each.weights))
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def interval(figures: Figures, resampled: np.ndarray) -> Interval:
    """The mean over the items, and its `LEVEL` interval by the bootstrap's quantiles."""
    return _around(figures.mean, resampled)


def paired(figures: Figures, resampled: np.ndarray, against: Figures, resampled_against: np.ndarray) -> Interval:
    """The difference from another subject over the same items, and its interval."""
    return _around(figures.mean - against.mean, resampled - resampled_against)


def _around(mean: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(mean=mean, low=float(low), high=float(high))
