"""One evaluation: from what is wanted to its results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from raysplit.corpus import Corpus
from raysplit.evaluate.items import EvaluationTask
from raysplit.evaluate.metrics import LEVEL, Figures, Metric, figures_of, interval, paired, resampled_means
from raysplit.evaluate.overlap import overlapping
from raysplit.evaluate.plan import EvaluationPlan, TaskSource, Wanted, make_plan
from raysplit.evaluate.results import Evaluation, SubjectRecord, TaskFigure, TaskRecord, write_evaluation
from raysplit.evaluate.scores import kept_scores
from raysplit.evaluate.subjects import Scores, Subject, fitted, outcome
from raysplit.experts.loaded import LoadedExpert, ModelCache
from raysplit.experts.routing import CORPUS_FOLDER

Progress = Callable[[str, int, int], None]
"""Called with what is under way, its tokens that are done, and all of its tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    """Figures of one subject on one task, or on all domains of a kind of task."""

    figures: Mapping[Metric, Figures]
    flops: float
    """Inference FLOPs of all requests."""
    n_tokens: int


def evaluate(wanted: Wanted, out: Path, *, progress: Progress = lambda what, done, total: None) -> Evaluation:
    """Evaluate, and write `evaluation.json`, `items.parquet` and the table of scores into ``out``.

    Args:
        wanted: what to evaluate.
        out: folder; scores that an interrupted evaluation left there are not made again.
        progress: is told as it goes.

    Raises:
        ExpertError, RunError, TaskError, CorpusError: as `make_plan`, before any weights are read or files written.
        CorpusError: at once too, where overlap is looked for and the run's corpus is missing.
        ExpertError: a model cannot be loaded.
    """
    plan = make_plan(wanted)
    trained_on = None
    if wanted.look_for_overlap and plan.run_folder is not None:
        trained_on = Corpus.open(plan.run_folder / CORPUS_FOLDER)
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, _Measured]] = {task.name: {} for task in plan.tasks}
    temperatures: dict[str, float] = {}
    training_flops: dict[str, float | None] = {}
    for source in plan.sources:
        scores = _scores(source, plan, wanted, out, progress)
        for subject in _fitted_subjects(source, plan, scores):
            if not isinstance(subject.how, str):
                temperatures[subject.name] = subject.how.temperature
            is_whole = not isinstance(subject.how, str) or len(source.experts.names) == 1
            training_flops[subject.name] = source.training_flops if is_whole else None
            for task in plan.tasks:
                measured[task.name][subject.name] = _measured(subject, task, source, plan, scores[task.name])
    items = pd.concat([_item_rows(task, measured[task.name]) for task in plan.tasks], ignore_index=True)
    for kind, tasks in _kinds(plan.tasks):
        measured[kind] = {s.name: _pooled([measured[task.name][s.name] for task in tasks]) for s in plan.subjects}
    evaluation = Evaluation(
        against=plan.against,
        level=LEVEL,
        subjects=[
            SubjectRecord(
                name=s.name,
                origin=str(s.experts.origin),
                temperature=temperatures.get(s.name),
                training_flops=training_flops[s.name],
            )
            for s in plan.subjects
        ],
        tasks=_task_records(plan, trained_on),
        left_out=plan.left_out,
        findings=[found for name, mine in measured.items() for found in _findings(name, mine, against=plan.against)],
    )
    write_evaluation(evaluation, items, out)
    return evaluation


def _scores(
    source: TaskSource, plan: EvaluationPlan, wanted: Wanted, out: Path, progress: Progress
) -> dict[str, dict[str, Scores]]:
    """Task's name -> model's name -> scores; a model reads all tasks before the next one is loaded."""
    asked = plan.requests[source.path]
    models = ModelCache(source.experts, device=plan.device, precision=wanted.precision, n_kept=1)
    total = sum(requests.n_tokens_to_score for requests in asked.values())
    found: dict[str, dict[str, Scores]] = {name: {} for name in asked}
    for name, folder in source.experts.folders.items():
        n_done = 0

        def done(n: int, name: str = name) -> None:
            nonlocal n_done
            n_done += n
            progress(f"{source.label or source.path.name}: {name}", n_done, total)

        def take(name: str = name) -> LoadedExpert:
            return models.take(name)

        for task_name, requests in asked.items():
            scored = kept_scores(
                folder,
                task_name,
                requests.sequences,
                take=take,
                keep_in=out / "scores",
                precision=wanted.precision,
                batch_tokens=wanted.batch_tokens,
                done=done,
            )
            found[task_name][name] = Scores.of(scored, requests)
    return found


def _fitted_subjects(
    source: TaskSource, plan: EvaluationPlan, scores: Mapping[str, Mapping[str, Scores]]
) -> list[Subject]:
    """The source's subjects, each router at the temperature that fits held-out text best, where there is some."""
    mine = [subject for subject in plan.subjects if subject.experts is source.experts]
    if (task := plan.fit_task) is None:
        return mine
    requests = plan.requests[source.path][task.name]
    return [fitted(s, task, requests, scores[task.name], clusterer=source.clusterer) for s in mine]


def _measured(
    subject: Subject, task: EvaluationTask, source: TaskSource, plan: EvaluationPlan, scores: Mapping[str, Scores]
) -> _Measured:
    requests = plan.requests[source.path][task.name]
    # They are read from all held-out text, which only one router and items made of documents are worth.
    has_labels = subject.is_by_label and any(item.document for item in task.items)
    labels = source.labels if has_labels else {}
    found = outcome(subject, task, requests, scores, clusterer=source.clusterer, labels=labels, flops=source.flops)
    n_read = sum(map(len, requests.tokens))
    return _Measured(
        figures=figures_of(task, requests, found.log_likelihoods, found.is_greedy),
        flops=found.flops_per_token * n_read,
        n_tokens=n_read,
    )


def _kinds(tasks: Sequence[EvaluationTask]) -> Iterator[tuple[str, list[EvaluationTask]]]:
    """Kinds of task that have several tasks, one for each domain."""
    for kind in dict.fromkeys(task.kind for task in tasks):
        mine = [task for task in tasks if task.kind == kind]
        if len(mine) > 1:
            yield kind, mine


def _pooled(parts: Sequence[_Measured]) -> _Measured:
    """The items of all domains as one task."""
    figures = {
        metric: Figures(
            values=np.concatenate([part.figures[metric].values for part in parts]),
            weights=np.concatenate([part.figures[metric].weights for part in parts]),
        )
        for metric in parts[0].figures
        if all(metric in part.figures for part in parts)
    }
    return _Measured(
        figures=figures, flops=sum(part.flops for part in parts), n_tokens=sum(part.n_tokens for part in parts)
    )


def _item_rows(task: EvaluationTask, measured: Mapping[str, _Measured]) -> pd.DataFrame:
    """A row for each subject and item, a column for each metric."""
    parts = []
    for name, mine in measured.items():
        part = pd.DataFrame({str(metric): each.values for metric, each in mine.figures.items()})
        part.insert(0, "item", [item.key for item in task.items])
        part.insert(0, "subject", name)
        part.insert(0, "task", task.name)
        parts.append(part)
    return pd.concat(parts)


def _findings(task: str, measured: Mapping[str, _Measured], *, against: str) -> Iterator[TaskFigure]:
    for metric in dict.fromkeys(metric for mine in measured.values() for metric in mine.figures):
        figures = {name: mine.figures[metric] for name, mine in measured.items() if metric in mine.figures}
        resampled = resampled_means(figures)
        for name, each in figures.items():
            is_held = name != against and against in figures
            yield TaskFigure(
                task=task,
                subject=name,
                metric=metric,
                value=interval(each, resampled[name]),
                difference=paired(each, resampled[name], figures[against], resampled[against]) if is_held else None,
                flops_per_token=measured[name].flops / measured[name].n_tokens,
            )


def _task_records(plan: EvaluationPlan, trained_on: Corpus | None) -> list[TaskRecord]:
    overlap = None if trained_on is None else overlapping(plan.tasks, trained_on)
    records = [
        TaskRecord(
            name=task.name,
            source=task.source,
            n_items=len(task.items),
            n_choices=task.n_choices,
            chance=task.chance,
            n_truncated={
                str(source.path): plan.requests[source.path][task.name].n_truncated for source in plan.sources
            },
            n_overlapping=None if overlap is None else overlap[task.name],
        )
        for task in plan.tasks
    ]
    return [*records, *(_pooled_record(kind, tasks, records) for kind, tasks in _kinds(plan.tasks))]


def _pooled_record(kind: str, tasks: Sequence[EvaluationTask], records: Sequence[TaskRecord]) -> TaskRecord:
    names = {task.name for task in tasks}
    parts = [record for record in records if record.name in names]
    whole = EvaluationTask(
        name=kind, items=tuple(item for task in tasks for item in task.items), source=tasks[0].source
    )
    known = [part.n_overlapping for part in parts if part.n_overlapping is not None]
    return TaskRecord(
        name=kind,
        source=whole.source,
        n_items=len(whole.items),
        n_choices=whole.n_choices,
        chance=whole.chance,
        n_truncated={path: sum(part.n_truncated[path] for part in parts) for path in parts[0].n_truncated},
        n_overlapping={domain: sum(each[domain] for each in known) for domain in known[0]} if known else None,
    )
