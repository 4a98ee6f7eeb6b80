"""Documents in, token shards out: sources, tokenizer, packed shards with a manifest, deterministic sampling."""

from raysplit.corpus.build import build_corpus
from raysplit.corpus.corpus import Corpus

__all__ = ["Corpus", "build_corpus"]
