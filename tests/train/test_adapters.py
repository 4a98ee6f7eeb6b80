"""Adapters of a base: what is counted, what is trained, and that peft reads what comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import tree_of
from raysplit.design.tree import Trial
from raysplit.space import LoraSpec
from raysplit.train.adapters import adapt, base_name
from raysplit.train.bases import count, with_bases
from raysplit.train.run import Lane
from tests.train.conftest import Texts, read_text
from tests.train.jobs import adapted_losses
from tests.train.processes import Ranks
from tests.train.tiny_bases import BASE_CONTEXT, CONFIGS, ROWS, bases_space, plain_loss, write_base

LORA = LoraSpec(rank=4, alpha=16)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_step_of_adapters_costs_what_torch_counts_but_for_what_lies_below_the_first(kind: str) -> None:
    given = {name: value for name, value in CONFIGS[kind].to_dict().items() if name != "layer_types"}
    config = CONFIGS[kind].__class__.from_dict({**given, "num_hidden_layers": 6})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    counted = count(model, context_length=BASE_CONTEXT, folder="", lora=LORA)
    whole = count(model, context_length=BASE_CONTEXT, folder="")
    first = 2 * sum(p.numel() for name, p in model.named_parameters() if ".0." in name and p.ndim == 2)
    adapt(model, LORA)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.trained_params == trained
    tokens = torch.randint(ROWS, (3, BASE_CONTEXT))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    measured = counter.get_total_flops() / tokens.numel()
    assert 0 < counted.training_flops_per_token - measured < 1.5 * first
    assert counted.training_flops_per_token == pytest.approx(measured, rel=0.12)
    assert counted.training_flops_per_token < 3 * whole.forward_flops_per_token
    assert counted.forward_flops_per_token == whole.forward_flops_per_token


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft then sets it itself
def test_adapters_of_matrices_that_lie_the_other_way_round_are_counted() -> None:
    config = GPT2Config(vocab_size=ROWS, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    model = AutoModelForCausalLM.from_config(config)
    counted = count(model, context_length=BASE_CONTEXT, folder="", lora=LORA)
    adapt(model, LORA)
    assert counted.trained_params == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0


@pytest.mark.usefixtures("one_rank")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # which peft asks for
@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_an_expert_is_an_adapter_that_peft_reads_with_the_same_loss(tmp_path: Path, kind: str) -> None:
    base = write_base(tmp_path / "base", kind)
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    given = {"path": str(base), "pretrain_tokens": "1M"}
    space = with_bases(bases_space(given, lora={"rank": 4}))
    n_params = space.model.sizes[0]
    shape = lane_shape_of(space, n_params)
    lane = Lane(space, Texts(read_text()), shape=shape, vocab_size=ROWS, checkpoints=tmp_path / "kept")
    held_out = Texts(read_text()).validation("library", context_length=BASE_CONTEXT, max_tokens=1024)
    trunk = Trial(n_params=n_params, seed=0, domain="", pretrain_tokens=10**6, milestones=(10**6,))
    tree = tree_of(space)
    read = lane.measure(trunk, 10**6, tree=tree, on_progress=lambda tokens, loss: None)
    assert read.losses["library"] == pytest.approx(plain_loss(base, held_out), abs=1e-5)
    branch = Trial(n_params=n_params, seed=0, domain="library", pretrain_tokens=10**6, milestones=(2048,))
    measured = lane.measure(branch, 2048, tree=tree, on_progress=lambda tokens, loss: None)
    assert measured.losses["library"] < read.losses["library"] - 0.05
    lane.export(branch, tmp_path / "expert", tokenizer_folder=None)
    kept = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.safetensors"))
    assert kept < 2 * 12 * space.shape(n_params, ROWS).n_params_trained + 20_000

    loss = adapter_loss(base, tmp_path / "expert", held_out)
    assert loss == pytest.approx(measured.losses["library"], abs=1e-5)
    assert json.loads((tmp_path / "expert" / "adapter_config.json").read_text())["r"] == 4
    assert not (tmp_path / "expert" / "model.safetensors").exists()
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    # The same branch to a further point goes on from what was kept, beside the base's own weights.
    further = lane.measure(branch, 4096, tree=tree, on_progress=lambda tokens, loss: None)
    assert further.tokens < 4096
    assert further.losses["library"] < read.losses["library"] - 0.05


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # which peft asks for
def test_two_ranks_train_the_same_adapters_when_stage_3_shares_out_the_base(tmp_path: Path) -> None:
    # Stage 3 keeps matrices below 100,000 entries whole on every rank, so these have more.
    base = write_base(tmp_path / "base", "llama", intermediate_size=4096)
    held_out = Texts(read_text()).validation("library", context_length=BASE_CONTEXT, max_tokens=1024)
    found = Ranks(adapted_losses, tmp_path, (1, 3), n_ranks=2).answer()
    for as_it_is, trained in found.values():
        assert as_it_is["library"] == pytest.approx(plain_loss(base, held_out), abs=1e-5)
        assert trained["library"] < as_it_is["library"] - 0.05
    assert found[3][1] == pytest.approx(found[1][1], rel=1e-5)
    for stage, (_, trained) in found.items():
        assert adapter_loss(base, tmp_path / str(stage), held_out) == pytest.approx(trained["library"], abs=1e-5)


def adapter_loss(base: Path, adapter: Path, windows: np.ndarray) -> float:
    """What peft itself says of an adapter."""
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    tokens = torch.as_tensor(windows)
    with torch.no_grad():
        logits = found(input_ids=tokens[:, :-1]).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


def test_names_of_the_base_and_what_is_counted(tmp_path: Path) -> None:
    assert base_name("model.layers.0.mlp.up_proj.base_layer.weight") == "model.layers.0.mlp.up_proj.weight"
    write_base(tmp_path / "base", "llama")
    given = {"path": str(tmp_path / "base")}
    whole, adapted = with_bases(bases_space(given)), with_bases(bases_space(given, lora={"rank": 4}))
    size = whole.model.sizes[0]
    assert adapted.model.sizes == whole.model.sizes
    assert adapted.shape(size, ROWS).flops_per_token < whole.shape(size, ROWS).flops_per_token
    assert adapted.shape(size, ROWS).n_params_trained < whole.shape(size, ROWS).n_params_trained
