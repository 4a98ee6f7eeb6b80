"""Hyperparameters before the sweep: Optuna studies of small models on the sweep's own lanes.

Four stages, each resting on the ones before:

1. *steps*: batch size and warm-up, with the learning rate beside them, at the smallest size. The sweep has one batch
   for all sizes, since its grids are whole steps.
2. *rate*: the learning rate alone, for each size. A trunk passes every D of the grid on its way, so one trial gives a
   loss at each; parabolas give the best rate at each (N, D).
3. the rule through those optima (`raysplit.design.hyperparameters`), read at the largest D of the sweep's grid.
4. *branch*: re-warm-up, rate and replay of the branches, at the smallest size, from a trunk at the rule's rate.

From bases there are no trunks to train. Then *steps* is left out, *rate* tunes the branches of each base, and *branch*
starts from the smallest base.

The sweep then trains with what was found. So the law is fitted to tuned runs only.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysplit.design.hyperparameters import Optimum, Range, Tried, fit_rule
from raysplit.quantities import counted, format_count, format_hyperparameter
from raysplit.space import Space
from raysplit.tuning.objectives import BRANCH, LEARNING_RATE, Branches, Points, StudyTrainer, TrainAll, Trunk, section
from raysplit.tuning.storage import StudyStore
from raysplit.tuning.studies import Hyperparameter, Objective, StudyEnd, run_study
from raysplit.tuning.tuned import Chosen, StudySummary, Tuned

STEPS, RATE = "steps", "rate"
_DEFAULT_RATE_FACTOR = 4.0
_MOST_RATE, _MOST_FACTOR, _MOST_REPLAY = 1.0, 10.0, 0.9
"""How far a range may be widened."""
_STEP_FIELDS = ("batch_tokens", "warmup_tokens")
_BRANCH_FIELDS = ("branch_rate_factor", "branch_warmup_tokens", "replay_share")


def points_of(space: Space, *, vocab_size: int) -> Points:
    """The points at which a space is tuned: those of its section ``tuning``, else the smallest of the sweep's.

    Left out, they are the two smallest sizes, the first two D above 0 of the sweep's list, and its first D'.
    """
    tuning = section(space)
    sizes = tuning.sizes or tuple(sorted(space.model.sizes)[:2])
    pretrain = tuning.pretrain_tokens or tuple(d for d in space.sweep.pretrain_tokens if d)[:2]
    if space.model.checkpoints:
        pretrain = (space.horizon_tokens,)
    specialize = tuning.specialize_tokens or space.sweep.specialize_tokens[:1]
    return Points(
        sizes=tuple(sorted({space.shape(n, vocab_size).n_params_non_embedding for n in sizes})),
        pretrain_tokens=pretrain
        if space.model.checkpoints
        else tuple(dict.fromkeys(map(space.round_tokens, pretrain))),
        specialize_tokens=tuple(dict.fromkeys(map(space.round_tokens, specialize))),
    )


def rate_parameter(space: Space, n_params: int) -> Hyperparameter:
    """The learning rate of a size, in the range that the space gives, else within a factor of 4 of the space's own."""
    own = space.training.learning_rate.peak(n_params, space.horizon_tokens)
    low, high = section(space).learning_rate or (own / _DEFAULT_RATE_FACTOR, own * _DEFAULT_RATE_FACTOR)
    return Hyperparameter(name=LEARNING_RATE, range=Range(low=low, high=high, most=max(_MOST_RATE, high)), own=own)


def other_parameters(space: Space, points: Points) -> dict[str, Hyperparameter]:
    """The other hyperparameters for which the space gives a range, by name, with the limits of its widening."""
    tuning, training = section(space), space.training
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
            found[name] = Hyperparameter(name=name, range=tried, own=getattr(training, name), step=whole)
    return found


def expected_flops(space: Space, *, vocab_size: int) -> float:
    """FLOPs of all studies, if no trial is stopped early and no range is widened."""
    points, n_trials = points_of(space, vocab_size=vocab_size), section(space).n_trials
    names = other_parameters(space, points)

    def path(grid: Sequence[int]) -> int:
        """Tokens of a run to the end of a grid, with a cooldown for each of its points."""
        return max(grid) + sum(tokens - space.cooldown_start(tokens) for tokens in grid)

    branches = len(space.domains) * path(points.specialize_tokens)
    is_given = bool(space.model.checkpoints)
    tokens = {n: n_trials * (branches if is_given else path(points.pretrain_tokens)) for n in points.sizes}
    smallest = points.sizes[0]
    if any(name in names for name in _STEP_FIELDS):
        tokens[smallest] += n_trials * path(points.pretrain_tokens)
    if any(name in names for name in _BRANCH_FIELDS):
        tokens[smallest] += (0 if is_given else points.pretrain_tokens[-1]) + n_trials * branches
    return float(math.fsum(space.shape(n, vocab_size).flops_per_token * t for n, t in tokens.items()))


def tune(
    space: Space,
    store: StudyStore,
    *,
    checkpoints: Path,
    vocab_size: int,
    train_all: TrainAll,
    tell: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Run every study in turn; a call after an interrupted one goes on where that was.

    Args:
        space: with a section ``tuning``.
        store: where Optuna keeps the trials.
        checkpoints: folder for those of the trials under way; deleted at the end.
        vocab_size: of the corpus's tokenizer.
        train_all: carries out tasks.
        tell: is given lines for the person who waits.

    Raises:
        RunError: no trial of a study ran to its end.
    """
    tuning, points = section(space), points_of(space, vocab_size=vocab_size)
    others, smallest = other_parameters(space, points), points.sizes[0]
    trainer = StudyTrainer(space=space, folder=checkpoints, vocab_size=vocab_size, train_all=train_all)
    ends: dict[str, StudyEnd] = {}

    def study(name: str, parameters: Sequence[Hyperparameter], objective: Objective, **options: Any) -> StudyEnd:
        end = ends[name] = run_study(
            store.prefix + name, parameters, objective, storage=store.storage, n_trials=tuning.n_trials,
            n_lanes=space.compute.lanes, seed=tuning.seed, tell=tell, **options,
        )  # fmt: skip
        tell(_study_sentence(name, end))
        return end

    chosen: list[Chosen] = []
    if steps := [others[name] for name in _STEP_FIELDS if name in others]:
        end = study(STEPS, [rate_parameter(space, smallest), *steps], Trunk(trainer, smallest, points.pretrain_tokens))
        chosen += _chosen(STEPS, end, steps)
        trainer = replace(trainer, space=space.with_training(**{c.name: c.value for c in chosen}))

    optima: list[Optimum] = []
    tried: list[Tried] = []
    for n_params in points.sizes:
        rate = rate_parameter(space, n_params)
        at_size = (
            Branches(trainer, n_params, points, rate=rate.own)
            if space.model.checkpoints
            else Trunk(trainer, n_params, points.pretrain_tokens)
        )
        end = study(f"{RATE}-n{n_params}", [rate], at_size, find_edges=at_size.rate_edges)
        tried += at_size.tried(end.results)
        optima += at_size.optima(end)
    rule = fit_rule(optima, prior_exponent=space.training.learning_rate.exponent)
    tuned = Tuned(
        schema_version=1, storage=store.url, rule=rule, optima=tuple(optima), tried=tuple(tried),
        prior_exponent=space.training.learning_rate.exponent, horizon_tokens=space.horizon_tokens, chosen=(),
        studies=(), trained_flops=0.0,
    )  # fmt: skip
    tell(rule_sentence(tuned))

    if branch := [others[name] for name in _BRANCH_FIELDS if name in others]:
        branches = Branches(trainer, smallest, points, rate=tuned.rate(smallest))
        chosen += _chosen(BRANCH, study(BRANCH, branch, branches), branch)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return replace(
        tuned, chosen=tuple(chosen), studies=tuple(_summary(name, end) for name, end in ends.items()),
        trained_flops=math.fsum(result.flops for end in ends.values() for result in end.results),
    )  # fmt: skip


def rule_sentence(tuned: Tuned) -> str:
    """The rule of the learning rate in words: its exponents, their errors, and what a wrong rate costs."""
    rule = tuned.rule
    penalty = sum(optimum.doubling_penalty for optimum in tuned.optima) / len(tuned.optima)
    return (
        f"learning rate = {rule.reference:.3g} (N / {format_count(rule.reference_params)})^{rule.exponent:.2f} "
        f"(D / {format_count(rule.reference_tokens)})^{rule.token_exponent:.2f}, exponents to within "
        f"{rule.exponent_error:.2f} and {rule.token_exponent_error:.2f}; every trunk takes the rate of D = "
        f"{format_count(tuned.horizon_tokens)}; a rate off by a factor of two costs {penalty:.1%} of the loss"
    )


def _chosen(study: str, end: StudyEnd, parameters: Sequence[Hyperparameter]) -> list[Chosen]:
    """The best trial's values of some of a study's hyperparameters."""
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
        name=name, n_trials=len(end.results), n_pruned=sum(result.pruned for result in end.results),
        n_failed=sum(bool(result.failed) for result in end.results), best_loss=end.best.loss,
        own_loss=end.results[0].loss,
    )  # fmt: skip


def _study_sentence(name: str, end: StudyEnd) -> str:
    about = _summary(name, end)
    tried = end.results[0].values
    is_own = all(math.isclose(tried[p.name], p.own) for p in end.parameters)
    first = "the space's own" if is_own else f"moved into the range, the space's own, {_values_told(tried)},"
    own = f"{first} {about.own_loss:.4f}" if math.isfinite(about.own_loss) else f"{first} failed"
    edges = "; still at the end of its range: " + ", ".join(end.edges) if end.edges else ""
    return (
        f"{name}: {counted(about.n_trials, 'trial')}, {about.n_pruned} stopped early, {about.n_failed} failed; best "
        f"{about.best_loss:.4f} ({own}) at {_values_told(end.best.values)}{edges}"
    )


def _values_told(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {format_hyperparameter(name, value)}" for name, value in values.items())
