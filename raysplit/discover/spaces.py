"""Search spaces before and after discovery: with K domains that are still to be found, and with the found ones."""

import math
from pathlib import Path
from typing import Any

from raysplit.discover.record import (
    DOCUMENTS_FILE,
    HELD_OUT_COLUMN,
    TOKENIZER_FOLDER,
    Clusters,
    Discovery,
    clusters_folder,
    label_column,
    read_clusters,
)
from raysplit.space import SourceSpec, Space, parse_space


def expected_space(space: Space) -> Space:
    """The space that can be planned with before discovery: it has K domains of equal size called c0, c1, ...

    A space whose domains are given comes back unchanged.
    """
    if space.corpus.discover is None:
        return space
    k = space.corpus.discover.k
    limits = [source.max_bytes for source in space.corpus.sources.values()]
    max_bytes = None if None in limits else sum(filter(None, limits)) // k
    unread = SourceSpec.model_construct(kind="package", max_bytes=max_bytes)
    corpus = space.corpus.model_copy(update={"domains": {f"c{number}": unread for number in range(k)}})
    return space.model_copy(update={"corpus": corpus})


def discovered_space(space: Space, discovery: Discovery, out: Path, *, k: int) -> Space:
    """The space with the clusters that the discovery in ``out`` found as its domains.

    Shares in the mixture, and weights of the losses, are in proportion to the domains' training bytes, unless the
    discovery's settings make them equal. Paths are relative to the folder of these clusters, in which the space is to
    be written.

    Args:
        space: the space before discovery.
        discovery: the finished discovery.
        out: its folder.
        k: which of its numbers of clusters is taken.

    Raises:
        CorpusError: the discovery is damaged.
        SpaceError: a setting of the space does not go with its new domains.
    """
    clusters = read_clusters(out, k).clusters
    settings = discovery.settings
    n_bytes = {cluster.name: cluster.train.n_text_bytes for cluster in clusters}
    corpus: dict[str, Any] = space.corpus.model_dump(mode="json") | {
        "domains": {
            cluster.name: {
                "kind": "table", "path": f"../{DOCUMENTS_FILE}", "label_column": label_column(k),
                "label": cluster.name, "held_out_column": HELD_OUT_COLUMN, "licence": cluster.licence,
            }
            for cluster in clusters
        },
        "sources": {},
        "discover": None,
        "clusterer": "clusterer",
        "mixture": n_bytes if settings.mixture == "bytes" else None,
    }  # fmt: skip
    if space.corpus.tokenizer.kind == "bpe":
        corpus["tokenizer"] = {**corpus["tokenizer"], "kind": "huggingface", "name": f"../{TOKENIZER_FOLDER}"}
    raw = space.model_dump(mode="json") | {"corpus": corpus}
    raw["target"] = raw["target"] | {"domain_weights": n_bytes if settings.weights == "bytes" else None}
    return parse_space(raw, origin=str(clusters_folder(out, k)))


def short_clusters(space: Space, clusters: Clusters) -> list[str]:
    """A sentence for each cluster whose training bytes are fewer than the tokens that the space's grids need of it.

    A token has at least a byte of text, so such a cluster is too small before its tokens are counted. A build counts
    them, and refuses a domain that has too few.
    """
    said = []
    for cluster in clusters.clusters:
        needed = math.ceil(space.corpus.shares[cluster.name] * space.most_mixture_tokens) + max(space.specialize_grid)
        has = cluster.train.n_text_bytes
        if needed > space.corpus.max_epochs * has:
            said.append(
                f"cluster {cluster.name!r} has {has:,} bytes to train on, fewer than the {needed:,} tokens of the "
                "longest path through trunk and branch: give fewer clusters, a smaller discover.balance, shorter grids "
                "or a larger corpus.max_epochs"
            )
    return said
