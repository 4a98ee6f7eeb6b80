"""How much of a task a run may have read: items of which 13 words in a row stand in its training text.

Words are in lower case, and signs are left out, as in the report on GPT-3 (arXiv:2005.14165, appendix C).
"""

import re
from collections.abc import Iterable, Sequence

from raysplit.corpus import Corpus
from raysplit.evaluate.held_out import documents_of
from raysplit.evaluate.items import EvaluationTask

N_WORDS = 13
_WORD = re.compile(r"\w+")


def overlapping(tasks: Sequence[EvaluationTask], corpus: Corpus) -> dict[str, dict[str, int]]:
    """Task's name -> domain -> number of items of which 13 words in a row stand in the domain's training text.

    The general set, which experts replay, counts as a domain here.
    An item's words are those of its context with each of its choices. The items' n-grams are held in memory, and the
    text is read once. An item of fewer words never overlaps.
    """
    owners: dict[int, list[tuple[int, int]]] = {}
    for number, task in enumerate(tasks):
        for at, item in enumerate(task.items):
            asked = [_words(context + continuation) for context, continuation in item.requests]
            for gram in {gram for words in asked for gram in _grams(words)}:
                owners.setdefault(gram, []).append((number, at))
    found: dict[str, dict[str, int]] = {task.name: {} for task in tasks}
    for domain in corpus.manifest.texts:
        texts = documents_of(corpus, domain, side="train")
        read = {owner for text in texts for gram in _grams(_words(text)) for owner in owners.get(gram, ())}
        for number, task in enumerate(tasks):
            found[task.name][domain] = sum(owner[0] == number for owner in read)
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: Sequence[str]) -> Iterable[int]:
    """A 64-bit hash of each n-gram; two n-grams hardly ever share one."""
    return (hash(tuple(words[at : at + N_WORDS])) for at in range(len(words) - N_WORDS + 1))
