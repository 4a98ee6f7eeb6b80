"""Small texts and specifications for the tests of the corpus."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysplit.corpus import Corpus, build_corpus
from raysplit.space import CorpusSpec, SourceSpec, TokenizerSpec

WORDS = ["law", "split", "trunk", "branch", "token", "domain", "shard", "loss", "budget", "expert", "seed", "epoch"]


def documents(n: int, *, tag: str, words: int = 30) -> list[str]:
    """``n`` different texts; ``tag`` keeps those of one domain apart from those of another."""
    draw = random.Random(tag)
    return [
        f"{tag} {i}: " + " ".join(f"{draw.choice(WORDS)}{draw.randrange(1000)}" for _ in range(words)) for i in range(n)
    ]


def write_files(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number:04d}.txt").write_text(text, encoding="utf-8")
    return folder


def files_source(folder: Path) -> SourceSpec:
    return SourceSpec(kind="files", path=str(folder))


def spec_of(sources: Mapping[str, SourceSpec], **changes: Any) -> CorpusSpec:
    defaults: dict[str, Any] = {"tokenizer": TokenizerSpec(vocab_size=300), "validation_fraction": 0.1}
    return CorpusSpec(domains=dict(sources), **(defaults | changes))


def small_corpus(folder: Path, *, n_documents: Mapping[str, int], shard_bytes: int = 1 << 20, **changes: Any) -> Corpus:
    """A corpus of files under ``folder``; one domain for each entry of ``n_documents``."""
    sources = {
        name: files_source(write_files(folder / "text" / name, documents(n, tag=name)))
        for name, n in n_documents.items()
    }
    return build_corpus(spec_of(sources, **changes), folder / "corpus", shard_bytes=shard_bytes)
