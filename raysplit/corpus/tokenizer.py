"""The tokenizer of a corpus: a byte-level BPE trained on the mixture, or one from Hugging Face."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from raysplit.errors import CorpusError

END_OF_TEXT = "<|endoftext|>"
STORED_TOKENS = np.dtype("<u4")
"""Type of tokens in documents on their way into shards."""
_PROBE = "The  Café,\n\tof 東京 and x != 1; it's 'quoted'."


@dataclass(frozen=True, kw_only=True)
class CorpusTokenizer:
    """A tokenizer with the token that ends a document."""

    backend: Tokenizer
    end_of_text: int

    @property
    def vocab_size(self) -> int:
        """One more than the largest token, so that every token has a row in the embedding."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def gives_text_back(self) -> bool:
        """Whether decoding undoes encoding, so that tokens say how much text they stand for."""
        tokens = self.backend.encode(_PROBE, add_special_tokens=False).ids
        return bool(self.backend.decode(tokens) == _PROBE)

    def decode(self, documents: list[bytes]) -> list[str]:
        """Texts of documents of tokens, which come as they are stored, in `STORED_TOKENS`."""
        return self.backend.decode_batch([np.frombuffer(one, dtype=STORED_TOKENS).tolist() for one in documents])

    def joined(self, documents: list[bytes]) -> np.ndarray:
        """(n,) uint32 tokens of documents of tokens, each followed by the end of text."""
        end = np.array([self.end_of_text], dtype=np.uint32)
        parts = [part for one in documents for part in (np.frombuffer(one, dtype=STORED_TOKENS), end)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n,) uint32 tokens of all ``texts``, each followed by the end of text; the texts are encoded in parallel."""
        tokens = array("I")  # which takes a list of numbers twice as fast as numpy does
        for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False):
            tokens.extend(encoding.ids)
            tokens.append(self.end_of_text)
        return np.frombuffer(tokens, dtype=np.uint32)


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> CorpusTokenizer:
    """Byte-level BPE: the 256 bytes, the end of text, and merges learned from ``texts``.

    Raises:
        CorpusError: the texts are too few for ``vocab_size`` tokens.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _use_all_cores()
    backend.train_from_iterator(texts, trainer)
    reached = backend.get_vocab_size()
    if reached < vocab_size:
        raise CorpusError(
            f"tokenizer.vocab_size = {vocab_size}: the corpus is too small for so many tokens, its text gave {reached}"
        )
    return CorpusTokenizer(backend=_for_documents(backend), end_of_text=backend.get_vocab()[END_OF_TEXT])


def save_bpe(tokenizer: CorpusTokenizer, folder: Path) -> None:
    """Write a folder that `transformers.AutoTokenizer.from_pretrained` reads."""
    folder.mkdir()
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class SavedTokenizer:
    """The tokenizer in a corpus's folder."""

    folder: Path
    end_of_text: int

    def load(self) -> CorpusTokenizer:
        """As it encodes documents; loaded once in each process."""
        path = self.folder / "tokenizer.json"
        return _loaded(path, path.stat().st_mtime_ns, self.end_of_text)


@lru_cache(maxsize=1)
def _loaded(path: Path, written_ns: int, end_of_text: int) -> CorpusTokenizer:
    _use_all_cores()
    return CorpusTokenizer(backend=_for_documents(Tokenizer.from_file(str(path))), end_of_text=end_of_text)


def _for_documents(backend: Tokenizer) -> Tokenizer:
    backend.encode_special_tokens = True  # a document that spells out the end of text does not end there
    backend.no_truncation()
    backend.no_padding()
    return backend


def load_saved_bpe(folder: Path) -> CorpusTokenizer:
    """What `save_bpe` wrote."""
    backend = _for_documents(Tokenizer.from_file(str(folder / "tokenizer.json")))
    return CorpusTokenizer(backend=backend, end_of_text=backend.get_vocab()[END_OF_TEXT])


def load_huggingface(name: str, *, copy_to: Path) -> CorpusTokenizer:
    """A tokenizer by hub name or local path; a copy in ``copy_to`` keeps the corpus whole without the hub.

    Raises:
        CorpusError: there is none, it has no fast (Rust) form, or it has no token that ends a text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the hub, the files and the conversion each raise their own kinds
        why = "no such folder" if name.startswith(("/", "~", ".")) and not Path(name).exists() else error
        raise CorpusError(f"tokenizer.name = {name!r}: cannot be loaded: {why}") from error
    if not tokenizer.is_fast:
        raise CorpusError(f"tokenizer.name = {name!r}: has no fast form, which encoding a corpus needs")
    if tokenizer.eos_token_id is None:
        raise CorpusError(f"tokenizer.name = {name!r}: has no end-of-text (eos) token to put between documents")
    tokenizer.save_pretrained(copy_to)
    return CorpusTokenizer(backend=_for_documents(tokenizer.backend_tokenizer), end_of_text=tokenizer.eos_token_id)


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of the tokenizer's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def _use_all_cores() -> None:
    # The library falls back to one thread, with a warning, after a fork unless it is told.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
