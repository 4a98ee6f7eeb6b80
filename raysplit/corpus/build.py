"""Building a corpus: documents are read and spooled, a tokenizer is trained, the tokens are packed into shards."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from raysplit.corpus.building import building
from raysplit.corpus.corpus import Corpus
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
from raysplit.corpus.not_read import Tally
from raysplit.corpus.packages import LICENCES, edition
from raysplit.corpus.sampling import mixture_of
from raysplit.corpus.shards import SHARD_BYTES, Shard, ShardWriter, TokenType, token_type
from raysplit.corpus.sources import open_source
from raysplit.corpus.spool import HELD_OUT_TOLERANCE, Spool, spool_documents
from raysplit.corpus.tokenizer import CorpusTokenizer, hash_folder, load_huggingface, save_bpe, train_bpe
from raysplit.errors import CorpusError
from raysplit.space import CorpusSpec, SourceSpec

Progress = Callable[[str, float], None]
"""Called with the name of the step and the share of it that is done, in [0, 1]."""

_SPOOL, _SHARDS, _TOKENIZER, _LOCK = "spool", "shards", "tokenizer", ".corpus.lock"
_BATCH_BYTES = 1 << 19  # text encoded at once
_MIN_SAMPLE_BYTES = 1 << 23
_SAMPLE_BYTES_PER_TOKEN = 4096  # of a BPE's vocabulary


def _silent(step: str, done: float) -> None:
    pass


def build_corpus(
    spec: CorpusSpec, out: Path, *, progress: Progress = _silent, shard_bytes: int = SHARD_BYTES
) -> Corpus:
    """Build the corpus of ``spec`` in the folder ``out``, or open it if it is already there.

    The folder becomes a corpus at the last moment, when its manifest appears; what an interrupted build left is
    removed by the next one. A folder that holds the corpus of another specification is refused, never overwritten,
    because runs may depend on it. Changes inside a source (a file added to a folder) are not looked for. Two processes
    that build in one folder take turns.

    Args:
        shard_bytes: size at which a new shard file starts.

    Raises:
        CorpusError: a source, the tokenizer or the folder is unusable; everything that can be checked cheaply is
            checked before the first document is read.
    """
    out = Path(out)
    with building(out, what="corpus", lock=_LOCK, record=MANIFEST_FILE):
        if (out / MANIFEST_FILE).exists():
            return _existing(spec, out)
        _clear(out, _SPOOL, _SHARDS, _TOKENIZER)
        (out / _SPOOL).mkdir()
        (out / _SHARDS).mkdir()
        try:
            manifest = _build(spec, out, progress=progress, shard_bytes=shard_bytes)
        except BaseException:
            _clear(out, _SPOOL, _SHARDS, _TOKENIZER)
            raise
        _clear(out, _SPOOL)
        write_manifest(manifest, out)
        return Corpus.open(out)


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


def _build(spec: CorpusSpec, out: Path, *, progress: Progress, shard_bytes: int) -> Manifest:
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[Callable[[float], None]]:
        start = time.perf_counter()
        progress(name, 0.0)
        yield lambda done: progress(name, done)
        progress(name, 1.0)
        seconds[name] = round(time.perf_counter() - start, 3)

    mixture_of(spec.shares)  # refuses impossible shares
    given = None
    if spec.tokenizer.kind == "huggingface":
        assert spec.tokenizer.name is not None
        with step("load tokenizer"):
            given = load_huggingface(spec.tokenizer.name, copy_to=out / _TOKENIZER)
    with step("open sources"):
        sources = {name: open_source(source, domain=name) for name, source in spec.domains.items()}

    spools: dict[str, Spool] = {}
    owners: dict[bytes, str] = {}
    for name, documents in sources.items():
        with step(f"read {name}") as report:
            spools[name] = spool_documents(
                documents.documents,
                out / _SPOOL / f"{name}.txt",
                domain=name,
                seed=spec.seed,
                owners=owners,
                max_bytes=spec.domains[name].max_bytes,
                validation_fraction=spec.validation_fraction,
                progress=report,
            )
        documents.tally.check()
        _enough(spools[name], documents.tally, spec.domains[name])

    if given is None:
        with step("train tokenizer"):
            tokenizer = train_bpe(_sample(spools, spec), vocab_size=spec.tokenizer.vocab_size)
            save_bpe(tokenizer, out / _TOKENIZER)
    else:
        tokenizer = given

    dtype = token_type(tokenizer.vocab_size)
    _enough_room(spools, out, bytes_per_token=2 if dtype == "uint16" else 4)
    domains: dict[str, DomainRecord] = {}
    for name, spool in spools.items():
        with step(f"pack {name}") as report:
            sides = _pack(name, spool, tokenizer, out, dtype=dtype, shard_bytes=shard_bytes, progress=report)
        domains[name] = _record(sides, spool, spec, name, sources[name].tally)
        spool.path.unlink()
    return Manifest(
        spec_hash=spec_hash(spec),
        spec=spec,
        dtype=dtype,
        tokenizer=TokenizerRecord(
            folder=_TOKENIZER,
            sha256=hash_folder(out / _TOKENIZER),
            vocab_size=tokenizer.vocab_size,
            end_of_text=tokenizer.end_of_text,
        ),
        domains=domains,
        versions={name: version(name) for name in ("tokenizers", "numpy")},
        build_seconds=seconds,
    )


def _sample(spools: dict[str, Spool], spec: CorpusSpec) -> Iterator[str]:
    """Training documents in the mixture's proportions, to learn merges from; a small domain gives all it has."""
    wanted = max(_MIN_SAMPLE_BYTES, _SAMPLE_BYTES_PER_TOKEN * spec.tokenizer.vocab_size)
    for name, spool in spools.items():
        room = spec.shares[name] * wanted
        for batch in spool.texts(start=spool.n_validation, stop=len(spool.lengths), batch_bytes=1):
            yield from batch
            room -= sum(map(len, batch))
            if room <= 0:
                break


def _enough(spool: Spool, tally: Tally, source: SourceSpec) -> None:
    n = len(spool.lengths)
    if n >= 2 and 0 < spool.n_validation < n:
        return
    if n >= 2:
        side = "all" if spool.n_validation else "none"
        raise CorpusError(
            f"{tally.where}: of its {n} documents {side} are held out by {source.held_out_column!r}; it needs some to "
            "train on, and some to measure its loss on"
        )
    remedy = "cut it, with"
    if source.split_on is not None:
        remedy = f"split_on = {source.split_on!r} cuts nothing; take"
    if source.max_bytes is not None and spool.lengths.sum() >= source.max_bytes:
        remedy = f"max_bytes = {source.max_bytes} ends the reading there; raise it, or cut the text, with"
    said = [
        f"{n} document{'s' if n != 1 else ''} with text; it needs at least 2, one of them held out",
        *([f'{remedy} split_on: "\\n\\n" or split_on: 64k'] if n == 1 else []),
        *filter(None, [duplicates_sentence(spool.duplicates_of)]),
        *tally.so_far().sentences(),
    ]
    raise CorpusError(f"{tally.where}: {'; '.join(said)}")


def _pack(
    domain: str,
    spool: Spool,
    tokenizer: CorpusTokenizer,
    out: Path,
    *,
    dtype: TokenType,
    shard_bytes: int,
    progress: Callable[[float], None],
) -> dict[str, SideRecord]:
    total_bytes, done_bytes = int(spool.lengths.sum()), 0
    sides: dict[str, SideRecord] = {}
    n_documents = len(spool.lengths)
    for side, start, stop in (("validation", 0, spool.n_validation), ("train", spool.n_validation, n_documents)):
        with ShardWriter(out / _SHARDS, f"{domain}.{side}", dtype=dtype, shard_bytes=shard_bytes) as writer:
            for texts in spool.texts(start=start, stop=stop, batch_bytes=_BATCH_BYTES):
                writer.append(tokenizer.encode(texts))
                done_bytes += sum(len(text.encode()) for text in texts)
                progress(done_bytes / total_bytes)
            shards = writer.finish(relative_to=out)
        sides[side] = SideRecord(
            n_tokens=_total(shards),
            n_text_bytes=int(spool.lengths[start:stop].sum()),
            n_documents=stop - start,
            shards=shards,
        )
    return sides


def _record(sides: dict[str, SideRecord], spool: Spool, spec: CorpusSpec, domain: str, tally: Tally) -> DomainRecord:
    source = spec.domains[domain]
    package = source.package if source.kind == "package" else None
    return DomainRecord(
        train=sides["train"],
        validation=sides["validation"],
        n_duplicates=sum(spool.duplicates_of.values()),
        duplicates_of=spool.duplicates_of,
        not_read=tally.so_far(),
        held_out_note="" if source.held_out_column else _held_out_note(spool, spec.validation_fraction),
        source=source,
        edition=edition(package) if package else "",
        licence=source.licence or (LICENCES[package] if package else None),
    )


def _held_out_note(spool: Spool, wanted: float) -> str:
    share = spool.validation_share
    if abs(share / wanted - 1) <= HELD_OUT_TOLERANCE:
        return ""
    largest = spool.lengths.max() / spool.lengths.sum()
    return (
        f"{share:.2%} of its text is held out where {wanted:.2%} is wanted: it has {len(spool.lengths)} documents, the "
        f"largest with {largest:.0%} of it; `split_on` cuts large ones"
    )


def _total(shards: tuple[Shard, ...]) -> int:
    return sum(shard.n_tokens for shard in shards)


def _enough_room(spools: dict[str, Spool], out: Path, *, bytes_per_token: int) -> None:
    # A token stands for at least two bytes of text, or nearly so; the spools go as the shards come.
    need = sum(int(spool.lengths.sum()) for spool in spools.values()) * bytes_per_token // 2
    free = shutil.disk_usage(out).free
    if free < need:
        raise CorpusError(f"{out}: the shards need up to {need / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB left")
