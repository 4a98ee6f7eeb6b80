"""A run folder with a seed and two experts that have learned their domains, made in a few seconds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from raysplit.corpus import Corpus, build_corpus
from raysplit.ladder import shape_for
from raysplit.space import CorpusSpec, TokenizerSpec
from raysplit.train.export import complete_export
from raysplit.train.models import build_model
from tests.corpus.texts import files_source, write_files

CONTEXT, N_PARAMS = 128, 14_000
PEOPLE = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")
DEEDS = ("saw", "has", "met", "fed")
BEASTS = ("a cat", "a dog", "an owl", "a hen", "the ox", "the elk", "my fox", "my cow", "no ant", "no bee")
NAMES = ("total", "count", "width", "depth", "price", "speed")


def stories(n: int, *, seed: int = 0) -> list[str]:
    """Documents of forty short sentences."""
    draw = np.random.default_rng([seed, 1])
    return [
        " ".join(f"{draw.choice(PEOPLE)} {draw.choice(DEEDS)} {draw.choice(BEASTS)}." for _ in range(40))
        for _ in range(n)
    ]


def programs(n: int, *, seed: int = 0) -> list[str]:
    """Documents of twenty assignments."""
    draw = np.random.default_rng([seed, 2])
    return [
        "\n".join(
            f"{draw.choice(NAMES)} = {draw.choice(NAMES)} + {draw.integers(10)} * ({draw.choice(NAMES)} - 1)"
            for _ in range(20)
        )
        for _ in range(n)
    ]


def make_run(folder: Path) -> Path:
    """RUN/corpus, RUN/experts/{seed,stories,programs} and RUN/final.json."""
    texts = {"stories": stories(120), "programs": programs(120)}
    sources = {name: files_source(write_files(folder / "text" / name, given)) for name, given in texts.items()}
    spec = CorpusSpec(domains=sources, tokenizer=TokenizerSpec(vocab_size=350), validation_fraction=0.25)
    corpus = build_corpus(spec, folder / "corpus")
    weights = trained(corpus, None, n_steps=40)
    export(weights, folder / "experts" / "seed", corpus)
    for name in texts:
        export(trained(corpus, name, n_steps=40, start=weights), folder / "experts" / name, corpus)
    final = {"variants": {"recommended": {"specialize_tokens": dict.fromkeys(texts, 10_000)}}}
    (folder / "final.json").write_text(json.dumps(final))
    return folder


def trained(
    corpus: Corpus, domain: str | None, *, n_steps: int, start: Mapping[str, torch.Tensor] | None = None
) -> Mapping[str, torch.Tensor]:
    """Weights after some steps on the mixture, or on a domain."""
    shape = shape_for(N_PARAMS, vocab_size=corpus.vocab_size, context_length=CONTEXT)
    model = build_model(shape, seed=0)
    if start is not None:
        model.load_state_dict(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(n_steps):
        windows = torch.from_numpy(
            corpus.batch(seed=0, context_length=CONTEXT, start_tokens=step * 8 * CONTEXT, n_sequences=8, domain=domain)
        )
        logits = model(input_ids=windows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def export(weights: Mapping[str, torch.Tensor], folder: Path, corpus: Corpus) -> None:
    shape = shape_for(N_PARAMS, vocab_size=corpus.vocab_size, context_length=CONTEXT)
    model = build_model(shape, seed=0)
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    complete_export(folder, tokenizer_folder=corpus.tokenizer_path)


class NearestWords:
    """Stands in for a clusterer: a text's distance to a domain falls with the share of its words that are there."""

    domains: Sequence[str] = ("programs", "stories")

    def distances(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 2)"""
        code = np.array([sum(sign in text for sign in "=+*(") for text in texts]) / 4
        return np.stack([1 - code, code], axis=1)

    def flops(self, text: str) -> float:
        return 12.0 * len(text)
