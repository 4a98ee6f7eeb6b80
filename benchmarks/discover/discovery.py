"""Does discovery find seven kinds of text again whose labels it does not see, how fast, and from how little of it?

    .venv/bin/python benchmarks/discover/discovery.py                    # minutes
    .venv/bin/python benchmarks/discover/discovery.py --megabytes 300    # memory, on a made-up file of that size

The kinds are the standard library, sympy, botocore, google-api, Shakespeare, King James and SMILES: 2 MB each, as the
space `experts` has them. Clusters are fitted to training documents and judged on held-out ones.

A row is an excerpt (bytes of each document), a seed and a balance. NMI and purity compare clusters with labels, 1 being
best. "Largest/equal" is the largest cluster's bytes over an equal share, on the documents fitted and on all. The line
below a row judges held-out documents by their first bytes alone. Seconds are of CPU, one thread.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when the libraries load

import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from raysplit.corpus.packages import package_documents
from raysplit.discover.clusterer import Clusterer, excerpt, features_of
from raysplit.discover.discovery import discover
from raysplit.discover.features import CharacterFeatures
from raysplit.discover.kmeans import balanced_kmeans
from raysplit.discover.pile import Pile, read_piles, training_sample
from raysplit.discover.record import read_clusters
from raysplit.discover.terms import agreement
from raysplit.space import CorpusSpec, DiscoverSpec, SourceSpec, TokenizerSpec

KINDS = ("python-stdlib", "sympy", "botocore", "google-api", "shakespeare", "king-james", "molecules")
SOURCES = {kind: SourceSpec(kind="package", package=kind, max_bytes=2_000_000) for kind in KINDS}
RESTARTS = 10
WHOLE = 10**9
PREFIXES_BYTES = (32, 128, 256, 512)


def documents_of(piles: list[Pile]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """All texts; their bytes, kinds and whether they are held out, (n,) each."""
    texts, lengths, kinds, held_out = [], [], [], []
    for kind, pile in enumerate(piles):
        for block in pile.blocks():
            documents, is_held_out = block.documents()
            texts += [document.decode() for document in documents]
            lengths.append(np.array(list(map(len, documents))))
            kinds.append(np.full(len(is_held_out), kind))
            held_out.append(is_held_out)
    return texts, np.concatenate(lengths), np.concatenate(kinds), np.concatenate(held_out)


def judge(kinds: np.ndarray, labels: np.ndarray) -> str:
    table = np.zeros((len(KINDS), len(KINDS)))
    np.add.at(table, (kinds, labels), 1)
    nmi, purity = agreement(table)
    return f"{nmi:.3f} {purity:.3f}"


def accuracy(folder: Path) -> None:
    spec = CorpusSpec(sources=SOURCES, discover=DiscoverSpec(k=7), validation_fraction=0.04)
    piles = read_piles(
        spec.sources, folder, seed=0, validation_fraction=spec.validation_fraction, progress=lambda step, done: None
    )
    texts, lengths, kinds, held_out = documents_of(piles)
    print(f"{len(texts):,} documents, {lengths.sum() / 1e6:.1f} MB, {held_out.sum()} held out; K = 7\n")
    print("excerpt  seed  balance  held out: NMI purity  all: NMI purity  largest/equal: fitted, all  fit s  label s")
    for excerpt_bytes, seed in ((2048, 0), (2048, 1), (2048, 2), (4096, 0), (512, 0), (WHOLE, 0)):
        sample, n_bytes = training_sample(piles, sample_bytes=WHOLE, excerpt_bytes=excerpt_bytes)
        start = time.process_time()
        features, vectors = CharacterFeatures.fit([excerpt(text, excerpt_bytes) for text in sample], seed=seed)
        fitted = time.process_time()
        everything = features_of(texts, features, excerpt_bytes=excerpt_bytes)
        labelled = time.process_time()
        for balance in (1.5, None):
            found = balanced_kmeans(vectors, n_bytes, k=7, balance=balance, seed=seed, restarts=RESTARTS)
            clusterer = Clusterer(
                domains=KINDS, centres=found.centres, offsets=found.offsets, features=features,
                excerpt_bytes=excerpt_bytes,
            )  # fmt: skip
            labels = clusterer.nearest(everything)
            sizes = np.bincount(labels, lengths, 7)
            print(
                f"{excerpt_bytes if excerpt_bytes < WHOLE else 'whole':>7}  {seed:>4}  {balance or 'none':>7}  "
                f"{judge(kinds[held_out], labels[held_out]):>20}  {judge(kinds, labels):>15}  "
                f"{found.evenness:>19.2f} {sizes.max() * 7 / sizes.sum():>6.2f}  {fitted - start:>5.1f}  "
                f"{labelled - fitted:>7.1f}",
                flush=True,
            )
            if balance is not None:
                print(prefixes([text for text, out in zip(texts, held_out, strict=True) if out], clusterer), flush=True)


def prefixes(texts: list[str], clusterer: Clusterer) -> str:
    """How often the nearest centre to a text's beginning is the text's own cluster."""
    own = clusterer.assign(texts)
    shares = [
        (np.argmin(clusterer.distances([excerpt(text, n_bytes) for text in texts]), axis=1) == own).mean()
        for n_bytes in PREFIXES_BYTES
    ]
    return f"         from the first {PREFIXES_BYTES} bytes: " + ", ".join(f"{share:.3f}" for share in shares)


def whole(folder: Path) -> None:
    start, wall = time.process_time(), time.perf_counter()
    spec = CorpusSpec(
        sources=SOURCES, discover=DiscoverSpec(k=7), tokenizer=TokenizerSpec(vocab_size=2048), validation_fraction=0.04
    )
    assert spec.discover is not None
    discover(spec, spec.discover, (7,), folder / "whole")
    print(f"\nthe whole command, reading, tokenizer and page included: {time.process_time() - start:.1f} s of CPU, "
          f"{time.perf_counter() - wall:.0f} s of wall time")  # fmt: skip
    for cluster in read_clusters(folder / "whole", 7).clusters:
        print(f"  {cluster.name:<40} {cluster.n_documents:>5} documents  {cluster.n_text_bytes / 1e6:.2f} MB")


def memory(folder: Path, megabytes: int) -> None:
    path = folder / "made-up.txt"
    draw = random.Random(0)
    kinds = [text for kind in KINDS for text in [*zip(range(40), package_documents(kind), strict=False)]]
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            words = draw.choice(kinds)[1].split(" ")
            draw.shuffle(words)
            file.write((" ".join(words) * 8)[:30_000] + "\n<|end|>\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, wall = time.process_time(), time.perf_counter()
    source = SourceSpec(kind="files", path=str(path), split_on="<|end|>")
    spec = CorpusSpec(sources={"made-up": source}, discover=DiscoverSpec(k=7), validation_fraction=0.02)
    assert spec.discover is not None
    record = discover(spec, spec.discover, (7,), folder / "out")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clusters = read_clusters(folder / "out", 7)
    print(
        f"{path.stat().st_size / 1e6:.0f} MB in {record.n_documents:,} documents: {time.process_time() - start:.0f} s "
        f"of CPU, {time.perf_counter() - wall:.0f} s of wall time\n"
        f"memory {after / 1e3:.0f} MB at most, {before / 1e3:.0f} MB of it before\n"
        f"largest/equal {clusters.evenness:.2f}, in the sample {clusters.evenness_fitted:.2f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.megabytes:
            memory(Path(scratch), given.megabytes)
        else:
            accuracy(Path(scratch))
            whole(Path(scratch))
