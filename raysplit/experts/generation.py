"""Generating from a prompt, with one expert or with a mixture whose weights may change with each token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import logsumexp

from raysplit.errors import ExpertError
from raysplit.experts.loaded import TokenReader
from raysplit.experts.tokens import TextTokens

_HALF_A_CHARACTER = "\ufffd"
"""Character that decoding gives for bytes that are no whole character yet."""

Ending = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are drawn, and when to stop.

    Raises:
        ExpertError: a value is out of its range.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Nucleus sampling: only the likeliest tokens that together have this probability are drawn from."""
    seed: int | None = None
    """Any integer, as OpenAI's clients may send; of those modulo 2^64 alike the draws are the same."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""

    def __post_init__(self) -> None:
        for name, value, is_right, right in (
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature, 0 <= self.temperature < np.inf, "0 or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("stop", self.stop, all(self.stop), "texts that are not empty"),
        ):
            if not is_right:
                raise ExpertError(f"{name} = {value!r}: must be {right}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A piece of the generated text; the last one says why it is the last."""

    text: str
    n_tokens: int
    ended: Ending | None = None


def write(
    readers: Sequence[TokenReader],
    log_weights: np.ndarray,
    prompt: np.ndarray,
    tokens: TextTokens,
    sampling: Sampling,
    *,
    room: int,
    updated: bool,
    update_from: int = 0,
) -> Iterator[Piece]:
    """Generate from a prompt until the end of text, a stop, or the most tokens that are allowed.

    Args:
        readers: of the K experts that take part, nothing read yet.
        log_weights: (K,) finite, normalised.
        prompt: (n,) tokens, n >= 1.
        tokens: the experts' tokenizer.
        sampling: how to draw.
        room: tokens that the context leaves beside the prompt, at least 1.
        updated: whether the weights follow the likelihood of prompt and text.
        update_from: number of leading tokens of the prompt that the weights were chosen by; they do not count again.
    """
    draw = np.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)
    weights = np.asarray(log_weights, dtype=np.float64)
    if updated and len(readers) > 1:
        nexts, weights = _read_each(readers, prompt, weights, update_from)
    else:
        nexts = np.stack([reader.read(prompt) for reader in readers])  # (K, V)
    longest, written, said = min(sampling.max_tokens, room), [], 0
    for n_tokens in range(1, longest + 1):
        token = _drawn(logsumexp(weights[:, None] + nexts, axis=0), sampling, draw)
        ended: Ending | None = "stop" if token == tokens.end_of_text else "length" if n_tokens == longest else None
        if ended != "stop":
            written.append(token)
        text = tokens.decode(written)
        cut = min((at for stop in sampling.stop if (at := text.find(stop)) >= 0), default=-1)
        if cut >= 0:
            text, ended = text[:cut], "stop"
        ready = len(text) if ended else _ready(text, sampling.stop)
        if ready > said or ended:
            yield Piece(text=text[said:ready], n_tokens=n_tokens, ended=ended)
            said = max(said, ready)
        if ended:
            return
        if updated:
            weights = weights + nexts[:, token]
            weights = weights - logsumexp(weights)
        nexts = np.stack([reader.read([token]) for reader in readers])


def _read_each(
    readers: Sequence[TokenReader], prompt: np.ndarray, weights: np.ndarray, update_from: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the prompt token by token and update the weights; (K, V) of the next token, (K,) log-weights."""
    start = max(1, update_from)
    nexts = np.stack([reader.read(prompt[:start]) for reader in readers])
    for token in prompt[start:]:
        weights = weights + nexts[:, token]
        nexts = np.stack([reader.read([token]) for reader in readers])
    return nexts, weights - logsumexp(weights)


def _drawn(log_probs: np.ndarray, sampling: Sampling, draw: np.random.Generator) -> int:
    if sampling.temperature == 0:
        return int(np.argmax(log_probs))
    with np.errstate(over="ignore"):  # near zero only the likeliest stays finite
        scaled = (log_probs - log_probs.max()) / sampling.temperature
    probs = np.exp(scaled - logsumexp(scaled))
    if sampling.top_p < 1:
        order = np.argsort(-probs, kind="stable")
        before = np.cumsum(probs[order]) - probs[order]
        probs[order[before >= sampling.top_p]] = 0.0
    return int(draw.choice(len(probs), p=probs / probs.sum()))


def _ready(text: str, stops: Sequence[str]) -> int:
    """How many characters of the text are final: no half character, and no beginning of a stop."""
    end = len(text.rstrip(_HALF_A_CHARACTER))
    for stop in stops:
        for n in range(min(len(stop) - 1, end), 0, -1):
            if text[:end].endswith(stop[:n]):
                end -= n
                break
    return end
