"""What a task asks: contexts, and continuations of which one is right."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

Source = str
"""Where a task's data came from, with what pins it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question. Its requests are scored as log p(continuation | context)."""

    key: str
    requests: tuple[tuple[str, str], ...]
    """(context, continuation) of each choice; the blank between them is the continuation's."""
    gold: int = 0
    """Number of the right choice."""
    n_characters: tuple[int, ...]
    """Of each choice without the blank before it, by which its length is normalised."""
    routed_by: str
    """What a router may read: the part of the context that all choices share."""
    document: str = ""
    """`key_of` the held-out document it is of, by which its label is looked up; empty where the item is of none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """Items that are measured together."""

    name: str
    items: tuple[Item, ...]
    source: Source
    is_document: bool = False
    """Whether contexts and continuations are documents: an end of text goes before them, and what is longer than the
    context is read in windows; of other tasks the beginning of a long context is cut off."""

    @property
    def kind(self) -> str:
        """Its name without the domain: ``cloze`` of ``cloze/law``."""
        return self.name.partition("/")[0]

    @property
    def n_choices(self) -> int:
        """The most that an item has; 1 where a continuation is only to be likely."""
        return max(len(item.requests) for item in self.items)

    @property
    def chance(self) -> float | None:
        """Accuracy of a guess; None where there is nothing to choose from."""
        if self.n_choices == 1:
            return None
        return sum(1 / len(item.requests) for item in self.items) / len(self.items)

    def first(self, limit: int | None) -> Self:
        """The task with at most so many of its items."""
        return replace(self, items=self.items[:limit])


def key_of(text: str) -> str:
    """Stands for a document, whatever corpus it lies in and whatever domain it has there."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def choice_item(key: object, context: str, choices: Sequence[str], gold: int, *, routed_by: str | None = None) -> Item:
    """An item of one context and choices that a blank parts from it."""
    return Item(
        key=str(key),
        requests=tuple((context, f" {choice}") for choice in choices),
        gold=gold,
        n_characters=tuple(len(choice) for choice in choices),
        routed_by=context if routed_by is None else routed_by,
    )


def text_item(key: object, context: str, continuation: str, *, document: str = "") -> Item:
    """An item whose one continuation is taken as it is."""
    return Item(
        key=str(key),
        requests=((context, continuation),),
        n_characters=(len(continuation.lstrip()) or 1,),
        routed_by=context,
        document=document,
    )
