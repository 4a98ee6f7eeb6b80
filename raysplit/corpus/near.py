"""Documents that nearly equal a held-out one, found by MinHash: they are not trained on.

Two texts are as near as the Jaccard similarity of their sets of shingles (runs of neighbouring words). MinHash
signatures of 128 numbers estimate it with a standard deviation of at most 0.045. Locality-sensitive hashing by bands
finds the pairs that are worth comparing (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3). Rensa computes both. No signature outlives a build, so a new version of Rensa may change its hashes.
"""

import pickle
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from raysplit.corpus.runs import write_durably
from raysplit.space import NearDuplicateSpec

_N_HASHES = 128
_SEED = 1
_MISSED = 0.01
"""Largest share, of the pairs whose similarity is the threshold, that the bands may miss."""
_LONG_WORD = 20
"""Characters a word on average; more of them are sentences of a script without blanks, or lines of data."""
_CHARACTERS_A_WORD = 3


class HeldOutTexts:
    """Signatures of held-out documents, to look others up in."""

    def __init__(self, near: NearDuplicateSpec, signatures: Sequence[object], owners: np.ndarray) -> None:
        from rensa import RMinHashLSH

        self._near, self._signatures, self._owners = near, signatures, owners
        self._index = RMinHashLSH(near.threshold, _N_HASHES, n_bands(near.threshold))
        self._index.insert_many(signatures)

    def owners_of(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int64: for each text, the number of the domain that holds out a text so near; -1 where none does."""
        found = np.full(len(texts), -1, dtype=np.int64)
        signatures = signatures_of(texts, self._near)
        for number, candidates in enumerate(self._index.query_all(signatures)):
            own = signatures[number]
            near = (other for other in sorted(candidates) if self._is_near(own, self._signatures[other]))
            first = next(near, None)
            if first is not None:
                found[number] = self._owners[first]
        return found

    def _is_near(self, one: object, other: object) -> bool:
        return bool(one.jaccard(other) >= self._near.threshold)  # type: ignore[attr-defined]


def n_bands(threshold: float) -> int:
    """How many bands a signature is cut into: the fewest that miss at most `_MISSED` of the pairs at the threshold."""
    rows = [1, 2, 4, 8, 16, 32]
    finding = [r for r in rows if (1 - threshold**r) ** (_N_HASHES // r) <= _MISSED]
    return _N_HASHES // max(finding, default=1)


def signatures_of(texts: Sequence[str], near: NearDuplicateSpec) -> list[object]:
    """(n,) of Rensa's `RMinHash`."""
    from rensa import RMinHash

    return RMinHash.from_token_sets([shingles(text, near.shingle_words) for text in texts], _N_HASHES, _SEED)


def shingles(text: str, n_words: int) -> list[str]:
    """Every run of ``n_words`` neighbouring words; the whole text where it is shorter.

    Where the text has hardly any blanks, a shingle is 3 ``n_words`` neighbouring characters instead.
    """
    words = text.split()
    if len(text) <= _LONG_WORD * len(words):
        return list(map(" ".join, zip(*(words[first:] for first in range(n_words)), strict=False))) or [" ".join(words)]
    joined, size = " ".join(words), _CHARACTERS_A_WORD * n_words
    return [joined[first : first + size] for first in range(max(1, len(joined) - size + 1))]


def save_signatures(path: Path, near: NearDuplicateSpec, signatures: Sequence[object], owners: np.ndarray) -> None:
    """Write the signatures for `held_out_texts` in any process; the file appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    write_durably(partial, [pickle.dumps((near, signatures, owners))])
    partial.replace(path)


def held_out_texts(path: Path) -> HeldOutTexts:
    """What `save_signatures` wrote; loaded once in each process."""
    return _loaded(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(path: Path, written_ns: int) -> HeldOutTexts:
    near, signatures, owners = pickle.loads(path.read_bytes())
    return HeldOutTexts(near, signatures, owners)
