"""A finished corpus: batches of training windows by position, fixed held-out windows, capacity."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from raysplit.corpus.manifest import MANIFEST_FILE, Manifest, read_manifest
from raysplit.corpus.sampling import Mixture, mixture_of, replayed_windows, shuffled_windows
from raysplit.corpus.shards import Shard, ShardReader
from raysplit.errors import CorpusError, unknown
from raysplit.space import GENERAL, TokenizerSpec

OTHER_TOKENIZERS = "other_tokenizers"
"""Folder below a corpus's own, with the same documents in the tokens of other tokenizers."""


class HeldOutDocuments(NamedTuple):
    """Whole held-out documents of which every token is a target; the first one follows an end of text."""

    windows: np.ndarray
    """(n, context_length + 1) int64."""
    rest: np.ndarray
    """(1, r + 1) int64: the r < context_length targets that fill no window."""
    n_bytes: int
    """Of their text, UTF-8."""

    @property
    def n_targets(self) -> int:
        """Every token, with the end of text after each document."""
        return len(self.windows) * (self.windows.shape[1] - 1) + self.rest.shape[1] - 1


@dataclass(frozen=True)
class Corpus:
    """Memory-mapped tokens of every domain and what the manifest says of them."""

    folder: Path
    manifest: Manifest
    shares_are_of_bytes: bool = False
    """Whether the mixture's shares are of text and not of tokens, so that they mean the same for every tokenizer."""

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a finished corpus; sizes of files are checked here, their contents by `verify`.

        Raises:
            CorpusError: the folder holds no finished corpus, or a file is missing or of the wrong size.
        """
        folder = Path(folder)
        corpus = cls(folder, read_manifest(folder))
        for shard in corpus._shards():
            path = folder / shard.file
            found = path.stat().st_size if path.is_file() else None
            if found != shard.n_bytes:
                problem = "is missing" if found is None else f"has {found} bytes instead of {shard.n_bytes}"
                raise CorpusError(f"{path}: {problem}; delete {folder} and build the corpus again")
        if not corpus.tokenizer_path.is_dir():
            raise CorpusError(f"{corpus.tokenizer_path}: is missing; delete {folder} and build the corpus again")
        return corpus

    def __reduce__(self) -> tuple[Callable[[Path, bool], "Corpus"], tuple[Path, bool]]:
        # A memory map pickles as a copy of all its tokens; another process opens the files instead.
        return _reopened, (self.folder, self.shares_are_of_bytes)

    def in_tokens_of(self, tokenizer: TokenizerSpec) -> "Corpus":
        """The same documents in the tokens of a tokenizer, with shares of the mixture that are of bytes.

        Raises:
            CorpusError: they were not built.
        """
        others = sorted((self.folder / OTHER_TOKENIZERS).glob(f"*/{MANIFEST_FILE}"))
        for one in (self, *(Corpus.open(path.parent) for path in others)):
            if one.manifest.spec.tokenizer.name == tokenizer.name:
                return replace(one, shares_are_of_bytes=True)
        raise CorpusError(
            f"{self.folder}: is not there in the tokens of {tokenizer.name}; delete {self.folder} and build it again"
        )

    def verify(self) -> None:
        """Read every byte and compare it with the manifest's hashes.

        Raises:
            CorpusError: a file has changed since it was built.
        """
        from raysplit.corpus.tokenizer import hash_folder

        for shard in self._shards():
            with (self.folder / shard.file).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    raise CorpusError(f"{self.folder / shard.file}: has changed since the corpus was built")
        if hash_folder(self.tokenizer_path) != self.manifest.tokenizer.sha256:
            raise CorpusError(f"{self.tokenizer_path}: has changed since the corpus was built")

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.manifest.domains)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Of all texts, by number: the domains, as the mixture has them, and the general set last."""
        return tuple(self.manifest.texts)

    @property
    def vocab_size(self) -> int:
        return self.manifest.tokenizer.vocab_size

    @property
    def tokenizer_path(self) -> Path:
        """Folder that `transformers.AutoTokenizer.from_pretrained` reads."""
        return self.folder / self.manifest.tokenizer.folder

    @cached_property
    def mixture(self) -> Mixture:
        """The order of domains in the pretraining stream, and the shares it realises."""
        shares = self.manifest.spec.shares
        if self.shares_are_of_bytes:
            tokens = {k: share / self.manifest.domains[k].train.bytes_per_token for k, share in shares.items()}
            shares = {name: n / math.fsum(tokens.values()) for name, n in tokens.items()}
        return mixture_of(shares)

    def batch(
        self,
        *,
        seed: int,
        context_length: int,
        start_tokens: int,
        n_sequences: int,
        domain: str | None = None,
        branch_tokens: int = 0,
        replay_share: float = 0.0,
        part: tuple[int, int] = (0, 1),
    ) -> np.ndarray:
        """Training windows at a position of a stream; a pure function of its arguments.

        Without a domain the stream is the mixture, from position ``start_tokens`` on. With a domain it is the branch
        on that domain that left the trunk of the same seed at ``branch_tokens``, from the branch's own position
        ``start_tokens`` on. The branch goes on with the domain's stream where the trunk left it. ``replay_share`` of
        its windows come from the mixture's stream, from where the trunk left that, so replayed text is new as long as
        there is new text. Positions count target tokens: a window gives ``context_length`` of them, and its first
        token is the last target of the window before it in the text. Of a corpus with a general set, that set's own
        stream is replayed, from its start, in place of the mixture's.

        Args:
            seed: of the trunk's and the branch's streams.
            context_length: T.
            start_tokens, branch_tokens: multiples of ``context_length``.
            n_sequences: how many windows.
            domain: of a branch; None for the mixture.
            replay_share: of a branch's windows, in [0, 1]; spread evenly over the branch. At 1 it is all mixture, also
                where there is a general set.
            part: (i, n) for the windows i, i + n, i + 2 n, ... of them alone, as rank i of n reads them.

        Returns:
            (n_sequences, or its part, context_length + 1) int64; columns [:-1] are inputs, columns [1:] targets.

        Raises:
            CorpusError: the domain is unknown, or holds less than one window.
            ValueError: a position is negative or no multiple of ``context_length``, or ``branch_tokens`` is given
                without a domain.
        """
        start = _whole_windows("start_tokens", start_tokens, context_length)
        branch = _whole_windows("branch_tokens", branch_tokens, context_length)
        first, stride = part
        positions = start + np.arange(first, n_sequences, stride)
        if domain is None:
            if branch:
                raise ValueError(f"branch_tokens = {branch_tokens} is the start of a branch, which needs a domain")
            numbers, places = self.mixture.locate(positions)
        else:
            self._known(domain, among=self.domains)
            numbers, places = self._branch_places(domain, branch, positions, replay_share)
        out = np.empty((len(positions), context_length + 1), dtype=np.int64)
        for number in np.unique(numbers):
            name = self._names[number]
            chosen = numbers == number
            windows = shuffled_windows(
                places[chosen], n_windows=self.n_windows(name, context_length), seed=seed, domain=name
            )
            out[chosen] = self._train[name].windows(windows, context_length=context_length)
        return out

    def _branch_places(
        self, domain: str, branch: int, positions: np.ndarray, replay_share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Domain number, and place in that domain's stream, of the windows at ``positions`` (n,) of a branch."""
        own = self.domains.index(domain)
        replayed = replayed_windows(positions, replay_share)
        is_replayed = replayed_windows(positions + 1, replay_share) > replayed
        if self._replays_general(replay_share):
            gone = positions - replayed + self.mixture.windows_given(branch, domain)
            return np.where(is_replayed, self._names.index(GENERAL), own), np.where(is_replayed, replayed, gone)
        numbers, places = self.mixture.locate(branch + replayed)
        numbers[~is_replayed] = own
        # The branch's own domain has one stream, whichever way a window of it comes.
        gone = positions - replayed + self.mixture.windows_given_at(branch + replayed, domain)
        return numbers, np.where(numbers == own, gone, places)

    def _replays_general(self, replay_share: float) -> bool:
        """Whether what a branch replays is the general set and not the mixture, which is all of it at a share of 1."""
        return self.manifest.general is not None and replay_share < 1.0

    @property
    def domain_tokens(self) -> dict[str, float]:
        """Training tokens of each domain."""
        return {name: float(record.train.n_tokens) for name, record in self.manifest.domains.items()}

    def n_windows(self, domain: str, context_length: int) -> int:
        """Training windows of a domain, which one epoch visits once each.

        Raises:
            CorpusError: the domain is unknown, or holds less than one window.
        """
        self._known(domain)
        n_tokens = self.manifest.texts[domain].train.n_tokens
        if n_tokens <= context_length:
            raise CorpusError(
                f"{self._called(domain)}: has {n_tokens:,} training tokens, fewer than one context of "
                f"{context_length:,} + 1; {self._more_text()}"
            )
        return (n_tokens - 1) // context_length

    def validation(self, domain: str, *, context_length: int, max_tokens: int) -> np.ndarray:
        """The first held-out windows of a domain, at most ``max_tokens`` target tokens; always the same ones.

        Returns:
            (n, context_length + 1) int64, n >= 1.

        Raises:
            CorpusError: the domain is unknown, or holds out less than one window.
        """
        n_windows = self.n_validation_windows(domain, context_length=context_length, max_tokens=max_tokens)
        return self._validation[domain].windows(np.arange(n_windows), context_length=context_length)

    def token_pieces(
        self, domain: str, *, side: Literal["train", "validation"], piece_tokens: int
    ) -> Iterator[np.ndarray]:
        """Every token of one side of a domain in their order, an end of text after each document; (n,) int64 at a time.

        Raises:
            CorpusError: the domain is unknown.
        """
        self._known(domain)
        reader = (self._train if side == "train" else self._validation)[domain]
        for start in range(0, len(reader), piece_tokens):
            yield reader.read(start, min(piece_tokens, len(reader) - start))

    def n_validation_windows(self, domain: str, *, context_length: int, max_tokens: int) -> int:
        """How many windows `validation` gives.

        Raises:
            CorpusError: as `validation`.
        """
        self._known(domain)
        n_tokens = self.manifest.texts[domain].validation.n_tokens
        n_windows = min(max_tokens, n_tokens - 1) // context_length
        if n_windows < 1:
            raise CorpusError(
                f"{self._called(domain)}: {min(max_tokens, n_tokens):,} held-out tokens are less than one context of "
                f"{context_length:,} + 1; raise corpus.validation_fraction or training.validation_tokens"
            )
        return n_windows

    def n_held_out_within(self, domain: str, *, max_tokens: int) -> int:
        """How many of the first held-out documents have at most ``max_tokens`` tokens, ends of text included.

        Raises:
            CorpusError: the domain is unknown, or its first one alone has more.
        """
        ends = self._ends_of_text(domain, n_tokens=max_tokens)
        if not len(ends):
            raise CorpusError(
                f"{self._called(domain)}: its first held-out document has more than {max_tokens:,} tokens, and is read "
                "whole; raise training.validation_tokens, or cut the text with split_on"
            )
        return len(ends)

    def held_out_text(self, domain: str, *, context_length: int, n_documents: int, max_tokens: int) -> HeldOutDocuments:
        """The first ``n_documents`` held-out documents of a domain, the same text for every tokenizer.

        Args:
            domain: or the general set.
            context_length: T.
            n_documents: at most `n_held_out_within` so many tokens.
            max_tokens: those.

        Raises:
            CorpusError: the domain is unknown, or the bytes of its documents are not known, or damaged.
        """
        end, record = self.manifest.tokenizer.end_of_text, self.manifest.texts[domain]
        if record.held_out_bytes is None:
            raise CorpusError(
                f"{self.folder}: {domain!r}: the bytes of its held-out documents are not known, as an older raysplit "
                f"built it; delete {self.folder} and build it again"
            )
        path = self.folder / record.held_out_bytes
        lengths = np.fromfile(path, dtype="<u8") if path.is_file() else np.empty(0, dtype="<u8")
        if lengths.sum() != record.validation.n_text_bytes:
            raise CorpusError(f"{path}: is missing or has changed; delete {self.folder} and build the corpus again")
        n_tokens = int(self._ends_of_text(domain, n_tokens=max_tokens)[n_documents - 1]) + 1
        tokens = np.concatenate([[end], self._validation[domain].read(0, n_tokens)])
        n_windows = n_tokens // context_length
        rows = np.arange(n_windows)[:, None] * context_length + np.arange(context_length + 1)
        return HeldOutDocuments(
            windows=tokens[rows],
            rest=tokens[None, n_windows * context_length :],
            n_bytes=int(lengths[:n_documents].sum()),
        )

    def _ends_of_text(self, domain: str, *, n_tokens: int) -> np.ndarray:
        """(documents,) places of the ends of text among the first held-out tokens of a domain."""
        self._known(domain)
        reader = self._validation[domain]
        tokens = reader.read(0, min(n_tokens, len(reader)))
        return np.flatnonzero(tokens == self.manifest.tokenizer.end_of_text)

    def bytes_per_token(self, domain: str) -> float:
        """UTF-8 bytes of held-out text per token, ends of documents counted as tokens without bytes.

        So a loss in nats per token is loss / ln 2 / bytes_per_token in bits per byte. NaN where it is not known: the
        source is of tokens whose tokenizer gives no text back.

        Raises:
            CorpusError: the domain is unknown.
        """
        self._known(domain)
        return self.manifest.texts[domain].validation.bytes_per_token

    def check_capacity(
        self,
        *,
        max_pretrain_tokens: int,
        max_specialize_tokens: int,
        max_epochs: float,
        context_length: int = 1,
        replay_share: float = 0.0,
    ) -> dict[str, float]:
        """Epochs of each domain on the longest path: its part of the largest D, then the largest D'.

        Args:
            max_pretrain_tokens: the largest D.
            max_specialize_tokens: the largest D'.
            max_epochs: how often a token may be trained on, at most.
            context_length: T. Only whole windows can be trained on, so the answer is exact for the model's own T.
            replay_share: of a branch's windows, in [0, 1].

        Returns:
            domain, or the general set -> epochs of its training tokens; at most 1 means that nothing is repeated.

        Raises:
            CorpusError: a domain needs more than ``max_epochs``, or holds less than one window; the message names the
                domain, what it has and what is needed.
        """
        trunk = math.ceil(max_pretrain_tokens / context_length)
        branch = math.ceil(max_specialize_tokens / context_length)
        replayed = int(replayed_windows(np.array([branch]), replay_share)[0])
        is_general = self._replays_general(replay_share)
        # Its own branch takes the most of a domain: what the others replay of it, this one does too.
        needed = {
            domain: self.mixture.windows_given(trunk + (0 if is_general else replayed), domain) + branch - replayed
            for domain in self.domains
        }
        why = {
            domain: f"{self.mixture.shares[domain]:.3g} x D = {max_pretrain_tokens:,}, then D' = "
            f"{max_specialize_tokens:,}"
            for domain in self.domains
        }
        if is_general:
            needed[GENERAL], why[GENERAL] = replayed, f"{replay_share:.0%} of D' = {max_specialize_tokens:,}"
        epochs = {}
        for name, windows in needed.items():
            has = self.n_windows(name, context_length)
            epochs[name] = windows / has
            if windows > max_epochs * has:
                raise CorpusError(
                    f"{self._called(name)}: has {has * context_length:,} training tokens, and the longest path needs "
                    f"{windows * context_length:,} ({why[name]}): {epochs[name]:.3g} epochs, and corpus.max_epochs = "
                    f"{max_epochs:g}. Lower the token grids, raise corpus.max_epochs to "
                    f"{math.ceil(10 * epochs[name]) / 10:g}, or {self._more_text()}"
                )
        return epochs

    @cached_property
    def _train(self) -> dict[str, ShardReader]:
        records = self.manifest.texts.items()
        return {name: self._reader(record.train.shards) for name, record in records}

    @cached_property
    def _validation(self) -> dict[str, ShardReader]:
        records = self.manifest.texts.items()
        return {name: self._reader(record.validation.shards) for name, record in records}

    def _reader(self, shards: tuple[Shard, ...]) -> ShardReader:
        return ShardReader(self.folder, shards, dtype=self.manifest.dtype)

    def _shards(self) -> list[Shard]:
        sides = [side for record in self.manifest.texts.values() for side in (record.train, record.validation)]
        return [shard for side in sides for shard in side.shards]

    def _more_text(self) -> str:
        return f"add text and delete {self.folder}, which is not built anew by itself"

    def _called(self, name: str) -> str:
        """A text as errors call it."""
        return f"domain {name!r}" if name in self.domains else "corpus.general"

    def _known(self, domain: str, *, among: tuple[str, ...] | None = None) -> None:
        if domain not in (choices := among or self._names):
            raise CorpusError(f"{self.folder}: {unknown('domain', domain, choices)}")


def _reopened(folder: Path, shares_are_of_bytes: bool) -> Corpus:
    return replace(Corpus.open(folder), shares_are_of_bytes=shares_are_of_bytes)


def _whole_windows(name: str, tokens: int, context_length: int) -> int:
    windows, rest = divmod(tokens, context_length)
    if rest or tokens < 0:
        raise ValueError(f"{name} = {tokens} is not a multiple of the context length {context_length}")
    return windows
