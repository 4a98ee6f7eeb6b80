"""The manifest: what a corpus folder holds, how it was made, and how to tell that it is whole."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from raysplit.corpus.not_read import NotRead
from raysplit.corpus.packages import ARCHIVES
from raysplit.corpus.shards import Shard, TokenType
from raysplit.errors import CorpusError
from raysplit.space import GENERAL, CorpusSpec, NearDuplicateSpec, SourceSpec

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION: Final = 2
"""Version 2 knows of near-duplicates. A corpus of version 1 has the same shards, and is read as it is."""
_HASHED_AS: Final = 1
"""Version that the hash names: a specification without newer fields keeps its hash of version 1."""
_LATER_FIELDS = ("split_on", "encoding", "on_bad", "held_out_column", "tokenizer", "tokens_column")
"""Fields of a source that are newer than the first corpora."""
NO_TOKENS = ("max_epochs", "sources", "discover", "clusterer")
"""Fields of a specification that change no token of its corpus, which is built of domains alone."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SideRecord(_Record):
    """One side, training or held out, of one domain."""

    n_tokens: int
    """Every token, with the one that ends each document."""
    n_text_bytes: int | None
    """UTF-8 bytes of the documents' text, ends of text not counted; None where the tokenizer gives no text back."""
    n_documents: int
    shards: tuple[Shard, ...]

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token, ends of text counted as tokens; NaN where it is not known."""
        return math.nan if self.n_text_bytes is None else self.n_text_bytes / self.n_tokens


def duplicates_sentence(duplicates_of: Mapping[str, int]) -> str:
    """What was dropped because another document has its text; empty where nothing was."""
    owners = ", ".join(f"{n} of {owner}" for owner, n in duplicates_of.items())
    return f"left out {sum(duplicates_of.values())} whose text was read before: {owners}" if owners else ""


def near_duplicates_sentence(near_duplicates_of: Mapping[str, int] | None) -> str:
    """What was dropped because it is nearly held-out text; empty where nothing was."""
    if near_duplicates_of is None:
        return "training documents that are nearly held-out ones were not looked for"
    owners = ", ".join(f"{n} of {owner}" for owner, n in near_duplicates_of.items())
    return f"left out {sum(near_duplicates_of.values())} nearly held out: {owners}" if owners else ""


class DomainRecord(_Record):
    train: SideRecord
    validation: SideRecord
    n_duplicates: int
    """Documents dropped because their text, up to white space, had been read before."""
    duplicates_of: dict[str, int]
    """The same, by the domain that keeps the text."""
    held_out_bytes: str | None = None
    """File of the UTF-8 bytes of each held-out document (uint64), relative to the corpus folder; None for tokens, and
    in the corpus of an older raysplit."""
    near_duplicates_of: dict[str, int] | None = None
    """Training documents dropped because they are nearly held-out ones, by the domain that holds those out; None where
    they were not looked for."""
    not_read: NotRead = NotRead()
    """What the source holds beside its documents."""
    held_out_note: str = ""
    """Why the held-out share is not what was asked for; empty where it is."""
    source: SourceSpec
    edition: str
    """Exactly which text a package source gave; empty for other sources."""
    licence: str | None

    @property
    def notes(self) -> list[str]:
        """Sentences on what a user may not expect of the domain."""
        duplicates = duplicates_sentence(self.duplicates_of)
        near = near_duplicates_sentence(self.near_duplicates_of)
        return [*self.not_read.sentences(), *filter(None, [duplicates, near, self.held_out_note])]


class TokenizerRecord(_Record):
    folder: str
    """Relative to the corpus folder; `AutoTokenizer.from_pretrained` reads it."""
    sha256: str
    vocab_size: int
    end_of_text: int
    """Token that follows every document."""


class Manifest(_Record):
    schema_version: Literal[1, 2] = SCHEMA_VERSION
    spec_hash: str
    spec: CorpusSpec
    dtype: TokenType
    tokenizer: TokenizerRecord
    domains: dict[str, DomainRecord]
    general: DomainRecord | None = None
    """The general set, where the specification has one."""
    versions: dict[str, str]
    build_seconds: dict[str, float]
    """Wall time of each step of the build."""

    @property
    def texts(self) -> dict[str, DomainRecord]:
        """The domains, then the general set under its name."""
        return self.domains if self.general is None else {**self.domains, GENERAL: self.general}

    @property
    def identity(self) -> str:
        """Hash of the tokens and the tokenizer: equal for two builds that would train the same model."""
        content = {
            "dtype": self.dtype,
            "tokenizer": self.tokenizer.sha256,
            "shards": {
                name: [[shard.sha256 for shard in side.shards] for side in (record.train, record.validation)]
                for name, record in self.texts.items()
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def spec_hash(spec: CorpusSpec) -> str:
    """Hash of everything that decides the corpus: the specification, and the pinned editions of package texts.

    `NO_TOKENS` are left out, because they change no token: how often tokens may be repeated, which is checked when the
    corpus is used, and where its domains come from.
    """
    content = spec.model_dump(mode="json", exclude=set(NO_TOKENS))
    if spec.near_duplicates == NearDuplicateSpec():
        del content["near_duplicates"]
    if spec.general is None:
        del content["general"]
    for source in [*content["domains"].values(), *([content["general"]] if spec.general else [])]:
        for field in _LATER_FIELDS:  # one left at its default says what a space without it said
            if source[field] == SourceSpec.model_fields[field].default:
                del source[field]
    pins = [ARCHIVES[source.package].sha256 for source in spec.texts.values() if source.package in ARCHIVES]
    text = json.dumps([_HASHED_AS, content, pins])  # order counts: of two domains the first keeps a shared text
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Make ``folder`` a corpus: the manifest appears whole or not at all, after everything it names is on disk."""
    partial = folder / (MANIFEST_FILE + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST_FILE)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished corpus.

    Raises:
        CorpusError: there is none, or it is damaged.
    """
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(
            f"{folder}: holds no finished corpus (no {MANIFEST_FILE}); build it with `raysplit corpus build`"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise CorpusError(f"{path}: is damaged or of another version of raysplit: {where} {problem['msg']}") from error
