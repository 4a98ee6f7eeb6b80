"""How much of a task a run may have read: items of which a run of 13 words stands in its training text.

13 words, lower case, signs left out, as GPT-3's report counts them (2005.14165, appendix C).
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from raysplit.corpus import Corpus
from raysplit.evaluate.items import Task
from raysplit.experts.tokens import TextTokens

N_WORDS = 13
_PIECE_TOKENS = 1 << 20
_WORD = re.compile(r"\w+")


def overlapping(tasks: Sequence[Task], corpus: Corpus) -> dict[str, dict[str, int]]:
    """Task -> domain -> items of which 13 words in a row stand in the domain's training text.

    The items' n-grams are held, and the text goes by; an item of fewer words has none, and never overlaps.
    """
    owners: dict[int, list[tuple[int, int]]] = {}
    for number, task in enumerate(tasks):
        for at, item in enumerate(task.items):
            text = " ".join(dict.fromkeys(part for request in item.requests for part in request))
            for gram in set(_grams(_words(text))):
                owners.setdefault(gram, []).append((number, at))
    found: dict[str, dict[str, int]] = {task.name: {} for task in tasks}
    for domain in corpus.domains:
        read = {owner for gram in _corpus_grams(corpus, domain) if gram in owners for owner in owners[gram]}
        for number, task in enumerate(tasks):
            found[task.name][domain] = sum(owner[0] == number for owner in read)
    return found


def _corpus_grams(corpus: Corpus, domain: str) -> Iterator[int]:
    """Of all training text; what lies across two documents is no n-gram of either."""
    tokens = TextTokens.of(corpus.tokenizer_path)
    rest = np.empty(0, dtype=np.int64)
    for piece in corpus.training_tokens(domain, piece_tokens=_PIECE_TOKENS):
        whole = np.concatenate([rest, piece])
        *documents, rest = np.split(whole, np.flatnonzero(whole == tokens.end_of_text) + 1)
        for document in documents:
            yield from _grams(_words(tokens.decode(document)))
    yield from _grams(_words(tokens.decode(rest)))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(words: Sequence[str]) -> Iterable[int]:
    """A hash of each; of 64 bits, so that two alike are the same one."""
    return (hash(tuple(words[at : at + N_WORDS])) for at in range(len(words) - N_WORDS + 1))
