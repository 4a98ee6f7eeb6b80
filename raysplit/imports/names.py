"""What names of columns mean: the names under which people keep each field, and words that name another measure."""

import re

CONTAINERS = ("config", "summary", "params", "metrics", "tags", "user_attrs")
"""First parts of names under which W&B, MLflow, Tune and Optuna keep settings and results."""

ALIASES: dict[str, tuple[str, ...]] = {
    "n_params": (
        "n_params",
        "n_params_non_embedding",
        "non_embedding_params",
        "non_embedding_parameters",
        "num_non_embedding_params",
        "num_non_embedding_parameters",
        "num_params_non_embedding",
        "num_params",
        "num_parameters",
        "n_parameters",
        "param_count",
        "parameter_count",
        "model_params",
        "model_size",
        "params",
        "parameters",
    ),
    "pretrain_tokens": ("pretrain_tokens", "pretraining_tokens", "pretrained_tokens", "seed_tokens"),
    "specialize_tokens": (
        "specialize_tokens",
        "specialise_tokens",
        "specialization_tokens",
        "finetune_tokens",
        "finetuning_tokens",
        "fine_tune_tokens",
        "continued_tokens",
        "cpt_tokens",
    ),
    "domain": ("domain", "domain_name", "target_domain"),
    "loss": (
        "eval_loss",
        "val_loss",
        "validation_loss",
        "valid_loss",
        "heldout_loss",
        "held_out_loss",
        "test_loss",
        "loss_nats",
        "loss",
    ),
    "seed": ("seed", "random_seed", "data_seed"),
    "tokenizer": ("tokenizer", "tokenizer_name"),
    "base": ("base", "base_model", "base_model_name"),
    "replay_share": ("replay_share", "replayed_share", "replay_fraction"),
}
"""Plain names of each field, the best first. No training loss is among them, since it is not held out."""
NO_LOSS = frozenset(("perplexity", "ppl", "accuracy", "acc", "bits", "bpb", "bpc", "score", "reward", "f1", "bleu",
                      "std", "stderr", "sem", "var", "delta", "gap", "diff"))  # fmt: skip
NO_DOMAIN = frozenset(("avg", "average", "mean", "macro", "micro", "overall", "total", "all", "train", "training"))
"""Words that stand where a domain's name would, and are none: several domains in one number, or training text."""
BITS = frozenset(("bits", "bpb", "bpc"))
"""Words that say a loss is in bits, whatever else its name says."""
LETTERS = {"n_params": ("N",), "pretrain_tokens": ("D",), "specialize_tokens": ("D'", "D\u2019", "D\u2032", "D_prime")}
"""The law's own letters, as papers write them; taken for fields in a table that has N and D."""
LOSS_WORDS = frozenset(("loss", "nll", "nats", "ce", "xent", "entropy"))


def plain_name(name: str) -> str:
    """A name in lower case, without its container, with underscores for all that is no letter or digit."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", without_container(name))
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def words_in(name: str) -> set[str]:
    return set(plain_name(name).split("_"))


def is_no_loss(name: str) -> bool:
    """Whether a name is that of a training loss, or of another measure."""
    return "train" in name.lower() or not words_in(name).isdisjoint(NO_LOSS)


def without_container(name: str) -> str:
    """A name without its container."""
    head, dot, rest = name.partition(".")
    return rest if dot and head in CONTAINERS else name


def is_no_domain(name: str) -> bool:
    """Whether what stands in the place of a domain's name is no domain."""
    plain = plain_name(name)
    return plain in NO_DOMAIN or plain.startswith(("train_", "training_"))
