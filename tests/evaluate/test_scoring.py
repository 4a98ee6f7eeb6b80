"""Requests cut and scored as lm-eval does it, a table that is computed once, and figures that are what they say."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raysplit.errors import TaskError
from raysplit.evaluate.items import EvaluationTask, choice_item, text_item
from raysplit.evaluate.metrics import figures_of, interval, paired, resampled_means
from raysplit.evaluate.requests import check_truncation, encode
from raysplit.evaluate.rows import public_task
from raysplit.evaluate.scores import kept_scores
from raysplit.evaluate.subjects import Scores, Subject, item_weights, outcome, subjects_of
from raysplit.experts import Routing, read_experts
from raysplit.experts.loaded import LoadedExpert
from raysplit.experts.tokens import TextTokens
from tests.experts.tiny_runs import CONTEXT, NearestWords, programs, stories

PAIRS = [
    ("Ann saw a", " cat."),
    ("Ann saw a ", "cat."),  # a blank at the end, which moves
    ("total = count\n", "width = 3"),  # which could merge with what follows
    ("Ann saw a", "n owl."),  # the joint encoding has other tokens than the context alone
    ("Bo met no bee. " * 12, "Ann fed my cow."),
    ("Bo met no bee. " * 60, "Ann fed my cow."),  # loses its beginning
]


@pytest.fixture(scope="module")
def folder(expert_run: Path) -> Path:
    return expert_run / "experts" / "stories"


def take_of(folder: Path) -> Callable[[], LoadedExpert]:
    [expert] = read_experts(folder).folders.values()
    return lambda: LoadedExpert(expert, device=torch.device("cpu"), precision="fp32")


def scored(
    folder: Path, task: EvaluationTask, keep_in: Path, *, take: Callable[[], LoadedExpert] | None = None
) -> Scores:
    [expert] = read_experts(folder).folders.values()
    requests = encode(task, TextTokens.of(folder), context_length=expert.context_length)
    found = kept_scores(
        expert,
        task.name,
        requests.sequences,
        take=take or take_of(folder),
        keep_in=keep_in,
        precision="fp32",
        batch_tokens=600,
        done=lambda n: None,
    )
    return Scores.of(found, requests)


def likelihoods(folder: Path, task: EvaluationTask, keep_in: Path) -> tuple[np.ndarray, np.ndarray]:
    experts = read_experts(folder)
    requests = encode(task, TextTokens.of(folder), context_length=CONTEXT)
    subject = Subject(name="stories", experts=experts, how="stories")
    found = outcome(
        subject,
        task,
        requests,
        {"stories": scored(folder, task, keep_in)},
        clusterer=None,
        labels={},
        flops={"stories": 1.0},
    )
    assert found.is_greedy is not None
    return found.log_likelihoods, found.is_greedy


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of lm-eval's imports
def test_likelihoods_and_greedy_answers_are_lm_evals_own(folder: Path, data_folder: Path, tmp_path: Path) -> None:
    from lm_eval.api import instance
    from lm_eval.models.huggingface import HFLM

    items = [text_item(n, *pair) for n, pair in enumerate(PAIRS)]
    for name in ("arc_easy", "hellaswag", "winogrande", "lambada"):
        items += public_task(name, data=str(data_folder), limit=None).items
    task = EvaluationTask(name="parity", items=tuple(items), source="")
    pairs = [request for item in items for request in item.requests]
    model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4)
    asked = [instance.Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    theirs = model.loglikelihood(asked, disable_tqdm=True)
    ours, is_greedy = likelihoods(folder, task, tmp_path)
    np.testing.assert_allclose(ours, [value for value, _ in theirs], atol=1e-4)
    assert is_greedy.tolist() == [greedy for _, greedy in theirs]


def test_against_the_definition_one_request_at_a_time(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    expected = []
    for context, continuation in PAIRS:
        bare = context.rstrip()
        alone = tokenizer(bare).input_ids
        scored_tokens = tokenizer(context + continuation).input_ids[len(alone) :]
        kept = (alone + scored_tokens)[-(CONTEXT + 1) :]
        n_scored = len(scored_tokens)
        log_probs = torch.log_softmax(model(input_ids=torch.tensor([kept[:-1]])).logits[0].double(), dim=-1)
        expected.append(sum(log_probs[at - 1, kept[at]].item() for at in range(len(kept) - n_scored, len(kept))))
    task = EvaluationTask(name="pairs", items=tuple(text_item(n, *pair) for n, pair in enumerate(PAIRS)), source="")
    np.testing.assert_allclose(likelihoods(folder, task, tmp_path)[0], expected, atol=1e-4)


def test_a_document_longer_than_the_context_is_read_whole_in_windows(folder: Path, tmp_path: Path) -> None:
    text = " ".join(stories(3, seed=5))
    task = EvaluationTask(name="long", items=(text_item(0, "Ann", text),), source="", is_document=True)
    requests = encode(task, TextTokens.of(folder), context_length=CONTEXT)
    [tokens] = requests.tokens
    assert tokens[0] == TextTokens.of(folder).end_of_text
    assert requests.n_truncated == 0
    assert len(tokens) > 3 * CONTEXT
    found = scored(folder, task, tmp_path).log_probs
    model = take_of(folder)()
    for start in range(0, len(tokens) - 1, CONTEXT):
        [alone] = model.score([tokens[start : start + CONTEXT + 1]])
        np.testing.assert_allclose(found[start : start + CONTEXT], alone.log_probs, atol=1e-4)


def test_what_is_cut_is_counted_and_too_much_of_it_refused(folder: Path) -> None:
    long, short = ("Bo met no bee. " * 60, "Ann."), ("Bo", " met")
    tokens = TextTokens.of(folder)
    for n_long, is_refused in ((1, False), (2, True)):
        pairs = [long] * n_long + [short] * (20 - n_long)
        task = EvaluationTask(name="some", items=tuple(text_item(n, *pair) for n, pair in enumerate(pairs)), source="")
        requests = encode(task, tokens, context_length=CONTEXT)
        assert requests.n_truncated == n_long
        if is_refused:
            with pytest.raises(TaskError, match=r"task some: 2 of 20 items \(10%\) are longer than the context of it"):
                check_truncation(task, requests, context_length=CONTEXT, model="it")
        else:
            check_truncation(task, requests, context_length=CONTEXT, model="it")


def test_what_was_scored_is_read_again_and_damage_is_mended(folder: Path, tmp_path: Path) -> None:
    task = EvaluationTask(name="kept", items=tuple(text_item(n, *pair) for n, pair in enumerate(PAIRS)), source="")
    first = scored(folder, task, tmp_path)

    def never() -> LoadedExpert:
        raise AssertionError("the model was loaded again")

    np.testing.assert_array_equal(scored(folder, task, tmp_path, take=never).log_probs, first.log_probs)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_allclose(scored(folder, task, tmp_path).log_probs, first.log_probs, atol=1e-6)
    other = EvaluationTask(name="kept", items=task.items[:2], source="")
    assert len(scored(folder, other, tmp_path).log_probs) < len(first.log_probs)


def test_routing_looks_at_no_answer(expert_run: Path, tmp_path: Path) -> None:
    """The same questions with other answers, also such as merge with the question's last token: equal weights."""
    experts, tokens = read_experts(expert_run), TextTokens.of(expert_run / "experts" / "seed")
    contexts = [stories(1, seed=3)[0][:80], programs(1, seed=3)[0][:80] + "\n", "total ", ""]
    weights = []
    for number, answers in enumerate([("ab", " c"), ("\n\n x", "== 1 (2) *"), ("n owl", "é")]):
        items = tuple(
            choice_item(n, context, answers, n % 2) if n < 2 else text_item(n, context, answers[0])
            for n, context in enumerate(contexts)
        )
        task = EvaluationTask(name=f"answers {number}", items=items, source="")
        requests = encode(task, tokens, context_length=CONTEXT)
        scores = {name: scored(expert.path, task, tmp_path) for name, expert in experts.folders.items()}
        ways = [Routing(router=router, top=None) for router in ("centre", "likelihood", "uniform")]
        weights.append(
            [item_weights(experts, task, requests, scores, how, clusterer=NearestWords(), labels={}) for how in ways]
        )
    for others in weights[1:]:
        for found, expected in zip(others, weights[0], strict=True):
            np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-6)


def test_figures_are_what_they_say(folder: Path, tmp_path: Path) -> None:
    items = (choice_item("a", "Ann saw a", ["cat.", "dog and an owl."], 1), choice_item("b", "Bo", ["met", "has"], 0))
    task = EvaluationTask(name="two", items=items, source="")
    requests = encode(task, TextTokens.of(folder), context_length=CONTEXT)
    subject = Subject(name="stories", experts=read_experts(folder), how="stories")
    scores = {"stories": scored(folder, task, tmp_path)}
    found = outcome(subject, task, requests, scores, clusterer=None, labels={}, flops={"stories": 7.0})
    figures = figures_of(task, requests, found.log_likelihoods, found.is_greedy)
    nats = found.log_likelihoods
    np.testing.assert_allclose(
        figures["bits_per_byte"].values,
        [-nats[1] / math.log(2) / len(" dog and an owl."), -nats[2] / math.log(2) / len(" met")],
    )
    np.testing.assert_allclose(
        figures["prob_per_char"].values, [math.exp(nats[1] / len("dog and an owl.")), math.exp(nats[2] / 3)]
    )
    assert figures["accuracy"].values.tolist() == [nats[1] > nats[0], nats[2] >= nats[3]]
    by_length = nats / np.array([4, 15, 3, 3])
    assert figures["accuracy_per_char"].values.tolist() == [by_length[1] > by_length[0], by_length[2] >= by_length[3]]
    assert task.chance == 0.5
    assert found.flops_per_token == 7.0
    assert requests.n_tokens_to_score == sum(len(t) - 1 for t in [*requests.tokens, *requests.contexts])


def test_an_interval_covers_and_a_paired_one_is_narrower(rng: np.random.Generator) -> None:
    """Of 300 items that are hard for both models alike, one is better by 0.1."""
    from raysplit.evaluate.metrics import Figures

    hardness, ones = rng.normal(2.0, 1.0, size=300), np.ones(300)
    one = Figures(values=hardness, weights=ones)
    other = Figures(values=hardness - 0.1 + rng.normal(0, 0.05, size=300), weights=ones)
    drawn = resampled_means({"one": one, "other": other})
    alone = interval(one, drawn["one"])
    assert alone.low < 2.0 < alone.high
    assert alone.high - alone.low == pytest.approx(2 * 1.96 / math.sqrt(300), rel=0.2)
    difference = paired(other, drawn["other"], one, drawn["one"])
    assert difference.low < -0.1 < difference.high < 0
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)


def test_a_run_is_its_models_and_each_router_at_each_top(expert_run: Path) -> None:
    names = [
        subject.name
        for subject in subjects_of(
            read_experts(expert_run),
            label="",
            routers_wanted=["label", "centre", "likelihood", "uniform"],
            tops=(1, None),
        )
    ]
    assert names == [
        "programs", "seed", "stories", "label top 1", "centre top 1", "centre all", "centre all updated",
        "likelihood top 1", "likelihood all", "uniform all updated",
    ]  # fmt: skip
