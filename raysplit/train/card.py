"""The model card of an exported seed or expert: README.md with the metadata that Hugging Face reads.

A card may be published, so it names a source by its last name and not by the path where it lay.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from raysplit.corpus.manifest import DomainRecord, Manifest
from raysplit.quantities import format_count, format_flops
from raysplit.runs import LossUnit
from raysplit.space import Space, TrainingSpec
from raysplit.split import Advice, Interval
from raysplit.split.tables import paid_for

CARD = "README.md"

HOW_TO_LOAD = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this card lies
tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side="left")  # of a long prompt the end counts
model = AutoModelForCausalLM.from_pretrained(folder)

room = model.config.max_position_embeddings // 2  # a prompt that filled the context would leave none to go on
prompts = ["Once", "In the beginning"]
prompts = tokenizer(prompts, return_tensors="pt", padding=True, truncation=True, max_length=room)
texts = model.generate(**prompts, do_sample=True)
print(tokenizer.batch_decode(texts, skip_special_tokens=True))
```"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedModel:
    """A trained model, as its card describes it beside the run's space, corpus and advice."""

    domain: str
    """Empty for the seed."""
    n_params: int
    pretrain_tokens: int
    specialize_tokens: int
    seed: int
    """Seed of its weights and data order."""
    horizon_tokens: int
    """The D that the learning rate of its trunk was meant for."""
    losses: Mapping[str, float]
    """Domain -> held-out loss, in `loss_unit`, as all losses here."""
    bytes_per_token: Mapping[str, float]
    """Domain -> UTF-8 bytes per token of its held-out text."""
    seed_losses: Mapping[str, float]
    """Domain -> the seed model's held-out loss; empty where there is no seed model."""
    predicted: Mapping[str, Interval]
    """Domain -> the law's prediction, where it was asked about this model."""
    loss_unit: LossUnit = "nats/token"

    @property
    def read_domains(self) -> Sequence[str]:
        """Domains whose text the model was trained on."""
        return tuple(self.losses) if self.pretrain_tokens else (self.domain,)


def render_card(model: ExportedModel, *, space: Space, manifest: Manifest, advice: Advice, version: str) -> str:
    """The card as Markdown under its metadata; ``version`` is raysplit's own. Equal arguments give equal cards."""
    shape = space.shape(model.n_params, manifest.tokenizer.vocab_size)
    who = f"expert of {model.domain}" if model.domain else "seed"
    sections = {
        "": f"A decoder-only language model of {model.n_params:,} non-embedding parameters ({shape.n_params_total:,} "
        f"with the embedding), trained by raysplit {version}. " + _what(model),
        "How to load it": HOW_TO_LOAD
        + f"\n\nThe context is {space.model.context_length:,} tokens: the tokenizer truncates to it and `generate` "
        "stops at it, or at the end of text before.",
        "Losses": losses_table(model, advice.level),
        "Data and licences": _data(model, manifest, advice, replay_share=space.training.replay_share),
        "Training": _training(model, space, manifest),
        "Why this split": _advice(advice),
        "Limits": _limits(model, space),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections.items())
    return f"---\n{_metadata(model, manifest)}---\n\n# {space.name}: {who}\n\n{body}\n"


def _metadata(model: ExportedModel, manifest: Manifest) -> str:
    records = [manifest.domains[name] for name in model.read_domains]
    # Whoever publishes the model chooses its licence; the data's are in the card.
    known = any(record.licence for record in records)
    licence = {"license": "other", "license_name": "see-data-and-licences"} if known else {"license": "unknown"}
    hub = sorted({name for record in records if (name := _hub_name(record))})
    origin = {"base_model": "seed", "base_model_relation": "finetune"} if model.domain and model.pretrain_tokens else {}
    fields = {
        **licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **origin,
        **({"datasets": hub} if hub else {}),
        "tags": ["raysplit", *([model.domain] if model.domain else [])],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _what(model: ExportedModel) -> str:
    pretrained = f"{model.pretrain_tokens:,} tokens of a mixture of {_listed(model.losses)}"
    if not model.domain:
        return (
            f"It is the seed: pretrained on {pretrained}, and cooled down there. The experts beside this folder left "
            "the same training at that point, before the cooldown."
        )
    if not model.pretrain_tokens:
        return f"It was trained from scratch on {model.specialize_tokens:,} tokens of {model.domain} alone."
    return (
        f"It is the expert of {model.domain}: pretrained on {pretrained}, then specialized on "
        f"{model.specialize_tokens:,} tokens of {model.domain}. The folder `seed` beside this one, its "
        "`base_model`, is the same pretraining cooled down; the expert left it before that cooldown."
    )


def losses_table(model: ExportedModel, level: float) -> str:
    """Table of each domain's loss, beside the seed's and the law's prediction with its interval at ``level``."""
    told, seed = bool(model.predicted), bool(model.domain and model.seed_losses)
    unit = model.loss_unit.replace("/", " per ")
    has_bits = unit != "bits per byte"
    header = ["domain", unit, *(["bits per byte"] if has_bits else []), *(["seed"] if seed else [])]
    if told:
        header += ["predicted", f"{level:.0%} interval"]
    rows = []
    for domain, loss in model.losses.items():
        row = [domain, f"{loss:.4f}"]
        row += [f"{loss / math.log(2) / model.bytes_per_token[domain]:.4f}"] if has_bits else []
        row += [f"{model.seed_losses[domain]:.4f}"] if seed else []
        if told:
            guess = model.predicted.get(domain)
            row += [f"{guess.mean:.4f}", f"{guess.low:.4f} to {guess.high:.4f}"] if guess else ["", ""]
        rows.append(row)
    return (
        "Cross-entropy on held-out text, measured once after training."
        + (f" The seed's is in {unit}." if seed and has_bits else "")
        + (" The law had predicted the loss before this run." if told else "")
        + "\n\n"
        + table(header, rows)
    )


def _data(model: ExportedModel, manifest: Manifest, advice: Advice, *, replay_share: float) -> str:
    rows = []
    shares = manifest.spec.shares
    from_mixture = model.pretrain_tokens + (replay_share * model.specialize_tokens if model.pretrain_tokens else 0.0)
    own = model.pretrain_tokens + model.specialize_tokens - from_mixture
    for name in model.read_domains:
        record = manifest.domains[name]
        read = (shares[name] * from_mixture if model.pretrain_tokens else 0.0) + (own if name == model.domain else 0.0)
        rows.append(
            [
                name,
                source_of(record),
                record.licence or "not given",
                format_count(record.train.n_tokens),
                format_count(read),
                f"{read / record.train.n_tokens:.2g}",
            ]
        )
    missing = [name for name in model.read_domains if not manifest.domains[name].licence]
    unknown = f" The licence of {_listed(missing)} was not given." if missing else ""
    served = [name for name, tokens in advice.split.specialize_tokens.items() if not tokens]
    return (
        "raysplit chooses no licence for the model. Whoever publishes it does, in view of these."
        + unknown
        + "\n\n"
        + table(["domain", "source", "licence", "tokens there", "tokens read, about", "epochs"], rows)
        + "\n\nDocuments that are equal up to white space were read once, held-out ones never."
        + (f" The split gives {_listed(served)} no tokens of its own." if served and not model.domain else "")
    )


def _training(model: ExportedModel, space: Space, manifest: Manifest) -> str:
    training, tokenizer = space.training, manifest.spec.tokenizer
    kind = f"`{Path(tokenizer.name).name}`" if tokenizer.name else "byte-level BPE trained on the mixture"
    told = {
        "N, non-embedding parameters": f"{model.n_params:,}",
        "D, tokens of the mixture": f"{model.pretrain_tokens:,}",
        "D', tokens of the domain": f"{model.specialize_tokens:,}",
        "context": f"{space.model.context_length:,} tokens",
        "batch": f"{training.batch_tokens:,} tokens",
        "optimizer": f"AdamW, betas {training.adam_beta1:g} and {training.adam_beta2:g}, weight decay "
        f"{training.weight_decay:g}, gradients clipped at {training.gradient_clip:g}",
        "learning rate": _schedule(model, training),
        "precision": training.precision,
        "seed of weights and data order": str(model.seed),
        "tokenizer": f"{kind}, {manifest.tokenizer.vocab_size:,} tokens; an end of text after every document, no "
        "beginning of text",
    }
    return table(["what", "value"], list(told.items()))


def _schedule(model: ExportedModel, training: TrainingSpec) -> str:
    peak = training.learning_rate.peak(model.n_params, model.horizon_tokens)
    parts = [f"warm-up over {training.warmup_tokens:,} tokens to {peak:.3g}, then constant"]
    if model.domain and model.pretrain_tokens:
        moments = "carried over" if training.branch_optimizer == "carry" else "reset"
        parts.append(
            f"from the branch on {training.branch_rate_factor:g} times that after a warm-up over "
            f"{training.branch_warmup_tokens:,} tokens, Adam's moments {moments}, {training.replay_share:.0%} of the "
            "windows from the mixture"
        )
    last = "D'" if model.domain else "D"
    return "; ".join([*parts, f"falling linearly towards 0 over the last {training.cooldown_fraction:.0%} of {last}"])


def _advice(advice: Advice) -> str:
    split, share = advice.split, advice.pretrain_share
    experts = _listed(f"{format_count(tokens)} of {name}" for name, tokens in split.specialize_tokens.items())
    return (
        f"For {format_flops(advice.budget_flops)} ({paid_for(advice)}) raysplit advised "
        f"N = {format_count(split.n_params)}, D = {format_count(split.pretrain_tokens)} "
        f"({share.mean:.0%} of the tokens; {advice.level:.0%} interval {share.low:.0%} to {share.high:.0%}) "
        f"and D' = {experts}."
    )


def _limits(model: ExportedModel, space: Space) -> str:
    tokens = model.pretrain_tokens + model.specialize_tokens
    return "\n".join(
        [
            f"- {format_count(model.n_params)} parameters and {format_count(tokens)} tokens: the losses above are all "
            "that was measured, and nothing else is claimed.",
            f"- Nothing was trained beyond {space.model.context_length:,} tokens of context.",
            "- It continues text. It follows no instructions, and no safety tuning was done.",
            "- Its text was not filtered: it may repeat what it has read, personal data and errors too.",
        ]
    )


def source_of(record: DomainRecord) -> str:
    """Where a domain's text is from, without the path where it lay."""
    source = record.source
    if source.kind == "package":
        return record.edition
    name = _hub_name(record) or Path(source.path or "").name
    return f"{source.kind} `{name}`" + (f", {source.config_name}" if source.config_name else "")


def _hub_name(record: DomainRecord) -> str:
    """A data set's name on the hub; empty for anything else, whose path is absolute."""
    source = record.source
    return source.path or "" if source.kind == "huggingface" and not Path(source.path or "").is_absolute() else ""


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
