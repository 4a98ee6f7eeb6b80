"""Writing on: as transformers does it with one expert, exactly the mixture with several, and no further than asked."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

from raysplit.errors import ExpertError
from raysplit.experts import ExpertSet, Routing, Sampling, read_experts
from tests.experts.tiny_runs import CONTEXT

MIXTURE = Routing(router="uniform", top=None, updated=True)


@pytest.fixture(scope="module")
def expert_set(expert_run: Path) -> ExpertSet:
    return ExpertSet(read_experts(expert_run), device="cpu")


def written(expert_set: ExpertSet, prompt: str, how: Routing | str, **sampling: object) -> str:
    _, pieces = expert_set.generate(prompt, how, Sampling(**sampling))  # type: ignore[arg-type]
    return "".join(piece.text for piece in pieces)


def test_one_expert_writes_what_transformers_writes(expert_set: ExpertSet, expert_run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = expert_run / "experts" / "stories"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("Ann saw", return_tensors="pt")
    expected = model.generate(**prompt, max_length=30)[0, prompt.input_ids.shape[1] :]
    n_tokens = len(expected)
    found = written(expert_set, "Ann saw", "stories", max_tokens=n_tokens, temperature=0)
    assert found == tokenizer.decode(expected, skip_special_tokens=True)


def test_a_mixture_takes_the_likeliest_token_of_the_mixed_probabilities(expert_set: ExpertSet) -> None:
    """Against the definition: prior and likelihood of all that was read, for each next token, from scratch."""
    prompt = "Ann saw a"
    tokens = list(expert_set.prompt_tokens(prompt))
    models = [expert_set.models.take(name) for name in ("programs", "stories")]
    for _ in range(6):
        joint = []
        for model in models:
            [scores] = model.score([np.array(tokens)])
            joint.append(scores.log_probs.sum(dtype=np.float64) + model.reader().read(tokens))
        tokens.append(int(np.argmax(logsumexp(joint, axis=0))))
    expected = expert_set.tokens.decode(tokens)
    assert prompt + written(expert_set, prompt, MIXTURE, max_tokens=6, temperature=0) == expected


def test_the_same_seed_writes_the_same_and_another_another(expert_set: ExpertSet) -> None:
    texts = [written(expert_set, "Bo", "stories", max_tokens=40, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_any_integer_is_a_seed(expert_set: ExpertSet) -> None:
    texts = [written(expert_set, "Bo", "stories", max_tokens=40, seed=seed) for seed in (-1, -1, 2**70)]
    assert texts[0] == texts[1] != texts[2]


def test_near_temperature_zero_the_likeliest_token_is_left(expert_set: ExpertSet) -> None:
    texts = [written(expert_set, "Bo", "stories", max_tokens=9, temperature=each, seed=0) for each in (0, 1e-320)]
    assert texts[0] == texts[1]


def test_pieces_make_the_text_and_end_before_a_stop(expert_set: ExpertSet) -> None:
    whole = written(expert_set, "Ann", "stories", max_tokens=60, temperature=0)
    stop = whole[10:14]
    _, pieces = expert_set.generate("Ann", "stories", Sampling(max_tokens=60, temperature=0, stop=(stop,)))
    found = list(pieces)
    assert "".join(piece.text for piece in found) == whole[: whole.index(stop)]
    assert [piece.ended for piece in found[:-1]] == [None] * (len(found) - 1)
    assert found[-1].ended == "stop"


def test_it_stops_at_the_context(expert_set: ExpertSet) -> None:
    prompt = "Ann saw a cat. " * 9
    n_prompt = len(expert_set.prompt_tokens(prompt))
    _, pieces = expert_set.generate(prompt, "stories", Sampling(max_tokens=10_000, temperature=0))
    last = list(pieces)[-1]
    assert last.ended == "length"
    assert n_prompt + last.n_tokens == CONTEXT


def test_what_cannot_be_is_refused_before_anything_is_loaded(expert_set: ExpertSet, expert_run: Path) -> None:
    fresh = ExpertSet(read_experts(expert_run), device="cpu")
    with pytest.raises(ExpertError, match=f"the prompt has [0-9,]+ tokens, and these experts read {CONTEXT} with"):
        fresh.generate("Ann saw a cat. " * 100, MIXTURE, Sampling())
    with pytest.raises(ExpertError, match="unknown expert 'story' \\(did you mean 'stories'\\?\\)"):
        fresh.generate("Ann", "story", Sampling())
    assert fresh.models.held == ()
    for wrong in ({"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"stop": ("",)}):
        with pytest.raises(ExpertError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_characters_of_several_tokens_are_not_cut(expert_set: ExpertSet) -> None:
    from raysplit.experts.generation import _ready

    half = expert_set.tokens.decode(expert_set.tokens.encode(["é"])[0][:1])
    assert _ready("a" + half, ()) == 1
    assert _ready("an elk", ("elks",)) == 3
