"""Held-out documents of a run's corpus, and the task of reading on in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.corpus import Corpus
from raysplit.errors import TaskError
from raysplit.evaluate.items import Item, Task, text_item
from raysplit.experts.routing import prefix_of
from raysplit.experts.tokens import TextTokens

HELD_OUT = "held-out"
_MOST_BYTES = 4096
"""Of a document, so that a few long ones do not take the time of many."""
_LEAST_BYTES = 320
"""Of a document that a prefix can be read of, and something after it."""
_FITTED_EVERY = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """A run's held-out documents by domain, in two parts that share none."""

    documents: Mapping[str, Sequence[str]]
    """What is reported is measured on these."""
    fitted: Mapping[str, Sequence[str]]
    """Temperatures are fitted on these: every fourth document."""
    origin: str


def read_held_out(corpus: Corpus, *, limit: int | None) -> HeldOut:
    """The first held-out documents of each domain that are long enough to read on in.

    Args:
        corpus: of the run.
        limit: of documents of each domain that are measured on; None for all.

    Raises:
        TaskError: a domain holds none.
    """
    tokens = TextTokens.of(corpus.tokenizer_path)
    measured: dict[str, list[str]] = {}
    fitted: dict[str, list[str]] = {}
    for domain in corpus.domains:
        measured[domain], fitted[domain] = [], []
        for number, text in enumerate(_long_enough(_documents(corpus, domain, tokens))):
            mine = fitted if number % _FITTED_EVERY == _FITTED_EVERY - 1 else measured
            mine[domain].append(text)
            if limit is not None and len(measured[domain]) >= limit:
                break
        if not measured[domain]:
            raise TaskError(
                f"{corpus.folder}: domain {domain!r} holds out no document of {_LEAST_BYTES} bytes or more; "
                "raise corpus.validation_fraction"
            )
    return HeldOut(documents=measured, fitted=fitted, origin=f"held-out documents of {corpus.folder}")


def held_out_tasks(held_out: HeldOut) -> list[Task]:
    """One task a domain: read on in each document after its beginning, which is what routers see."""
    return [
        Task(name=f"{HELD_OUT}/{domain}", items=document_items(texts, domain), source=held_out.origin, is_document=True)
        for domain, texts in held_out.documents.items()
    ]


def document_items(texts: Sequence[str], domain: str) -> tuple[Item, ...]:
    """The rest of each document after the prefix by which it is routed."""
    return tuple(
        text_item(f"{domain}/{number}", prefix := prefix_of(text), text[len(prefix) :], domain=domain)
        for number, text in enumerate(texts)
    )


def _long_enough(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        raw = text.encode(errors="replace")
        if len(raw) >= _LEAST_BYTES:
            yield raw[:_MOST_BYTES].decode(errors="ignore")


def _documents(corpus: Corpus, domain: str, tokens: TextTokens) -> Iterator[str]:
    """Texts between the ends of text; the corpus keeps nothing but their tokens."""
    side = corpus.validation_tokens(domain)
    ends = np.flatnonzero(side == tokens.end_of_text)
    starts = np.concatenate([[0], ends[:-1] + 1])
    for start, end in zip(starts, ends, strict=True):
        yield tokens.decode(side[start:end])
