"""Items as tokens, cut between context and continuation exactly as lm-eval 0.4.13 does (`lm_eval/api/model.py`).

Blanks at the end of a context move into the continuation. Context and continuation are encoded together, and the
context once more alone. The tokens of the joint encoding beyond the length of the lone context are scored, after the
lone context. So no token of a context depends on the answer. A context that is too long loses its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.errors import TaskError
from raysplit.evaluate.items import EvaluationTask
from raysplit.experts.tokens import TextTokens

MOST_TRUNCATED = 0.05
"""Largest share of a task's items that may lose their beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """The r requests of a task's items, one after another."""

    tokens: Sequence[np.ndarray]
    """For each request (n,) token numbers of context and continuation; the first token is only read."""
    n_scored: np.ndarray
    """(r,) number of tokens of the continuation, which are the last ones."""
    n_bytes: np.ndarray
    """(r,) UTF-8 bytes of the continuation, with the blank before it."""
    first: np.ndarray
    """(items + 1,) number of each item's first request."""
    contexts: Sequence[np.ndarray]
    """For each item (n,) tokens that routers may read: an end of text, then the context that all choices share."""
    n_truncated: int
    """Items of which a request lost its beginning."""

    @property
    def item(self) -> np.ndarray:
        """(r,) number of each request's item."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    @property
    def sequences(self) -> list[np.ndarray]:
        """All sequences that a model reads: the requests, then the contexts."""
        return [*self.tokens, *self.contexts]

    @property
    def n_tokens_to_score(self) -> int:
        """Tokens that one model scores."""
        return sum(len(tokens) - 1 for tokens in self.sequences)


def encode(task: EvaluationTask, tokens: TextTokens, *, context_length: int) -> Requests:
    """The task's requests for a model.

    Args:
        task: its items.
        tokens: the model's tokenizer.
        context_length: of the model, tokens.
    """
    pairs = [_with_blanks(*request) for item in task.items for request in item.requests]
    whole = tokens.encode([context + continuation for context, continuation in pairs])
    contexts = tokens.encode([context for context, _ in pairs])
    begin = np.array([tokens.end_of_text])
    cut, n_scored, is_cut = [], [], []
    for together, context in zip(whole, contexts, strict=True):
        if len(together) <= len(context):  # an answer that is but the end of the context's last token
            context = together[:-1]
        n = len(together) - len(context)
        both = np.concatenate([context, together[len(context) :]])
        if task.is_document or not len(context):
            both = np.concatenate([begin, both])
        too_long = not task.is_document and len(both) > context_length + 1
        if too_long:  # but a continuation is scored whole, in windows where it must be
            both = both[-(max(context_length, n) + 1) :]
        cut.append(both)
        n_scored.append(min(n, len(both) - 1))
        is_cut.append(too_long)
    first = np.cumsum([0, *(len(item.requests) for item in task.items)])
    shared = tokens.encode([item.routed_by for item in task.items])
    return Requests(
        tokens=cut,
        n_scored=np.array(n_scored),
        n_bytes=np.array([len(continuation.encode(errors="replace")) for _, continuation in pairs]),
        first=first,
        contexts=[np.concatenate([begin, context[-context_length:]]) for context in shared],
        n_truncated=int(np.logical_or.reduceat(is_cut, first[:-1]).sum()),
    )


def check_truncation(task: EvaluationTask, requests: Requests, *, context_length: int, model: str) -> None:
    """Refuse a task of which too many items do not fit the context.

    Raises:
        TaskError: more than `MOST_TRUNCATED` of its items would lose their beginning.
    """
    share = requests.n_truncated / len(task.items)
    if share > MOST_TRUNCATED:
        raise TaskError(
            f"task {task.name}: {requests.n_truncated:,} of {len(task.items):,} items ({share:.0%}) are longer than "
            f"the context of {model} ({context_length:,} tokens), and at most {MOST_TRUNCATED:.0%} may be cut; leave "
            "the task out, or evaluate models with a longer context"
        )


def _with_blanks(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation
