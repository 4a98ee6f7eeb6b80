"""Building a corpus: documents are read and spooled, a tokenizer is trained, the tokens are packed into shards.

The next build goes on with what an interrupted one wrote (parts of sources that were read, signatures, the tokenizer,
packed buckets, whole shards) if the specification, the sources' files and the libraries are the same. The corpus
depends neither on the number of processes nor on where a build was interrupted.
"""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from raysplit.corpus.building import building
from raysplit.corpus.corpus import OTHER_TOKENIZERS, Corpus
from raysplit.corpus.held_out import HELD_OUT_TOLERANCE
from raysplit.corpus.manifest import (
    MANIFEST_FILE,
    NO_TOKENS,
    DomainRecord,
    Manifest,
    SideRecord,
    TokenizerRecord,
    duplicates_sentence,
    read_manifest,
    spec_hash,
    write_manifest,
)
from raysplit.corpus.near import save_signatures, signatures_of
from raysplit.corpus.not_read import Tally
from raysplit.corpus.packages import LICENCES, edition
from raysplit.corpus.packing import SIDES, Bucket, Packed, Side, SideCount, pack_bucket
from raysplit.corpus.parallel import cores, enough_processes, in_parallel
from raysplit.corpus.runs import write_durably
from raysplit.corpus.sampling import mixture_of
from raysplit.corpus.shards import SHARD_BYTES, token_type
from raysplit.corpus.slices import SLICE_BYTES, Slice, not_nearly_held_out
from raysplit.corpus.sources import Documents, open_source
from raysplit.corpus.spool import PART_BYTES, RUN_BYTES, Reader, Report, Spooled, spool_sources
from raysplit.corpus.tokenized import Vocabulary
from raysplit.corpus.tokenizer import (
    CorpusTokenizer,
    SavedTokenizer,
    hash_folder,
    load_huggingface,
    load_saved_bpe,
    save_bpe,
    train_bpe,
)
from raysplit.errors import CorpusError
from raysplit.space import GENERAL, CorpusSpec, NearDuplicateSpec, SourceSpec, TokenizerSpec

Progress = Callable[[str, float], None]
"""Called with the name of the step and the share of it that is done, in [0, 1]."""

_SPOOL, _SHARDS, _TOKENIZER, _LOCK = "spool", "shards", "tokenizer", ".corpus.lock"
_MIN_SAMPLE_BYTES = 1 << 23
_SAMPLE_BYTES_PER_TOKEN = 4096  # of a BPE's vocabulary
_LIBRARIES = ("tokenizers", "numpy", "rensa")
"""Libraries whose version may change a corpus."""


def _silent(step: str, done: float) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSizes:
    """How the work is cut. No corpus depends on it."""

    part_bytes: int = PART_BYTES
    """Bytes of source files that a process reads at a time."""
    run_bytes: int = RUN_BYTES
    """Bytes of documents in a sorted run."""
    slice_bytes: int = SLICE_BYTES
    """Bytes of documents in a slice, which a process packs at a time."""


def build_corpus(
    spec: CorpusSpec,
    out: Path,
    *,
    progress: Progress = _silent,
    n_processes: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    work: WorkSizes = WorkSizes(),
) -> Corpus:
    """Build the corpus of ``spec`` in the folder ``out``, or open it if it is already there.

    The folder becomes a corpus at the last moment, when its manifest appears; the next build goes on with an
    interrupted one. A folder that holds the corpus of another specification is refused, never overwritten, because runs
    may depend on it. Changes inside a source of a finished corpus (a file added to a folder) are not looked for. Two
    processes that build in one folder take turns.

    Args:
        spec: what to build.
        out: folder that belongs to the corpus.
        progress: is told of each step.
        n_processes: most processes that work at it; one for each core when None. Little text takes fewer.
        shard_bytes: bytes after which a new shard file starts.
        work: how the work is cut.

    Raises:
        CorpusError: a source, the tokenizer or the folder is unusable; everything that can be checked cheaply is
            checked before the first document is read.
    """
    out = Path(out)
    with building(out, what="corpus", lock=_LOCK, record=MANIFEST_FILE):
        if (out / MANIFEST_FILE).exists():
            _clear(out, _SPOOL)
            return _existing(spec, out)
        build = _Build(
            spec=spec,
            out=out,
            progress=progress,
            n_processes=n_processes or cores(),
            shard_bytes=shard_bytes,
            work=work,
        )
        try:
            manifest = build.run()
        except CorpusError:  # what has to be mended changes what there is to read
            _clear(out, _SPOOL, _SHARDS, _TOKENIZER)
            raise
        write_manifest(manifest, out)
        _clear(out, _SPOOL)
        return Corpus.open(out)


def build_in_tokens_of(
    spec: CorpusSpec,
    tokenizers: Sequence[TokenizerSpec],
    out: Path,
    *,
    progress: Progress = _silent,
    n_processes: int | None = None,
) -> Corpus:
    """`build_corpus`, and the same documents in the tokens of each of the other ``tokenizers``, in a folder below.

    Which documents are trained on and held out does not depend on the tokenizer. `Corpus.in_tokens_of` gives each.

    Raises:
        CorpusError: as `build_corpus`; or a source has changed between two builds.
    """
    corpus = build_corpus(spec, out, progress=progress, n_processes=n_processes)
    for number, tokenizer in enumerate(dict.fromkeys(t for t in tokenizers if t != spec.tokenizer)):
        own = spec.model_copy(update={"tokenizer": tokenizer})
        folder = out / OTHER_TOKENIZERS / str(number)
        other = build_corpus(own, folder, progress=progress, n_processes=n_processes)
        for name, record in corpus.manifest.texts.items():
            if _documents(record) != _documents(other.manifest.texts[name]):
                raise CorpusError(
                    f"{folder}: {name!r}: is not of the documents that {out} has, so its source has changed since; "
                    f"delete {out} and build again"
                )
    return corpus


def _documents(record: DomainRecord) -> list[tuple[int, int | None]]:
    return [(side.n_documents, side.n_text_bytes) for side in (record.train, record.validation)]


def _clear(out: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(out / name, ignore_errors=True)


def _existing(spec: CorpusSpec, out: Path) -> Corpus:
    manifest = read_manifest(out)
    if manifest.spec_hash != spec_hash(spec):
        fields = [field for field in CorpusSpec.model_fields if field not in NO_TOKENS]
        changed = [field for field in fields if _as_written(manifest.spec, field) != _as_written(spec, field)]
        changed = changed or ["the edition of a package text"]
        raise CorpusError(
            f"{out}: holds a corpus of another specification (different: {', '.join(changed)}); "
            "choose another folder, or delete this one if nothing depends on it"
        )
    return Corpus.open(out)


def _as_written(spec: CorpusSpec, field: str) -> str:
    return spec.model_dump_json(include={field})


@dataclass(frozen=True, kw_only=True)
class _Build:
    """One build, from sources to manifest."""

    spec: CorpusSpec
    out: Path
    progress: Progress
    n_processes: int
    shard_bytes: int
    work: WorkSizes
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each step."""

    @contextmanager
    def step(self, name: str) -> Iterator[Report]:
        start = time.perf_counter()
        self.progress(name, 0.0)
        yield lambda done: self.progress(name, done)
        self.progress(name, 1.0)
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def run(self) -> Manifest:
        spec = self.spec
        mixture_of(spec.shares)  # refuses impossible shares
        given = self._given_tokenizer()
        vocabulary = None
        if given is not None:
            name = str(spec.tokenizer.name)
            vocabulary = Vocabulary(tokenizer=name, size=given.vocab_size, end_of_text=given.end_of_text)
        with self.step("open sources"):
            opened = {
                name: open_source(source, domain=name, vocabulary=vocabulary) for name, source in spec.texts.items()
            }
        self._take_up(opened, keep_tokenizer=given is not None)
        spooled = self._spool(opened, vocabulary)
        slices = {name: self._slices(one, self._tokens_of(name, given)) for name, one in spooled.items()}
        with self.step("compare held-out text"):
            near = self._signatures(slices, n_bytes=sum(one.held_out.n_bytes for one in spooled.values()))
        if (tokenizer := given) is None:
            with self.step("train tokenizer"):
                tokenizer = self._trained_tokenizer(slices, near)
        _enough_room(spooled, self.out, bytes_per_token=2 if token_type(tokenizer.vocab_size) == "uint16" else 4)
        records = self._pack(spooled, slices, opened, tokenizer, near)
        return Manifest(
            spec_hash=spec_hash(spec),
            spec=spec,
            dtype=token_type(tokenizer.vocab_size),
            tokenizer=TokenizerRecord(
                folder=_TOKENIZER,
                sha256=hash_folder(self.out / _TOKENIZER),
                vocab_size=tokenizer.vocab_size,
                end_of_text=tokenizer.end_of_text,
            ),
            domains={name: records[name] for name in spec.domains},
            general=records.get(GENERAL) if spec.general else None,
            versions={name: version(name) for name in _LIBRARIES},
            build_seconds=self.seconds,
        )

    @property
    def _folder(self) -> Path:
        return self.out / _SPOOL

    def _given_tokenizer(self) -> CorpusTokenizer | None:
        if self.spec.tokenizer.kind != "huggingface":
            return None
        assert self.spec.tokenizer.name is not None
        _clear(self.out, _TOKENIZER)
        with self.step("load tokenizer"):
            return load_huggingface(self.spec.tokenizer.name, copy_to=self.out / _TOKENIZER)

    def _take_up(self, opened: Mapping[str, Documents], *, keep_tokenizer: bool) -> None:
        """Keep what an interrupted build of the same corpus wrote, and clear away what another one did."""
        mark = self._folder / "build"
        identity = _identity(self.spec, opened, self.shard_bytes, self.work)
        if not mark.exists() or mark.read_text(encoding="utf-8") != identity:
            _clear(self.out, _SPOOL, _SHARDS, *(() if keep_tokenizer else (_TOKENIZER,)))
            self._folder.mkdir()
            write_durably(mark, [identity.encode()])
        (self.out / _SHARDS).mkdir(exist_ok=True)

    def _spool(self, opened: Mapping[str, Documents], vocabulary: Vocabulary | None) -> dict[str, Spooled]:
        n_bytes = sum(path.stat().st_size for documents in opened.values() for path in documents.paths)
        reader = Reader(
            self.spec.texts,
            opened,
            self._folder,
            seed=self.spec.seed,
            n_processes=enough_processes(n_bytes, at_most=self.n_processes),
            vocabulary=vocabulary,
            run_bytes=self.work.run_bytes,
            part_bytes=self.work.part_bytes,
        )
        fraction = self.spec.validation_fraction
        spooled = spool_sources(reader, self.spec.texts, fraction=fraction, step=self.step)
        for name, source in self.spec.texts.items():
            _enough(spooled[name], opened[name].tally, source)
        return spooled

    def _tokens_of(self, name: str, given: CorpusTokenizer | None) -> SavedTokenizer | None:
        if given is None or self.spec.texts[name].kind != "tokens":
            return None
        return SavedTokenizer(folder=self.out / _TOKENIZER, end_of_text=given.end_of_text)

    def _slices(self, spooled: Spooled, tokens_of: SavedTokenizer | None) -> list[Slice]:
        return spooled.slices(slice_bytes=self.work.slice_bytes, tokens_of=tokens_of)

    def _signatures(self, slices: Mapping[str, list[Slice]], *, n_bytes: int) -> Path | None:
        """Write the signatures of all held-out documents, by which near-duplicates of them are found."""
        near = self.spec.near_duplicates
        path = self._folder / "held-out.signatures"
        if near is None or path.exists():
            return None if near is None else path
        holding = [(number, one) for number, each in enumerate(slices.values()) for one in each if len(one.held_out)]
        found = in_parallel(
            partial(_held_out_signatures, near),
            [one for _, one in holding],
            n_processes=enough_processes(n_bytes, at_most=self.n_processes),
        )
        signatures: list[object] = []
        owners: list[int] = []
        for (number, _), own in zip(holding, found, strict=True):
            signatures += own
            owners += [number] * len(own)
        save_signatures(path, near, signatures, np.array(owners, dtype=np.int64))
        return path

    def _trained_tokenizer(self, slices: Mapping[str, list[Slice]], near: Path | None) -> CorpusTokenizer:
        folder = self.out / _TOKENIZER
        if folder.exists():
            return load_saved_bpe(folder)
        tokenizer = train_bpe(self._sample(slices, near), vocab_size=self.spec.tokenizer.vocab_size)
        partial_folder = self._folder / _TOKENIZER
        shutil.rmtree(partial_folder, ignore_errors=True)
        save_bpe(tokenizer, partial_folder)
        partial_folder.replace(folder)
        return tokenizer

    def _sample(self, slices: Mapping[str, list[Slice]], near: Path | None) -> Iterator[str]:
        """Training documents in the mixture's proportions, to learn merges from; a small domain gives all it has."""
        wanted = max(_MIN_SAMPLE_BYTES, _SAMPLE_BYTES_PER_TOKEN * self.spec.tokenizer.vocab_size)
        for name, share in self.spec.shares.items():
            room = full = share * wanted
            for text in _training_texts(slices[name], near):
                yield text
                room -= len(text.encode())
                if room <= 0:
                    break
            if room == full:
                raise _nothing_left(name, self.spec)

    def _pack(
        self,
        spooled: Mapping[str, Spooled],
        slices: Mapping[str, list[Slice]],
        opened: Mapping[str, Documents],
        tokenizer: CorpusTokenizer,
        near: Path | None,
    ) -> dict[str, DomainRecord]:
        dtype = token_type(tokenizer.vocab_size)
        folder = self._folder / f"packed-{hash_folder(self.out / _TOKENIZER)[:16]}"
        if not folder.exists():  # shards of another tokenizer
            _clear(self.out, _SHARDS)
            (self.out / _SHARDS).mkdir()
            folder.mkdir()
        saved = SavedTokenizer(folder=self.out / _TOKENIZER, end_of_text=tokenizer.end_of_text)
        buckets = {
            name: [
                Bucket(slice=one, near=near, tokenizer=saved, dtype=dtype, stem=str(folder / f"{name}-{number:05d}"))
                for number, one in enumerate(each)
            ]
            for name, each in slices.items()
        }
        n_bytes = sum(one.kept.n_bytes for one in spooled.values())
        results = in_parallel(
            pack_bucket,
            [bucket for each in buckets.values() for bucket in each],
            n_processes=enough_processes(n_bytes, at_most=self.n_processes),
        )
        records = {}
        for name, each in buckets.items():
            packed: list[Packed] = []
            with ExitStack() as files, self.step(f"pack {name}") as report:
                sides = {
                    side: files.enter_context(
                        Side(
                            self.out / _SHARDS,
                            f"{name}.{side}",
                            record=folder / f"{name}.{side}.json",
                            dtype=dtype,
                            shard_bytes=self.shard_bytes,
                        )
                    )
                    for side in SIDES
                }
                for bucket in each:
                    packed.append(next(results))
                    for side, shards in sides.items():
                        shards.append(bucket.tokens_path(side), packed[-1].sides[side].n_tokens)
                    report(len(packed) / len(each))
                finished = {side: _side_record(shards, side, packed, self.out) for side, shards in sides.items()}
            is_compared = near is not None and (slices[name][0].tokens_of is None or tokenizer.gives_text_back)
            near_of = self._near_duplicates_of(packed) if is_compared else None
            record = _record(finished, near_of, spooled[name], self.spec, name, opened[name].tally)
            records[name] = record.model_copy(update={"held_out_bytes": self._lengths(name, packed)})
        return records

    def _lengths(self, name: str, packed: list[Packed]) -> str | None:
        """Write the bytes of each held-out document; the name of the file, or None for tokens."""
        if self.spec.texts[name].kind == "tokens":
            return None
        lengths = np.array([n for one in packed for n in one.held_out_bytes], dtype="<u8")
        path = self.out / _SHARDS / f"{name}.validation.lengths"
        write_durably(path, [lengths.tobytes()])
        return str(path.relative_to(self.out))

    def _near_duplicates_of(self, packed: list[Packed]) -> dict[str, int]:
        counts = sum((Counter(one.near_of) for one in packed), Counter())
        names = list(self.spec.texts)
        return {names[number]: counts[number] for number in sorted(counts)}


def _identity(spec: CorpusSpec, opened: Mapping[str, Documents], shard_bytes: int, work: WorkSizes) -> str:
    """What has to be the same for a build to go on with the work of another."""
    digest = hashlib.sha256()
    for documents in opened.values():
        for path in documents.paths:
            state = path.stat()
            digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    editions = [edition(source.package) for source in spec.texts.values() if source.package]
    versions = [version(name) for name in _LIBRARIES]
    return "\n".join(map(str, [spec_hash(spec), digest.hexdigest(), editions, versions, shard_bytes, work]))


def _held_out_signatures(near: NearDuplicateSpec, part: Slice) -> list[object]:
    held_out = part.load()[0]
    return [one for batch in part.batches(held_out) for one in signatures_of(batch.texts or [], near)]


def _training_texts(slices: list[Slice], near: Path | None) -> Iterator[str]:
    for one in slices:
        for batch in not_nearly_held_out(one.batches(one.load()[1]), near, Counter()):
            yield from batch.texts or []


def _enough(spooled: Spooled, tally: Tally, source: SourceSpec) -> None:
    n, n_held_out = spooled.kept.n_documents, len(spooled.held_out.keys)
    if n >= 2 and 0 < n_held_out < n:
        return
    if n >= 2:
        side = "all" if n_held_out else "none"
        raise CorpusError(
            f"{tally.where}: of its {n} documents {side} are held out by {source.held_out_column!r}; it needs some to "
            "train on, and some to measure its loss on"
        )
    how = "split_on: 8k" if source.kind == "tokens" else 'split_on: "\\n\\n" or split_on: 64k'
    remedy = "cut it, with"
    if source.split_on is not None:
        remedy = f"split_on = {source.split_on!r} cuts nothing; take"
    if source.max_bytes is not None and spooled.kept.n_bytes >= source.max_bytes:
        remedy = f"max_bytes = {source.max_bytes} ends the reading there; raise it, or cut the text, with"
    said = [
        f"{n} document{'s' if n != 1 else ''} with text; it needs at least 2, one of them held out",
        *([f"{remedy} {how}"] if n == 1 else []),
        *filter(None, [duplicates_sentence(spooled.kept.duplicates_of)]),
        *tally.so_far().sentences(),
    ]
    raise CorpusError(f"{tally.where}: {'; '.join(said)}")


def _side_record(side: Side, name: str, packed: list[Packed], out: Path) -> SideRecord:
    count = sum((one.sides[name] for one in packed), SideCount())
    return SideRecord(
        n_tokens=count.n_tokens,
        n_text_bytes=count.n_text_bytes,
        n_documents=count.n_documents,
        shards=side.finish(relative_to=out),
    )


def _record(
    sides: Mapping[str, SideRecord],
    near_duplicates_of: dict[str, int] | None,
    spooled: Spooled,
    spec: CorpusSpec,
    domain: str,
    tally: Tally,
) -> DomainRecord:
    source = spec.texts[domain]
    if not sides["train"].n_documents:
        raise _nothing_left(domain, spec)
    package = source.package if source.kind == "package" else None
    return DomainRecord(
        train=sides["train"],
        validation=sides["validation"],
        n_duplicates=sum(spooled.kept.duplicates_of.values()),
        duplicates_of=dict(spooled.kept.duplicates_of),
        near_duplicates_of=near_duplicates_of,
        not_read=tally.so_far(),
        held_out_note="" if source.held_out_column else _held_out_note(spooled, spec.validation_fraction),
        source=source,
        edition=edition(package) if package else "",
        licence=source.licence or (LICENCES[package] if package else None),
    )


def _nothing_left(domain: str, spec: CorpusSpec) -> CorpusError:
    assert spec.near_duplicates is not None
    return CorpusError(
        f"domain {domain!r}: all its training documents are nearly held-out ones (near_duplicates.threshold = "
        f"{spec.near_duplicates.threshold:g}); bring other text, or raise the threshold"
    )


def _held_out_note(spooled: Spooled, wanted: float) -> str:
    share = spooled.validation_share
    if abs(share / wanted - 1) <= HELD_OUT_TOLERANCE:
        return ""
    kept = spooled.kept
    return (
        f"{share:.2%} of its text is held out where {wanted:.2%} is wanted: it has {kept.n_documents} documents, the "
        f"largest with {kept.longest / kept.n_bytes:.0%} of it; `split_on` cuts large ones"
    )


def _enough_room(spooled: Mapping[str, Spooled], out: Path, *, bytes_per_token: int) -> None:
    # A token stands for at least two bytes of text, or nearly so; tokens go from their buckets as shards come.
    need = sum(one.kept.n_bytes for one in spooled.values()) * bytes_per_token // 2
    free = shutil.disk_usage(out).free
    if free < need:
        raise CorpusError(f"{out}: the shards need up to {need / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB left")
