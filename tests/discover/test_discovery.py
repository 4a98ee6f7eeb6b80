"""From text without labels to a corpus of discovered domains, whose files are the same for the same seed."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import normalized_mutual_info_score

from raysplit.corpus import build_corpus
from raysplit.discover.clusterer import Clusterer
from raysplit.discover.discovery import discover
from raysplit.discover.labelling import label_here, label_with_ray
from raysplit.discover.record import Discovery, clusters_folder, read_clusters
from raysplit.discover.spaces import discovered_space, expected_space, short_clusters
from raysplit.discover.terms import agreement, cluster_names, telling_terms
from raysplit.errors import CorpusError
from raysplit.space import (
    CorpusSpec,
    DiscoverSpec,
    SourceSpec,
    Space,
    TokenizerSpec,
    dump_space,
    load_space,
    parse_space,
)
from tests.corpus.test_build import texts_of as packed_texts
from tests.corpus.texts import files_source, write_files
from tests.discover.texts import KINDS, sources_in
from tests.discover.texts import texts_of as texts_of_kind
from tests.test_space import SMALL


def spec_of(sources: Mapping[str, SourceSpec], **settings: Any) -> CorpusSpec:
    return CorpusSpec(
        sources=dict(sources), discover=DiscoverSpec(**({"k": 3} | settings)), tokenizer=TokenizerSpec(vocab_size=300),
        validation_fraction=0.1,
    )  # fmt: skip


def found_in(spec: CorpusSpec, out: Path, *ks: int, **options: Any) -> Discovery:
    assert spec.discover is not None
    return discover(spec, spec.discover, ks or (spec.discover.k,), out, **options)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> CorpusSpec:
    return spec_of(sources_in(tmp_path_factory.mktemp("texts")))


@pytest.fixture(scope="module")
def out(spec: CorpusSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A discovery at K = 2 and 3."""
    folder = tmp_path_factory.mktemp("found") / "discovery"
    found_in(spec, folder, 2, 3)
    return folder


@pytest.fixture
def space(spec: CorpusSpec) -> Space:
    small = Space.model_validate(SMALL)
    return small.model_copy(update={"corpus": spec})


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_hidden_labels_are_found_again(out: Path) -> None:
    clusters = read_clusters(out, 3)
    assert clusters.agreement is not None
    assert clusters.agreement.nmi == pytest.approx(1.0)
    assert clusters.agreement.purity == pytest.approx(1.0)
    assert clusters.evenness < 1.5
    for cluster in clusters.clusters:
        ((kind, n),) = cluster.from_sources.items()
        assert n == cluster.n_documents == 30
        assert {term.lower() for term in cluster.terms} <= set(re.findall(r"[a-z]+", " ".join(KINDS[kind]).lower()))
        assert re.fullmatch(r"c\d-\w+-\w+-\w+", cluster.name)


def test_every_document_is_in_the_table_once_with_its_side_and_its_clusters(spec: CorpusSpec, out: Path) -> None:
    table = pq.read_table(out / "documents.parquet").to_pylist()
    assert sorted(row["text"] for row in table) == sorted(t for kind in KINDS for t in texts_of_kind(kind, 30))
    for k in (2, 3):
        clusters = read_clusters(out, k)
        clusterer = Clusterer.load(clusters_folder(out, k) / "clusterer")
        assert clusterer.domains == tuple(cluster.name for cluster in clusters.clusters)
        assigned = clusterer.assign([row["text"] for row in table])
        assert [row[f"k{k}"] for row in table] == [clusterer.domains[number] for number in assigned]
        for cluster in clusters.clusters:
            for is_held_out, side in ((False, cluster.train), (True, cluster.validation)):
                own = [r["text"] for r in table if r[f"k{k}"] == cluster.name and r["held_out"] == is_held_out]
                assert (len(own), sum(map(len, own))) == (side.n_documents, side.n_text_bytes)


def test_the_same_seed_gives_the_same_bytes(spec: CorpusSpec, out: Path, tmp_path: Path) -> None:
    found_in(spec, tmp_path / "again", 2, 3)
    assert files_of(tmp_path / "again") == files_of(out)


def test_what_is_held_out_depends_on_neither_k_nor_the_clustering_s_seed(spec: CorpusSpec, tmp_path: Path) -> None:
    """Nor on whether the sources' names were taken for domains."""
    seen = []
    for name, k, seed in (("one", 2, 0), ("other", 3, 5)):
        assert spec.discover is not None
        discover(spec, spec.discover.model_copy(update={"seed": seed}), (k,), tmp_path / name)
        rows = pq.read_table(tmp_path / name / "documents.parquet").to_pylist()
        seen.append({row["text"] for row in rows if row["held_out"]})
    assert seen[0] == seen[1]
    assert 6 <= len(seen[0]) <= 15
    labelled = spec.model_copy(update={"domains": spec.sources, "sources": {}, "discover": None})
    corpus = build_corpus(labelled, tmp_path / "labelled")
    assert {text for name in corpus.domains for text in packed_texts(corpus, name, side="validation")} == seen[0]


def test_the_space_that_is_written_builds_the_clusters_as_domains(space: Space, out: Path, tmp_path: Path) -> None:
    discovery = found_in(space.corpus, out, 2, 3)
    path = clusters_folder(out, 3) / "space.yaml"
    path.write_text(dump_space(discovered_space(space, discovery, out, k=3)), encoding="utf-8")
    resolved = load_space(path)
    path.unlink()
    clusters = read_clusters(out, 3).clusters
    n_bytes = {cluster.name: cluster.train.n_text_bytes for cluster in clusters}
    total = sum(n_bytes.values())
    assert resolved.corpus.shares == pytest.approx({name: n / total for name, n in n_bytes.items()})
    assert resolved.weights() == pytest.approx(resolved.corpus.shares)
    assert resolved.corpus.clusterer == str(clusters_folder(out, 3) / "clusterer")
    corpus = build_corpus(resolved.corpus, tmp_path / "corpus")
    assert corpus.vocab_size == 300
    for cluster in clusters:
        record = corpus.manifest.domains[cluster.name]
        for ours, theirs in ((record.train, cluster.train), (record.validation, cluster.validation)):
            assert (ours.n_documents, ours.n_text_bytes) == (theirs.n_documents, theirs.n_text_bytes)


def test_shares_and_weights_may_be_equal(space: Space, spec: CorpusSpec, out: Path) -> None:
    discovery = found_in(spec, out, 2, 3)
    settings = discovery.settings.model_copy(update={"mixture": "equal", "weights": "equal"})
    equal = discovered_space(space, discovery.model_copy(update={"settings": settings}), out, k=2)
    assert list(equal.corpus.shares.values()) == list(equal.weights().values()) == [0.5, 0.5]


def test_a_space_can_be_reckoned_with_before(space: Space) -> None:
    expected = expected_space(space)
    assert expected.domains == ("c0", "c1", "c2")
    assert expected.corpus.shares == pytest.approx(dict.fromkeys(expected.domains, 1 / 3))
    given = parse_space(SMALL, origin="small")
    assert expected_space(given) is given


def test_a_cluster_too_small_for_its_tokens_is_named(space: Space, spec: CorpusSpec, out: Path) -> None:
    discovery = found_in(spec, out, 2, 3)
    clusters = read_clusters(out, 2)
    said = short_clusters(discovered_space(space, discovery, out, k=2), clusters)
    assert [sentence.split("'")[1] for sentence in said] == [cluster.name for cluster in clusters.clusters]
    assert "bytes to train on, fewer than the" in said[0]


def test_labels_are_compared_with_and_not_looked_at(spec: CorpusSpec, out: Path, tmp_path: Path) -> None:
    """A labelled space gives the clusters that its text without labels gives."""
    assert spec.discover is not None
    labelled = spec.model_copy(update={"domains": spec.sources, "sources": {}, "discover": None})
    discover(labelled, spec.discover, (2, 3), tmp_path / "labelled")
    assert files_of(tmp_path / "labelled")["documents.parquet"] == files_of(out)["documents.parquet"]


def test_a_finished_discovery_is_opened_and_another_refused(spec: CorpusSpec, out: Path) -> None:
    steps: list[str] = []
    again = found_in(spec, out, 2, 3, progress=lambda step, done: steps.append(step))
    assert steps == []
    assert again.n_documents == 90
    with pytest.raises(CorpusError, match=r"discovery of another specification \(different: ks\)"):
        found_in(spec, out, 2)


def test_the_page_asks_for_nothing_and_shows_every_cluster(spec: CorpusSpec, out: Path) -> None:
    page = (clusters_folder(out, 3) / "clusters.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|url\(|<script", page)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "mutual information of 1.000 and a purity of 1.000" in page
    for cluster in read_clusters(out, 3).clusters:
        assert page.count(f'id="{cluster.name}"') == 1
        assert ", ".join(cluster.terms) in page


def test_text_on_the_page_is_escaped(tmp_path: Path) -> None:
    texts = [f"<script>alert({number})</script> & more words {number}" for number in range(40)]
    texts += texts_of_kind("law", 40, words=6)
    source = files_source(write_files(tmp_path / "texts", texts))
    found_in(spec_of({"one": source}, k=2, balance=None), tmp_path / "out")
    page = (clusters_folder(tmp_path / "out", 2) / "clusters.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "agree with" not in page, "there is one source"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data 2.60's own, of its defaults and of pandas 3.1
def test_ray_gives_the_same_bytes(spec: CorpusSpec, out: Path, tmp_path: Path, ray_address: str) -> None:
    found_in(spec, tmp_path / "ray", 2, 3, label=label_with_ray)
    assert files_of(tmp_path / "ray") == files_of(out)


@pytest.mark.parametrize(
    ("texts", "settings", "sentence"),
    [
        ([], {}, r"domain 'one': .*no file matches"),
        (["only one text"], {}, r"corpus.sources: 1 document with text, and no domains to be found in that"),
        (["the same text"] * 9, {}, r"corpus.sources: 1 document with text.*left out 8 whose text was read before"),
        ([f"words {n}" for n in range(9)], {"k": 12}, r"discover.k = 12: the sources have 8 documents to train on"),
        ([f"{'same ' * 20}{n}" for n in range(20)], {"k": 4}, r"discover.k = 4: of the \d+ documents .* 1 differ"),
        ([f"{'same ' * 20}{n}" for n in range(20)], {"encoder": "/no/such"}, r"discover.encoder = '/no/such'"),
        ([f"{' ' * 80}word {n}" for n in range(20)], {}, r"the 18 documents to learn from have no words"),
    ],
    ids=["empty", "one document", "all equal", "K above the documents", "alike", "no encoder", "blank beginnings"],
)
def test_what_cannot_be_clustered_is_named(
    tmp_path: Path, texts: list[str], settings: dict[str, Any], sentence: str
) -> None:
    source = files_source(write_files(tmp_path / "texts", texts))
    with pytest.raises(CorpusError, match=sentence):
        found_in(spec_of({"one": source}, excerpt_bytes=64, **settings), tmp_path / "out")
    assert not list((tmp_path / "out").glob("k*/clusters.html"))
    assert not (tmp_path / "out" / "spool").exists()


def test_a_cluster_without_held_out_text_is_named(tmp_path: Path) -> None:
    """Three documents of one kind, none of which the hash holds out."""
    both = write_files(tmp_path / "both", texts_of_kind("law", 60) + texts_of_kind("chem", 3))
    spec = spec_of({"both": files_source(both)}, k=2, balance=None)
    with pytest.raises(CorpusError, match=r"discover.k = 2: cluster 'c1-[\w-]+' has no document held out .*, of 3"):
        found_in(spec, tmp_path / "out")
    assert not (tmp_path / "out" / "discovery.json").exists()


def test_agreement_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    labels, clusters = rng.integers(0, 3, 200), rng.integers(0, 4, 200)
    clusters[:100] = labels[:100]
    table = np.zeros((3, 4))
    np.add.at(table, (labels, clusters), 1)
    nmi, purity = agreement(table)
    assert nmi == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert purity == pytest.approx(table.max(axis=0).sum() / 200)
    assert agreement(np.eye(3)) == pytest.approx((1.0, 1.0))


def test_names_are_domains_whatever_the_script() -> None:
    terms = telling_terms(
        ["слово дело", "слово", "word café x" + "y" * 80, "word"], np.array([0, 0, 1, 1]), k=2, n_terms=5
    )
    names = cluster_names(terms)
    assert names[0] == "c0"
    assert names[1].startswith("c1-word")
    assert "слово" in terms[0]
    CorpusSpec(domains={name: SourceSpec(kind="files", path="a") for name in names})


def test_a_table_may_say_what_is_held_out(tmp_path: Path) -> None:
    lines = [f'{{"text": "document number {n}", "held_out": {str(n < 5).lower()}}}' for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = SourceSpec(kind="table", path=str(tmp_path / "rows.jsonl"), held_out_column="held_out")
    tokenizer = TokenizerSpec(vocab_size=264)
    corpus = build_corpus(CorpusSpec(domains={"a": source}, tokenizer=tokenizer), tmp_path / "out")
    assert sorted(packed_texts(corpus, "a", side="validation")) == [f"document number {n}" for n in range(5)]
    assert corpus.manifest.domains["a"].notes == []
    for text, sentence in (("maybe", "neither true nor false"), ("true", "15 documents all are held out")):
        (tmp_path / "bad.jsonl").write_text("\n".join(lines[5:]).replace("false", f'"{text}"'), encoding="utf-8")
        bad = source.model_copy(update={"path": str(tmp_path / "bad.jsonl")})
        with pytest.raises(CorpusError, match=sentence):
            build_corpus(CorpusSpec(domains={"a": bad}, tokenizer=tokenizer), tmp_path / text)


def test_labelling_goes_block_by_block(
    out: Path, monkeypatch: pytest.MonkeyPatch, spec: CorpusSpec, tmp_path: Path
) -> None:
    """Blocks bound the memory; how large they are changes no label."""
    monkeypatch.setattr("raysplit.discover.pile._BLOCK_BYTES", 2000)
    sizes: list[int] = []

    def counted(blocks: Any, clusterers: Any) -> Any:
        sizes.extend(sum(map(len, block.documents()[0])) for block in blocks)
        return label_here(blocks, clusterers)

    found_in(spec, tmp_path / "blocks", 2, 3, label=counted)
    assert max(sizes) < sum(sizes) / 3
    tables = [pq.read_table(folder / "documents.parquet") for folder in (tmp_path / "blocks", out)]
    assert tables[0].to_pylist() == tables[1].to_pylist()
