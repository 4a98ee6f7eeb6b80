"""Adapters in the place of an expert: read with their base, as peft reads them, or refused with both folders' names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from raysplit.errors import ExpertError
from raysplit.experts import ExpertSet, Routing, Sampling, read_experts
from raysplit.experts.folders import read_folder

# Which peft itself asks for.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def adapted(expert_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of the seed, as peft saves them: without configuration and tokenizer."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(expert_run / "experts" / "seed")
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("adapted") / "own"
    model.save_pretrained(folder)
    return folder


def test_adapters_are_an_expert_beside_whole_ones(adapted: Path, expert_run: Path) -> None:
    seed = expert_run / "experts" / "seed"
    experts = ExpertSet.open(adapted, seed, expert_run / "experts" / "stories", device="cpu")
    tokens = experts.tokens.encode(["Ann saw a cat. Bo has an owl."])[0]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(seed), adapted).eval()
    with torch.no_grad():
        expected = plain(torch.from_numpy(tokens[None, :-1])).logits[0].log_softmax(-1).numpy()
    [scores] = experts.models.take("own").score([tokens])
    np.testing.assert_allclose(scores.log_probs, expected[np.arange(len(tokens) - 1), tokens[1:]], atol=1e-5)
    [of_seed] = experts.models.take("seed").score([tokens])
    assert abs(scores.log_probs - of_seed.log_probs).max() > 0.01
    greedy = Sampling(max_tokens=5, temperature=0)
    _, pieces = experts.generate("Ann saw", "own", greedy)
    prompt = torch.from_numpy(experts.prompt_tokens("Ann saw")[None])
    written = plain.generate(prompt, max_new_tokens=5, max_length=None, do_sample=False)[0, prompt.shape[1] :]
    assert "".join(piece.text for piece in pieces) == experts.tokens.decode(written.tolist())
    [route] = experts.route(["Ann saw a cat."], Routing(router="likelihood", top=None))
    assert set(route.weights) == {"own", "stories"}
    added = sum(p.numel() for name, p in plain.named_parameters() if ".lora_" in name)
    assert experts.flops_per_token[0] == experts.flops_per_token[1] + 2 * added


def test_what_is_kept_of_adapters_is_of_their_base_too(adapted: Path, expert_run: Path, tmp_path: Path) -> None:
    base = shutil.copytree(expert_run / "experts" / "seed", tmp_path / "base")
    own = changed(adapted, tmp_path / "own", {"base_model_name_or_path": str(base)})
    before = read_folder(own).fingerprint
    assert read_folder(own).fingerprint == before
    shutil.copy(expert_run / "experts" / "stories" / "model.safetensors", base)
    assert read_folder(own).fingerprint != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_model_name_or_path": "/no/such"}, "belong to the base /no/such, which is no Hugging Face folder here"),
        ({"base_model_name_or_path": None}, "cannot be read: TypeError"),
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported; valid: LORA"),
    ],
)
def test_adapters_that_cannot_be_read_are_refused(
    adapted: Path, tmp_path: Path, change: dict[str, str | None], said: str
) -> None:
    own = changed(adapted, tmp_path / "own", change)
    with pytest.raises(ExpertError, match=said) as caught:
        read_experts(own)
    assert str(own) in str(caught.value)


def test_adapters_without_weights_are_refused(adapted: Path, tmp_path: Path) -> None:
    own = shutil.copytree(adapted, tmp_path / "own")
    (own / "adapter_model.safetensors").unlink()
    with pytest.raises(ExpertError, match=r"own: holds no weights \(adapter_model\.safetensors\)"):
        read_experts(own)


def changed(adapted: Path, folder: Path, change: dict[str, str | None]) -> Path:
    """A copy of adapters with another configuration."""
    shutil.copytree(adapted, folder)
    config = json.loads((folder / "adapter_config.json").read_bytes())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    return folder
