"""Clusterers, fitted to a sample of the training documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raysplit.discover.clusterer import Clusterer, excerpt, features_of, squared_distances
from raysplit.discover.features import CharacterFeatures, EncoderFeatures, TextFeatures
from raysplit.discover.kmeans import Clustering, balanced_kmeans
from raysplit.discover.terms import cluster_names, telling_terms
from raysplit.errors import CorpusError
from raysplit.space import DiscoverSpec

_RESTARTS = 10
_TERMS, _SAMPLES, _SAMPLE_BYTES = 12, 3, 600


@dataclass(frozen=True, kw_only=True)
class ClusterFit:
    """A clusterer, and what its sample says of its clusters."""

    clusterer: Clusterer
    terms: list[list[str]]
    """Telling words of each cluster, as `telling_terms` gives them."""
    samples: list[tuple[str, ...]]
    """Beginnings of the documents nearest to the centre of each cluster."""
    evenness: float
    """Bytes of the largest cluster as a multiple of an equal share."""


def fit(
    texts: Sequence[str],
    n_bytes: np.ndarray,
    ks: Sequence[int],
    settings: DiscoverSpec,
    *,
    encoder: EncoderFeatures | None,
    progress: Callable[[float], None],
) -> list[ClusterFit]:
    """One clusterer for each of ``ks``, all with the same features.

    Args:
        texts: the sample; features are taken of the first ``settings.excerpt_bytes`` of each.
        n_bytes: (n,) bytes of the whole documents, which are their weights.
        ks: numbers of clusters.
        settings: of the discovery.
        encoder: the features; None to fit character n-grams.
        progress: is told the share that is done, in [0, 1].

    Raises:
        CorpusError: too few texts differ, or they have no words.
    """
    progress(0.0)
    features, vectors = _features(texts, settings, encoder)
    fits = []
    for number, k in enumerate(ks, start=1):
        clustering = _clustering(vectors, n_bytes, k, settings)
        terms = telling_terms(texts, clustering.labels, k=k, n_terms=_TERMS)
        clusterer = Clusterer(
            domains=cluster_names(terms), centres=clustering.centres, offsets=clustering.offsets, features=features,
            excerpt_bytes=settings.excerpt_bytes,
        )  # fmt: skip
        samples = _nearest_texts(texts, vectors, clustering)
        fits.append(ClusterFit(clusterer=clusterer, terms=terms, samples=samples, evenness=clustering.evenness))
        progress(number / len(ks))
    return fits


def _features(
    texts: Sequence[str], settings: DiscoverSpec, encoder: EncoderFeatures | None
) -> tuple[TextFeatures, np.ndarray]:
    """The features, and the sample's vectors (n, d)."""
    if encoder is not None:
        return encoder, features_of(texts, encoder, excerpt_bytes=settings.excerpt_bytes)
    return CharacterFeatures.fit([excerpt(text, settings.excerpt_bytes) for text in texts], seed=settings.seed)


def _clustering(vectors: np.ndarray, n_bytes: np.ndarray, k: int, settings: DiscoverSpec) -> Clustering:
    n_different = len(np.unique(vectors.round(4), axis=0))
    if n_different < k:
        raise CorpusError(
            f"discover.k = {k}: of the {len(vectors)} documents that clusters are fitted to, {n_different} differ in "
            f"what is looked at, their first {settings.excerpt_bytes} bytes; give fewer clusters, or raise "
            "discover.excerpt_bytes or discover.sample_bytes"
        )
    return balanced_kmeans(vectors, n_bytes, k=k, balance=settings.balance, seed=settings.seed, restarts=_RESTARTS)


def _nearest_texts(texts: Sequence[str], vectors: np.ndarray, clustering: Clustering) -> list[tuple[str, ...]]:
    """Beginnings of the texts nearest to the centre of each cluster, among its own."""
    distances = squared_distances(vectors, clustering.centres)
    nearest = []
    for cluster in range(len(clustering.centres)):
        own = np.flatnonzero(clustering.labels == cluster)
        chosen = own[np.argsort(distances[own, cluster], kind="stable")[:_SAMPLES]]
        nearest.append(tuple(excerpt(texts[number], _SAMPLE_BYTES) for number in chosen))
    return nearest
