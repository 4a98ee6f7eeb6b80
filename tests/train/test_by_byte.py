"""Two bases with two tokenizers in one sweep: losses in bits a byte, from the space to the final run, without Ray."""

import json
import math
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from raysplit.corpus import Corpus, build_in_tokens_of
from raysplit.corpus.by_base import corpora_of, corpus_of, shared_held_out
from raysplit.corpus.tokenizer import save_bpe, train_bpe
from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import tree_of
from raysplit.design.tasks import Measured
from raysplit.design.tree import Trial
from raysplit.errors import SpaceError
from raysplit.journal import Journal
from raysplit.live.service import LawService
from raysplit.space import Space, parse_space
from raysplit.split import render_advice
from raysplit.split.tables import advice_tables
from raysplit.sweep.final_plan import OF_BASES, plan_final
from raysplit.sweep.replay import replay
from raysplit.sweep.run_spec import held_out_tokens, longest_path_epochs, run_spec_of_space
from raysplit.train.bases import with_bases
from raysplit.train.run import Lane
from tests.corpus.texts import documents, write_files
from tests.train.tiny_bases import BASE_CONTEXT, bases_space, write_base

OTHER_TOKENS = 320


def write_bases(folder: Path) -> Path:
    """One with bytes for tokens, and one with a BPE."""
    write_base(folder / "bytes", "llama")
    other = write_base(folder / "bpe", "gpt_neox", hidden_size=48, intermediate_size=64, vocab_size=OTHER_TOKENS + 3)
    save_bpe(train_bpe(documents(60, tag="library"), vocab_size=OTHER_TOKENS), folder / "tokenizer")
    for file in (folder / "tokenizer").iterdir():
        file.replace(other / file.name)
    return folder


def space_of(bases: Path, texts: Path, **target: Any) -> Space:
    given = bases_space({"path": str(bases / "bytes")}, {"path": str(bases / "bpe")}).model_dump()
    given["corpus"]["domains"] = {name: {"kind": "files", "path": str(texts / name)} for name in ("library", "license")}
    given["corpus"]["validation_fraction"] = 0.1
    given["target"] |= {"loss_unit": "bits/byte", **target}
    return parse_space(given, origin="tests")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bases(tmp_path_factory.mktemp("two"))


def test_two_tokenizers_are_compared_where_that_is_asked_for(bases: Path, tmp_path: Path) -> None:
    space = with_bases(space_of(bases, tmp_path))
    small, large = space.model.sizes
    assert space.corpus.tokenizer == space.tokenizer_of(small)
    assert Path(str(space.tokenizer_of(small).name)).name == "bytes"
    assert Path(str(space.tokenizer_of(large).name)).name == "bpe"
    assert with_bases(space) == space
    with pytest.raises(SpaceError, match=r"have two tokenizers, .* set target\.loss_unit: bits/byte to compare them"):
        with_bases(space_of(bases, tmp_path, loss_unit="nats/token"))
    given = space_of(bases, tmp_path).model_dump()
    checkpoints = [
        {"path": str(tmp_path / "base"), "revision": name, "pretrain_tokens": tokens}
        for name, tokens in (("one", "1M"), ("two", "2M"))
    ]
    for name in ("one", "two"):
        shutil.copytree(bases / "bytes", tmp_path / "base" / name)
    tokenizer = tmp_path / "base" / "two" / "tokenizer.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "normalizer": {"type": "NFC"}}))
    with pytest.raises(SpaceError, match=r"at one and .* at two have two tokenizers; a base has one"):
        with_bases(parse_space({**given, "model": {**given["model"], "checkpoints": checkpoints}}, origin="tests"))


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("model", {"checkpoints": [], "sizes": ["14k"]}, r"target\.loss_unit: is for branches from model\.checkpoints"),
        (
            "corpus",
            {
                "domains": {"library": {"kind": "tokens", "path": ".", "tokenizer": "gpt2"}},
                "tokenizer": {"kind": "huggingface", "name": "gpt2"},
            },
            "'library' holds tokens, whose bytes are not known; bring the text of it",
        ),
        ("target", {"loss_unit": "bits"}, r"target\.loss_unit: Input should be 'nats/token' or 'bits/byte'"),
    ],
)
def test_bits_a_byte_need_bases_and_text(section: str, changes: dict[str, Any], said: str) -> None:
    given = space_of(Path("bases"), Path("texts")).model_dump()
    given[section] |= changes
    if section == "model":
        given["sweep"]["pretrain_tokens"] = [2048]
    with pytest.raises(SpaceError, match=said):
        parse_space(given, origin="tests")


def plain_bits_per_byte(base: Path, corpus: Corpus, domain: str, n_bytes: int) -> float:
    """What transformers and tokenizers say by themselves of the first held-out documents of so many bytes."""
    reader = Tokenizer.from_file(str(base / "tokenizer.json"))
    pieces = corpus.token_pieces(domain, side="validation", piece_tokens=10**9)
    tokens = torch.as_tensor(next(iter(pieces)))
    end = corpus.manifest.tokenizer.end_of_text
    ends = (tokens == end).nonzero()[:, 0].tolist()
    length = next(
        n + 1 for n in ends if len(reader.decode(tokens[:n].tolist(), skip_special_tokens=True).encode()) >= n_bytes
    )
    text = torch.cat([torch.tensor([end]), tokens[:length]])
    model, nats = AutoModelForCausalLM.from_pretrained(base), 0.0
    with torch.no_grad():
        for start in range(0, length, BASE_CONTEXT):
            window = text[start : start + BASE_CONTEXT + 1]
            logits = model(input_ids=window[None, :-1]).logits[0].float()
            nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    return nats / math.log(2) / n_bytes


@pytest.mark.usefixtures("one_rank")
def test_two_tokenizers_from_the_sweep_to_the_final_run(bases: Path, tmp_path: Path) -> None:
    for name in ("library", "license"):
        write_files(tmp_path / "texts" / name, documents(60, tag=name))
    space = with_bases(space_of(bases, tmp_path / "texts"))
    corpus = build_in_tokens_of(
        space.corpus, [space.tokenizer_of(n) for n in space.model.sizes], tmp_path / "corpus", n_processes=1
    )
    corpora = corpora_of(space, corpus)
    run = run_spec_of_space(space, corpus)
    for n_params, base in run.spec.problem.bases.items():
        tokens = corpora[n_params].domain_tokens
        assert base.available_tokens == {name: 1000 * n for name, n in tokens.items()}, "max_epochs of its own tokens"
    assert set(longest_path_epochs(space, corpus)) == {"library", "license"}
    lane = Lane(
        space, corpus, shape=lane_shape_of(space, space.model.sizes[0]), vocab_size=corpus.vocab_size,
        checkpoints=tmp_path / "kept", corpora=corpora,
    )  # fmt: skip

    def measure(trial: Trial, milestone: int) -> dict[str, float]:
        measured: Measured = lane.measure(trial, milestone, tree=tree_of(space), on_progress=lambda tokens, loss: None)
        return dict(measured.losses)

    held_out = shared_held_out(corpora, space.domains, context_length=BASE_CONTEXT, max_tokens=1024)
    n_bytes: dict[str, int] = {}
    for n_params in space.model.sizes:
        trial = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=1, milestones=(1,))
        folder = Path(space.model.revisions(n_params)[-1].path)
        for name, loss in measure(trial, 1).items():
            n_bytes.setdefault(name, held_out[n_params][name].n_bytes)
            assert loss == pytest.approx(plain_bits_per_byte(folder, corpora[n_params], name, n_bytes[name]), abs=1e-5)
            assert 0 < held_out_tokens(space, corpus, name) <= space.training.validation_tokens
    with closing(Journal(tmp_path / "journal")) as journal:
        service = LawService(run, journal)
        replay(service, measure)
        advice, table = service.advise().advice, service.observations()
        predicted = service.predict("library", n_params=space.model.sizes[0], pretrain_tokens=1, specialize_tokens=2e3)
    assert (table["bits_per_byte"] == table["loss"]).all()
    assert advice.loss_unit == predicted.loss_unit == "bits/byte"
    assert "losses in      bits per byte of the same held-out text" in render_advice(advice)
    for told in advice_tables(advice, bytes_per_token=dict.fromkeys(space.domains, 4.0)):
        assert {len(cells) for cells in told.rows} == {len(told.head)}, told.title
    own = corpus_of(space, corpus, advice.split.n_params)
    plan = plan_final(
        space, advice, vocab_size=own.vocab_size, seed=1000, baseline_names=OF_BASES, experts=tmp_path / "experts",
        domain_tokens=own.domain_tokens,
    )  # fmt: skip
    [seed] = [part.task for part in plan.parts if part.task.trial.is_trunk]
    branch = next(part.task for part in plan.parts if part.task.trial.domain)
    untrained, trained = measure(seed.trial, seed.milestone), measure(branch.trial, branch.milestone)
    assert trained[branch.trial.domain] < untrained[branch.trial.domain]
    lane.export(branch.trial, tmp_path / "expert", tokenizer_folder=own.tokenizer_path)
    chosen = Path(space.model.revisions(advice.split.n_params)[-1].path)
    assert (tmp_path / "expert" / "tokenizer.json").read_bytes() == (chosen / "tokenizer.json").read_bytes()
