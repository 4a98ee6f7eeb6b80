"""Held-out documents of a run's corpus, and the task of predicting how they go on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from raysplit.corpus import Corpus
from raysplit.errors import TaskError
from raysplit.evaluate.items import EvaluationTask, Item, key_of, text_item
from raysplit.experts.routing import prefix_of
from raysplit.experts.tokens import TextTokens

HELD_OUT = "held-out"
_MOST_BYTES = 4096
"""Most bytes of a document that are read, so that a few long ones do not take the time of many."""
_LEAST_BYTES = 320
"""Fewest bytes of a document, so that something is left after the prefix."""
_MOST_DOCUMENTS = 1000
"""Most documents of a domain that tasks are made from; a task's limit takes the first of them."""
_FITTED_EVERY, _MOST_FITTED = 4, 32
_PIECE_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutText:
    """A run's held-out documents by domain, in two parts that share none."""

    documents: Mapping[str, Sequence[str]]
    """Domain -> documents that figures are measured on."""
    fitted: Mapping[str, Sequence[str]]
    """Domain -> documents that temperatures are fitted on: every fourth one, up to 32."""
    origin: str


def read_held_out(corpus: Corpus) -> HeldOutText:
    """The first held-out documents of each domain that are long enough, cut to `_MOST_BYTES`.

    Raises:
        TaskError: a domain holds none.
    """
    measured: dict[str, list[str]] = {}
    fitted: dict[str, list[str]] = {}
    for domain in corpus.domains:
        texts = list(islice(_long_enough(documents_of(corpus, domain, side="validation")), _MOST_DOCUMENTS))
        if not texts:
            raise TaskError(
                f"{corpus.folder}: domain {domain!r} holds out no document of {_LEAST_BYTES} bytes or more; "
                "raise corpus.validation_fraction"
            )
        fitted[domain] = texts[_FITTED_EVERY - 1 :: _FITTED_EVERY][:_MOST_FITTED]
        kept = set(range(_FITTED_EVERY - 1, len(texts), _FITTED_EVERY)[:_MOST_FITTED])
        measured[domain] = [text for number, text in enumerate(texts) if number not in kept]
    return HeldOutText(documents=measured, fitted=fitted, origin=f"held-out documents of {corpus.folder}")


def labels_of(corpus: Corpus) -> dict[str, str]:
    """`key_of` each held-out document that items can be made from -> its domain in this corpus.

    So two runs that divide the same text differently are evaluated on the same items, each with its own labels. A
    document that is among one run's first `_MOST_DOCUMENTS` may stand behind them in the other's, so all are read.
    """
    return {
        key_of(text): domain
        for domain in corpus.domains
        for text in _long_enough(documents_of(corpus, domain, side="validation"))
    }


def held_out_tasks(held_out: HeldOutText, *, limit: int | None) -> list[EvaluationTask]:
    """A task for each domain: predict the rest of each document after its beginning, which routers read."""
    return [
        EvaluationTask(
            name=f"{HELD_OUT}/{domain}",
            items=document_items(texts[:limit], domain),
            source=held_out.origin,
            is_document=True,
        )
        for domain, texts in held_out.documents.items()
    ]


def documents_of(corpus: Corpus, domain: str, *, side: Literal["train", "validation"]) -> Iterator[str]:
    """Texts of one side of a domain, decoded from the tokens between ends of text."""
    tokens = TextTokens.of(corpus.tokenizer_path)
    rest = np.empty(0, dtype=np.int64)
    for piece in corpus.token_pieces(domain, side=side, piece_tokens=_PIECE_TOKENS):
        whole = np.concatenate([rest, piece])
        *documents, rest = np.split(whole, np.flatnonzero(whole == tokens.end_of_text) + 1)
        for document in documents:
            yield tokens.decode(document)


def document_items(texts: Sequence[str], domain: str) -> tuple[Item, ...]:
    """An item for each document: the rest of it, after the prefix by which it is routed."""
    return tuple(
        text_item(f"{domain}/{number}", prefix := prefix_of(text), text[len(prefix) :], document=key_of(text))
        for number, text in enumerate(texts)
    )


def _long_enough(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        raw = text.encode(errors="replace")
        if len(raw) >= _LEAST_BYTES:
            yield raw[:_MOST_BYTES].decode(errors="ignore")
