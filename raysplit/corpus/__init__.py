"""Documents in, token shards out: sources, tokenizer, packed shards with a manifest, deterministic sampling."""

from raysplit.corpus.build import build_corpus, build_in_tokens_of
from raysplit.corpus.corpus import Corpus

__all__ = ["Corpus", "build_corpus", "build_in_tokens_of"]
