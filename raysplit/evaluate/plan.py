"""The plan of an evaluation, checked before any model is read: sources, subjects, tasks and their requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raysplit.corpus import Corpus
from raysplit.corpus.manifest import MANIFEST_FILE
from raysplit.errors import CorpusError, TaskError, unknown
from raysplit.evaluate.held_out import HELD_OUT, HeldOutText, document_items, held_out_tasks, labels_of, read_held_out
from raysplit.evaluate.items import EvaluationTask
from raysplit.evaluate.made import CONTINUED_BYTES, MADE, made_tasks
from raysplit.evaluate.public import BENCHMARKS
from raysplit.evaluate.requests import Requests, check_truncation, encode
from raysplit.evaluate.rows import PACKAGE, check_data, public_task
from raysplit.evaluate.subjects import Subject, subjects_of
from raysplit.experts import routing as routers
from raysplit.experts.cost import forward_flops_per_token
from raysplit.experts.folders import ADVISED, Experts, is_run_folder, read_experts, read_variants
from raysplit.experts.loaded import Precision, device_of
from raysplit.experts.routing import CORPUS_FOLDER, Assigns, RouterName
from raysplit.experts.tokens import TextTokens

GROUPS: dict[str, tuple[str, ...]] = {"made": MADE, "public": tuple(BENCHMARKS)}
TASKS = (HELD_OUT, *MADE, *BENCHMARKS, *GROUPS)
_FITTED = "fitted"
_PRETRAINING_ONLY = "pretraining only"
"""The variant that others are compared with, where it was trained."""
_MOST_CONTEXT_BYTES = 512
_SAFE_SHARE = 0.8
"""Share of the context that a text of average bytes per token may fill, since some texts take more tokens."""


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
    """Most items of each task; None for all."""
    data: str = PACKAGE
    """Data of the public tasks: from a package, from the hub, or from a folder."""
    against: str | None = None
    """The subject that all others are compared with. When None: the variant of pretraining only, where it was trained;
    else the seed of the first run; else the first model."""
    routers: Sequence[RouterName] | None = None
    """None for all routers that the run allows."""
    tops: Sequence[int | None] = (1, 2, None)
    device: str = "auto"
    precision: Precision = "stored"
    batch_tokens: int = 8192
    look_for_overlap: bool = False
    variants: bool = False
    """Whether the baselines that runs have trained at the same budget are evaluated beside the advised split. If so,
    only whole variants are subjects, and no expert alone."""

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                raise TaskError(unknown("task", name, TASKS))
        if self.limit is not None and self.limit < 1:
            raise TaskError(f"limit = {self.limit}: at least one item is needed; give a number from 1")

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, each once, with groups replaced by their members."""
        return list(dict.fromkeys(each for name in self.tasks for each in GROUPS.get(name, (name,))))


@dataclass(frozen=True)
class TaskSource:
    """One variant of a run, or one model."""

    path: Path
    experts: Experts
    variant: str = ADVISED
    label: str = ""
    """Stands before the names of its subjects, so that they can be told from those of other sources."""

    @cached_property
    def labels(self) -> dict[str, str]:
        """`key_of` a document -> its domain in the run's own corpus; empty for a model, or where the corpus is gone."""
        if not (self.experts.is_run and (self.path / CORPUS_FOLDER / MANIFEST_FILE).exists()):
            return {}
        return labels_of(Corpus.open(self.path / CORPUS_FOLDER))

    @cached_property
    def training_flops(self) -> float | None:
        """Training FLOPs of the variant, as the run recorded them; None where it did not."""
        known = read_variants(self.path) if self.experts.is_run else {}
        flops = known.get(self.variant, {}).get("flops")
        return None if flops is None else float(flops)

    @cached_property
    def clusterer(self) -> Assigns | None:
        return routers.clusterer_of(self.path) if self.experts.is_run else None

    @cached_property
    def tokens(self) -> TextTokens:
        return TextTokens.of(next(iter(self.experts.folders.values())).tokenizer_folder)

    @cached_property
    def flops(self) -> dict[str, float]:
        return {name: float(forward_flops_per_token(folder)) for name, folder in self.experts.folders.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """An evaluation that has passed all checks."""

    device: Any
    sources: Sequence[TaskSource]
    subjects: Sequence[Subject]
    against: str
    """Name of the subject that all others are compared with."""
    tasks: Sequence[EvaluationTask]
    left_out: Mapping[str, str]
    """Task that does not fit a context, asked for by a group -> why."""
    fit_task: EvaluationTask | None
    """Documents on which temperatures are fitted; None where no run has any."""
    requests: Mapping[Path, Mapping[str, Requests]]
    """Path of a source -> name of a task -> requests; with the task for fitting."""
    run_folder: Path | None
    """Folder of the first run, from whose corpus tasks are made; None where there is none."""


def make_plan(wanted: Wanted) -> EvaluationPlan:
    """Read and check everything but the models' weights.

    Raises:
        ExpertError, RunError: a model's folder or a run is not as it must be.
        TaskError: a task's data are missing or damaged, too many of its items do not fit a context, or a subject is
            unknown.
        CorpusError: a run's corpus is missing or damaged, or the data's archive cannot be fetched.
    """
    device = device_of(wanted.device)
    sources = _sources(wanted)
    subjects = _subjects(wanted, sources)
    against = _against(wanted, sources, subjects)
    run_folder = next((source.path for source in sources if is_run_folder(source.path)), None)
    held_out = _held_out(wanted, run_folder)
    tasks, fit_task = _tasks(wanted, sources, held_out), _fit_task(held_out)
    asked = [*tasks, *([fit_task] if fit_task else [])]
    requests = {
        path: {task.name: encode(task, source.tokens, context_length=source.experts.context_length) for task in asked}
        for path, source in {source.path: source for source in sources}.items()
    }
    left_out = _left_out(wanted, sources, tasks, requests)
    return EvaluationPlan(
        device=device,
        sources=sources,
        subjects=subjects,
        against=against,
        tasks=[task for task in tasks if task.name not in left_out],
        left_out=left_out,
        fit_task=fit_task,
        requests=requests,
        run_folder=run_folder,
    )


def _sources(wanted: Wanted) -> list[TaskSource]:
    """A source for each folder; where it is wanted, also for each variant whose models a run has kept."""
    found = []
    for path in wanted.sources:
        of_run = {ADVISED: path.resolve().name if len(wanted.sources) > 1 and is_run_folder(path) else ""}
        if wanted.variants and is_run_folder(path):
            kept = [name for name, each in read_variants(path).items() if name != ADVISED and each.get("models")]
            of_run |= {name: f"{of_run[ADVISED]} {name}".strip() for name in kept}
        found += [TaskSource(path, read_experts(path, variant=name), name, label) for name, label in of_run.items()]
    return found


def _subjects(wanted: Wanted, sources: Sequence[TaskSource]) -> list[Subject]:
    found: list[Subject] = []
    for source in sources:
        possible: list[RouterName] = ["label", "likelihood", "uniform"]
        if source.clusterer is not None:
            possible.insert(1, "centre")
        if wanted.routers is not None and "centre" in wanted.routers and not source.clusterer and source.experts.is_run:
            raise TaskError(f"{source.path}: has no clusterer, which the router centre needs; leave centre out")
        chosen = possible if wanted.routers is None else [router for router in wanted.routers if router in possible]
        found += subjects_of(
            source.experts, label=source.label, routers_wanted=chosen, tops=wanted.tops, alone=not wanted.variants
        )
    names = [subject.name for subject in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError(f"two models are called {', '.join(twice)}; rename a folder, so that they can be told apart")
    return found


def _against(wanted: Wanted, sources: Sequence[TaskSource], subjects: Sequence[Subject]) -> str:
    names = [subject.name for subject in subjects]
    if wanted.against is not None:
        if wanted.against not in names:
            raise TaskError(f"--against: {unknown('subject', wanted.against, names)}")
        return wanted.against
    for source in sources:
        if source.variant == _PRETRAINING_ONLY:
            return next(s.name for s in subjects if s.experts is source.experts)
    seed = sources[0].experts.seed
    return next((s.name for s in subjects if s.how == seed and s.experts is sources[0].experts), names[0])


def _held_out(wanted: Wanted, run_folder: Path | None) -> HeldOutText | None:
    """The held-out documents of the first run: for tasks made from them, and for the routers' temperatures."""
    needed = [name for name in wanted.task_names if name == HELD_OUT or name in MADE]
    if run_folder is None:
        if needed:
            raise TaskError(
                f"tasks {', '.join(needed)} are made from a run's held-out documents; give a run folder as well, or "
                f"choose from {', '.join(BENCHMARKS)}"
            )
        return None
    try:
        return read_held_out(Corpus.open(run_folder / CORPUS_FOLDER))
    except (CorpusError, TaskError):
        if needed:
            raise
        return None  # the temperatures stay at 1


def _tasks(wanted: Wanted, sources: Sequence[TaskSource], held_out: HeldOutText | None) -> list[EvaluationTask]:
    check_data([name for name in wanted.task_names if name in BENCHMARKS], wanted.data)
    found: list[EvaluationTask] = []
    for name in wanted.task_names:
        if name in BENCHMARKS:
            found.append(public_task(name, data=wanted.data, limit=wanted.limit))
            continue
        assert held_out is not None
        if name == HELD_OUT:
            found += held_out_tasks(held_out, limit=wanted.limit)
        else:
            context_bytes = _context_bytes(sources, held_out)
            made = made_tasks(name, held_out, context_bytes=context_bytes, limit=wanted.limit)
            if not made:
                raise TaskError(f"task {name}: the held-out documents are too few or too short to make an item of")
            found += made
    return found


def _left_out(
    wanted: Wanted,
    sources: Sequence[TaskSource],
    tasks: Sequence[EvaluationTask],
    requests: Mapping[Path, Mapping[str, Requests]],
) -> dict[str, str]:
    """Tasks that do not fit a context, and why. One that was asked for by its own name raises instead."""
    found: dict[str, str] = {}
    for task in tasks:
        try:
            for source in sources:
                check_truncation(
                    task,
                    requests[source.path][task.name],
                    context_length=source.experts.context_length,
                    model=str(source.path),
                )
        except TaskError as error:
            found[task.name] = str(error)
            if task.kind in wanted.tasks or len(found) == len(tasks):
                raise
    return found


def _context_bytes(sources: Sequence[TaskSource], held_out: HeldOutText) -> int:
    """Bytes of a context that leave room for the continuation, in the shortest context and the densest domain."""
    rooms = []
    for source in sources:
        for texts in held_out.documents.values():
            n_tokens = sum(map(len, source.tokens.encode(texts)))
            bytes_per_token = sum(len(text.encode(errors="replace")) for text in texts) / n_tokens
            rooms.append(_SAFE_SHARE * source.experts.context_length * bytes_per_token)
    return max(CONTINUED_BYTES // 2, min(_MOST_CONTEXT_BYTES, int(min(rooms)) - CONTINUED_BYTES))


def _fit_task(held_out: HeldOutText | None) -> EvaluationTask | None:
    if held_out is None:
        return None
    items = [item for domain, texts in held_out.fitted.items() for item in document_items(texts, domain)]
    return EvaluationTask(name=_FITTED, items=tuple(items), source=held_out.origin, is_document=True) if items else None
