"""Features of a text for a clusterer: a vector of unit length, of its character n-grams or of a sentence encoder."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from raysplit.errors import CorpusError
from raysplit.files import read_arrays

_N_GRAMS = (3, 4)
_MOST_N_GRAMS = 50_000
_DIMENSIONS = 100
_BATCH_TEXTS = 32
"""Texts in a batch of the encoder."""
_MOST_ENCODER_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class CharacterFeatures:
    """Tf-idf weights of character n-grams within words, projected by a truncated SVD.

    As in c-BTM (Gururangan et al., arXiv:2303.14177, section 2), but with n-grams of characters in place of words: they
    suit code, formulas and any script alike.
    """

    n_grams: tuple[str, ...]
    """(v,) the n-grams."""
    idf: np.ndarray
    """(v,) float32 inverse document frequencies in the texts of the fit."""
    rotation: np.ndarray
    """(v, d) float32 right singular vectors."""

    @classmethod
    def fit(cls, texts: Sequence[str], *, seed: int) -> tuple[Self, np.ndarray]:
        """Learn the n-grams, their weights and the projection from ``texts``, of which there are at least two.

        Returns:
            The features, and the vectors of ``texts``: (n, d) float32.

        Raises:
            CorpusError: the texts have no n-gram.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(max_features=_MOST_N_GRAMS, **_VECTORIZER)
        try:
            weights = vectorizer.fit_transform(texts)  # (n, v)
        except ValueError as error:  # an empty vocabulary
            raise CorpusError(f"the {len(texts)} documents to learn from have no words: {error}") from error
        dimensions = min(_DIMENSIONS, len(texts), weights.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of the explained variance of documents that are all alike
            rotation = TruncatedSVD(dimensions, random_state=seed).fit(weights).components_.T
        features = cls(
            n_grams=tuple(vectorizer.get_feature_names_out()),
            idf=vectorizer.idf_.astype(np.float32),
            rotation=np.ascontiguousarray(rotation, dtype=np.float32),
        )
        return features, _unit(weights @ features.rotation)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 of unit length; zero for a text that has none of the n-grams."""
        return _unit(self._vectorizer.transform(texts) @ self.rotation)

    def flops(self, text: str) -> float:
        """Most FLOPs of one text's features: each of its n-grams adds a row of the rotation."""
        return 2.0 * len(_N_GRAMS) * len(text) * self.rotation.shape[1]

    @cached_property
    def _vectorizer(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(vocabulary=list(self.n_grams), **_VECTORIZER)
        vectorizer.idf_ = self.idf
        return vectorizer

    def save(self, folder: Path) -> None:
        """Write ``n_grams.json`` and ``features.npz``."""
        (folder / "n_grams.json").write_text(json.dumps(self.n_grams), encoding="utf-8")
        np.savez(folder / "features.npz", idf=self.idf, rotation=self.rotation)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Of a folder that `save` wrote."""
        n_grams = json.loads((folder / "n_grams.json").read_text(encoding="utf-8"))
        arrays = read_arrays(folder / "features.npz")
        idf, rotation = arrays["idf"], arrays["rotation"]
        if rotation.ndim != 2 or not len(set(n_grams)) == len(n_grams) == len(rotation) == idf.size:
            raise ValueError(f"{len(set(n_grams))} n-grams, {idf.size} weights, and a rotation {rotation.shape}")
        return cls(n_grams=tuple(n_grams), idf=idf, rotation=rotation)


_VECTORIZER: dict[str, Any] = {
    "analyzer": "char_wb",
    "ngram_range": _N_GRAMS,
    "sublinear_tf": True,  # NMI .98 in place of .90 on seven kinds of text: benchmarks/discover/discovery.py
    "dtype": np.float32,
}


@dataclass(frozen=True, kw_only=True)
class EncoderFeatures:
    """Mean of an encoder's last hidden states over a text's tokens (mean pooling)."""

    name: str
    """Name on the hub, or a folder."""

    def __post_init__(self) -> None:
        _ = self._parts  # what cannot be loaded is told before any text is read

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32 of unit length; zero for a text without tokens."""
        import torch

        tokenizer, model = self._parts
        means = []
        for start in range(0, len(texts), _BATCH_TEXTS):
            batch = tokenizer(
                list(texts[start : start + _BATCH_TEXTS]),
                padding=True, truncation=True, max_length=self._most_tokens, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            mask = batch["attention_mask"][:, :, None]  # (batch, tokens, 1)
            means.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).float().numpy())
        return _unit(np.concatenate(means))

    def flops(self, text: str) -> float:
        """FLOPs of the encoder's pass over one text of T tokens.

        For each token two for each weight of a linear layer, and 4 T d L of attention (width d, L layers).
        """
        import torch

        tokenizer, model = self._parts
        n_tokens = len(tokenizer(text, truncation=True, max_length=self._most_tokens)["input_ids"])
        linear = sum(part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
        attention = 4 * n_tokens * model.config.hidden_size * model.config.num_hidden_layers
        return float(n_tokens * (2 * linear + attention))

    @property
    def _most_tokens(self) -> int:
        tokenizer, model = self._parts
        positions = getattr(model.config, "max_position_embeddings", _MOST_ENCODER_TOKENS)
        return int(min(_MOST_ENCODER_TOKENS, tokenizer.model_max_length, positions))

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.name)
            model = AutoModel.from_pretrained(self.name).eval()
        except Exception as error:  # the hub, the files and the conversion each raise their own kinds
            why = "no such folder" if self.name.startswith(("/", "~", ".")) and not Path(self.name).exists() else error
            raise CorpusError(f"discover.encoder = {self.name!r}: cannot be loaded: {why}") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer, model

    def save(self, folder: Path) -> None:
        """Write ``encoder.json``, which names the encoder; its weights stay where they are."""
        (folder / "encoder.json").write_text(json.dumps({"name": self.name}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Of a folder that `save` wrote."""
        return cls(**json.loads((folder / "encoder.json").read_text(encoding="utf-8")))


TextFeatures = CharacterFeatures | EncoderFeatures
FEATURES: dict[str, type[TextFeatures]] = {"characters": CharacterFeatures, "encoder": EncoderFeatures}


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
