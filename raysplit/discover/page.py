"""The page of a clustering: what each cluster holds, how even clusters are, and how well they agree with sources."""

from importlib.resources import files

from raysplit.discover.record import Agreement, Clusters, Discovery
from raysplit.quantities import format_bytes


def render_page(clusters: Clusters, discovery: Discovery) -> str:
    """The page as HTML that loads nothing; every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = files("raysplit.discover").joinpath("clusters.html.jinja").read_text(encoding="utf-8")
    content = {
        "k": clusters.k,
        "summary": summary(clusters, discovery),
        "notes": discovery.notes,
        "rows": [_row(clusters, number) for number in range(clusters.k)],
        "sources": list(discovery.corpus.sources or discovery.corpus.domains),
        "clusters": clusters.clusters,
        "settings": discovery.settings.model_dump(),
    }
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(content)


def summary(clusters: Clusters, discovery: Discovery) -> list[str]:
    """Sentences on a clustering as a whole."""
    balance = discovery.settings.balance
    asked = "no limit was asked for" if balance is None else f"at most {balance:g} was asked for"
    n_bytes = sum(cluster.n_text_bytes for cluster in clusters.clusters)
    said = [
        f"{discovery.n_documents:,} documents with {format_bytes(n_bytes)} of text are in {clusters.k} clusters, which "
        f"were fitted to {discovery.n_sample_documents:,} documents to train on.",
        f"The largest cluster has {clusters.evenness:.2f} times an equal share of the text "
        f"({clusters.evenness_fitted:.2f} in the sample; {asked}).",
    ]
    if balance is not None and clusters.evenness > balance:
        said.append(
            "That is more than was asked for: text outside the sample, or documents that are alike, weigh more."
        )
    for agreement, which in ((clusters.agreement, "all"), (clusters.agreement_held_out, "the held-out")):
        if agreement is not None:
            said.append(f"Over {which} documents, clusters and sources agree with {_agreement(agreement)}.")
    return said


def _agreement(agreement: Agreement) -> str:
    return f"a normalized mutual information of {agreement.nmi:.3f} and a purity of {agreement.purity:.3f}"


def _row(clusters: Clusters, number: int) -> list[str]:
    cluster = clusters.clusters[number]
    total = sum(other.n_text_bytes for other in clusters.clusters)
    return [
        cluster.name,
        f"{cluster.n_documents:,}",
        format_bytes(cluster.n_text_bytes),
        f"{cluster.n_text_bytes / total:.1%}",
        f"{cluster.n_text_bytes * clusters.k / total:.2f}",
        format_bytes(cluster.validation.n_text_bytes),
        max(cluster.from_sources, key=lambda source: cluster.from_sources[source]),
        f"{max(cluster.from_sources.values()) / cluster.n_documents:.0%}",
    ]
