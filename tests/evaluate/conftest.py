"""A folder of public benchmarks of a few made-up rows each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

ROWS: dict[str, list[dict[str, object]]] = {
    "arc_easy": [
        {
            "id": f"q{n}",
            "question": f"What has Ann seen, {n}?",
            "choices": {"text": ["a cat", "an owl", "the elk"], "label": ["A", "B", "C"]},
            "answerKey": "ABC"[n % 3],
        }
        for n in range(6)
    ],
    "hellaswag": [
        {
            "ind": n,
            "activity_label": "Zoo",
            "ctx_a": "Ann saw a cat. [header] Then",
            "ctx_b": "bo met",
            "endings": ["an owl. [title] It went.", "the ox.", "a hen.", "no ant."],
            "label": str(n % 4),
        }
        for n in range(5)
    ],
    "piqa": [
        {"goal": "Feed a cat", "sol1": "Bo fed a cat.", "sol2": "Bo met a cat.", "label": n % 2} for n in range(4)
    ],
    "sciq": [
        {
            "support": " Ann saw a cat.",
            "question": "What did Ann see?",
            "distractor1": "a dog",
            "distractor2": "an owl",
            "distractor3": "a hen",
            "correct_answer": "a cat",
        }
    ]
    * 3,
    "winogrande": [
        {"sentence": "Ann met Bo, and _ fed the elk.", "option1": "Ann", "option2": "Bo", "answer": str(1 + n % 2)}
        for n in range(4)
    ],
    "lambada": [{"text": f"Ann saw a cat. Bo has {beast}"} for beast in ("a hen.", "an owl.", "the ox.")],
    "gsm8k": [{"question": "1 + 1?", "answer": "It is 2."}] * 2,
}


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One ``TASK.jsonl`` for each of `ROWS`, in the columns of the hub."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[str, list[dict[str, object]]], str]:
    """Write a task's file of one's own; gives its folder as `--data` takes it."""

    def write(name: str, rows: list[dict[str, object]]) -> str:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path)

    return write
