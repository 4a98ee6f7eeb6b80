"""The endpoint as OpenAI's own client finds it: completion, streaming, an unknown model, a wrong token."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from raysplit.errors import ExpertError, RunError
from raysplit.experts import ExpertSet, Sampling, read_experts
from raysplit.experts.app import make_app, serve_experts
from raysplit.http.serving import Server
from tests.experts.tiny_runs import NearestWords

TOKEN = "a token of the tests"


@pytest.fixture(scope="module")
def expert_set(expert_run: Path) -> ExpertSet:
    return ExpertSet(read_experts(expert_run), clusterer=NearestWords(), device="cpu", n_kept=2)


@pytest.fixture(scope="module")
def server(expert_set: ExpertSet) -> Iterator[Server]:
    with serve_experts(expert_set, host="127.0.0.1", port=0, token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def test_the_models_are_the_experts_and_what_is_made_of_them(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["routed", "mixture", "programs", "seed", "stories"]
    assert client.models.retrieve("routed").owned_by == "raysplit"


@pytest.mark.parametrize("model", ["routed", "mixture", "stories"])
def test_a_completion_is_what_the_class_writes(client: openai.OpenAI, expert_set: ExpertSet, model: str) -> None:
    found = client.completions.create(model=model, prompt="Ann saw", max_tokens=20, temperature=0, seed=1)
    [choice] = found.choices
    if model != "mixture":
        _, pieces = expert_set.generate("Ann saw", "stories", Sampling(max_tokens=20, temperature=0))
        assert choice.text == "".join(piece.text for piece in pieces)
    assert choice.finish_reason in ("stop", "length")
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(expert_set.prompt_tokens("Ann saw"))
    assert 0 < found.usage.completion_tokens <= 20
    weights = choice.route["weights"]  # type: ignore[attr-defined]
    assert weights == {"mixture": {"programs": 0.5, "stories": 0.5}}.get(model, {"stories": 1.0})


def test_a_stream_is_the_same_text_in_pieces(client: openai.OpenAI) -> None:
    asked = {"model": "routed", "prompt": ["total = ", "Ann"], "max_tokens": 24, "seed": 3, "echo": True}
    whole = client.completions.create(**asked)  # type: ignore[call-overload]
    texts, ends = {0: "", 1: ""}, {}
    for event in client.completions.create(**asked, stream=True):  # type: ignore[call-overload]
        [choice] = event.choices
        texts[choice.index] += choice.text
        ends[choice.index] = choice.finish_reason
    assert [texts[0], texts[1]] == [choice.text for choice in whole.choices]
    assert [ends[0], ends[1]] == [choice.finish_reason for choice in whole.choices]
    assert texts[0].startswith("total = ")


def test_an_unknown_model_is_named_with_those_there_are(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.completions.create(model="storys", prompt="Ann"),
        lambda: client.models.retrieve("storys"),
    ):
        with pytest.raises(openai.NotFoundError, match="unknown model 'storys' \\(did you mean 'stories'\\?\\)"):
            ask()


@pytest.mark.parametrize("token", ["another token", "sha256:"])
def test_a_wrong_token_opens_nothing(server: Server, token: str) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0) as client:
        for ask in (
            client.models.list,
            lambda: client.completions.create(model="routed", prompt="Ann"),
            lambda: client.completions.create(model="routed", prompt="Ann", stream=True),
        ):
            with pytest.raises(openai.AuthenticationError, match="the token is missing or wrong"):
                ask()
    assert httpx.get(f"{server.url}/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "Ann saw a cat. " * 100}, "the prompt has [0-9,]+ tokens"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"prompt": []}, "prompt: is an empty list"),
        ({"best_of": 3}, "best_of: Extra inputs are not permitted"),
        ({"stop": [""]}, "stop = "),
    ],
    ids=["long", "none", "empty", "unknown field", "empty stop"],
)
def test_what_cannot_be_is_said_before_a_byte_of_text(
    client: openai.OpenAI, fields: dict[str, object], said: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=said):
            client.completions.create(**{"model": "routed", "prompt": "Ann", "stream": stream, **fields})  # type: ignore[call-overload]


def test_only_so_many_models_stay_in_memory(client: openai.OpenAI, expert_set: ExpertSet) -> None:
    for model in ("seed", "stories", "programs"):
        client.completions.create(model=model, prompt="Ann", max_tokens=1)
    assert expert_set.models.held == ("stories", "programs")


@pytest.mark.parametrize("name", ["routed", "mixture"])
def test_an_expert_with_the_name_of_a_model_made_of_all_is_refused(expert_run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(expert_run / "experts" / "stories", tmp_path / name)
    expert_set = ExpertSet.open(tmp_path / name, expert_run / "experts" / "programs", device="cpu")
    with pytest.raises(ExpertError, match=f"{name}: the expert '{name}' has the name of a model that the endpoint"):
        make_app(expert_set, token=None)


def test_without_a_token_only_this_hosts_own_names_are_answered(expert_set: ExpertSet) -> None:
    with serve_experts(expert_set, host="127.0.0.1", port=0, token=None, allowed_hosts=["experts.lan"]) as server:
        for host, status in {"localhost": 200, "experts.lan": 200, "elsewhere.example": 421}.items():
            assert httpx.get(f"{server.url}/v1/models", headers={"host": host}).status_code == status
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(RunError, match=f":{port}: cannot be bound"):
            serve_experts(expert_set, host="127.0.0.1", port=port, token=None)
