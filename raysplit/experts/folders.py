"""The experts of a run, or any Hugging Face folders with one tokenizer, checked before anything is loaded."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysplit.errors import ExpertError, RunError, unknown
from raysplit.space import SEED_FOLDER
from raysplit.train.export import ADAPTER_CONFIG, ADAPTER_WEIGHTS

EXPERTS_FOLDER = "experts"
ADVISED = "recommended"
"""The variant of a final run whose models lie in `EXPERTS_FOLDER`."""
_FINAL = "final.json"
_CONFIG = "config.json"
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_WEIGHTS = ("*.safetensors", "*.bin")
_ADAPTER_KIND = "LORA"
_BASE_FIELD = "base_model_name_or_path"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertFolder:
    """One model in a Hugging Face folder, or adapters of one: what is known of it without loading its weights."""

    name: str
    path: Path
    base: Path | None = None
    """Folder of the base, where ``path`` holds adapters alone."""
    config_folder: Path
    tokenizer_folder: Path
    """Configuration and tokenizer lie in ``path``, or else beside the base."""
    context_length: int
    """Tokens."""
    vocab_size: int
    tokenizer_sha256: str
    """SHA-256 of the files that decide its tokens."""

    @property
    def fingerprint(self) -> str:
        """Hash of configuration, tokenizer and weights; of weights only name, size and time, as they may be large."""
        digest = hashlib.sha256(self.config_folder.joinpath(_CONFIG).read_bytes() + self.tokenizer_sha256.encode())
        weights = _weights(self.path)
        if self.base is not None:
            digest.update(self.path.joinpath(ADAPTER_CONFIG).read_bytes())
            weights += _weights(self.base)
        for path in weights:
            about = path.stat()
            digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """Models with one tokenizer, and which of them serves which domain."""

    origin: Path
    """Run folder, or the folder of the first model."""
    folders: Mapping[str, ExpertFolder]
    """Folders by name; the seed model has the name `SEED_FOLDER`, where there is one."""
    serving: Mapping[str, str]
    """Domain -> name of the folder that serves it: its expert, or the seed where it has none."""
    is_run: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.folders)

    @property
    def seed(self) -> str | None:
        """Name of the seed model, the fallback for a text that a router knows nothing of; None where there is none."""
        return SEED_FOLDER if SEED_FOLDER in self.folders else None

    @property
    def context_length(self) -> int:
        """Tokens that all of them can read: the shortest context length."""
        return min(folder.context_length for folder in self.folders.values())

    def check_known(self, name: str) -> None:
        """Refuse a name that no folder has.

        Raises:
            ExpertError: there is no such expert.
        """
        if name not in self.folders:
            raise ExpertError(f"{self.origin}: {unknown('expert', name, self.folders)}")


def read_folder(path: Path, *, name: str = "") -> ExpertFolder:
    """What a Hugging Face folder says of its model, or a folder of adapters with that of their base.

    Raises:
        ExpertError: the folder is missing, or lacks a file that a model needs; the adapters are of another kind than
            LoRA, or their base is not there.
    """
    if not path.is_dir():
        raise ExpertError(f"{path}: there is no such folder; give a Hugging Face folder or a run folder")
    base = _base_of(path)
    config_folder, tokenizer_folder = (
        path if base is None or any((path / name).is_file() for name in names) else base
        for names in ((_CONFIG,), _TOKENIZER_FILES)
    )
    try:
        config: Any = json.loads((config_folder / _CONFIG).read_bytes())
    except FileNotFoundError as error:
        raise ExpertError(f"{path}: is neither a Hugging Face folder (no {_CONFIG}) nor a run with experts") from error
    except (OSError, ValueError) as error:
        raise ExpertError(f"{config_folder / _CONFIG}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ExpertError(f"{config_folder / _CONFIG}: is no JSON object, but {str(config)[:40]!r}")
    context_length = next((config[key] for key in _CONTEXT_FIELDS if _is_count(config.get(key))), None)
    if context_length is None or not _is_count(config.get("vocab_size")):
        raise ExpertError(
            f"{config_folder / _CONFIG}: needs vocab_size and one of {', '.join(_CONTEXT_FIELDS)}, as integers above 0"
        )
    for folder in (path,) if base is None else (path, base):
        if not _weights(folder):
            raise ExpertError(f"{folder}: holds no weights ({' or '.join(_WEIGHTS)})")
    return ExpertFolder(
        name=name or path.resolve().name,
        path=path,
        base=base,
        config_folder=config_folder,
        tokenizer_folder=tokenizer_folder,
        context_length=context_length,
        vocab_size=config["vocab_size"],
        tokenizer_sha256=_tokenizer_hash(tokenizer_folder),
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_run_folder(path: Path) -> bool:
    """Whether ``path`` is a run folder: it holds a folder of experts, or the space of a run."""
    return (path / EXPERTS_FOLDER).is_dir() or (path / "space.yaml").is_file()


def read_experts(*sources: Path, variant: str = ADVISED) -> Experts:
    """The experts of one run folder, or those in a list of Hugging Face folders.

    Args:
        sources: a run folder, or folders of models.
        variant: of the run's final run, as `read_variants` names them.

    Raises:
        ExpertError: an expert is missing, or the tokenizer or the vocabulary of one differs from the others'.
        RunError: the run has no final run yet, or not this variant.
    """
    if len(sources) == 1 and is_run_folder(sources[0]):
        return _of_run(sources[0]) if variant == ADVISED else _of_variant(sources[0], variant)
    folders: dict[str, ExpertFolder] = {}
    for path in sources:
        folder = read_folder(path)
        if folder.name in folders:
            raise ExpertError(f"{path}: a second folder of the name {folder.name!r}; rename one")
        folders[folder.name] = folder
    _check_alike(list(folders.values()))
    serving = {name: name for name in folders if name != SEED_FOLDER or len(folders) == 1}
    return Experts(origin=sources[0], folders=folders, serving=serving)


def read_variants(run_folder: Path) -> dict[str, dict[str, Any]]:
    """Variants that a run has trained at its budget, by name, as ``final.json`` has them; empty where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = run_folder / _FINAL
    try:
        return {str(name): dict(each) for name, each in json.loads(path.read_bytes())["variants"].items()}
    except FileNotFoundError:
        return {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error!r}") from error


def _of_variant(run_folder: Path, variant: str) -> Experts:
    """The experts of a baseline, of the models that the final run kept."""
    variants = read_variants(run_folder)
    if variant not in variants:
        raise RunError(f"{run_folder / _FINAL}: {unknown('variant', variant, variants)}")
    models: Mapping[str, str] = variants[variant].get("models", {})
    if not models:
        raise RunError(f"{run_folder}: kept no models of {variant!r}; delete {_FINAL} and run `raysplit train` again")
    folders = {name: read_folder(run_folder / where, name=name) for name, where in models.items()}
    _check_alike(list(folders.values()))
    serving = {
        domain: domain if domain in folders else SEED_FOLDER for domain in variants[variant]["specialize_tokens"]
    }
    if unserved := [domain for domain, server in serving.items() if server not in folders]:
        raise ExpertError(f"{run_folder / _FINAL}: of {variant!r} no model serves {', '.join(unserved)}")
    return Experts(origin=run_folder, folders=folders, serving=serving, is_run=True)


def _of_run(run_folder: Path) -> Experts:
    """The advised experts. Every domain must be served: by its own folder, or by the seed where it got no tokens."""
    at = run_folder / EXPERTS_FOLDER
    whole = sorted(p for p in at.glob("*") if p.is_dir() and p.suffix != ".partial") if at.is_dir() else []
    if not whole:
        raise RunError(f"{at}: holds no models; `raysplit run` or `raysplit train` makes them")
    folders = {path.name: read_folder(path, name=path.name) for path in whole}
    _check_alike(list(folders.values()))
    serving = {}
    for domain, own_tokens in _trained_domains(run_folder, list(folders)).items():
        server = domain if own_tokens or domain in folders else SEED_FOLDER
        if server not in folders:
            raise ExpertError(
                f"{at / server}: is missing, and the domain {domain!r} is served by it; `raysplit train` makes it again"
            )
        serving[domain] = server
    return Experts(origin=run_folder, folders=folders, serving=serving, is_run=True)


def _trained_domains(run_folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Domain -> tokens of specialization, as the final run recorded them; 1 for each folder where it recorded none."""
    variants = read_variants(run_folder)
    if not variants:
        return {name: 1 for name in names if name != SEED_FOLDER} or {SEED_FOLDER: 1}
    try:
        return {str(domain): int(n) for domain, n in variants[ADVISED]["specialize_tokens"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run_folder / _FINAL}: cannot be read: {error!r}") from error


def _check_alike(folders: Sequence[ExpertFolder]) -> None:
    first = folders[0]
    for other in folders[1:]:
        if other.tokenizer_sha256 != first.tokenizer_sha256:
            raise ExpertError(
                f"{other.path}: its tokenizer differs from that of {first.path}, and experts are mixed token by token; "
                "give folders with one tokenizer"
            )
        if other.vocab_size != first.vocab_size:
            raise ExpertError(
                f"{other.path}: has a vocabulary of {other.vocab_size:,}, and {first.path} one of {first.vocab_size:,}"
            )


def _base_of(path: Path) -> Path | None:
    """Folder of the base that a folder's adapters belong to; None where it holds a model and no adapters.

    Raises:
        ExpertError: the adapters are of another kind than LoRA, or their base or weights are not there.
    """
    about = path / ADAPTER_CONFIG
    if not about.is_file():
        return None
    try:
        config: dict[str, Any] = json.loads(about.read_bytes())
        kind, name = config["peft_type"], config[_BASE_FIELD]
        base = Path(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExpertError(f"{about}: cannot be read: {error!r}; it needs peft_type and {_BASE_FIELD}") from error
    if kind != _ADAPTER_KIND:
        raise ExpertError(f"{about}: peft_type {kind!r} is not supported; valid: {_ADAPTER_KIND}")
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise ExpertError(f"{path}: holds no weights ({ADAPTER_WEIGHTS})")
    if not (base / _CONFIG).is_file():
        raise ExpertError(
            f"{path}: its adapters belong to the base {name}, which is no Hugging Face folder here; put the base "
            f"there, or write the folder where it lies into {about} as {_BASE_FIELD}"
        )
    return base


def _weights(path: Path) -> list[Path]:
    return sorted(found for pattern in _WEIGHTS for found in path.glob(pattern))


def _tokenizer_hash(path: Path) -> str:
    files = [path / name for name in _TOKENIZER_FILES if (path / name).is_file()]
    if not files:
        raise ExpertError(f"{path}: holds no tokenizer ({', '.join(_TOKENIZER_FILES)})")
    digest = hashlib.sha256()
    # Beside tokenizer.json the others are older forms of the same, and may be left out.
    for file in files[:1] if files[0].name == _TOKENIZER_FILES[0] else files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
