"""Bases: what is counted of them, what is refused of them, and that a branch begins where transformers would."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import tree_of
from raysplit.design.tree import Trial
from raysplit.errors import SpaceError
from raysplit.ladder import shape_for
from raysplit.space import parse_space
from raysplit.train.bases import base_weights, count, with_bases
from raysplit.train.engine import Engine
from raysplit.train.run import Lane
from tests.train.conftest import Texts, read_text
from tests.train.jobs import base_losses
from tests.train.processes import Ranks
from tests.train.tiny_bases import (
    BASE_CONTEXT as CONTEXT,
)
from tests.train.tiny_bases import (
    CONFIGS,
    ROWS,
    base_windows,
    bases_space,
    plain_loss,
    write_base,
    write_tokenizer,
)


@pytest.mark.parametrize("kind", CONFIGS)
def test_size_and_flops_are_those_of_the_model_itself(kind: str) -> None:
    model = AutoModelForCausalLM.from_config(CONFIGS[kind], attn_implementation="eager")
    counted = count(model, context_length=CONTEXT, folder=".")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros((1, CONTEXT), dtype=torch.long), use_cache=False)
    assert counted.forward_flops_per_token == counter.get_total_flops() / CONTEXT
    assert counted.n_params_total == sum(p.numel() for p in model.parameters())
    tables = 1 if CONFIGS[kind].tie_word_embeddings else 2
    assert counted.n_params == counted.n_params_total - tables * ROWS * 32


def test_bases_are_found_counted_and_share_their_tokenizer(tmp_path: Path) -> None:
    for revision in ("step1", "step2"):
        write_base(tmp_path / "neox" / revision, "gpt_neox")
    write_base(tmp_path / "qwen", "qwen3", num_hidden_layers=3)
    space = with_bases(
        bases_space(
            {"path": str(tmp_path / "neox"), "revision": "step1", "pretrain_tokens": "1M"},
            {"path": str(tmp_path / "neox"), "revision": "step2", "pretrain_tokens": "2M"},
            {"path": str(tmp_path / "qwen"), "pretrain_tokens": "3M"},
        )
    )
    small, large = space.model.sizes
    assert [c.trunk_tokens for c in space.model.revisions(small)] == [1_000_000, 2_000_000]
    assert space.corpus.tokenizer.name == str(tmp_path / "neox" / "step1")
    assert space.shape(large, 0).n_params_total == large + ROWS * 32
    assert space.pretrain_grid == (1_000_000, 2_000_000, 3_000_000)
    assert with_bases(space) == space


def edited(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))


def as_pickle(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_a_token_too_many(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": ROWS, "content": "<more>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))


GENERAL_TEXT = {"kind": "files", "path": "."}
REFUSED: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "no folder": (lambda f: None, {"path": "./nowhere"}, "./nowhere: there is no such folder"),
    "not on the hub": (lambda f: None, {"path": "nobody/nothing"}, "is no folder here, and cannot be fetched from"),
    "no model": (lambda f: (f / "config.json").unlink(), {}, "has no config.json, so it is no model"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), {}, "has no weights; model.safetensors or"),
    "torn weights": (lambda f: (f / "model.safetensors").write_bytes(b"x"), {}, "its weights cannot be read"),
    "no such revision": (lambda f: None, {"revision": "step3"}, "unknown revision 'step3'"),
    "encoder-decoder": (
        lambda f: (f / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True})),
        {}, "model_type 't5' is an encoder-decoder; give a causal model",
    ),
    "encoder": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
        {}, "model_type 'bert' is an encoder, which sees the tokens that it is to foretell",
    ),
    "images": (
        lambda f: (f / "config.json").write_text('{"model_type": "gemma3"}'),
        {}, "model_type 'gemma3' has a language model beside others",
    ),
    "hybrid": (
        lambda f: (f / "config.json").write_text('{"model_type": "bamba"}'),
        {}, "has layers of linear_attention, whose FLOPs are not counted",
    ),
    "no attention": (
        lambda f: (f / "config.json").write_text('{"model_type": "rwkv"}'),
        {}, "model_type 'rwkv' cannot be made and counted from its config.json",
    ),
    "code of its own": (
        lambda f: edited(f, "config.json", model_type="ours", auto_map={"AutoConfig": "ours.OurConfig"}),
        {}, "config.json cannot be used: ",
    ),
    "quantised": (
        lambda f: edited(f, "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        {}, "its weights are quantised",
    ),
    "pickle": (as_pickle, {}, "its weights are a pickle, which may run code"),
    "other names": (lambda f: edited(f, "config.json", num_hidden_layers=3), {}, "has no weights of model.layers.2."),
    "tokenizer too large": (with_a_token_too_many, {}, "its tokenizer has a token 260, and its embedding 260 rows"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), {}, "has no tokenizer.json"),
    "another size": (lambda f: None, {"n_params": "1B"}, "n_params = 1B, and its model has"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_is(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spoil, given, said = REFUSED[case]
    spoil(write_base(tmp_path / "base", "llama"))
    with pytest.raises(SpaceError, match=re.escape(said)):
        with_bases(bases_space({"path": str(tmp_path / "base"), **given}))


def test_a_context_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", "llama")
    with pytest.raises(SpaceError, match=r"model\.context_length = 128: .* has 64 positions"):
        with_bases(bases_space({"path": str(tmp_path / "base")}, context_length=128))


def test_a_pickle_is_read_where_it_is_allowed(tmp_path: Path) -> None:
    as_pickle(write_base(tmp_path / "base", "llama"))
    space = with_bases(bases_space({"path": str(tmp_path / "base"), "allow_pickle": True}))
    assert len(space.model.sizes) == 1


def test_weights_may_lie_under_the_names_of_the_model_without_its_head(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=ROWS, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    model = AutoModelForCausalLM.from_config(config)
    model.transformer.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    counted = with_bases(bases_space({"path": str(tmp_path)})).model.checkpoints[0].counted
    assert counted is not None
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    read = dict(base_weights(counted.folder, shapes))
    assert all(torch.equal(read[name], parameter) for name, parameter in model.named_parameters())


def test_two_tokenizers_and_two_bases_of_one_size_are_refused(tmp_path: Path) -> None:
    one, two = write_base(tmp_path / "one", "llama"), write_base(tmp_path / "two", "llama", num_hidden_layers=3)
    edited(two, "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(SpaceError, match="have two tokenizers"):
        with_bases(bases_space({"path": str(one)}, {"path": str(two)}))
    write_base(tmp_path / "three", "mistral")  # the same count as llama's
    with pytest.raises(SpaceError, match="have the same size"):
        with_bases(bases_space({"path": str(one)}, {"path": str(tmp_path / "three")}))


@pytest.mark.parametrize(
    ("checkpoints", "said"),
    [
        ([{"path": "a", "revision": "x"}, {"path": "a", "revision": "y"}], "a at x has no pretrain_tokens"),
        ([{"path": "a"}, {"path": "a"}], "a is given twice"),
        ([{"path": "a", "pretrain_token": "1M"}], "did you mean"),
        ([{"path": "a", "revisions": ["main"], "tokens_per_step": "1M"}], "revision 'main' has no step in its name"),
        ([{"path": "a", "revisions": ["v2-of-10"], "tokens_per_step": "1M"}], "has several numbers and no step in"),
        ([{"path": "a", "revisions": ["step1"]}], "tokens_per_step: 2M` go together"),
        ([{"path": "a", "tokens_per_step": "1M"}], "tokens_per_step: 2M` goes with `revisions"),
    ],
)
def test_checkpoints_that_contradict_each_other_are_refused(checkpoints: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        bases_space(*checkpoints)


def test_a_family_says_the_tokens_of_its_revisions_by_a_rule() -> None:
    family = {"path": "a", "revisions": ["step1000-unsharded", "step2000"], "tokens_per_step": "2M"}
    checkpoints = bases_space(family).model.checkpoints
    assert [(c.revision, c.pretrain_tokens) for c in checkpoints] == [
        ("step1000-unsharded", 2_000_000_000), ("step2000", 4_000_000_000)
    ]  # fmt: skip


def test_a_revisions_name_may_hold_several_numbers_and_its_tokens() -> None:
    olmo = ["stage1-step1000-tokens5B", "stage1-step2000-tokens9B"]
    by_tokens = bases_space({"path": "a", "revisions": olmo}).model.checkpoints
    assert [c.pretrain_tokens for c in by_tokens] == [5_000_000_000, 9_000_000_000]
    by_step = bases_space({"path": "a", "revisions": olmo, "tokens_per_step": "4.5M"}).model.checkpoints
    assert [c.pretrain_tokens for c in by_step] == [4_500_000_000, 9_000_000_000]


def test_a_space_of_checkpoints_pretrains_nothing() -> None:
    given = bases_space({"path": "a"}).model_dump()
    given["sweep"]["pretrain_tokens"] = [2048]
    with pytest.raises(SpaceError, match=r"sweep\.pretrain_tokens: leave it out"):
        parse_space(given, origin="tests")


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("sweep", {"replay_shares": [0.1]}, "one share is training.replay_share; give two or more"),
        ("sweep", {"replay_shares": [0.1, 0.0]}, "shares must rise without repeats"),
        ("training", {"replay_share": 0.1}, "leave it out, as sweep.replay_shares has the shares to try"),
        ("model", {"checkpoints": [], "sizes": ["14k"]}, "is for branches from model.checkpoints, and there are none"),
        (
            "corpus",
            {"domains": {"one": {"kind": "files", "path": "."}}},
            "there is one domain; give corpus.general, a source of general text",
        ),
        (
            "corpus",
            {"domains": {"General": {"kind": "files", "path": "."}}, "general": {"kind": "files", "path": "."}},
            "domain 'General': the general set is called that",
        ),
    ],
)
def test_shares_and_limits_that_mean_nothing_are_refused(section: str, changes: dict[str, Any], said: str) -> None:
    given = bases_space({"path": "a"}).model_dump()
    given["sweep"]["replay_shares"] = [0.0, 0.1]
    given["target"]["max_general_rise"] = 0.02
    assert parse_space(given, origin="tests").sweep.replay_shares == (0.0, 0.1)
    given[section] |= changes
    if section == "model":
        given["sweep"]["pretrain_tokens"] = [2048]
    with pytest.raises(SpaceError, match=said):
        parse_space(given, origin="tests")


def test_a_general_set_stands_in_for_other_domains_and_needs_bases(tmp_path: Path) -> None:
    given = bases_space({"path": "a"}).model_dump()
    given["target"]["max_general_rise"] = 0.02
    given["corpus"] |= {"domains": {"one": GENERAL_TEXT}, "general": GENERAL_TEXT}
    space = parse_space(given, origin="tests", base=tmp_path)
    assert space.domains == ("one",)
    assert space.corpus.general is not None
    assert space.corpus.general.path == str(tmp_path), "paths start at the space's folder"
    given["target"] |= {"max_general_rise": None}
    given["model"] |= {"checkpoints": [], "sizes": ["14k"]}
    given["sweep"]["pretrain_tokens"] = [2048]
    with pytest.raises(SpaceError, match=r"corpus\.general: is for branches from model\.checkpoints"):
        parse_space(given, origin="tests")


def test_the_tokenizer_of_the_tests_is_one_that_transformers_loads(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == 256


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of each architecture."""
    folder = tmp_path_factory.mktemp("bases")
    for kind in CONFIGS:
        write_base(folder / kind, kind)
    return folder


@pytest.mark.parametrize(("n_ranks", "stages"), [(1, (0, 3)), (2, (0, 1, 2, 3))])
def test_a_branch_begins_with_the_loss_that_transformers_reads(
    bases: Path, tmp_path: Path, n_ranks: int, stages: tuple[int, ...]
) -> None:
    for kind in CONFIGS:
        (tmp_path / kind).symlink_to(bases / kind)
    found = Ranks(base_losses, tmp_path, list(CONFIGS), stages, "fp32", n_ranks=n_ranks).answer()
    for (kind, stage), (first, held_out) in found.items():
        plain = plain_loss(bases / kind, base_windows())
        assert first == pytest.approx(plain, abs=1e-5), (kind, stage)
        assert held_out == pytest.approx(plain, abs=1e-5), (kind, stage)


def test_it_does_so_in_bf16(bases: Path, tmp_path: Path) -> None:
    (tmp_path / "qwen3").symlink_to(bases / "qwen3")
    for first, held_out in Ranks(base_losses, tmp_path, ["qwen3"], (1, 3), "bf16").answer().values():
        plain = plain_loss(bases / "qwen3", base_windows())
        assert first == pytest.approx(plain, rel=1e-2)
        assert held_out == pytest.approx(plain, rel=1e-2)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("kind", ["qwen3", "gpt_neox"])
def test_an_expert_of_a_base_is_the_base_in_all_but_its_weights(bases: Path, tmp_path: Path, kind: str) -> None:
    base = bases / kind
    space = with_bases(bases_space({"path": str(base), "pretrain_tokens": "1M"}))
    [size] = space.model.sizes
    lane = Lane(
        space, Texts(read_text()), shape=lane_shape_of(space, size), vocab_size=ROWS, checkpoints=tmp_path / "kept"
    )
    tree = tree_of(space)
    as_it_is = Trial(n_params=size, seed=0, domain="", pretrain_tokens=1_000_000, milestones=(1_000_000,))
    branch = Trial(n_params=size, seed=0, domain="library", pretrain_tokens=1_000_000, milestones=(2048,))
    read = lane.measure(as_it_is, 1_000_000, tree=tree, on_progress=lambda tokens, loss: None)
    assert read.tokens == 0
    held_out = Texts(read_text()).validation("library", context_length=CONTEXT, max_tokens=1024)
    assert read.losses["library"] == pytest.approx(plain_loss(base, held_out), abs=1e-5)
    trained = lane.measure(branch, 2048, tree=tree, on_progress=lambda tokens, loss: None)
    assert trained.tokens == 2048
    assert trained.losses["library"] < read.losses["library"]
    again = lane.measure(branch, 2048, tree=tree, on_progress=lambda tokens, loss: None)
    assert again.losses == trained.losses  # from the checkpoint that it left

    lane.export(branch, tmp_path / "expert", tokenizer_folder=None)
    assert plain_loss(tmp_path / "expert", held_out) == pytest.approx(trained.losses["library"], abs=1e-5)
    here, there = (json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "expert"))
    assert {**here, "dtype": "float32"} == there
    for file in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "expert" / file).read_bytes() == (base / file).read_bytes()


@pytest.mark.usefixtures("one_rank")
def test_training_goes_on_from_an_own_trunk_as_from_the_base_that_it_makes(tmp_path: Path) -> None:
    shape = shape_for(14_000, vocab_size=ROWS, context_length=CONTEXT)
    space = bases_space({"path": str(tmp_path / "own")})
    lane = lane_shape_of(space, 14_000)
    own = Engine(shape, space.training, lane=lane, seed=0, device="cpu")
    windows = base_windows(32)
    for i in range(3):
        own.step(windows[8 * i : 8 * i + 8], learning_rate=1e-2)
    own.reset_optimizer()
    own.export(tmp_path / "own", tokenizer_folder=None)
    write_tokenizer(tmp_path / "own")

    space = with_bases(space)
    [size] = space.model.sizes
    counted = space.shape(size, 0)
    for quantity in ("n_params_non_embedding", "n_params_total", "flops_per_token", "flops_per_token_6n"):
        assert getattr(counted, quantity) == getattr(shape, quantity)
    base = Engine(counted, space.training, lane=lane, seed=0, device="cpu")
    for i in (3, 2, 1):
        losses = [e.step(windows[8 * i : 8 * i + 8], learning_rate=1e-2).item() for e in (own, base)]
        assert losses[0] == losses[1]
    assert own.loss_on(windows) == base.loss_on(windows)
    for engine in (own, base):
        engine.close()
