"""An evaluation from run folder to results: what it says, that it goes on, what it refuses before it reads a model."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from raysplit.corpus import Corpus
from raysplit.errors import CorpusError, ExpertError, RunError, TaskError
from raysplit.evaluate.items import EvaluationTask, choice_item, text_item
from raysplit.evaluate.overlap import overlapping
from raysplit.evaluate.plan import TASKS as KNOWN_TASKS
from raysplit.evaluate.plan import Wanted
from raysplit.evaluate.results import Evaluation, read_evaluation, tables_of
from raysplit.evaluate.run import evaluate
from raysplit.experts.loaded import ModelCache
from raysplit.experts.tokens import TextTokens
from tests.evaluate.conftest import ROWS
from tests.experts.tiny_runs import NearestWords, programs

TASKS = ("held-out", "cloze", "arc_easy", "lambada")


@pytest.fixture(scope="module")
def wanted(expert_run: Path, data_folder: Path) -> Wanted:
    return Wanted(sources=[expert_run], tasks=TASKS, limit=8, data=str(data_folder), device="cpu")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def found(wanted: Wanted, out: Path) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raysplit.experts.routing.clusterer_of", lambda run_folder: NearestWords())
        return evaluate(wanted, out)


def value(found: Evaluation, task: str, subject: str, metric: str) -> float:
    [mean] = [f.value.mean for f in found.findings if (f.task, f.subject, f.metric) == (task, subject, metric)]
    return mean


def test_experts_are_better_than_the_seed_where_they_were_trained_and_routers_find_them(found: Evaluation) -> None:
    for domain, other in (("stories", "programs"), ("programs", "stories")):
        task = f"held-out/{domain}"
        bits = {s.name: value(found, task, s.name, "bits_per_byte") for s in found.subjects}
        assert bits[domain] < bits["seed"] < bits[other]
        for name in ("label top 1", "centre top 1", "likelihood top 1"):
            assert bits[name] == pytest.approx(bits[domain])
        for name in ("centre all", "likelihood all", "uniform all updated"):
            assert bits[name] < bits[domain] * 1.02
        [difference] = [
            f.difference
            for f in found.findings
            if (f.task, f.subject, f.metric) == (task, "label top 1", "bits_per_byte")
        ]
        assert difference is not None
        assert difference.low < difference.mean < difference.high < 0


def test_each_figure_has_its_interval_and_each_but_the_seeds_its_difference(found: Evaluation) -> None:
    assert found.against == "seed"
    for finding in found.findings:
        assert finding.value.low <= finding.value.mean <= finding.value.high
        has_against = any(
            (f.task, f.metric, f.subject) == (finding.task, finding.metric, "seed") for f in found.findings
        )
        assert (finding.difference is not None) == (finding.subject != "seed" and has_against)


def test_domains_are_told_together_as_well(found: Evaluation) -> None:
    parts = [value(found, f"held-out/{domain}", "seed", "bits_per_byte") for domain in ("stories", "programs")]
    assert min(parts) < value(found, "held-out", "seed", "bits_per_byte") < max(parts)
    sizes = {task.name: task.n_items for task in found.tasks}
    assert sizes["held-out"] == sizes["held-out/stories"] + sizes["held-out/programs"]
    chosen = [value(found, f"cloze/{domain}", "seed", "accuracy") for domain in ("stories", "programs")]
    weights = [sizes["cloze/stories"], sizes["cloze/programs"]]
    expected = sum(a * n for a, n in zip(chosen, weights, strict=True)) / sum(weights)
    assert value(found, "cloze", "seed", "accuracy") == pytest.approx(expected)


def test_greedy_accuracy_is_told_of_single_models_alone(found: Evaluation) -> None:
    told = {f.subject for f in found.findings if (f.task, f.metric) == ("lambada", "accuracy")}
    assert told == {"seed", "stories", "programs"}
    assert {f.subject for f in found.findings if (f.task, f.metric) == ("lambada", "bits_per_byte")} > told


def test_what_it_costs_counts_the_router(found: Evaluation) -> None:
    flops = {f.subject: f.flops_per_token for f in found.findings if f.task == "held-out/stories"}
    one = flops["seed"]
    assert flops["label top 1"] == one
    assert one < flops["centre top 1"] < 1.1 * one
    assert one < flops["likelihood top 1"] < 2 * one
    assert flops["uniform all updated"] == 2 * one


def test_results_are_written_and_read_back(found: Evaluation, out: Path) -> None:
    assert read_evaluation(out / "evaluation.json") == found
    assert read_evaluation(out / "elsewhere.json") is None
    items = pd.read_parquet(out / "items.parquet")
    assert set(items["subject"]) == {subject.name for subject in found.subjects}
    sizes = {task.name: task.n_items for task in found.tasks}
    assert sizes["arc_easy"] == 6
    assert items.groupby(["task", "subject"]).size().loc[("arc_easy", "seed")] == 6
    mean = items.query("task == 'arc_easy' and subject == 'seed'")["accuracy"].mean()
    assert value(found, "arc_easy", "seed", "accuracy") == pytest.approx(mean)
    (out / "damaged.json").write_text("{}")
    with pytest.raises(RunError, match=r"damaged.json: cannot be read"):
        read_evaluation(out / "damaged.json")


def test_tables_say_chance_and_what_is_better(found: Evaluation) -> None:
    tables = {table.title: table for table in tables_of(found)}
    accuracy = tables["Accuracy"]
    assert accuracy.head[:3] == ["task", "items", "chance"]
    [row] = [row for row in accuracy.rows if row[0] == "arc_easy"]
    assert row[2] == "0.333"
    bits = tables["Bits per byte of the right answer"]
    column = list(bits.head).index("label top 1")
    assert next(row for row in bits.rows if row[0] == "held-out/stories")[column].endswith(" +")
    assert all(len(row) == len(table.head) for table in tables.values() for row in table.rows)


def test_run_again_it_reads_no_model_and_says_the_same(
    found: Evaluation, wanted: Wanted, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysplit.experts.routing.clusterer_of", lambda run_folder: NearestWords())
    monkeypatch.setattr(ModelCache, "take", lambda self, name: pytest.fail("a model was loaded"))
    seen: dict[str, tuple[int, int]] = {}
    again = evaluate(wanted, out, progress=lambda what, done, total: seen.update({what: (done, total)}))
    assert again == found
    assert set(seen) == {"run: programs", "run: seed", "run: stories"}
    assert all(done == total for done, total in seen.values())


def test_a_folder_beside_a_run_and_one_alone(expert_run: Path, data_folder: Path, tmp_path: Path) -> None:
    alone = expert_run / "experts" / "stories"
    wanted = Wanted(sources=[alone], tasks=["piqa", "winogrande"], data=str(data_folder), device="cpu")
    found = evaluate(wanted, tmp_path)
    assert [subject.name for subject in found.subjects] == ["stories"]
    assert all(finding.difference is None for finding in found.findings)


@pytest.fixture
def run_with_variants(expert_run: Path, tmp_path: Path) -> Path:
    """The run of experts as one that has kept a baseline, whose model is the seed."""
    run = tmp_path / "kept"
    run.mkdir()
    for name in ("experts", "corpus"):
        (run / name).symlink_to(expert_run / name)
    tokens = {"stories": 10_000, "programs": 10_000}
    variants = {
        "recommended": {"specialize_tokens": tokens, "flops": 3e9},
        "pretraining only": {
            "specialize_tokens": dict.fromkeys(tokens, 0), "flops": 3e9, "models": {"seed": "experts/seed"},
        },
        "80/20": {"specialize_tokens": tokens, "flops": 3e9},
    }  # fmt: skip
    (run / "final.json").write_text(json.dumps({"variants": variants}))
    return run


def test_variants_stand_in_one_table_against_pretraining_only(run_with_variants: Path, tmp_path: Path) -> None:
    wanted = Wanted(
        sources=[run_with_variants], tasks=["held-out", "cloze"], limit=4, device="cpu", variants=True, tops=(1,)
    )
    found = evaluate(wanted, tmp_path / "out")
    assert found.against == "pretraining only:seed"
    names = [subject.name for subject in found.subjects]
    assert names == ["label top 1", "likelihood top 1", "uniform all updated", "pretraining only:seed"]
    table = tables_of(found)[0]
    assert table.title == "Every variant at its training budget"
    assert table.head == ["variant", "held-out bpb", "cloze acc", "training FLOPs", "FLOPs a token"]
    assert [row[0] for row in table.rows] == names
    assert {row[3] for row in table.rows} == {"3.00e9"}
    assert table.rows[0][1].endswith(" +")


def test_runs_that_divide_the_text_otherwise_are_routed_by_labels_of_their_own(
    expert_run: Path, tmp_path: Path
) -> None:
    """In the second run each kind of text has the other's name, and so the other's expert."""
    other = tmp_path / "other"
    (other / "experts").mkdir(parents=True)
    for name, of in (("seed", "seed"), ("stories", "programs"), ("programs", "stories")):
        (other / "experts" / name).symlink_to(expert_run / "experts" / of)
    (other / "corpus").mkdir()
    for path in (expert_run / "corpus").iterdir():
        if path.name != "manifest.json":
            (other / "corpus" / path.name).symlink_to(path)
    text = (expert_run / "corpus" / "manifest.json").read_text()
    manifest = json.loads(text)
    domains = manifest["domains"]
    manifest["domains"] = {"stories": domains["programs"], "programs": domains["stories"]}
    (other / "corpus" / "manifest.json").write_text(json.dumps(manifest))
    wanted = Wanted(sources=[expert_run, other], tasks=["held-out"], limit=4, device="cpu", tops=(1,))
    found = evaluate(wanted, tmp_path / "out")
    for task in ("held-out/stories", "held-out/programs"):
        mine = value(found, task, f"{expert_run.name}:label top 1", "bits_per_byte")
        assert value(found, task, "other:label top 1", "bits_per_byte") == pytest.approx(mine)


@pytest.mark.parametrize("said", [{"variants": {"recommended": {"specialize_tokens": 3}}}, [], {}])
def test_a_damaged_final_run_is_named(expert_run: Path, tmp_path: Path, said: object) -> None:
    run = tmp_path / "damaged"
    run.mkdir()
    (run / "experts").symlink_to(expert_run / "experts")
    (run / "final.json").write_text(json.dumps(said))
    wanted = Wanted(sources=[run], tasks=["piqa"], device="cpu")
    with pytest.raises(RunError, match=r"final.json: cannot be read"):
        evaluate(wanted, tmp_path / "out")


def test_public_tasks_need_no_corpus_of_the_run(expert_run: Path, data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experts").symlink_to(expert_run / "experts")
    wanted = Wanted(sources=[tmp_path / "run"], tasks=["piqa"], data=str(data_folder), device="cpu", tops=(1,))
    found = evaluate(wanted, tmp_path / "out")
    assert [task.name for task in found.tasks] == ["piqa"]
    assert {subject.temperature for subject in found.subjects} == {None, 1.0}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tasks": ["arc_eazy"]}, "unknown task 'arc_eazy' \\(did you mean 'arc_easy'\\?\\). Known: held-out, cloze"),
        ({"limit": 0}, "limit = 0: at least one item"),
        ({"limit": -3}, "limit = -3: at least one item"),
        ({"data": "nowhere"}, "--data nowhere: there is no such folder"),
        ({"against": "sed"}, "--against: unknown subject 'sed' \\(did you mean 'seed'\\?\\)"),
        ({"routers": ["centre"]}, "has no clusterer, which the router centre needs"),
        ({"device": "tpu0"}, "unknown device 'tpu0'"),
        ({"sources": [Path("nowhere")]}, "nowhere: there is no such folder"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_ends_it_before_a_model_is_read(
    wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], said: str
) -> None:
    monkeypatch.setattr(ModelCache, "take", lambda self, name: pytest.fail("a model was loaded"))
    with pytest.raises((TaskError, ExpertError), match=said):
        evaluate(replace(wanted, **fields), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_corpus_to_look_for_overlap_in_is_missed_before_a_model_is_read(
    expert_run: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelCache, "take", lambda self, name: pytest.fail("a model was loaded"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experts").symlink_to(expert_run / "experts")
    wanted = Wanted(
        sources=[tmp_path / "run"], tasks=["piqa"], data=str(data_folder), device="cpu", look_for_overlap=True
    )
    with pytest.raises(CorpusError, match="run/corpus"):
        evaluate(wanted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_made_tasks_need_a_run(expert_run: Path, tmp_path: Path) -> None:
    wanted = Wanted(sources=[expert_run / "experts" / "seed"], tasks=["made"], device="cpu")
    with pytest.raises(TaskError, match="tasks cloze, continuation, pairs are made from a run's held-out documents"):
        evaluate(wanted, tmp_path / "out")


def test_a_task_that_does_not_fit_is_refused_before_a_model_is_read(
    wanted: Wanted,
    tmp_path: Path,
    write_rows: Callable[[str, list[dict[str, object]]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ModelCache, "take", lambda self, name: pytest.fail("a model was loaded"))
    data = write_rows("lambada", [{"text": "Ann saw a cat. " * 60 + "Bo"}])
    with pytest.raises(TaskError, match=r"task lambada: 1 of 1 items \(100%\) are longer than the context of"):
        evaluate(replace(wanted, tasks=["lambada"], data=data), tmp_path / "out")


def test_a_task_of_a_group_that_does_not_fit_is_left_out_with_a_word(
    wanted: Wanted,
    tmp_path: Path,
    write_rows: Callable[[str, list[dict[str, object]]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raysplit.evaluate.plan.GROUPS", {"public": ("lambada", "piqa")})
    write_rows("lambada", [{"text": "Ann saw a cat. " * 60 + "Bo"}])
    data = write_rows("piqa", ROWS["piqa"])
    found = evaluate(replace(wanted, tasks=["public"], data=data), tmp_path / "out")
    assert [task.name for task in found.tasks] == ["piqa"]
    assert list(found.left_out) == ["lambada"]
    assert "longer than the context" in found.left_out["lambada"]


def test_overlap_counts_items_that_stand_in_training_text(expert_run: Path) -> None:
    corpus = Corpus.open(expert_run / "corpus")
    training = next(corpus.token_pieces("programs", side="train", piece_tokens=200))
    text = TextTokens.of(corpus.tokenizer_path).decode(training)
    unseen = programs(1, seed=77)[0]
    items = (text_item(0, "Read:", " " + text), text_item(1, "Write:", " " + unseen), text_item(2, "a", " b"))
    [found] = overlapping([EvaluationTask(name="some", items=items, source="")], corpus).values()
    assert found == {"stories": 0, "programs": 1}


def test_overlap_is_found_across_a_context_and_any_of_its_choices(expert_run: Path) -> None:
    corpus = Corpus.open(expert_run / "corpus")
    training = next(corpus.token_pieces("programs", side="train", piece_tokens=200))
    words = re.findall(r"\w+", TextTokens.of(corpus.tokenizer_path).decode(training))[:13]
    context, right = " ".join(words[:12]), words[12]
    for gold, choices in enumerate([(right, "none", "never"), ("none", right, "never"), ("none", "never", right)]):
        items = (choice_item(0, context, choices, gold),)
        [found] = overlapping([EvaluationTask(name="some", items=items, source="")], corpus).values()
        assert found == {"stories": 0, "programs": 1}


def test_every_name_of_a_task_is_documented(repository: Path) -> None:
    page = (repository / "docs" / "evaluate.md").read_text()
    for name in KNOWN_TASKS:
        assert f"`{name}`" in page, name


def test_the_json_is_plain(out: Path, found: Evaluation) -> None:
    raw = json.loads((out / "evaluation.json").read_text())
    assert raw["schema_version"] == 1
    assert {"task", "subject", "metric", "value", "difference", "flops_per_token"} == set(raw["findings"][0])
