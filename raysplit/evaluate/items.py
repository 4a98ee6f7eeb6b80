"""Tasks and their items: contexts, and continuations of which one is right."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

Source = str
"""Where a task's data are from, with the version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question. Its requests are scored as log p(continuation | context)."""

    key: str
    requests: tuple[tuple[str, str], ...]
    """(context, continuation) of each choice; the blank between them belongs to the continuation."""
    gold: int = 0
    """Number of the right choice."""
    n_characters: tuple[int, ...]
    """Characters of each choice without the blank before it; accuracy_per_char divides by them."""
    routed_by: str
    """What a router may read: the part of the context that all choices share."""
    document: str = ""
    """`key_of` its held-out document, by which its label is looked up; empty where the item is of none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """Items that are measured together."""

    name: str
    items: tuple[Item, ...]
    source: Source
    is_document: bool = False
    """Whether a context and its continuation are a document: an end of text stands before it, and one longer than the
    model's context is read in windows. In other tasks a context that is too long loses its beginning."""

    @property
    def kind(self) -> str:
        """The name without the domain: ``cloze`` of ``cloze/law``."""
        return self.name.partition("/")[0]

    @property
    def n_choices(self) -> int:
        """Most choices of an item; 1 where one continuation is scored alone."""
        return max(len(item.requests) for item in self.items)

    @property
    def chance(self) -> float | None:
        """Accuracy of a guess; None where there is nothing to choose from."""
        if self.n_choices == 1:
            return None
        return sum(1 / len(item.requests) for item in self.items) / len(self.items)

    def first(self, limit: int | None) -> Self:
        """The task with its first ``limit`` items; with all where it is None."""
        return replace(self, items=self.items[:limit])


def key_of(text: str) -> str:
    """Key of a document: a hash of its text, the same in every corpus and domain."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def choice_item(key: object, context: str, choices: Sequence[str], gold: int, *, routed_by: str | None = None) -> Item:
    """An item of one context, with a blank before each choice.

    Raises:
        TypeError: the context or a choice is no text.
    """
    _check_texts(context, *choices)
    return Item(
        key=str(key),
        requests=tuple((context, f" {choice}") for choice in choices),
        gold=gold,
        n_characters=tuple(len(choice) or 1 for choice in choices),
        routed_by=context if routed_by is None else routed_by,
    )


def text_item(key: object, context: str, continuation: str, *, document: str = "") -> Item:
    """An item of one continuation, which is taken as it is.

    Raises:
        TypeError: the context or the continuation is no text.
        ValueError: the continuation is empty.
    """
    _check_texts(context, continuation)
    if not continuation:
        raise ValueError("there is nothing to be predicted")
    return Item(
        key=str(key),
        requests=((context, continuation),),
        n_characters=(len(continuation.lstrip()) or 1,),
        routed_by=context,
        document=document,
    )


def _check_texts(*texts: object) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{str(text)[:40]!r} is no text")
