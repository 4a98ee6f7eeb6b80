"""Bases: pretrained Hugging Face models, which are checked and counted before anything is trained; and their weights.

Notation
    V   rows of the embedding      d   hidden size      L   layers      h   heads, each of d_h      T   context length

A causal model's forward pass takes 2 FLOPs a token for each entry of its matrices, and 4 T h d_h a token in each layer
for scores and values. These are over the whole T x T square, however many heads share keys and values and however short
a window is: eager attention computes that, and torch's FlopCounterMode counts it. The tests compare the two.

A training step of all weights takes three times that. Where adapters of A entries are trained, the base's M entries of
matrices take 4 M a token, since they have no gradient of their own. The adapters take 6 A, and attention three times
its forward pass. What lies below the first adapter (in a Llama the inputs of the first layer's queries, keys and
values) has no gradient at all; the count leaves this saving out.
"""

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, apply_renamings
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from raysplit.errors import CheckpointError, SpaceError, unknown
from raysplit.quantities import format_count
from raysplit.space import CheckpointSpec, CountedSpec, LoraSpec, ModelSpec, Space, TokenizerSpec

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZER = "tokenizer.json"
_SAME_SIZE = 0.02
_ATTENTION = frozenset(("full_attention", "sliding_attention", "chunked_attention"))
"""Kinds of layers, as configurations call them, whose FLOPs the module's formula has."""


def with_bases(space: Space) -> Space:
    """The space with its checkpoints found, checked and counted, and with their tokenizers.

    ``corpus.tokenizer`` is the one that they share. Where losses are compared in bits a byte it is that of the first
    of them, and those with others name theirs.

    Nothing of their weights is read but the names and shapes.

    Raises:
        SpaceError: naming the checkpoint, and what is wrong with it.
    """
    if not space.model.checkpoints:
        return space
    context = space.model.context_length
    lora = space.training.lora
    if lora is not None:
        _check_peft()
    found = tuple(_counted(checkpoint, context_length=context, lora=lora) for checkpoint in space.model.checkpoints)
    sizes = _sizes(found)
    tokenizer, found = _with_tokenizers(found, space.corpus.tokenizer, may_differ=space.counts_bytes)
    model = ModelSpec.model_validate({**space.model.model_dump(), "sizes": sizes, "checkpoints": found})
    corpus = space.corpus.model_copy(update={"tokenizer": tokenizer})
    return Space.model_validate({**space.model_dump(), "model": model.model_dump(), "corpus": corpus.model_dump()})


def _check_peft() -> None:
    """Refuse adapters where nothing can make them.

    Raises:
        SpaceError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise SpaceError("training.lora: needs peft, which is not installed: pip install 'raysplit[lora]'")


def _adapted_matrices(model: PreTrainedModel) -> list[torch.Tensor]:
    """The matrices that get an adapter, as with peft's ``all-linear``; the model has no adapters yet."""
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    return [layer.weight for layer in layers if layer is not head]


def _n_adapter_params(model: PreTrainedModel, lora: LoraSpec) -> int:
    """Entries of all A and B that adapters of a model would have; it has none yet, and may be on the meta device."""
    return sum(lora.rank * sum(matrix.shape) for matrix in _adapted_matrices(model))


def base_model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The causal model of a configuration."""
    return AutoModelForCausalLM._model_mapping[type(config)]


def base_config(folder: str) -> PreTrainedConfig:
    """A base's own configuration, as it is trained: without a cache of keys and values, and without padding.

    A padding token's embedding would have no gradient, and the padding token is often the end of text. Nor can
    transformers zero its row where stage 3 has partitioned the embedding as it was made.
    """
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config.use_cache = False
    config.pad_token_id = None
    return config


def base_weights(folder: str, shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and fp32 weight of each whole parameter, one at a time, so that no rank holds a large model.

    Args:
        folder: of the base's files.
        shapes: name -> shape of each parameter of the model; tied ones once.

    Raises:
        CheckpointError: a parameter is not there, or of another shape.
    """
    stored = _stored(Path(folder), _undrawn(base_config(folder)))
    for name, shape in shapes.items():
        if name not in stored:
            raise CheckpointError(f"{folder}: has no weights of {name}")
        value = stored[name].read()
        if value.shape != shape:
            raise CheckpointError(f"{folder}: {name} is {tuple(value.shape)}, the model has {tuple(shape)}")
        yield name, value.float()


def _counted(checkpoint: CheckpointSpec, *, context_length: int, lora: LoraSpec | None) -> CheckpointSpec:
    folder = _folder_of(checkpoint)
    config = _config_of(checkpoint, folder)
    _check_weights(checkpoint, folder)
    try:
        model = _undrawn(config)
        counted = count(model, context_length=context_length, folder=str(folder), lora=lora)
    except Exception as error:  # each architecture has its own kind for what its configuration lacks
        why = str(error).partition("\n")[0]
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {config.model_type!r} cannot be made and counted from "
            f"its config.json: {why}; give a model whose layers are of attention"
        ) from error
    _check_names(checkpoint, folder, model)
    _check_tokenizer(checkpoint, folder, counted.vocab_size)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and context_length > positions:
        raise SpaceError(
            f"model.context_length = {context_length}: {checkpoint.label} has {positions} positions; take at most that"
        )
    if checkpoint.n_params and abs(math.log(checkpoint.n_params / counted.n_params)) > _SAME_SIZE:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: n_params = {format_count(checkpoint.n_params)}, and its model has "
            f"{counted.n_params} without embeddings and the output head; leave it out, or see whether the path is right"
        )
    return checkpoint.model_copy(update={"counted": counted})


def _undrawn(config: PreTrainedConfig) -> PreTrainedModel:
    """A model on the meta device, whose weights take no memory."""
    with torch.device("meta"):
        return base_model_class(config)(config)


def count(model: PreTrainedModel, *, context_length: int, folder: str, lora: LoraSpec | None = None) -> CountedSpec:
    """N, parameters and FLOPs of a model, by the module's formulas; it may be on the meta device, without adapters."""
    config = model.config
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    parameters = list(model.parameters())
    inner = [p for p in parameters if id(p) not in tables | {id(head)}]
    width, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    head_size = getattr(config, "head_dim", None) or width // heads
    matrices = sum(p.numel() for p in inner if p.ndim >= 2) + head.numel()
    attention = 4 * context_length * heads * head_size * layers
    trained = 0 if lora is None else _n_adapter_params(model, lora)
    return CountedSpec(
        folder=folder,
        n_params=sum(p.numel() for p in inner),
        n_params_total=sum(p.numel() for p in parameters),
        forward_flops_per_token=2 * matrices + attention,
        trained_params=trained,
        training_flops_per_token=4 * matrices + 6 * trained + 3 * attention if trained else 0,
        hidden_size=width,
        n_layers=layers,
        n_heads=heads,
        feed_forward_size=getattr(config, "intermediate_size", None) or 4 * width,
        vocab_size=embedding.shape[0],
    )


def _folder_of(checkpoint: CheckpointSpec) -> Path:
    """Folder of a revision's files, which are fetched where the path is a name on the hub."""
    path = Path(checkpoint.path)
    if not path.is_dir():
        return _from_hub(checkpoint)
    if checkpoint.revision is None:
        return path
    if not (path / checkpoint.revision).is_dir():
        there = sorted(each.name for each in path.iterdir() if (each / "config.json").is_file())
        raise SpaceError(f"model.checkpoints: {path}: {unknown('revision', checkpoint.revision, there)}")
    return path / checkpoint.revision


def _from_hub(checkpoint: CheckpointSpec) -> Path:
    from huggingface_hub import snapshot_download

    if checkpoint.path.startswith((".", "/", "~")):
        raise SpaceError(f"model.checkpoints: {checkpoint.label}: there is no such folder")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    wanted += ["pytorch_model*.bin"] if checkpoint.allow_pickle else []
    try:
        return Path(snapshot_download(checkpoint.path, revision=checkpoint.revision, allow_patterns=wanted))
    except Exception as error:  # the hub, the network and the name each raise their own kinds
        why = str(error).partition("\n")[0]
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: is no folder here, and cannot be fetched from the hub: {why}"
        ) from error


def _config_of(checkpoint: CheckpointSpec, folder: Path) -> PreTrainedConfig:
    """The configuration of a checkpoint, checked to be a causal, dense model with plain weights."""
    if not (folder / "config.json").is_file():
        below = sorted(each.name for each in folder.iterdir() if (each / "config.json").is_file())
        hint = f"; give one of its revisions: {', '.join(below)}" if below else ""
        raise SpaceError(f"model.checkpoints: {checkpoint.label}: has no config.json, so it is no model{hint}")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of whatever kind transformers has for it
        why = str(error).partition("\n")[0]
        raise SpaceError(f"model.checkpoints: {checkpoint.label}: config.json cannot be used: {why}") from error
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {kind!r} is an encoder-decoder; give a causal model"
        )
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {kind!r} is an encoder, which sees the tokens that it "
            "is to foretell; give a causal model"
        )
    if getattr(config, "text_config", None) is not None:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {kind!r} has a language model beside others, of images "
            "or sound; save that model by itself"
        )
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {kind!r} has no causal model; give another"
        )
    if getattr(config, "quantization_config", None):
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: its weights are quantised, and cannot be trained; give the model "
            "that they were made of"
        )
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {kind!r} is a mixture of experts, whose FLOPs are not "
            "counted; give a dense model"
        )
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - _ATTENTION):
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: model_type {kind!r} has layers of {', '.join(others)}, whose "
            "FLOPs are not counted; give a model whose layers are of attention"
        )
    return config


def _check_weights(checkpoint: CheckpointSpec, folder: Path) -> None:
    if any((folder / name).is_file() for name in _WEIGHTS):
        return
    if not any((folder / name).is_file() for name in _PICKLES):
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: has no weights; {' or '.join(_WEIGHTS)} is looked for in {folder}"
        )
    if not checkpoint.allow_pickle:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: its weights are a pickle, which may run code; save them as "
            "safetensors, or set allow_pickle: true to have its plain tensors read and nothing else"
        )


def _check_names(checkpoint: CheckpointSpec, folder: Path, model: PreTrainedModel) -> None:
    """Check that every parameter's weights are there, before lanes start."""
    try:
        stored = _stored(folder, model)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise SpaceError(f"model.checkpoints: {checkpoint.label}: its weights cannot be read: {error}") from error
    if missing := [name for name, _ in model.named_parameters() if name not in stored]:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: has no weights of {missing[0]} ({len(missing)} in all), "
            "which its config.json has"
        )


def _check_tokenizer(checkpoint: CheckpointSpec, folder: Path, vocab_size: int) -> None:
    try:
        tokenizer = json.loads((folder / _TOKENIZER).read_bytes())
        ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
    except FileNotFoundError as error:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: has no {_TOKENIZER}; a fast tokenizer lies beside the weights"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpaceError(f"model.checkpoints: {checkpoint.label}: {_TOKENIZER} cannot be read: {error!r}") from error
    if max(ids) >= vocab_size:
        raise SpaceError(
            f"model.checkpoints: {checkpoint.label}: its tokenizer has a token {max(ids)}, and its embedding "
            f"{vocab_size} rows; they are of two models"
        )


def _sizes(checkpoints: tuple[CheckpointSpec, ...]) -> tuple[int, ...]:
    """N of each base, rising; a sweep tells bases apart by it."""
    owners: dict[int, CheckpointSpec] = {}
    for checkpoint in checkpoints:
        assert checkpoint.counted is not None
        first = owners.setdefault(checkpoint.counted.n_params, checkpoint)
        if first.path != checkpoint.path:
            raise SpaceError(
                f"model.checkpoints: {first.path} and {checkpoint.path} have the same size, "
                f"{checkpoint.counted.n_params} parameters, by which a sweep tells bases apart; take one sweep for each"
            )
    for checkpoint in checkpoints:
        counted = [c.counted.n_params for c in checkpoints if c.path == checkpoint.path and c.counted is not None]
        if len(set(counted)) > 1:
            raise SpaceError(
                f"model.checkpoints: {checkpoint.path}: its revisions have {min(counted)} and {max(counted)} "
                "parameters; a base is one model"
            )
    return tuple(sorted(owners))


def _with_tokenizers(
    checkpoints: tuple[CheckpointSpec, ...], given: TokenizerSpec, *, may_differ: bool
) -> tuple[TokenizerSpec, tuple[CheckpointSpec, ...]]:
    """The first base's tokenizer, and the checkpoints, of which those with another one name it.

    Raises:
        SpaceError: there are several and they may not differ, revisions of one base have several, or ``given`` is none
            of them.
    """
    owners: dict[str, CheckpointSpec] = {}
    own: list[str] = []
    for checkpoint in checkpoints:
        assert checkpoint.counted is not None
        own.append(_vocabulary(Path(checkpoint.counted.folder)))
        owners.setdefault(own[-1], checkpoint)
    first, *others = owners.values()
    if others and not may_differ:
        raise SpaceError(
            f"model.checkpoints: {first.label} and {others[0].label} have two tokenizers, and losses per token of two "
            "cannot be compared; set target.loss_unit: bits/byte to compare them so, or take one sweep for each"
        )
    for path in {checkpoint.path for checkpoint in checkpoints}:
        revisions = {digest: c for digest, c in zip(own, checkpoints, strict=True) if c.path == path}
        if len(revisions) > 1:
            one, other = list(revisions.values())[:2]
            raise SpaceError(f"model.checkpoints: {one.label} and {other.label} have two tokenizers; a base has one")
    if given.kind == "huggingface" and given.name is not None and Path(given.name).is_dir():
        if _vocabulary(Path(given.name)) not in owners:
            raise SpaceError(f"corpus.tokenizer.name: {given.name} is not that of {first.label}; leave it out")
    elif given != TokenizerSpec():
        raise SpaceError(f"corpus.tokenizer: leave it out: the text is tokenized as {first.label} needs it")
    tokenizers = {digest: _tokenizer_of(owner) for digest, owner in owners.items()}
    shared = tokenizers[own[0]]
    return shared, tuple(
        checkpoint if tokenizers[digest] == shared else _with_own(checkpoint, tokenizers[digest])
        for digest, checkpoint in zip(own, checkpoints, strict=True)
    )


def _tokenizer_of(checkpoint: CheckpointSpec) -> TokenizerSpec:
    assert checkpoint.counted is not None
    rows = checkpoint.counted.vocab_size
    return TokenizerSpec(kind="huggingface", name=checkpoint.counted.folder, vocab_size=max(260, rows))


def _with_own(checkpoint: CheckpointSpec, tokenizer: TokenizerSpec) -> CheckpointSpec:
    assert checkpoint.counted is not None
    return checkpoint.model_copy(update={"counted": checkpoint.counted.model_copy(update={"tokenizer": tokenizer})})


def _vocabulary(folder: Path) -> str:
    """Digest of what decides which tokens a text becomes."""
    tokenizer = json.loads((folder / _TOKENIZER).read_bytes())
    decides = {name: tokenizer.get(name) for name in ("model", "pre_tokenizer", "normalizer", "added_tokens")}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """Where one parameter is stored."""

    file: Path
    name: str
    """The parameter's name in the file, which may be that of an older transformers."""

    def read(self) -> torch.Tensor:
        if self.file.suffix != ".safetensors":
            return _pickled(self.file)[self.name]
        with safetensors.safe_open(self.file, framework="pt") as opened:
            value: torch.Tensor = opened.get_tensor(self.name)
            return value


def _stored(folder: Path, model: PreTrainedModel) -> dict[str, _Stored]:
    """Every tensor of a folder by the name that the model has for it."""
    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
    own = {name for name, _ in model.named_parameters()}
    stored = {}
    for name, file in _files_by_name(folder).items():
        called = apply_renamings(name, renamings)
        within = f"{model.base_model_prefix}.{called}"  # a folder may hold the model without its head, as GPT-2's does
        stored[within if within in own else called] = _Stored(file=file, name=name)
    return stored


def _files_by_name(folder: Path) -> dict[str, Path]:
    for whole, index in (_WEIGHTS, _PICKLES):
        if (folder / index).is_file():
            where: dict[str, str] = json.loads((folder / index).read_bytes())["weight_map"]
            return {name: folder / file for name, file in where.items()}
        if (folder / whole).is_file():
            return dict.fromkeys(_names_in(folder / whole), folder / whole)
    raise FileNotFoundError(f"{folder}: no weights")


def _names_in(file: Path) -> list[str]:
    if file.suffix != ".safetensors":
        return list(_pickled(file))
    with safetensors.safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _pickled(file: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return found
