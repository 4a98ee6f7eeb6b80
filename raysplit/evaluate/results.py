"""Results of an evaluation: as JSON and Parquet files, and as tables of text for a terminal or a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from raysplit import strict_json
from raysplit.errors import RunError
from raysplit.evaluate.metrics import LOWER_IS_BETTER, Metric
from raysplit.quantities import format_flops
from raysplit.split import Interval
from raysplit.split.tables import AnswerTable

RESULTS, ITEMS = "evaluation.json", "items.parquet"
_BY_ACCURACY = ("cloze", "continuation", "pairs")
"""Kinds of task on which small models do better than chance; of others the summary shows bits per byte."""
_TITLES: dict[Metric, str] = {
    "bits_per_byte": "Bits per byte of the right answer",
    "loss": "Held-out loss, nats per token",
    "prob_per_char": "Probability of the right answer per character",
    "accuracy": "Accuracy",
    "accuracy_per_char": "Accuracy, likelihoods divided by characters",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """A task that was evaluated."""

    name: str
    source: str
    n_items: int
    n_choices: int
    chance: float | None
    """Accuracy of a guess; None where there is nothing to choose from."""
    n_truncated: Mapping[str, int]
    """Source -> number of items that lost their beginning."""
    n_overlapping: Mapping[str, int] | None
    """Domain -> number of items of which 13 words in a row stand in its training text; None where nobody looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubjectRecord:
    """A subject that was evaluated."""

    name: str
    origin: str
    temperature: float | None
    """T of a router, fitted on held-out text; 1 where there was no text to fit it on; None for a model alone."""
    training_flops: float | None = None
    """Training FLOPs of all models of a variant; None where nobody recorded them, and for a part of a variant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFigure:
    """One metric of one subject on one task."""

    task: str
    subject: str
    metric: Metric
    value: Interval
    difference: Interval | None
    """Difference from the subject that all are compared with, over the same items; None for that subject itself."""
    flops_per_token: float
    """Inference FLOPs per token, with the router's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that an evaluation found."""

    against: str
    level: float
    subjects: Sequence[SubjectRecord]
    tasks: Sequence[TaskRecord]
    findings: Sequence[TaskFigure]
    left_out: Mapping[str, str]
    """Task that does not fit a context, asked for by a group -> why."""
    schema_version: int = 1

    @property
    def metrics(self) -> list[Metric]:
        return list(dict.fromkeys(finding.metric for finding in self.findings))


def write_evaluation(evaluation: Evaluation, items: pd.DataFrame, folder: Path) -> None:
    """Write `RESULTS` and `ITEMS` into a folder, each whole or not at all."""
    for path, write in (
        (folder / RESULTS, lambda p: p.write_text(strict_json.dumps(asdict(evaluation), indent=1), encoding="utf-8")),
        (folder / ITEMS, lambda p: items.to_parquet(p, index=False)),
    ):
        partial = path.with_name(path.name + ".partial")
        write(partial)
        partial.replace(path)


def read_evaluation(path: Path) -> Evaluation | None:
    """What `write_evaluation` wrote; None where there is none.

    Raises:
        RunError: the file is damaged or of another version.
    """
    try:
        return TypeAdapter(Evaluation).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error


def tables_of(evaluation: Evaluation) -> list[AnswerTable]:
    """Tables: of whole variants; for each metric, with tasks down and subjects across; and of the cost of inference."""
    whole = summary(evaluation)
    return [
        *([whole] if whole else []),
        *(_metric_table(evaluation, metric) for metric in evaluation.metrics),
        _cost_table(evaluation),
    ]


def summary(evaluation: Evaluation) -> AnswerTable | None:
    """Table of whole variants by kind of task, with FLOPs of training and inference; None where no variant is whole."""
    subjects = [subject for subject in evaluation.subjects if subject.training_flops is not None]
    if not subjects:
        return None
    found = {(f.task, f.subject, f.metric): f for f in evaluation.findings}
    # Of a kind with a task for each domain, the pooled one alone.
    pooled = {task.name for task in evaluation.tasks if "/" not in task.name}
    tasks = [task for task in evaluation.tasks if task.name in pooled or task.name.partition("/")[0] not in pooled]
    columns: list[tuple[TaskRecord, Metric]] = [
        (task, "accuracy" if task.name.partition("/")[0] in _BY_ACCURACY else "bits_per_byte") for task in tasks
    ]
    rows = []
    for subject in subjects:
        cells = [
            _cell(found.get((task.name, subject.name, metric)), task, metric == "accuracy", n_digits=3)
            for task, metric in columns
        ]
        cost = _mean_cost(evaluation, subject.name, [task.name for task in tasks])
        flops = (format_flops(number).removesuffix(" FLOPs") for number in (subject.training_flops or 0.0, cost))
        rows.append([subject.name, *cells, *flops])
    units = {"accuracy": "acc", "bits_per_byte": "bpb"}
    return AnswerTable(
        title="Every variant at its training budget",
        head=[
            "variant",
            *(f"{task.name} {units[metric]}" for task, metric in columns),
            "training FLOPs",
            "FLOPs a token",
        ],
        rows=rows,
        note="acc: accuracy, higher is better; bpb: bits per byte of the right answer, lower is; FLOPs a token: of "
        "inference, the router included; + or -: better or worse than "
        f"{evaluation.against}, with the {evaluation.level:.0%} interval of the paired difference on one side of 0; ~: "
        "chance lies in the interval",
    )


def _mean_cost(evaluation: Evaluation, subject: str, tasks: Sequence[str]) -> float:
    """Inference FLOPs per token, the mean over tasks."""
    of_tasks = {f.task: f.flops_per_token for f in evaluation.findings if f.subject == subject}
    return sum(of_tasks[task] for task in tasks) / len(tasks)


def _metric_table(evaluation: Evaluation, metric: Metric) -> AnswerTable:
    found = {(f.task, f.subject): f for f in evaluation.findings if f.metric == metric}
    with_chance = metric.startswith("accuracy")
    rows = []
    for task in evaluation.tasks:
        mine = [found.get((task.name, subject.name)) for subject in evaluation.subjects]
        if any(mine):
            chance = [f"{task.chance:.3f}" if task.chance is not None else ""] if with_chance else []
            rows.append([task.name, f"{task.n_items:,}", *chance, *(_cell(f, task, with_chance) for f in mine)])
    better = "lower" if metric in LOWER_IS_BETTER else "higher"
    return AnswerTable(
        title=_TITLES[metric],
        head=["task", "items", *(["chance"] if with_chance else []), *(s.name for s in evaluation.subjects)],
        rows=rows,
        note=f"{better} is better; + or -: better or worse than {evaluation.against}, with the {evaluation.level:.0%} "
        "interval of the paired difference on one side of 0"
        + ("; ~: chance lies in the interval" if with_chance else ""),
    )


def _cell(finding: TaskFigure | None, task: TaskRecord, with_chance: bool, *, n_digits: int = 4) -> str:
    if finding is None:
        return ""
    mark, difference = "", finding.difference
    if difference is not None and (difference.low > 0 or difference.high < 0):
        mark = " +" if (difference.mean < 0) == (finding.metric in LOWER_IS_BETTER) else " -"
    value = finding.value
    if with_chance and task.chance is not None and value.low <= task.chance <= value.high:
        mark += " ~"
    return f"{value.mean:.{n_digits}f}{mark}"


def _cost_table(evaluation: Evaluation) -> AnswerTable:
    found = {(f.task, f.subject): f.flops_per_token for f in evaluation.findings}
    rows = [
        [task.name, *(format_flops(found[task.name, s.name]) for s in evaluation.subjects)]
        for task in evaluation.tasks
    ]  # fmt: skip
    return AnswerTable(
        title="Inference per token, the router included",
        head=["task", *(subject.name for subject in evaluation.subjects)],
        rows=rows,
    )
