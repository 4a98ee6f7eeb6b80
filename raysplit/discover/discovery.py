"""From text without labels to domains: read it, hold out a part, fit to a sample, label all of it, and write that.

out/documents.parquet      every document: text, source, held_out, and its cluster in a column for each K
out/tokenizer/             one tokenizer for all K, so that losses at several K can be compared; where BPE is asked for
out/k7/clusterer/          the clusterer of K = 7
out/k7/clusters.json       its clusters
out/k7/clusters.html       the same as a page
out/discovery.json         the record, written last: it says that the discovery is whole
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raysplit.corpus.building import building
from raysplit.corpus.packages import LICENCES, edition
from raysplit.corpus.tokenizer import CorpusTokenizer, save_bpe, train_bpe
from raysplit.discover.features import EncoderFeatures
from raysplit.discover.fit import ClusterFit, fit
from raysplit.discover.labelling import Labeller, label_here
from raysplit.discover.page import render_page
from raysplit.discover.pile import Pile, Progress, read_piles, training_sample
from raysplit.discover.record import (
    CLUSTERS_FILE,
    DISCOVERY_FILE,
    DOCUMENTS_FILE,
    TOKENIZER_FOLDER,
    Agreement,
    Cluster,
    Clusters,
    DiscoveredSide,
    Discovery,
    clusters_folder,
    label_column,
    read_discovery,
)
from raysplit.discover.table import LabelTally, write_documents
from raysplit.discover.terms import agreement
from raysplit.errors import CorpusError
from raysplit.space import CorpusSpec, DiscoverSpec, SourceSpec

_SPOOL, _LOCK = "spool", ".discovery.lock"
_TOKENIZER_BYTES_PER_TOKEN = 4096
_LEAST_TOKENIZER_BYTES = 1 << 23


def _silent(step: str, done: float) -> None:
    pass


def discover(
    corpus: CorpusSpec,
    settings: DiscoverSpec,
    ks: Sequence[int],
    out: Path,
    *,
    progress: Progress = _silent,
    label: Labeller = label_here,
) -> Discovery:
    """Find clusters in the sources of ``corpus``, once for each of ``ks``, or open what was found there before.

    The sources are ``corpus.sources``. Where there are none, they are the corpus's domains; clustering then does not
    see their names, and is compared with them. The same arguments give the same files, byte by byte, on one machine.

    Args:
        corpus: what to read, and how much of it to hold out.
        settings: of the discovery; their own ``k`` is not used.
        ks: numbers of clusters.
        out: folder that belongs to the discovery.
        progress: is told of each step.
        label: how documents are labelled, here or on a cluster.

    Raises:
        CorpusError: a source, the encoder or the folder is unusable, there are too few different documents, a cluster
            has no text to train on or none held out, or the folder holds another discovery.
    """
    sources = corpus.sources or corpus.domains
    editions = tuple(edition(source.package) for source in sources.values() if source.package)
    asked = Discovery(
        corpus=corpus.model_copy(update={"max_epochs": 1.0}), settings=settings, ks=tuple(ks), editions=editions,
        n_documents=0, n_duplicates=0, n_sample_documents=0, notes=(),
    )  # fmt: skip
    with building(out, what="discovery", lock=_LOCK, record=DISCOVERY_FILE):
        if (found := read_discovery(out)) is not None:
            _check_same(found, asked, out)
            return found
        made = (_SPOOL, TOKENIZER_FOLDER, *(path.name for path in out.glob("k*") if path.is_dir()))
        for name in made:
            shutil.rmtree(out / name, ignore_errors=True)
        (out / _SPOOL).mkdir()
        try:
            record = _discover(asked, sources, out, progress=progress, label=label)
        finally:
            shutil.rmtree(out / _SPOOL, ignore_errors=True)
        (out / DISCOVERY_FILE).write_text(record.model_dump_json(indent=1), encoding="utf-8")
        return record


def _check_same(found: Discovery, asked: Discovery, out: Path) -> None:
    changed = [
        field for field in ("corpus", "settings", "ks", "editions") if getattr(found, field) != getattr(asked, field)
    ]
    if changed:
        raise CorpusError(
            f"{out}: holds the discovery of another specification (different: {', '.join(changed)}); choose another "
            "folder, or delete this one if nothing depends on it"
        )


def _discover(
    asked: Discovery, sources: dict[str, SourceSpec], out: Path, *, progress: Progress, label: Labeller
) -> Discovery:
    corpus, settings = asked.corpus, asked.settings
    encoder = EncoderFeatures(name=settings.encoder) if settings.encoder else None
    piles = read_piles(
        sources, out / _SPOOL, seed=corpus.seed, validation_fraction=corpus.validation_fraction, progress=progress
    )
    _enough(piles, asked.ks)

    texts, n_bytes = training_sample(piles, sample_bytes=settings.sample_bytes, excerpt_bytes=settings.excerpt_bytes)
    fits = fit(texts, n_bytes, asked.ks, settings, encoder=encoder, progress=lambda done: progress("fit", done))
    folders = [clusters_folder(out, k) / "clusterer" for k in asked.ks]
    for one, folder in zip(fits, folders, strict=True):
        one.clusterer.save(folder)

    tallies = write_documents(
        piles,
        {label_column(k): one.clusterer.domains for k, one in zip(asked.ks, fits, strict=True)},
        folders,
        out / DOCUMENTS_FILE,
        label=label,
        progress=lambda done: progress("label", done),
    )
    found = [_clusters(one, tally, sources=sources) for one, tally in zip(fits, tallies, strict=True)]
    if corpus.tokenizer.kind == "bpe":
        progress("train tokenizer", 0.0)
        save_bpe(_tokenizer(piles, corpus), out / TOKENIZER_FOLDER)
        progress("train tokenizer", 1.0)
    record = asked.model_copy(
        update={
            "n_documents": sum(pile.n_documents for pile in piles),
            "n_duplicates": sum(pile.n_duplicates for pile in piles),
            "n_sample_documents": len(texts),
            "notes": tuple(f"{pile.source}: {note}" for pile in piles for note in pile.notes),
        }
    )
    for clusters in found:
        folder = clusters_folder(out, clusters.k)
        (folder / CLUSTERS_FILE).write_text(clusters.model_dump_json(indent=1), encoding="utf-8")
        (folder / "clusters.html").write_text(render_page(clusters, record), encoding="utf-8")
    return record


def _enough(piles: Sequence[Pile], ks: Sequence[int]) -> None:
    n_documents = sum(pile.n_documents for pile in piles)
    notes = "".join(f"; {pile.source}: {note}" for pile in piles for note in pile.notes)
    if n_documents < 2:
        raise CorpusError(
            f"corpus.sources: {n_documents} document{'s' if n_documents != 1 else ''} with text, and no domains to be "
            f"found in that; `split_on` cuts long texts{notes}"
        )
    n_train = sum(pile.n_train for pile in piles)
    if max(ks) > n_train:
        raise CorpusError(
            f"discover.k = {max(ks)}: the sources have {n_train} documents to train on; give fewer clusters, or cut "
            f"the documents with `split_on`{notes}"
        )


def _clusters(found: ClusterFit, tally: LabelTally, *, sources: dict[str, SourceSpec]) -> Clusters:
    """What was found for one K.

    Raises:
        CorpusError: a cluster has no text to train on, or none held out.
    """
    names = list(sources)
    clusters = []
    for number, name in enumerate(found.clusterer.domains):
        train, validation = (
            DiscoveredSide(
                n_documents=int(tally.n_documents[side, :, number].sum()),
                n_text_bytes=int(tally.n_text_bytes[side, number]),
            )
            for side in (0, 1)
        )
        for count, what in ((train, "to train on"), (validation, "held out to measure its loss on")):
            if not count.n_documents:
                raise CorpusError(
                    f"discover.k = {len(found.clusterer.domains)}: cluster {name!r} has no document {what}, of "
                    f"{train.n_documents + validation.n_documents}; give fewer clusters, a larger "
                    "corpus.validation_fraction or a smaller discover.balance, or cut long documents with split_on"
                )
        from_sources = {
            source: int(n) for source, n in zip(names, tally.n_documents[:, :, number].sum(axis=0), strict=True) if n
        }
        clusters.append(
            Cluster(
                name=name,
                terms=tuple(found.terms[number]),
                train=train,
                validation=validation,
                from_sources=from_sources,
                licence=_licence([sources[source] for source in from_sources]),
                samples=found.samples[number],
            )
        )
    sizes = tally.n_text_bytes.sum(axis=0)
    return Clusters(
        clusters=tuple(clusters),
        evenness_fitted=found.evenness,
        evenness=float(sizes.max() * len(sizes) / sizes.sum()),
        agreement=_agreement(tally.n_documents.sum(axis=0)),
        agreement_held_out=_agreement(tally.n_documents[1]),
    )


def _agreement(documents: np.ndarray) -> Agreement | None:
    """Agreement in a table of (sources, K) numbers of documents; None for one source."""
    if len(documents) < 2:
        return None
    nmi, purity = agreement(documents)
    return Agreement(nmi=nmi, purity=purity)


def _tokenizer(piles: Sequence[Pile], corpus: CorpusSpec) -> CorpusTokenizer:
    vocab_size = corpus.tokenizer.vocab_size
    wanted = max(_LEAST_TOKENIZER_BYTES, _TOKENIZER_BYTES_PER_TOKEN * vocab_size)
    return train_bpe(training_sample(piles, sample_bytes=wanted)[0], vocab_size=vocab_size)


def _licence(sources: Sequence[SourceSpec]) -> str | None:
    given = [source.licence or (LICENCES[source.package] if source.package else None) for source in sources]
    return "; ".join(dict.fromkeys(filter(None, given))) if all(given) else None
