"""Text to tokens and back, by the tokenizer in an expert's folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from raysplit.errors import ExpertError


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTokens:
    """A folder's tokenizer. It puts no special token around a text; one that the text spells out becomes that token."""

    backend: Tokenizer
    end_of_text: int
    """Token that follows every document in training, and so stands before the next one."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The tokenizer of a Hugging Face folder.

        Raises:
            ExpertError: it cannot be loaded, has no fast (Rust) form, or has no token that ends a text.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # of damaged files transformers and tokenizers each raise their own kinds
            raise ExpertError(f"{folder}: its tokenizer cannot be loaded: {error!r}") from error
        if not tokenizer.is_fast or tokenizer.eos_token_id is None:
            what = "no fast form" if not tokenizer.is_fast else "no end-of-text (eos) token"
            raise ExpertError(f"{folder}: its tokenizer has {what}")
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return cls(backend=backend, end_of_text=tokenizer.eos_token_id)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(n,) int64 tokens of each text."""
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of tokens, without special ones."""
        return str(self.backend.decode([int(token) for token in tokens], skip_special_tokens=True))
