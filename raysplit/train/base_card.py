"""The model card of an expert of a base: it says what was trained here, and leaves the rest to the base's own card."""

import yaml

from raysplit.corpus.manifest import Manifest
from raysplit.quantities import format_flops
from raysplit.runs import UNTOLD_TOKENS
from raysplit.space import CheckpointSpec, Space
from raysplit.split import Advice
from raysplit.train.card import ExportedModel, losses_table, source_of, table


def render_base_card(
    model: ExportedModel, *, space: Space, base: CheckpointSpec, manifest: Manifest, advice: Advice, version: str
) -> str:
    """The card as Markdown under its metadata; ``version`` is raysplit's own. Equal arguments give equal cards."""
    fields = {
        "license": "unknown",
        "library_name": "transformers" if space.training.lora is None else "peft",
        "pipeline_tag": "text-generation",
        "base_model": base.name,
        "base_model_relation": "finetune" if space.training.lora is None else "adapter",
        "tags": ["raysplit", *([model.domain] if model.domain else [])],
    }
    seen = "" if model.pretrain_tokens == UNTOLD_TOKENS else f", which has seen {model.pretrain_tokens:,} tokens"
    revision = f" at revision `{base.revision}`" if base.revision else ""
    trained = (
        f"It is an expert of {model.domain}: the base `{base.name}`{revision}{seen}, trained by raysplit {version} on "
        f"{model.specialize_tokens:,} tokens more."
        if model.domain
        else f"It is the base `{base.name}`{revision}{seen}, as it is: raysplit {version} has trained nothing of it."
    )
    files = "Configuration, generation settings and tokenizer are the base's own; so are its licence and its limits."
    sections = {
        "": f"{trained} {files}",
        "Losses": losses_table(model, advice.level),
        "Training": _training(model, space, manifest, advice) if model.domain else "None.",
        "Why this split": f"For {format_flops(advice.budget_flops)} raysplit advised this base, and of each domain "
        f"{', '.join(f'{round(n):,} tokens of {name}' for name, n in advice.split.specialize_tokens.items())}.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections.items())
    who = f"expert of {model.domain}" if model.domain else "base"
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n\n# {space.name}: {who}\n\n{body}\n"


def _training(model: ExportedModel, space: Space, manifest: Manifest, advice: Advice) -> str:
    training, record = space.training, manifest.domains[model.domain]
    replayed = advice.replay_share if space.sweep.replay_shares else training.replay_share
    peak = training.learning_rate.peak(model.n_params, model.horizon_tokens) * training.branch_rate_factor
    told = {
        "text": f"{source_of(record)}, licence {record.licence or 'not given'}",
        "D', tokens": f"{model.specialize_tokens:,}, of which {replayed:.0%} from {_replayed_text(manifest)}",
        "context": f"{space.model.context_length:,} tokens",
        "batch": f"{training.batch_tokens:,} tokens",
        "optimizer": f"AdamW from zero, betas {training.adam_beta1:g} and {training.adam_beta2:g}, weight decay "
        f"{training.weight_decay:g}, gradients clipped at {training.gradient_clip:g}",
        "learning rate": f"warm-up over {training.branch_warmup_tokens:,} tokens to {peak:.3g}, then constant; falling "
        f"linearly towards 0 over the last {training.cooldown_fraction:.0%}",
        "precision": training.precision,
        "seed of the data order": str(model.seed),
    }
    if (lora := training.lora) is not None:
        told["adapter"] = f"LoRA of rank {lora.rank}, alpha {lora.scale * lora.rank:g}, every linear layer but the head"
    return table(["what", "value"], list(told.items()))


def _replayed_text(manifest: Manifest) -> str:
    if (record := manifest.general) is None:
        return "the mixture"
    return f"the general set: {source_of(record)}, licence {record.licence or 'not given'}"
