"""Words that tell a cluster from the others, and names made of them."""

from collections.abc import Sequence

import numpy as np

_WORD = r"[^\W\d_]{2,}"
"""Two or more letters of any script."""
_MOST_WORDS = 20_000
_NAME_WORDS, _NAME_CHARACTERS = 3, 16


def telling_terms(texts: Sequence[str], labels: np.ndarray, *, k: int, n_terms: int) -> list[list[str]]:
    """The most telling words of each cluster, the most telling first; none where texts have no words.

    A word t is ranked by p_k(t) log(p_k(t) / q_k(t)), its term in a Kullback-Leibler divergence. p_k(t) is the share of
    the cluster's documents that have the word, q_k(t) the share of the other documents, both with half a document added
    for and against.

    Args:
        texts: documents, or excerpts of them.
        labels: (n,) numbers of their clusters.
        k: number of clusters.
        n_terms: most words of a cluster.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(token_pattern=_WORD, binary=True, max_features=_MOST_WORDS)
    try:
        has = vectorizer.fit_transform(texts)  # (n, words)
    except ValueError:
        return [[] for _ in range(k)]
    words = vectorizer.get_feature_names_out()
    members = np.zeros((k, len(texts)))
    members[labels, np.arange(len(texts))] = 1
    inside = members @ has  # (k, words) documents
    sizes = members.sum(1, keepdims=True)
    p = (inside + 0.5) / (sizes + 1)
    q = (inside.sum(0) - inside + 0.5) / (len(texts) - sizes + 1)
    tells = p * np.log(p / q)
    order = np.argsort(-tells, axis=1, kind="stable")[:, :n_terms]
    return [[str(words[word]) for word in order[c] if tells[c, word] > 0] for c in range(k)]


def cluster_names(terms: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names that can be domains: the cluster's number and its first words in ASCII, such as ``c0-import-self-def``."""
    names = []
    for number, words in enumerate(terms):
        ascii_words = [word[:_NAME_CHARACTERS] for word in words if word.isascii()][:_NAME_WORDS]
        names.append("-".join([f"c{number}", *ascii_words]))
    return tuple(names)


def agreement(documents: np.ndarray) -> tuple[float, float]:
    """How well clusters agree with labels: normalized mutual information, and purity, each in [0, 1].

    The mutual information is divided by the mean of the two entropies, as in scikit-learn. Purity is the share of
    documents whose label is the most frequent one of their cluster.

    Args:
        documents: (labels, clusters) number of documents with each label in each cluster.
    """
    joint = documents / documents.sum()
    apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    seen = joint > 0
    information = float(joint[seen] @ np.log(joint[seen] / apart[seen]))
    entropies = [
        float(-share[share > 0] @ np.log(share[share > 0])) for share in (joint.sum(axis=1), joint.sum(axis=0))
    ]
    mean = sum(entropies) / 2
    return (information / mean if mean > 0 else 1.0), float(joint.max(axis=0).sum())
