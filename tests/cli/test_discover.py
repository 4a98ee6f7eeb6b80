"""Domains from text without labels, from the command line: alone for several K, in a run, and its controls."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raysplit.cli.cluster import examine
from raysplit.cli.work import NOT_AGREED
from raysplit.corpus import Corpus
from raysplit.discover.clusterer import Clusterer
from raysplit.run_folder.folder import RunFolder, existing_run
from raysplit.space import load_space
from raysplit.split import advise
from tests.cli.conftest import Command
from tests.discover.texts import sources_in
from tests.split.doubles import known_law
from tests.sweep.test_final import problem
from tests.test_space import SMALL


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """A space with three kinds of text and no domains."""
    sources = {name: source.model_dump(exclude_defaults=True) for name, source in sources_in(tmp_path / "t").items()}
    grids = {"pretrain_tokens": [256, 512], "specialize_tokens": [128]}
    training = SMALL["training"] | {"batch_tokens": 32, "micro_batch_sequences": 2, "validation_tokens": 32}
    corpus = {
        "sources": sources, "discover": {"k": 3}, "tokenizer": {"vocab_size": 300}, "validation_fraction": 0.1,
        "max_epochs": 4,
    }  # fmt: skip
    model = SMALL["model"] | {"context_length": 16}
    raw = SMALL | {"corpus": corpus, "sweep": grids, "training": training, "model": model}
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_machines_are_looked_at_before_the_domains_are_known(unlabelled: Path, tmp_path: Path) -> None:
    findings, where = examine(load_space(unlabelled), tmp_path, None, looks_for_room=False)
    assert where == "this machine"
    assert not [finding for finding in findings if finding.severity == "error"]


def test_each_k_gives_a_space_and_a_page(raysplit: Command, unlabelled: Path, tmp_path: Path) -> None:
    said = raysplit("corpus", "discover", unlabelled, "--k", "2,3", "--out", tmp_path / "found").stdout
    assert said.count("clusters and sources agree with") == 4
    for k in (2, 3):
        assert str(tmp_path / "found" / f"k{k}" / "clusters.html") in said
        raysplit("corpus", "build", tmp_path / "found" / f"k{k}" / "space.yaml", "--out", tmp_path / f"run{k}")
        assert len(Corpus.open(tmp_path / f"run{k}" / "corpus").domains) == k
    manifests = [Corpus.open(tmp_path / f"run{k}" / "corpus").manifest for k in (2, 3)]
    held_out = [sum(record.validation.n_text_bytes or 0 for record in m.domains.values()) for m in manifests]
    assert held_out[0] == held_out[1]
    assert manifests[0].tokenizer == manifests[1].tokenizer


def test_a_run_finds_its_domains_once(
    raysplit: Command, refusal: Callable[..., str], unlabelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert "fit ..." in raysplit("corpus", "build", unlabelled, "--out", out).stdout
    assert "fit ..." not in raysplit("corpus", "build", unlabelled, "--out", out).stdout
    folder, space = existing_run(out)
    assert space.domains == Corpus.open(folder.corpus).domains
    assert space.corpus.clusterer is not None
    assert Clusterer.load(space.corpus.clusterer).domains == space.domains
    assert sum(space.weights().values()) == pytest.approx(1.0)
    assert space.corpus.shares == pytest.approx(space.weights())
    other = unlabelled.with_name("other.yaml")
    other.write_text(unlabelled.read_text(encoding="utf-8").replace("k: 3", "k: 2"), encoding="utf-8")
    assert "corpus.discover.k: 3 there, 2 here" in refusal("corpus", "build", other, "--out", out)


def test_a_plan_says_that_domains_are_to_be_found(raysplit: Command, unlabelled: Path) -> None:
    said = raysplit("plan", unlabelled).stdout
    assert "its domains are found in the text first: 3 clusters" in said


class Trained(Exception):
    """The first control has begun."""


def test_controls_are_not_begun_unasked(
    raysplit: Command, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_final(space: object, folder: RunFolder, *_: object, **__: object) -> None:
        raise Trained(folder.path.name)

    monkeypatch.setattr("raysplit.sweep.final.run_final", run_final)
    run = tmp_path / "run"
    assert raysplit("corpus", "build", unlabelled, "--out", run).exit_code == 0
    (run / "advice.json").write_text(advise(known_law(n_domains=3), problem(3, 1e6, "shared")).to_json())
    ended = raysplit("controls", run, "--confirm-above", "1000")  # there is no sweep to compare with
    assert ended.exit_code == NOT_AGREED
    said = " ".join(ended.stdout.split())
    assert said.count("it trains ") == 2
    go_on = shlex.split(said.split("To go on: raysplit ")[1])
    for command in (go_on, ["controls", run]):  # who has agreed is not asked again
        with pytest.raises(Trained, match="labels"):
            raysplit(*command)


@pytest.mark.parametrize("ks", ["1", "0,4", "4,4", "many", "2.5", ""])
def test_numbers_of_clusters_that_make_no_sense_are_refused(raysplit: Command, unlabelled: Path, ks: str) -> None:
    result = raysplit("corpus", "discover", unlabelled, "--k", ks)
    assert result.exit_code == 2
    assert "--k" in result.stderr
    assert not Path("discovered").exists()


def test_more_clusters_than_documents_are_refused(
    refusal: Callable[..., str], unlabelled: Path, tmp_path: Path
) -> None:
    line = refusal("corpus", "discover", unlabelled, "--k", "3,500", "--out", tmp_path / "found")
    assert "discover.k = 500: the sources have" in line


def test_a_law_without_its_domains_is_not_served(refusal: Callable[..., str], unlabelled: Path, tmp_path: Path) -> None:
    line = refusal("serve", unlabelled, "--out", tmp_path / "run", "--http", "0")
    assert "its domains are yet to be found; run `raysplit corpus discover" in line
