"""Tasks made from a run's held-out documents, easy enough that models of 100k parameters do better than chance.

cloze           the next word, against three words of the domain of like length and frequency
continuation    the next 100 bytes, against 100 bytes from each of three other documents of the domain
pairs           the next 100 bytes, against the same with two words swapped
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.evaluate.held_out import HeldOutText
from raysplit.evaluate.items import EvaluationTask, Item, key_of

CONTINUED_BYTES = 100
_STRIDE_BYTES = 600
"""Characters between the places in a document where a question is made."""
_N_DISTRACTORS = 3
_NEAREST = 12
"""Words most like the right one, among which the wrong choices are drawn."""
_WORD = re.compile(r"\S+")
_PART = re.compile(r"\w+")
"""A word for swapping; in code, what stands between signs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A place in a document where it is to be continued."""

    context: str
    """Text before it, without the blank at its end."""
    rest: str
    """Text from that blank on."""
    document: int
    """Number of the document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """A domain's held-out documents, and how often each word occurs in them."""

    name: str
    documents: Sequence[str]
    words: Mapping[str, int]


def _cloze(place: Place, domain: Domain, draw: np.random.Generator) -> tuple[str, list[str]] | None:
    found = _WORD.search(place.rest)
    if found is None or len(found.group()) < 3:
        return None
    blank, word = place.rest[: found.start()], found.group()
    count = domain.words[word]
    others = sorted(
        (other for other in domain.words if other != word),
        key=lambda other: (abs(len(other) - len(word)) + abs(math.log2(domain.words[other] / count)), other),
    )[:_NEAREST]
    if len(others) < _N_DISTRACTORS:
        return None
    chosen = draw.choice(len(others), size=_N_DISTRACTORS, replace=False)
    return blank + word, [blank + others[number] for number in chosen]


def _continuation(place: Place, domain: Domain, draw: np.random.Generator) -> tuple[str, list[str]] | None:
    others = [number for number in range(len(domain.documents)) if number != place.document]
    if len(others) < _N_DISTRACTORS:
        return None
    false = []
    for number in draw.choice(others, size=_N_DISTRACTORS, replace=False):
        text = domain.documents[number]
        blanks = [m.start() for m in re.finditer(r"\s+", text) if len(text) - m.start() >= CONTINUED_BYTES]
        if not blanks:
            return None
        false.append(_first_bytes(text[blanks[draw.integers(len(blanks))] :]))
    return _first_bytes(place.rest), false


def _pairs(place: Place, domain: Domain, draw: np.random.Generator) -> tuple[str, list[str]] | None:
    true = _first_bytes(place.rest)
    parts = list(_PART.finditer(true))
    pairs = [(a, b) for n, a in enumerate(parts) for b in parts[n + 1 :] if a.group() != b.group()]
    if not pairs:
        return None
    a, b = pairs[draw.integers(len(pairs))]
    swapped = true[: a.start()] + b.group() + true[a.end() : b.start()] + a.group() + true[b.end() :]
    return true, [swapped]


_MAKERS: dict[str, Callable[[Place, Domain, np.random.Generator], tuple[str, list[str]] | None]] = {
    "cloze": _cloze,
    "continuation": _continuation,
    "pairs": _pairs,
}
MADE: tuple[str, ...] = tuple(_MAKERS)


def made_tasks(
    kind: str, held_out: HeldOutText, *, context_bytes: int, limit: int | None, seed: int = 0
) -> list[EvaluationTask]:
    """A task for each domain. Equal arguments give equal tasks, and a larger limit only adds items.

    Args:
        kind: one of `MADE`.
        held_out: the documents.
        context_bytes: most bytes of a context.
        limit: most items of a domain; None for all.
        seed: of the draws.
    """
    tasks = []
    for name, documents in held_out.documents.items():
        words = Counter(word for text in documents for word in _WORD.findall(text))
        domain = Domain(name=name, documents=documents, words=words)
        items: list[Item] = []
        for number, place in enumerate(_places(documents, context_bytes)):
            if limit is not None and len(items) >= limit:
                break
            draw = np.random.default_rng([seed, number, *kind.encode(), *name.encode()])
            if made := _MAKERS[kind](place, domain, draw):
                document = key_of(documents[place.document])
                items.append(_item(f"{name}/{number}", place.context, *made, document=document, draw=draw))
        if items:
            tasks.append(
                EvaluationTask(name=f"{kind}/{name}", items=tuple(items), source=f"{held_out.origin}, seed {seed}")
            )
    return tasks


def _item(key: str, context: str, true: str, false: Sequence[str], *, document: str, draw: np.random.Generator) -> Item:
    """An item with its choices in a drawn order; otherwise the first of equally likely ones would always be right."""
    choices = [true, *false]
    order = [int(number) for number in draw.permutation(len(choices))]
    return Item(
        key=key,
        requests=tuple((context, choices[number]) for number in order),
        gold=order.index(0),
        n_characters=tuple(len(choices[number].lstrip()) or 1 for number in order),
        routed_by=context,
        document=document,
    )


def _places(documents: Sequence[str], context_bytes: int) -> Iterator[Place]:
    """Places: the first of each document, then the second of each, so that even a few items are of many documents."""
    starts = [(at, number) for number, text in enumerate(documents) for at in range(0, len(text), _STRIDE_BYTES)]
    for at, number in sorted(starts):
        text = documents[number][at:]
        context = text.encode(errors="replace")[:context_bytes].decode(errors="ignore")
        end = max((found.start() for found in re.finditer(r"\s+", context)), default=0)
        context = context[:end]
        rest = text[end:]
        if context.strip() and len(rest) >= CONTINUED_BYTES:
            yield Place(context=context, rest=rest, document=number)


def _first_bytes(text: str) -> str:
    return text.encode(errors="replace")[:CONTINUED_BYTES].decode(errors="ignore").rstrip()
