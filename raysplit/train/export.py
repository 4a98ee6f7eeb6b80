"""Files that complete an exported folder of weights: they agree on their tokens, and other tools read them as usual.

Neither torch nor transformers is needed, so that a final run can correct what an older raysplit exported.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""As peft calls them."""
_ADD_NOTHING = "ByteLevel"
"""The only post-processor of tokenizer.json that adds no token: it only moves offsets."""

_INDEX = ".index.json"
"""Name's part of the index of a base's own weights, which is not copied."""
_LEFT_OUT = ("add_bos_token", "add_eos_token", "auto_map", "is_local", "local_files_only")
"""Fields of a given tokenizer's configuration that are dropped: tokens around a text, own code, and its old place."""


def complete_export(folder: Path, *, tokenizer_folder: Path | None) -> None:
    """Put the tokenizer beside the weights that transformers has saved, and make all files name the same tokens.

    A text is encoded as for training, where an end of text follows every document and nothing else is added. A given
    tokenizer may put more around a text (a beginning of text, [CLS]), which the model has never seen; the exported one
    does not. Special tokens stay the tokenizer's own. Where it has none for padding, the end of text pads.

    Args:
        folder: of the model, with its config.json.
        tokenizer_folder: as a corpus holds it; None for a model that knows no text, which has no special tokens.
    """
    config = _read(folder / CONFIG)
    context_length = config["max_position_embeddings"]
    ids: Mapping[str, int | None] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if tokenizer_folder is not None:
        ids = _write_tokenizer(folder, tokenizer_folder, context_length=context_length)
    _write(folder / CONFIG, {**config, **ids, "use_cache": True})
    # Without a longest text `generate` stops after 20 tokens, and a pipeline goes on for 256, beyond a short context.
    # With one, transformers logs a line where a call gives `max_new_tokens`, and obeys the call. A default for
    # `max_new_tokens` in its place would not know the prompt's length, and would win over a call's `max_length`.
    _write(
        folder / GENERATION,
        {
            **ids,
            "max_length": context_length,
            "use_cache": True,
            "transformers_version": config["transformers_version"],
        },
    )
    share_mode(folder, like=folder / CONFIG)


def complete_like_base(folder: Path, base: Path, *, dtype: str) -> None:
    """Put the base's own configuration, generation settings and tokenizer beside the trained weights.

    Args:
        folder: of the model, as transformers has saved it.
        base: folder of the base's files.
        dtype: of the saved weights; a plain load takes it from the configuration.
    """
    for path in base.iterdir():
        if path.is_file() and path.suffix in (".json", ".txt", ".model", ".jinja") and _INDEX not in path.name:
            _replace(folder / path.name, path.read_bytes())
    config = _read(base / CONFIG)
    config.pop("torch_dtype", None)  # the older name of the same
    _write(folder / CONFIG, {**config, "dtype": dtype})


def share_mode(folder: Path, *, like: Path) -> None:
    """Give all files of a folder the mode of one that was newly made, so that umask and folder decide it.

    safetensors makes its files 0600, and DeepSpeed copies scripts as executables, whatever the umask.
    """
    mode = like.stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


def _write_tokenizer(folder: Path, source: Path, *, context_length: int) -> dict[str, int | None]:
    """Write the tokenizer's files; returns field -> token for the model's configuration."""
    for path in source.iterdir():
        if path.is_file() and path.name not in (TOKENIZER, TOKENIZER_CONFIG):
            _replace(folder / path.name, path.read_bytes())
    backend = _read(source / TOKENIZER)
    backend |= {"post_processor": _adding_nothing(backend.get("post_processor")), "truncation": None, "padding": None}
    given = _read(source / TOKENIZER_CONFIG)
    config = {key: value for key, value in given.items() if key not in _LEFT_OUT} | {
        # The class that takes tokenizer.json as it is, under the name that every transformers knows it by.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "model_input_names": ["input_ids", "attention_mask"],  # the model refuses token_type_ids
        "padding_side": "left",  # or a decoder would go on from the padding
        "clean_up_tokenization_spaces": False,  # decoding gives back the text, blanks before full stops too
        "pad_token": given.get("pad_token") or given["eos_token"],
    }
    _write(folder / TOKENIZER, backend)
    _write(folder / TOKENIZER_CONFIG, config)
    tokenizer = Tokenizer.from_str(json.dumps(backend))
    return {f"{name}_id": _id_of(tokenizer, config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}


def _adding_nothing(processor: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A post-processor without the parts that put tokens around a text; None where nothing remains."""
    if processor is not None and processor["type"] == "Sequence":
        kept = [part for part in map(_adding_nothing, processor["processors"]) if part is not None]
        return {**processor, "processors": kept} if kept else None
    return processor if processor is not None and processor["type"] == _ADD_NOTHING else None


def _id_of(tokenizer: Tokenizer, token: str | Mapping[str, Any] | None) -> int | None:
    content = token["content"] if isinstance(token, Mapping) else token
    return None if content is None else tokenizer.token_to_id(content)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    _replace(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew, so that it has a new file's mode, and a reader gets the old content or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
