"""Where texts go: by centre, likelihood or label, the seed where nothing is known, and what it costs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raysplit.discover.clusterer import Clusterer
from raysplit.discover.features import CharacterFeatures
from raysplit.errors import ExpertError, RunError
from raysplit.experts import ExpertSet, Routing, read_experts
from raysplit.experts.loaded import device_of
from raysplit.experts.routing import fit_temperature, log_weights, prefix_of
from raysplit.ladder import shape_for
from tests.experts.tiny_runs import CONTEXT, N_PARAMS, NearestWords, programs, stories

TEXTS = [stories(1, seed=9)[0], programs(1, seed=9)[0], ""]


@pytest.fixture(scope="module")
def expert_set(expert_run: Path) -> ExpertSet:
    return ExpertSet(read_experts(expert_run), clusterer=NearestWords(), device="cpu")


@pytest.mark.parametrize("router", ["centre", "likelihood"])
def test_each_text_goes_to_its_own_expert_and_an_empty_one_to_the_seed(expert_set: ExpertSet, router: str) -> None:
    routes = expert_set.route(TEXTS, Routing(router=router))  # type: ignore[arg-type]
    assert [route.weights for route in routes] == [{"stories": 1.0}, {"programs": 1.0}, {"seed": 1.0}]
    assert [route.is_fallback for route in routes] == [False, False, True]


@pytest.mark.parametrize("is_moved", [False, True])
def test_the_clusterer_that_found_the_domains_is_used(expert_run: Path, tmp_path: Path, is_moved: bool) -> None:
    """As its corpus names it, and where the run was moved as it lies in it."""
    texts = [*stories(30, seed=5), *programs(30, seed=5)]
    features, vectors = CharacterFeatures.fit(texts, seed=0)
    clusterer = Clusterer(
        domains=("stories", "programs"),
        centres=np.stack([vectors[:30].mean(axis=0), vectors[30:].mean(axis=0)]).astype(np.float64),
        offsets=np.zeros(2),
        features=features,
        excerpt_bytes=2000,
    )
    run = copied(expert_run, tmp_path / "run")
    made_in = run if is_moved else tmp_path
    clusterer.save(made_in / "discovery" / "k2" / "clusterer")
    manifest = json.loads((expert_run / "corpus" / "manifest.json").read_text())
    named = (tmp_path / "gone" if is_moved else tmp_path) / "discovery" / "k2" / "clusterer"
    manifest["spec"]["clusterer"] = str(named)
    (run / "corpus").mkdir()
    (run / "corpus" / "manifest.json").write_text(json.dumps(manifest))
    expert_set = ExpertSet.open(run, device="cpu")
    how = expert_set.default_routing()
    assert how.router == "centre"
    assert [list(route.weights) for route in expert_set.route(TEXTS, how)] == [["stories"], ["programs"], ["seed"]]


@pytest.mark.parametrize("router", ["centre", "likelihood", "label", "uniform"])
def test_no_texts_have_no_routes(expert_set: ExpertSet, router: str) -> None:
    assert expert_set.route([], Routing(router=router)) == []  # type: ignore[arg-type]


def test_a_known_label_is_obeyed(expert_set: ExpertSet) -> None:
    routes = expert_set.route(TEXTS, Routing(router="label"), labels=["programs", "stories", "stories"])
    assert [list(route.weights) for route in routes] == [["programs"], ["stories"], ["stories"]]
    with pytest.raises(ExpertError, match="unknown domain 'story' \\(did you mean 'stories'\\?\\)"):
        expert_set.route(TEXTS[:1], Routing(router="label"), labels=["story"])
    with pytest.raises(ExpertError, match="needs the domain of each text; known: stories, programs"):
        expert_set.route(TEXTS, Routing(router="label"))


def test_what_a_choice_costs_is_told_with_it(expert_set: ExpertSet) -> None:
    shape = shape_for(N_PARAMS, vocab_size=350, context_length=CONTEXT)
    assert set(expert_set.flops_per_token) == {shape.forward_flops_per_token}
    one, both = (expert_set.route(TEXTS[:1], Routing(router="likelihood", top=top))[0] for top in (1, None))
    assert both.flops_per_token == 2 * one.flops_per_token
    prefix_tokens = len(expert_set.tokens.encode([prefix_of(TEXTS[0])])[0])
    assert one.router_flops == prefix_tokens * shape.forward_flops_per_token  # the other one has read it too
    assert both.router_flops == 0
    assert 0 < expert_set.route(TEXTS[:1], Routing(router="centre"))[0].router_flops < one.flops_per_token


def test_only_the_beginning_of_a_text_decides(expert_set: ExpertSet) -> None:
    for router in ("centre", "likelihood"):
        how = Routing(router=router, top=None)
        [alone], [with_more] = (expert_set.route([text], how) for text in (TEXTS[0], TEXTS[0] + " " + TEXTS[1]))
        assert alone == with_more


def test_a_prefix_is_of_whole_words_and_characters() -> None:
    assert prefix_of("short  ") == "short  "
    assert prefix_of("word " * 100) == ("word " * 51).rstrip()
    assert prefix_of("abc " * 100) == ("abc " * 64).rstrip(), "the last word is whole where the prefix ends in a blank"
    assert prefix_of("é" * 200) == "é" * 128
    assert len(prefix_of("wörter " * 100).encode()) <= 256


def test_a_temperature_sharpens_and_top_k_keeps_the_largest(expert_set: ExpertSet) -> None:
    experts, scores = expert_set.experts, np.array([[-1.0, -np.inf, -2.0]])
    known = np.array([False])
    even = np.exp(log_weights(experts, scores, Routing(router="centre", top=None, temperature=1e6), is_empty=known))
    np.testing.assert_allclose(even, [[0.5, 0.0, 0.5]], atol=1e-5)
    sharp = np.exp(log_weights(experts, scores, Routing(router="centre", top=None, temperature=1e-2), is_empty=known))
    np.testing.assert_allclose(sharp, [[1.0, 0.0, 0.0]], atol=1e-9)
    kept = log_weights(experts, scores, Routing(router="centre", top=1), is_empty=known)
    assert kept.tolist() == [[0.0, -np.inf, -np.inf]]


def test_the_fitted_temperature_is_the_one_under_which_the_texts_were_drawn(expert_set: ExpertSet) -> None:
    """Tokens drawn from the mixture at T = 2, of which each expert is sure of its own half."""
    rng, n_texts, n_tokens = np.random.default_rng(0), 300, 20
    experts = replace(expert_set.experts, serving={"programs": "programs", "stories": "stories"})
    scores = np.full((n_texts, 3), -np.inf)
    scores[:, [0, 2]] = rng.normal(scale=4.0, size=(n_texts, 2))
    first = 1 / (1 + np.exp((scores[:, 2] - scores[:, 0]) / 2.0))
    drawn = rng.random((n_texts, n_tokens)) < first[:, None]
    log_probs = np.log(np.where([drawn, drawn, ~drawn], 0.999, 0.001)).reshape(3, -1)
    offsets = np.arange(n_texts + 1) * n_tokens
    found = fit_temperature(experts, scores, log_probs, offsets, Routing(router="centre"))
    assert found == pytest.approx(2.0, rel=0.1)


def copied(expert_run: Path, to: Path) -> Path:
    shutil.copytree(expert_run / "experts", to / "experts")
    shutil.copy(expert_run / "final.json", to / "final.json")
    return to


def test_a_missing_expert_is_named(expert_run: Path, tmp_path: Path) -> None:
    run = copied(expert_run, tmp_path)
    shutil.rmtree(run / "experts" / "stories")
    with pytest.raises(ExpertError, match=r"experts/stories: is missing, and the domain 'stories' is served by it"):
        read_experts(run)
    final = json.loads((run / "final.json").read_text())
    final["variants"]["recommended"]["specialize_tokens"]["stories"] = 0
    (run / "final.json").write_text(json.dumps(final))
    assert read_experts(run).serving == {"stories": "seed", "programs": "programs"}


def test_a_run_without_models_and_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").touch()
    with pytest.raises(RunError, match="holds no models; `raysplit run` or `raysplit train` makes them"):
        read_experts(tmp_path)
    with pytest.raises(ExpertError, match="there is no such folder"):
        read_experts(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(ExpertError, match=r"is neither a Hugging Face folder \(no config.json\) nor a run"):
        read_experts(tmp_path / "other")


@pytest.mark.parametrize("change", ["tokenizer", "vocabulary", "weights"])
def test_a_folder_unlike_the_others_is_refused(expert_run: Path, tmp_path: Path, change: str) -> None:
    run = copied(expert_run, tmp_path)
    odd = run / "experts" / "stories"
    if change == "tokenizer":
        (odd / "tokenizer.json").write_text((odd / "tokenizer.json").read_text() + " ")
    elif change == "vocabulary":
        config = json.loads((odd / "config.json").read_text())
        (odd / "config.json").write_text(json.dumps({**config, "vocab_size": 999}))
    else:
        (odd / "model.safetensors").unlink()
    said = {"tokenizer": "its tokenizer differs from that of", "vocabulary": "has a vocabulary of 999"}
    with pytest.raises(ExpertError, match=said.get(change, "holds no weights")) as refused:
        read_experts(run)
    assert "stories" in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "[]", "config.json: is no JSON object, but '\\[\\]'"),
        ("config.json", {"max_position_embeddings": 0}, "needs vocab_size and one of .*, as integers above 0"),
        ("config.json", {"hidden_act": "zzz"}, "its model cannot be loaded: KeyError"),
        (
            "config.json",
            {"num_hidden_layers": 9},
            r"its weights lack \d+ tensors that its config.json asks for, such as",
        ),
        ("tokenizer.json", "[]", "its tokenizer cannot be loaded: "),
        ("model.safetensors", "", "its model cannot be loaded: "),
    ],
    ids=["list", "no context", "no such activation", "too few layers", "no tokenizer", "torn weights"],
)
def test_a_damaged_folder_is_named(
    expert_run: Path, tmp_path: Path, file: str, content: str | dict[str, object], said: str
) -> None:
    """Never a traceback, nor a model that is in part random."""
    path = shutil.copytree(expert_run / "experts" / "stories", tmp_path / "stories") / file
    changed = content if isinstance(content, str) else json.dumps({**json.loads(path.read_text()), **content})
    path.write_text(changed)
    with pytest.raises(ExpertError, match=f"stories.*{said}"):
        ExpertSet.open(path.parent, device="cpu").route(["Ann"], Routing(router="likelihood"))


def test_a_list_of_folders_has_no_seed_and_goes_to_all_alike(expert_run: Path) -> None:
    experts = read_experts(*(expert_run / "experts" / name for name in ("stories", "programs")))
    expert_set = ExpertSet(experts, device="cpu")
    assert expert_set.route([""], Routing(router="likelihood", top=None))[0].weights == {
        "stories": 0.5,
        "programs": 0.5,
    }
    with pytest.raises(ExpertError, match="has no clusterer, which the router centre needs"):
        expert_set.route(["Ann"], Routing(router="centre"))


@pytest.mark.parametrize("name", ["cuda:9", "cuda:-1", "mps", "gpu"])
def test_a_device_that_is_not_there_is_named_with_those_there_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(ExpertError, match=f"unknown device '{name}'.* Known: auto, cpu, cuda, cuda:0, cuda:1$"):
        device_of(name)
    assert device_of("cuda:1") == torch.device("cuda:1")


def test_a_gpu_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    with pytest.raises(ExpertError, match="device 'cuda:9': torch sees no GPU here; give cpu"):
        device_of("cuda:9")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"router": "nearest"}, "unknown router 'nearest'"),
        ({"top": 0}, "top = 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": np.inf}, "temperature = inf: must be above 0 and finite"),
    ],
)
def test_a_routing_is_checked_when_made(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ExpertError, match=said):
        Routing(**{"router": "centre", **fields})  # type: ignore[arg-type]


def test_models_are_loaded_when_asked_for_and_the_oldest_goes(expert_run: Path) -> None:
    expert_set = ExpertSet(read_experts(expert_run), device="cpu", n_kept=2)
    assert not expert_set.models.held
    for name in ("stories", "seed", "stories", "programs"):
        expert_set.models.take(name)
    assert expert_set.models.held == ("stories", "programs")
