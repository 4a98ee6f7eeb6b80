"""One evaluation from sources and names of tasks to what was found; everything that can be wrong is checked first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from raysplit.corpus import Corpus
from raysplit.errors import TaskError, unknown
from raysplit.evaluate.held_out import HELD_OUT, HeldOut, document_items, held_out_tasks, read_held_out
from raysplit.evaluate.items import Task
from raysplit.evaluate.made import CONTINUED_BYTES, MADE, made_tasks
from raysplit.evaluate.metrics import LEVEL, Figures, Metric, figures_of, interval, paired, resampled_means
from raysplit.evaluate.overlap import overlapping
from raysplit.evaluate.public import BENCHMARKS
from raysplit.evaluate.requests import Requests, check_truncation, encode
from raysplit.evaluate.results import Evaluation, Finding, SubjectRecord, TaskRecord, write_evaluation
from raysplit.evaluate.rows import PACKAGE, check_data, public_task
from raysplit.evaluate.scores import Scores, n_tokens, score_task
from raysplit.evaluate.subjects import Subject, fitted, outcome, subjects_of
from raysplit.experts import routing as routers
from raysplit.experts.cost import forward_flops_per_token
from raysplit.experts.folders import Experts, is_run_folder, read_experts
from raysplit.experts.loaded import LoadedExpert, Precision, device_of
from raysplit.experts.routing import Clusterer, RouterName
from raysplit.experts.shelf import Shelf
from raysplit.experts.tokens import TextTokens

GROUPS: dict[str, tuple[str, ...]] = {"made": MADE, "public": tuple(BENCHMARKS)}
TASKS = (HELD_OUT, *MADE, *BENCHMARKS, *GROUPS)
_FITTED = "fitted"
_MOST_CONTEXT_BYTES = 512
_SAFE_SHARE = 0.8
"""Of the context, that texts of the held-out text's mean bytes a token fill; some take more tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to evaluate, and how.

    Raises:
        TaskError: an unknown task, or a limit below 1.
    """

    sources: Sequence[Path]
    """Run folders and Hugging Face folders."""
    tasks: Sequence[str]
    """Names, or groups of them, as `TASKS` lists them."""
    limit: int | None = None
    """Of items of each task; None for all."""
    data: str = PACKAGE
    """Of the public tasks: a package, the hub, or a folder."""
    against: str | None = None
    """The subject that all others are held against; the seed of the first run, or the first model, when None."""
    routers: Sequence[RouterName] | None = None
    """None for all that the run allows."""
    tops: Sequence[int | None] = (1, 2, None)
    device: str = "auto"
    precision: Precision = "stored"
    batch_tokens: int = 8192
    look_for_overlap: bool = False

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                raise TaskError(unknown("task", name, TASKS))
        if self.limit is not None and self.limit < 1:
            raise TaskError(f"limit = {self.limit}: at least one item is needed; give a number from 1")

    @property
    def task_names(self) -> list[str]:
        """Each once, groups as what they hold."""
        return list(dict.fromkeys(each for name in self.tasks for each in GROUPS.get(name, (name,))))


@dataclass(frozen=True)
class _Source:
    """One run, or one model."""

    path: Path
    experts: Experts

    @cached_property
    def clusterer(self) -> Clusterer | None:
        return routers.clusterer_of(self.path) if self.experts.is_run else None

    @cached_property
    def tokens(self) -> TextTokens:
        return TextTokens.of(next(iter(self.experts.folders.values())).path)

    @cached_property
    def flops(self) -> dict[str, float]:
        return {name: float(forward_flops_per_token(f.path)) for name, f in self.experts.folders.items()}


Progress = Callable[[str, int, int], None]
"""What is under way, tokens that are done of it, and of how many."""


def evaluate(wanted: Wanted, out: Path, *, progress: Progress = lambda what, done, total: None) -> Evaluation:
    """Evaluate, and write `evaluation.json`, `items.parquet` and the table of scores into ``out``.

    Args:
        wanted: what to evaluate.
        out: folder; what an interrupted evaluation left there is gone on from.
        progress: told as it goes.

    Raises:
        ExpertError, RunError: a model's folder or a run is not as it must be.
        TaskError: a task's data are not, too much of them does not fit a context, or a subject is unknown.
        CorpusError: a run's corpus is missing or damaged, or the data's archive cannot be fetched.
    """
    device = device_of(wanted.device)
    sources = [_Source(path, read_experts(path)) for path in wanted.sources]
    subjects = _subjects(wanted, sources)
    against = _against(wanted, sources, subjects)
    held_out = _held_out(wanted, sources)
    tasks = _tasks(wanted, sources, held_out)
    requests = {
        source.path: {
            task.name: encode(task, source.tokens, context_length=source.experts.context_length) for task in tasks
        }
        for source in sources
    }
    for source in sources:
        for task in tasks:
            check_truncation(
                task,
                requests[source.path][task.name],
                context_length=source.experts.context_length,
                model=str(source.path),
            )
    fit_tasks = _fit_tasks(held_out)
    out.mkdir(parents=True, exist_ok=True)
    figures: dict[tuple[str, Metric], dict[str, Figures]] = {}
    flops: dict[tuple[str, str], float] = {}
    temperatures: dict[str, float] = {}
    rows = []
    for source in sources:
        shelf = Shelf(source.experts, device=device, precision=wanted.precision, n_kept=1)
        mine = [subject for subject in subjects if subject.experts is source.experts]
        asked = dict(requests[source.path])
        if needs_fit := [s for s in mine if not isinstance(s.how, str)]:
            for task in fit_tasks:
                asked[task.name] = encode(task, source.tokens, context_length=source.experts.context_length)
        scores = _scores(source, asked, shelf, wanted, out, progress)
        if needs_fit and fit_tasks:
            [task] = fit_tasks
            mine = [fitted(s, task, asked[task.name], scores[task.name], clusterer=source.clusterer) for s in mine]
        temperatures |= {s.name: s.how.temperature for s in mine if not isinstance(s.how, str)}
        for task in tasks:
            for subject in mine:
                found = outcome(
                    subject, task, asked[task.name], scores[task.name], clusterer=source.clusterer, flops=source.flops
                )
                each = figures_of(task, asked[task.name], found)
                flops[task.name, subject.name] = found.flops_per_token
                for metric, values in each.items():
                    figures.setdefault((task.name, metric), {})[subject.name] = values
                rows.append(_item_rows(task, subject, {metric: values.values for metric, values in each.items()}))
    evaluation = Evaluation(
        against=against,
        level=LEVEL,
        subjects=[
            SubjectRecord(name=s.name, origin=str(s.experts.origin), temperature=temperatures.get(s.name))
            for s in subjects
        ],
        tasks=_task_records(wanted, tasks, sources, subjects, requests),
        findings=_findings(figures, flops, against=against),
    )
    write_evaluation(evaluation, pd.concat(rows, ignore_index=True), out)
    return evaluation


def _subjects(wanted: Wanted, sources: Sequence[_Source]) -> list[Subject]:
    found: list[Subject] = []
    for source in sources:
        possible: list[RouterName] = ["label", *(["centre"] if source.clusterer else []), "likelihood", "uniform"]
        if wanted.routers is not None and "centre" in wanted.routers and not source.clusterer and source.experts.is_run:
            raise TaskError(f"{source.path}: has no clusterer, which the router centre needs; leave centre out")
        chosen = possible if wanted.routers is None else [router for router in wanted.routers if router in possible]
        label = source.path.resolve().name if len(sources) > 1 and source.experts.is_run else ""
        found += subjects_of(source.experts, label=label, routers_wanted=chosen, tops=wanted.tops)
    names = [subject.name for subject in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError(f"two models are called {', '.join(twice)}; rename a folder, so that they can be told apart")
    return found


def _against(wanted: Wanted, sources: Sequence[_Source], subjects: Sequence[Subject]) -> str:
    names = [subject.name for subject in subjects]
    if wanted.against is not None:
        if wanted.against not in names:
            raise TaskError(f"--against: {unknown('subject', wanted.against, names)}")
        return wanted.against
    seed = sources[0].experts.seed
    return next((s.name for s in subjects if s.how == seed and s.experts is sources[0].experts), names[0])


def _held_out(wanted: Wanted, sources: Sequence[_Source]) -> HeldOut | None:
    """The held-out documents of the first run with a corpus; None where there is no run and none is needed."""
    needed = [name for name in wanted.task_names if name == HELD_OUT or name in MADE]
    run = next((source.path for source in sources if is_run_folder(source.path)), None)
    if run is None or (not needed and not (run / "corpus").is_dir()):
        if needed:
            raise TaskError(
                f"tasks {', '.join(needed)} are made from a run's held-out documents; give a run folder as well, or "
                f"choose from {', '.join(BENCHMARKS)}"
            )
        return None
    return read_held_out(Corpus.open(run / "corpus"), limit=wanted.limit)


def _tasks(wanted: Wanted, sources: Sequence[_Source], held_out: HeldOut | None) -> list[Task]:
    check_data([name for name in wanted.task_names if name in BENCHMARKS], wanted.data)
    found: list[Task] = []
    for name in wanted.task_names:
        if name in BENCHMARKS:
            found.append(public_task(name, data=wanted.data, limit=wanted.limit))
            continue
        assert held_out is not None
        if name == HELD_OUT:
            found += held_out_tasks(held_out)
        else:
            context_bytes = _context_bytes(sources, held_out)
            made = made_tasks(name, held_out, context_bytes=context_bytes, limit=wanted.limit)
            if not made:
                raise TaskError(f"task {name}: the held-out documents are too few or too short to make an item of")
            found += made
    return found


def _context_bytes(sources: Sequence[_Source], held_out: HeldOut) -> int:
    """What leaves room for the continuation in the shortest context, by the domain that takes the most tokens."""
    rooms = []
    for source in sources:
        for texts in held_out.documents.values():
            n_tokens = sum(map(len, source.tokens.encode(texts)))
            bytes_per_token = sum(len(text.encode(errors="replace")) for text in texts) / n_tokens
            rooms.append(_SAFE_SHARE * source.experts.context_length * bytes_per_token)
    return max(CONTINUED_BYTES // 2, min(_MOST_CONTEXT_BYTES, int(min(rooms)) - CONTINUED_BYTES))


def _fit_tasks(held_out: HeldOut | None) -> list[Task]:
    if held_out is None:
        return []
    items = [item for domain, texts in held_out.fitted.items() for item in document_items(texts, domain)]
    return [Task(name=_FITTED, items=tuple(items), source=held_out.origin, is_document=True)] if items else []


def _scores(
    source: _Source,
    asked: Mapping[str, Requests],
    shelf: Shelf,
    wanted: Wanted,
    out: Path,
    progress: Progress,
) -> dict[str, dict[str, Scores]]:
    """Task -> folder -> scores; a model reads all tasks before the next one is loaded."""
    total = sum(n_tokens(requests) for requests in asked.values())
    found: dict[str, dict[str, Scores]] = {name: {} for name in asked}
    for name, folder in source.experts.folders.items():
        n_done = 0

        def done(n: int, name: str = name) -> None:
            nonlocal n_done
            n_done += n
            progress(f"{source.path.name}: {name}", n_done, total)

        def take(name: str = name) -> LoadedExpert:
            return shelf.take(name)

        for task_name, requests in asked.items():
            found[task_name][name] = score_task(
                folder,
                task_name,
                requests,
                take=take,
                keep_in=out / "scores",
                precision=wanted.precision,
                batch_tokens=wanted.batch_tokens,
                done=done,
            )
    return found


def _item_rows(task: Task, subject: Subject, values: Mapping[Metric, np.ndarray]) -> pd.DataFrame:
    keys = [item.key for item in task.items]
    return pd.DataFrame({"task": task.name, "subject": subject.name, "item": keys, **values})


def _findings(
    figures: Mapping[tuple[str, Metric], Mapping[str, Figures]], flops: Mapping[tuple[str, str], float], *, against: str
) -> list[Finding]:
    found = []
    for (task, metric), by_subject in figures.items():
        resampled = resampled_means(by_subject)
        for name, each in by_subject.items():
            is_held = name != against and against in by_subject
            found.append(
                Finding(
                    task=task,
                    subject=name,
                    metric=metric,
                    value=interval(each, resampled[name]),
                    difference=paired(each, resampled[name], by_subject[against], resampled[against])
                    if is_held
                    else None,
                    flops_per_token=flops[task, name],
                )
            )
    return found


def _task_records(
    wanted: Wanted,
    tasks: Sequence[Task],
    sources: Sequence[_Source],
    subjects: Sequence[Subject],
    requests: Mapping[Path, Mapping[str, Requests]],
) -> list[TaskRecord]:
    run = next((source.path for source in sources if is_run_folder(source.path)), None)
    overlap = None
    if wanted.look_for_overlap and run is not None:
        overlap = overlapping(tasks, Corpus.open(run / "corpus"))
    path_of = {id(source.experts): source.path for source in sources}
    return [
        TaskRecord(
            name=task.name,
            source=task.source,
            n_items=len(task.items),
            n_choices=task.n_choices,
            chance=task.chance,
            n_truncated={s.name: requests[path_of[id(s.experts)]][task.name].n_truncated for s in subjects},
            n_overlapping=None if overlap is None else overlap[task.name],
        )
        for task in tasks
    ]
