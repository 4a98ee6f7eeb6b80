"""One text in the tokens of several bases: the same documents, the same held-out bytes, shares of bytes."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from raysplit.corpus import Corpus, build_in_tokens_of
from raysplit.corpus.by_base import shared_held_out
from raysplit.corpus.tokenizer import save_bpe, train_bpe
from raysplit.errors import CorpusError
from raysplit.space import CorpusSpec, TokenizerSpec
from tests.corpus.texts import documents, files_source, spec_of, write_files

CONTEXT = 16
SIZES = {10: 257, 20: 400}
"""n_params -> tokens of that base's tokenizer: bytes alone, and a BPE."""


def tokenizers(folder: Path) -> dict[int, TokenizerSpec]:
    found = {}
    for n_params, vocab_size in SIZES.items():
        save_bpe(train_bpe(documents(60, tag="alpha"), vocab_size=vocab_size), folder / f"of-{vocab_size}")
        found[n_params] = TokenizerSpec(kind="huggingface", name=str(folder / f"of-{vocab_size}"), vocab_size=400)
    return found


def spec_in(folder: Path, first: TokenizerSpec) -> CorpusSpec:
    numbers = [f"{i}: " + " ".join(f"{n:03d}" for n in range(i, i + 40)) for i in range(60)]  # the BPE knows few
    sources = {
        "alpha": files_source(write_files(folder / "text" / "alpha", documents(60, tag="alpha"))),
        "numbers": files_source(write_files(folder / "text" / "numbers", numbers)),
    }
    return spec_of(sources, tokenizer=first, mixture={"alpha": 0.75, "numbers": 0.25})


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Corpus]:
    folder = tmp_path_factory.mktemp("by-base")
    of = tokenizers(folder)
    built = build_in_tokens_of(spec_in(folder, of[10]), list(of.values()), folder / "corpus")
    assert build_in_tokens_of(built.manifest.spec, list(of.values()), folder / "corpus").manifest == built.manifest
    return {n_params: built.in_tokens_of(tokenizer) for n_params, tokenizer in of.items()}


def test_each_base_has_the_same_documents_in_its_own_tokens(corpora: dict[int, Corpus]) -> None:
    bytes_alone, bpe = corpora.values()
    assert (bytes_alone.vocab_size, bpe.vocab_size) == tuple(SIZES.values())
    for name, record in bytes_alone.manifest.domains.items():
        other = bpe.manifest.domains[name]
        assert record.validation.n_text_bytes == other.validation.n_text_bytes
        assert record.train.n_documents == other.train.n_documents
        assert record.train.n_tokens > other.train.n_tokens
    with pytest.raises(CorpusError, match="is not there in the tokens of elsewhere; delete"):
        bpe.in_tokens_of(TokenizerSpec(kind="huggingface", name="elsewhere"))


@pytest.mark.parametrize("name", ["alpha", "numbers"])
def test_all_of_them_are_read_on_the_same_held_out_bytes(corpora: dict[int, Corpus], name: str) -> None:
    most = 600
    found = shared_held_out(corpora, [name], context_length=CONTEXT, max_tokens=most)
    texts, n_bytes = set(), set()
    for n_params, corpus in corpora.items():
        held_out = found[n_params][name]
        inputs = np.concatenate([held_out.windows[:, :-1].ravel(), held_out.rest[0, :-1]])
        targets = np.concatenate([held_out.windows[:, 1:].ravel(), held_out.rest[0, 1:]])
        end = corpus.manifest.tokenizer.end_of_text
        assert inputs[0] == targets[-1] == end, "whole documents, after an end of text"
        np.testing.assert_array_equal(inputs[1:], targets[:-1])
        assert len(targets) == held_out.n_targets <= most
        tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path / "tokenizer.json"))
        texts.add(tokenizer.decode(targets.tolist(), skip_special_tokens=True))
        n_bytes.add(held_out.n_bytes)
    [text] = texts
    assert n_bytes == {len(text.encode())}
    assert found[10][name].n_targets > found[20][name].n_targets
    with pytest.raises(CorpusError, match=rf"{name}'?: its first held-out document has more than 20 tokens"):
        shared_held_out(corpora, [name], context_length=CONTEXT, max_tokens=20)


def test_shares_of_the_mixture_are_of_bytes(corpora: dict[int, Corpus]) -> None:
    shares = {n_params: corpus.mixture.shares for n_params, corpus in corpora.items()}
    assert abs(shares[10]["alpha"] - shares[20]["alpha"]) > 0.02, "in tokens they differ"
    for n_params, corpus in corpora.items():
        n_bytes = {k: share * corpus.manifest.domains[k].train.bytes_per_token for k, share in shares[n_params].items()}
        assert n_bytes["alpha"] / sum(n_bytes.values()) == pytest.approx(0.75, abs=1e-3)


def test_a_source_that_changes_between_two_builds_is_refused(tmp_path: Path) -> None:
    of = tokenizers(tmp_path)
    spec = spec_in(tmp_path, of[10])
    built = build_in_tokens_of(spec, [], tmp_path / "corpus")
    (built.folder / "shards" / "alpha.validation.lengths").write_bytes(bytes(8))
    with pytest.raises(CorpusError, match=r"alpha\.validation\.lengths: is missing or has changed"):
        shared_held_out({10: built}, ["alpha"], context_length=CONTEXT, max_tokens=600)
    (tmp_path / "text" / "alpha" / "more.txt").write_text("one document more than there was", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"'alpha': is not of the documents that .* so its source has changed"):
        build_in_tokens_of(spec, list(of.values()), tmp_path / "corpus")


def test_a_corpus_of_an_older_raysplit_does_not_know_its_bytes(corpora: dict[int, Corpus]) -> None:
    manifest = corpora[10].manifest
    alpha = manifest.domains["alpha"].model_copy(update={"held_out_bytes": None})
    older = Corpus(corpora[10].folder, manifest.model_copy(update={"domains": {**manifest.domains, "alpha": alpha}}))
    with pytest.raises(CorpusError, match="the bytes of its held-out documents are not known, as an older raysplit"):
        shared_held_out({10: older}, ["alpha"], context_length=CONTEXT, max_tokens=600)
