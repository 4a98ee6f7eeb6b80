"""Hyperparameters before the sweep: Optuna studies of small models on the sweep's own lanes.

Four stages, each resting on the ones before:

1. *steps*: batch size and warm-up, with the learning rate beside them, at the smallest size. The sweep has one batch
   for all sizes, since its grids are whole steps.
2. *rate*: the learning rate alone, for each size. A trunk passes every D of the grid on its way, so one trial gives a
   loss at each; parabolas give the best rate at each (N, D).
3. the rule through those optima (`raysplit.design.hyperparameters`), read at the largest D of the sweep's grid.
4. *branch*: re-warm-up, rate and replay of the branches, at the smallest size, from a trunk at the rule's rate.

The sweep then trains with what was found, so the law is fitted to tuned runs only.
"""

import math
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raysplit.corpus import Corpus
from raysplit.design.hyperparameters import Edge, Optimum, Range, Tried, find_optimum, fit_rule
from raysplit.design.tree import Node, Trial
from raysplit.quantities import format_count, format_seconds
from raysplit.space import Space, TuningSpec, dump_space
from raysplit.sweep.cluster import joined_cluster
from raysplit.sweep.display import Display
from raysplit.sweep.folder import RunFolder, write_text
from raysplit.sweep.pool import Pool
from raysplit.sweep.studies import (
    Attempt,
    Objective,
    Outcome,
    Parameter,
    Reading,
    StudyEnd,
    TrainingFailed,
    masked,
    open_storage,
    run_study,
    storage_url,
)
from raysplit.sweep.tuned import Chosen, StudySummary, Tuned, read_tuned

TrainAll = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]
"""Carries out lane tasks (see `raysplit.sweep.pool`) at the same time: results in order, ``failed`` where one did."""

_DEFAULT_RATE_FACTOR = 4.0
_MOST_RATE, _MOST_FACTOR, _MOST_REPLAY = 1.0, 10.0, 0.9
LEARNING_RATE = "learning_rate"
STEPS, RATE, BRANCH = "steps", "rate", "branch"
_STEP_FIELDS = ("batch_tokens", "warmup_tokens")
_BRANCH_FIELDS = ("branch_rate_factor", "branch_warmup_tokens", "replay_share")


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Where hyperparameters are tuned."""

    sizes: tuple[int, ...]
    """Non-embedding parameter counts, rising."""
    pretrain_tokens: tuple[int, ...]
    specialize_tokens: tuple[int, ...]


def points_of(space: Space, *, vocab_size: int) -> Points:
    """The cheap points of a space: what its section ``tuning`` names, or the smallest of the sweep's."""
    tuning = _section(space)
    sizes = tuning.sizes or tuple(sorted(space.model.sizes)[:2])
    pretrain = tuning.pretrain_tokens or tuple(d for d in space.sweep.pretrain_tokens if d)[:2]
    specialize = tuning.specialize_tokens or space.sweep.specialize_tokens[:1]
    return Points(
        sizes=tuple(sorted({space.shape(n, vocab_size).n_params_non_embedding for n in sizes})),
        pretrain_tokens=tuple(dict.fromkeys(map(space.round_tokens, pretrain))),
        specialize_tokens=tuple(dict.fromkeys(map(space.round_tokens, specialize))),
    )


def rate_parameter(space: Space, n_params: int) -> Parameter:
    """The learning rate of a size's trunk."""
    own = space.training.learning_rate.peak(n_params, space.horizon_tokens)
    low, high = _section(space).learning_rate or (own / _DEFAULT_RATE_FACTOR, own * _DEFAULT_RATE_FACTOR)
    return Parameter(name=LEARNING_RATE, range=Range(low=low, high=high, most=max(_MOST_RATE, high)), own=own)


def other_parameters(space: Space, points: Points) -> dict[str, Parameter]:
    """What else is tuned, by name, with the limits to which its range may be widened."""
    tuning, training = _section(space), space.training
    constant, step = 1 - training.cooldown_fraction, space.micro_step_tokens
    smallest_point = min(d for d in (*space.pretrain_grid, *space.specialize_grid, *points.pretrain_tokens) if d)
    limits: dict[str, tuple[float, float]] = {
        # Every point of the grids must leave a step for its cooldown.
        "batch_tokens": (step, math.floor(min(training.cooldown_fraction, 0.5) * smallest_point / step) * step),
        "warmup_tokens": (0, math.floor(constant * points.pretrain_tokens[0])),
        "branch_rate_factor": (0, _MOST_FACTOR),
        "branch_warmup_tokens": (0, math.floor(constant * points.specialize_tokens[0])),
        "replay_share": (0, _MOST_REPLAY),
    }
    found = {}
    for name, (least, most) in limits.items():
        if (given := getattr(tuning, name)) is not None:
            low, high = given
            tried = Range(low=low, high=high, log=name == "branch_rate_factor", least=least, most=max(most, high))
            whole = step if name == "batch_tokens" else int(name.endswith("_tokens"))
            found[name] = Parameter(name=name, range=tried, own=getattr(training, name), step=whole)
    return found


def run_tuning(space: Space, folder: RunFolder, corpus: Corpus, *, console: Console, ray_address: str | None) -> Space:
    """Tune what the space asks for, or take up where an interrupted run was; gives the space to sweep.

    A space without a section ``tuning`` comes back as it is.

    Raises:
        CorpusError: a domain has too few tokens for the points.
        RunError: the cluster has no room for the lanes, or Optuna's database cannot be used.
        RaysplitError: a lane has failed for good.
    """
    if space.tuning is None:
        return space
    if (tuned := read_tuned(folder.hyperparameters)) is None:
        points = points_of(space, vocab_size=corpus.vocab_size)
        corpus.check_capacity(
            max_pretrain_tokens=points.pretrain_tokens[-1],
            max_specialize_tokens=points.specialize_tokens[-1],
            max_epochs=space.corpus.max_epochs,
            context_length=space.model.context_length,
        )
        storage = storage_of(space, folder)  # what is wrong with it is said before the lanes start
        with joined_cluster(space.compute, address=ray_address):
            pool = Pool(space, run_folder=folder.path, corpus_folder=folder.corpus, law=None)
            try:
                console.print(f"tuning on {space.compute.lanes} lanes; its database is {masked(storage.url)}")
                console.print(f"lanes up after {format_seconds(pool.wait_until_ready())}")
                with Display(console, law=None, broker=pool.broker, title="tuning"):
                    tuned = tune(
                        space, folder, storage=storage, vocab_size=corpus.vocab_size, train_all=pool.run_all,
                        check=pool.check, tell=lambda line: console.print(line, highlight=False),
                    )  # fmt: skip
            finally:
                pool.close()
        write_text(folder.tuned_space, dump_space(tuned.apply(space)))
        write_text(folder.hyperparameters, tuned.to_json())  # last: where it is, tuning has ended
    return tuned.apply(space)


def storage_of(space: Space, folder: RunFolder) -> Any:
    """Optuna's storage for a run.

    Raises:
        RunError: it cannot be used.
    """
    return open_storage(storage_url(_section(space).storage, default=folder.optuna))


def tune(
    space: Space,
    folder: RunFolder,
    *,
    storage: Any,
    vocab_size: int,
    train_all: TrainAll,
    check: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Run every study, or take up where an interrupted call was.

    Args:
        space: with a section ``tuning``.
        folder: of the run.
        storage: Optuna's, as `storage_of` gives it.
        vocab_size: of the corpus's tokenizer.
        train_all: carries out lane tasks.
        check: called now and then; raises when no lane is left.
        tell: takes lines for the person who waits.

    Raises:
        RunError: no trial of a study could be trained.
    """
    tuning, points = _section(space), points_of(space, vocab_size=vocab_size)
    others, smallest = other_parameters(space, points), points.sizes[0]
    lab = _Lab(space=space, folder=folder, vocab_size=vocab_size, train_all=train_all)
    url = storage_url(tuning.storage, default=folder.optuna)
    # In a database that runs share, each has its own studies.
    prefix = "" if tuning.storage is None else f"{folder.sweep_id} "
    ends: dict[str, StudyEnd] = {}

    def study(name: str, parameters: Sequence[Parameter], objective: Objective, **options: Any) -> StudyEnd:
        end = ends[name] = run_study(
            prefix + name, parameters, objective, storage=storage, n_trials=tuning.n_trials,
            n_lanes=space.compute.lanes, seed=tuning.seed, check=check, tell=tell, **options,
        )  # fmt: skip
        tell(_study_sentence(name, end))
        return end

    chosen: list[Chosen] = []
    if steps := [others[name] for name in _STEP_FIELDS if name in others]:
        end = study(STEPS, [rate_parameter(space, smallest), *steps], _Trunk(lab, smallest, points.pretrain_tokens))
        chosen += _chosen(STEPS, end, steps)
        lab = replace(lab, space=space.with_training(**{c.name: c.value for c in chosen}))

    optima: list[Optimum] = []
    tried: list[Tried] = []
    for n_params in points.sizes:
        trunk = _Trunk(lab, n_params, points.pretrain_tokens)
        end = study(f"{RATE}-n{n_params}", [rate_parameter(space, n_params)], trunk, find_edges=trunk.rate_edges)
        tried += trunk.tried(end.outcomes)
        optima += trunk.optima(end)
    rule = fit_rule(optima, prior_exponent=space.training.learning_rate.exponent)
    tuned = Tuned(
        schema_version=1, storage=masked(url), rule=rule, optima=tuple(optima), tried=tuple(tried),
        prior_exponent=space.training.learning_rate.exponent, horizon_tokens=space.horizon_tokens, chosen=(),
        studies=(), trained_flops=0.0,
    )  # fmt: skip
    tell(rule_sentence(tuned))

    if branch := [others[name] for name in _BRANCH_FIELDS if name in others]:
        branches = _Branches(lab, smallest, points, rate=tuned.rate(smallest))
        chosen += _chosen(BRANCH, study(BRANCH, branch, branches), branch)
    shutil.rmtree(folder.tuning, ignore_errors=True)
    return replace(
        tuned, chosen=tuple(chosen), studies=tuple(_summary(name, end) for name, end in ends.items()),
        trained_flops=math.fsum(outcome.flops for end in ends.values() for outcome in end.outcomes),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Lab:
    """Where attempts are trained."""

    space: Space
    """With what the stages before have chosen."""
    folder: RunFolder
    vocab_size: int
    train_all: TrainAll

    def space_with(self, *, learning_rate: float, **fields: float) -> Space:
        """The space whose every trunk trains at this rate."""
        rate = {"reference": learning_rate, "reference_params": 1, "exponent": 0.0}
        return self.space.with_training(**fields, learning_rate=rate)

    def checkpoints(self, stage: str, place: object) -> Path:
        return self.folder.tuning / stage / str(place)

    def train(
        self, space: Space, trials: Sequence[Trial], milestone: int, *, waypoints: Sequence[int], checkpoints: Path
    ) -> list[dict[str, Any]]:
        """Have trials trained to a milestone at the same time, and measured.

        Raises:
            TrainingFailed: one of them could not be.
        """
        results = self.train_all(
            [
                {
                    "kind": "measure", "trial": asdict(trial), "milestone": milestone, "waypoints": tuple(waypoints),
                    "training": space.training, "checkpoints": str(checkpoints),
                }
                for trial in trials
            ]
        )  # fmt: skip
        for result in results:
            if "failed" in result:
                raise TrainingFailed(result["failed"])
        return results

    def flops(self, n_params: int, results: Sequence[dict[str, Any]]) -> float:
        per_token = self.space.shape(n_params, self.vocab_size).flops_per_token
        return float(per_token * sum(result["tokens"] for result in results))


class _Trunk:
    """Trunks of one size; their loss is the weighted mean over the domains."""

    def __init__(self, lab: _Lab, n_params: int, milestones: Sequence[int]) -> None:
        self._lab, self._n_params, self.milestones = lab, n_params, tuple(milestones)

    def measure(self, attempt: Attempt, milestone: int) -> Reading:
        lab = self._lab
        space = lab.space_with(**attempt.values)
        grid = tuple(map(space.round_tokens, self.milestones))  # on whole steps of the attempt's own batch
        trial = Trial(
            n_params=self._n_params, seed=_section(space).seed, domain="", pretrain_tokens=grid[-1], milestones=grid
        )
        results = lab.train(
            space, [trial], grid[self.milestones.index(milestone)], waypoints=grid,
            checkpoints=lab.checkpoints(attempt.stage, attempt.place),
        )  # fmt: skip
        weights = space.weights()
        loss = math.fsum(weights[name] * value for name, value in results[0]["losses"].items())
        return Reading(loss=loss, flops=lab.flops(self._n_params, results))

    def forget(self, attempt: Attempt) -> None:
        shutil.rmtree(self._lab.checkpoints(attempt.stage, attempt.place), ignore_errors=True)

    def tried(self, outcomes: Sequence[Outcome]) -> list[Tried]:
        """Each attempt at each milestone."""
        return [
            Tried(
                n_params=self._n_params, pretrain_tokens=milestone, learning_rate=outcome.values[LEARNING_RATE],
                loss=outcome.losses.get(milestone, math.inf),
            )
            for outcome in outcomes
            for milestone in self.milestones
        ]  # fmt: skip

    def optima(self, end: StudyEnd) -> list[Optimum]:
        """The best rate at each milestone.

        Raises:
            RunError: no attempt reached one.
        """
        _ = end.best  # refuses a study of failures alone
        return self._optima(end.outcomes, end.parameters[0].range)

    def rate_edges(self, outcomes: Sequence[Outcome], parameters: Sequence[Parameter]) -> dict[str, Edge]:
        """Where the optimum of some milestone lies; lower down when every attempt diverged."""
        optima = self._optima(outcomes, parameters[0].range)
        edges: list[Edge] = [optimum.edge for optimum in optima if optimum.edge] if optima else ["low"]
        return {LEARNING_RATE: edges[0]} if edges else {}

    def _optima(self, outcomes: Sequence[Outcome], tried_range: Range) -> list[Optimum]:
        tried = self.tried(outcomes)
        at = [[t for t in tried if t.pretrain_tokens == milestone] for milestone in self.milestones]
        return [find_optimum(group, tried_range) for group in at if any(math.isfinite(t.loss) for t in group)]


class _Branches:
    """The branches of all domains from one trunk; an attempt's loss is the weighted mean over their own domains, and in
    part over all domains where the space gives those a weight.
    """

    def __init__(self, lab: _Lab, n_params: int, points: Points, *, rate: float) -> None:
        self._lab, self._n_params, self._rate = lab, n_params, rate
        self._root_tokens = lab.space.round_tokens(points.pretrain_tokens[-1])
        self.milestones = tuple(dict.fromkeys(map(lab.space.round_tokens, points.specialize_tokens)))
        self._one_at_a_time = threading.Lock()

    def measure(self, attempt: Attempt, milestone: int) -> Reading:
        lab, space = self._lab, self._lab.space_with(learning_rate=self._rate, **attempt.values)
        checkpoints = lab.checkpoints(attempt.stage, attempt.place)
        root = self._root()
        checkpoints.mkdir(parents=True, exist_ok=True)
        if not (link := checkpoints / root.name).is_symlink():
            os.symlink(root, link)
        branches = [
            Trial(
                n_params=self._n_params, seed=_section(space).seed, domain=domain, pretrain_tokens=self._root_tokens,
                milestones=self.milestones,
            )
            for domain in space.domains
        ]  # fmt: skip
        results = lab.train(space, branches, milestone, waypoints=[self._root_tokens], checkpoints=checkpoints)
        weights, general = space.weights(), _section(space).general_weight
        loss = 0.0
        for branch, result in zip(branches, results, strict=True):
            everywhere = math.fsum(weights[name] * value for name, value in result["losses"].items())
            own = result["losses"][branch.domain]
            loss += weights[branch.domain] * ((1 - general) * own + general * everywhere)
        return Reading(loss=loss, flops=lab.flops(self._n_params, results))

    def forget(self, attempt: Attempt) -> None:
        shutil.rmtree(self._lab.checkpoints(attempt.stage, attempt.place), ignore_errors=True)

    def _root(self) -> Path:
        """The trunk's checkpoint that every attempt starts from; trained by the first."""
        seed = _section(self._lab.space).seed
        node = Node(n_params=self._n_params, seed=seed, pretrain_tokens=self._root_tokens)
        folder = self._lab.checkpoints(BRANCH, "trunk")
        with self._one_at_a_time:
            if not (folder / node.folder).exists():
                trunk = Trial(
                    n_params=self._n_params, seed=seed, domain="", pretrain_tokens=self._root_tokens,
                    milestones=(self._root_tokens,),
                )  # fmt: skip
                self._lab.train(
                    self._lab.space_with(learning_rate=self._rate), [trunk], self._root_tokens,
                    waypoints=[self._root_tokens], checkpoints=folder,
                )  # fmt: skip
        return folder / node.folder


def rule_sentence(tuned: Tuned) -> str:
    """The rule, its certainty and its price in words."""
    rule = tuned.rule
    penalty = sum(optimum.doubling_penalty for optimum in tuned.optima) / len(tuned.optima)
    return (
        f"learning rate = {rule.reference:.3g} (N / {format_count(rule.reference_params)})^{rule.exponent:.2f} "
        f"(D / {format_count(rule.reference_tokens)})^{rule.token_exponent:.2f}, exponents to within "
        f"{rule.exponent_error:.2f} and {rule.token_exponent_error:.2f}; every trunk takes the rate of D = "
        f"{format_count(tuned.horizon_tokens)}; a rate off by a factor of two costs {penalty:.1%} of the loss"
    )


def _section(space: Space) -> TuningSpec:
    assert space.tuning is not None
    return space.tuning


def _chosen(study: str, end: StudyEnd, parameters: Sequence[Parameter]) -> list[Chosen]:
    """The best attempt's values of some of a study's hyperparameters."""
    best, ranges = end.best.values, {p.name: p.range for p in end.parameters}
    return [
        Chosen(
            name=p.name, study=study, value=best[p.name], own=p.own, low=ranges[p.name].low, high=ranges[p.name].high,
            edge=ranges[p.name].end(best[p.name]),
        )
        for p in parameters
    ]  # fmt: skip


def _summary(name: str, end: StudyEnd) -> StudySummary:
    return StudySummary(
        name=name, n_trials=len(end.outcomes), n_pruned=sum(outcome.pruned for outcome in end.outcomes),
        n_failed=sum(bool(outcome.failed) for outcome in end.outcomes), best_loss=end.best.loss,
        own_loss=end.outcomes[0].loss,
    )  # fmt: skip


def _study_sentence(name: str, end: StudyEnd) -> str:
    about = _summary(name, end)
    values = ", ".join(f"{key} {value:.4g}" for key, value in end.best.values.items())
    own = f"the space's own {about.own_loss:.4f}" if math.isfinite(about.own_loss) else "the space's own failed"
    edges = "; still at the end of its range: " + ", ".join(end.edges) if end.edges else ""
    return (
        f"{name}: {about.n_trials} trials, {about.n_pruned} stopped early, {about.n_failed} failed; best "
        f"{about.best_loss:.4f} ({own}) at {values}{edges}"
    )
