"""The same text divided by its hidden labels and at random, to hold discovered domains against."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysplit.discover.controls import control_spaces
from raysplit.discover.discovery import discover
from raysplit.discover.spaces import discovered_space
from raysplit.errors import CorpusError, RunError
from raysplit.run_folder.folder import RunFolder
from raysplit.space import CorpusSpec, DiscoverSpec, Space, TokenizerSpec
from raysplit.split import advise
from raysplit.sweep.controls import check_controls, control_advice
from tests.discover.texts import KINDS, sources_in, texts_of
from tests.split.doubles import known_law
from tests.sweep.test_final import problem
from tests.test_space import SMALL


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, Path]:
    """A space with three discovered domains, and the folder of the discovery."""
    folder = tmp_path_factory.mktemp("controls")
    settings = DiscoverSpec(k=3)
    corpus = CorpusSpec(
        sources=sources_in(folder / "texts"), discover=settings, tokenizer=TokenizerSpec(vocab_size=300),
        validation_fraction=0.1,
    )  # fmt: skip
    space = Space.model_validate(SMALL).model_copy(update={"corpus": corpus})
    discovery = discover(corpus, settings, (3,), folder / "discovery")
    return discovered_space(space, discovery, folder / "discovery", k=3), folder / "discovery"


def test_both_divisions_hold_every_document_on_the_side_it_was(found: tuple[Space, Path], tmp_path: Path) -> None:
    space, discovery = found
    spaces = control_spaces(space, discovery, tmp_path)
    rows = pq.read_table(tmp_path / "documents.parquet").to_pylist()
    known = {
        row["text"]: (row["source"], row["held_out"])
        for row in pq.read_table(discovery / "documents.parquet").to_pylist()
    }
    assert {row["text"]: (row["labels"], row["held_out"]) for row in rows} == known
    assert set(spaces["labels"].domains) == set(KINDS)
    assert set(spaces["random"].domains) == {"r0", "r1", "r2"}
    for kind in KINDS:
        assert len({row["random"] for row in rows if row["text"] in texts_of(kind, 30)}) > 1
    for control, own in spaces.items():
        n_bytes = {
            name: sum(len(row["text"]) for row in rows if row[control] == name and not row["held_out"])
            for name in own.domains
        }
        assert own.corpus.mixture == n_bytes
        assert own.corpus.tokenizer == space.corpus.tokenizer
        assert own.corpus.clusterer is None


def test_a_control_costs_what_the_advised_split_costs(found: tuple[Space, Path], tmp_path: Path) -> None:
    space, discovery = found
    question = problem(3, 1e6, "shared")
    advice = advise(known_law(n_domains=3), question)
    for own in control_spaces(space, discovery, tmp_path).values():
        other = control_advice(advice, own)
        assert question.tokens(other.split) == pytest.approx(question.tokens(advice.split))
        assert other.split.pretrain_tokens == advice.split.pretrain_tokens
        assert set(other.split.specialize_tokens) == set(own.domains)


def test_a_discovery_that_is_gone_is_named(found: tuple[Space, Path], tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"documents.parquet: is missing; controls divide the documents of a discovery"
    ):
        control_spaces(found[0], tmp_path / "nowhere", tmp_path)


def test_a_run_without_discovered_domains_has_no_controls(found: tuple[Space, Path], tmp_path: Path) -> None:
    space, discovery = found
    advice = advise(known_law(n_domains=3), problem(3, 1e6, "shared"))
    run = RunFolder(path=discovery.parent)
    check_controls(run, space, advice)
    given = space.model_copy(update={"corpus": space.corpus.model_copy(update={"clusterer": None})})
    with pytest.raises(RunError, match="its domains were given; controls divide text anew"):
        check_controls(run, given, advice)
    alone = advise(known_law(n_domains=3), problem(3, 1e6, "per-expert"))
    with pytest.raises(RunError, match="its budget pays for each expert alone"):
        check_controls(run, space, alone)
