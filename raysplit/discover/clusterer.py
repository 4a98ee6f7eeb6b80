"""The clusterer: it says which discovered domain a text is nearest to. It labels a corpus, and later routes prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from raysplit.discover.features import FEATURES, TextFeatures
from raysplit.errors import CorpusError, unknown
from raysplit.files import read_arrays
from raysplit.strict_json import dumps

_RECORD, _ARRAYS = "clusterer.json", "clusterer.npz"
_BATCH_TEXTS = 1024
"""Texts whose features are held at once; the n-grams of each take some hundred kB."""


@dataclass(frozen=True, kw_only=True)
class Clusterer:
    """K centres in a space of text features.

    A text's label is the domain with the least |x - c_k|^2 + o_k, x its features. The offsets o_k are zero where
    clusters need not be balanced. Otherwise they keep each cluster within its capacity (`raysplit.discover.kmeans`).
    """

    domains: tuple[str, ...]
    """(k,) names."""
    centres: np.ndarray
    """(k, d) float64."""
    offsets: np.ndarray
    """(k,) float64, not negative."""
    features: TextFeatures
    excerpt_bytes: int
    """UTF-8 bytes of a text's beginning that features are taken of."""

    def distances(self, texts: Sequence[str]) -> np.ndarray:
        """(n, k) float64: squared Euclidean distances of the texts to the centres, without the offsets."""
        return squared_distances(self.vectors(texts), self.centres)

    def flops(self, text: str) -> float:
        """FLOPs of one text's distances: those of its features, and of their comparison with each centre."""
        return self.features.flops(excerpt(text, self.excerpt_bytes)) + 2.0 * self.centres.size

    def assign(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int64 numbers of the texts' domains."""
        return self.nearest(self.vectors(texts))

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """(n,) int64 numbers of the domains of texts with these ``vectors`` (n, d), as `vectors` gives them."""
        return np.argmin(squared_distances(vectors, self.centres) + self.offsets, axis=1)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 features of the texts' beginnings: of unit length, or zero where a text has no feature."""
        if not len(texts):
            return np.zeros((0, self.centres.shape[1]), dtype=np.float32)
        return features_of(texts, self.features, excerpt_bytes=self.excerpt_bytes)

    def save(self, folder: Path) -> None:
        """Write the clusterer into ``folder``, which is made: numbers as npz, all else as JSON, nothing pickled."""
        folder.mkdir(parents=True, exist_ok=True)
        kind = next(kind for kind, features in FEATURES.items() if isinstance(self.features, features))
        record = {"schema_version": 1, "features": kind, "excerpt_bytes": self.excerpt_bytes, "domains": self.domains}
        self.features.save(folder)
        np.savez(folder / _ARRAYS, centres=self.centres, offsets=self.offsets)
        (folder / _RECORD).write_text(dumps(record, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a clusterer that `save` wrote.

        Raises:
            CorpusError: the folder holds none, it is damaged, or its encoder cannot be loaded.
        """
        folder = Path(folder)
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
            if record["features"] not in FEATURES:
                raise CorpusError(f"{folder / _RECORD}: {unknown('features', record['features'], FEATURES)}")
            arrays, domains = read_arrays(folder / _ARRAYS), tuple(map(str, record["domains"]))
            centres, offsets = arrays["centres"], arrays["offsets"]
            if centres.ndim != 2 or not len(domains) == len(centres) == offsets.size:
                raise ValueError(f"{len(domains)} domains, centres {centres.shape}, {offsets.size} offsets")
            return cls(
                domains=domains,
                centres=centres,
                offsets=offsets,
                features=FEATURES[record["features"]].load(folder),
                excerpt_bytes=int(record["excerpt_bytes"]),
            )
        except FileNotFoundError as error:
            raise CorpusError(f"{folder}: holds no clusterer (no {Path(error.filename).name})") from error
        except OSError as error:
            raise CorpusError(f"{folder}: the clusterer cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{folder}: the clusterer is damaged: {error}") from error


def features_of(texts: Sequence[str], features: TextFeatures, *, excerpt_bytes: int) -> np.ndarray:
    """(n, d) float32 features of the first ``excerpt_bytes`` of each text, n >= 1."""
    batches = (texts[start : start + _BATCH_TEXTS] for start in range(0, len(texts), _BATCH_TEXTS))
    return np.concatenate([features([excerpt(text, excerpt_bytes) for text in batch]) for batch in batches])


def excerpt(text: str, n_bytes: int) -> str:
    """The beginning of a text: at most so many bytes of UTF-8, of whole characters."""
    return text[:n_bytes].encode(errors="replace")[:n_bytes].decode(errors="ignore")


def squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, k) float64 squared Euclidean distances between ``points`` (n, d) and ``centres`` (k, d)."""
    points, centres = points.astype(np.float64), centres.astype(np.float64)
    squares = (points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
    return np.maximum(squares, 0.0)
