"""One Optuna study in rounds: ask, train, tell; a range is widened where the best lies at its end.

A trial's *index* is the number that it has in a study that nothing interrupts. Its sampler's seed, its values and
whether it is pruned rest on its index and on earlier rounds alone. So a study that was killed and taken up again tries
what an uninterrupted one does. The database is the study's whole memory: what the trials of a round have measured is in
it before Optuna is told of any of them.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol

from raysplit.design.hyperparameters import Edge, Range
from raysplit.errors import RunError
from raysplit.quantities import counted, format_hyperparameter

_MAX_WIDENINGS = 2
_N_STARTUP = 4
"""Trials before the sampler learns from what was seen. Pruning begins after as many, or half of all if that is more."""
_SPREAD = (1 / 8, 7 / 8, 3 / 8, 5 / 8)
"""Where a single hyperparameter is tried after its own value, as shares of its range: a parabola wants both sides."""
_INDEX, _RESULT = "place", "outcome"
"""Names in the database, which databases of earlier versions have too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameter:
    """One hyperparameter of a study."""

    name: str
    range: Range
    own: float
    """The search space's own value, which is tried first."""
    step: int = 0
    """The value is a whole multiple of this; 0 allows any real number."""

    def at(self, share: float) -> float:
        """The value at a share (0 to 1) of the range, on its logarithm where the range is logarithmic."""
        low, high = self.range.low, self.range.high
        value = low * (high / low) ** share if self.range.log else low + (high - low) * share
        return self.range.clip(round(value / self.step) * self.step if self.step else value)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyTrial:
    """One trial of a study."""

    study: str
    index: int
    values: Mapping[str, float]

    @property
    def stage(self) -> str:
        """The study's name without that of the run."""
        return _stage(self.study)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a trial gave at one milestone."""

    loss: float
    """Nats per token."""
    flops: float
    """FLOPs trained from the milestone before to this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """What a trial gave."""

    values: Mapping[str, float]
    losses: Mapping[int, float]
    """Loss (nats per token) by milestone (tokens), as far as the trial got before it diverged or was pruned."""
    flops: float
    """FLOPs trained for those."""
    failed: str
    """Why training failed; empty when it did not."""
    pruned: bool

    @property
    def loss(self) -> float:
        """Mean over the milestones, since one set of hyperparameters serves all; infinite unless all were reached."""
        return math.inf if self.failed or self.pruned else sum(self.losses.values()) / len(self.losses)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyEnd:
    """A finished study."""

    name: str
    parameters: tuple[Hyperparameter, ...]
    """The hyperparameters, with their ranges as they were at the end."""
    results: tuple[StudyResult, ...]
    """The trials' results, by index."""
    edges: Mapping[str, Edge]
    """Hyperparameters whose best value still lies at an end of its range, and which end."""

    @property
    def best(self) -> StudyResult:
        """The result with the lowest loss among the trials that ran to the end.

        Raises:
            RunError: no trial ran to its end.
        """
        best = min(self.results, key=lambda result: result.loss)
        if not math.isfinite(best.loss):
            why = next((result.failed for result in self.results if result.failed), "all were pruned")
            raise RunError(f"tuning: no trial of the study {self.name!r} ran to its end ({why}); lower its ranges")
        return best


class TrainingFailed(Exception):
    """A trial's run has diverged, or its lane has given up."""


class Objective(Protocol):
    """What a study minimises."""

    @property
    def milestones(self) -> Sequence[int]:
        """Tokens at which the loss is read and a trial may be pruned, rising."""

    def measure(self, trial: StudyTrial, milestone: int) -> Reading:
        """Train a trial to a milestone and read the loss there; called for one milestone after the other.

        Raises:
            TrainingFailed: the run has no loss there.
        """

    def forget(self, trial: StudyTrial) -> None:
        """Delete what a trial that has ended left on disk."""


Edges = Callable[[Sequence[StudyResult], Sequence[Hyperparameter]], Mapping[str, Edge]]


def edges_of_best(results: Sequence[StudyResult], parameters: Sequence[Hyperparameter]) -> dict[str, Edge]:
    """The hyperparameters whose value in the best result lies at an end of its range, and which end."""
    best = min(results, key=lambda result: result.loss)
    found = {p.name: p.range.edge(best.values[p.name]) for p in parameters if math.isfinite(best.loss)}
    return {name: edge for name, edge in found.items() if edge}


def run_study(
    name: str,
    parameters: Sequence[Hyperparameter],
    objective: Objective,
    *,
    storage: Any,
    n_trials: int,
    n_lanes: int,
    seed: int,
    find_edges: Edges = edges_of_best,
    tell: Callable[[str], None] = lambda line: None,
) -> StudyEnd:
    """Run a study to its end, or take up one that was interrupted; a finished one is only read.

    Args:
        name: of the study in the storage.
        parameters: what is tuned.
        objective: what is minimised.
        storage: as `open_storage` gives it.
        n_trials: trials before a range is widened; each of at most two widenings adds half as many.
        n_lanes: trials of a round, which train at the same time.
        seed: of the samplers.
        find_edges: says which ranges are too narrow, and at which end.
        tell: is given lines for the person who waits.

    Errors of the objective other than `TrainingFailed` end the study where it is; the next call takes it up.
    """
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=max(_N_STARTUP, n_trials // 2))
    study = optuna.create_study(
        storage=storage, study_name=name, direction="minimize", load_if_exists=True, pruner=pruner
    )
    stage = _stage(name)
    if 0 < (n_told := len(_told_trials(study))) < n_trials:
        tell(f"{stage}: taken up at {counted(n_told, 'trial')}")
    again = _take_up(study)
    parameters, n_wanted, first = tuple(parameters), n_trials, 0
    edges: Mapping[str, Edge] = {}
    for n_widened in range(_MAX_WIDENINGS + 1):
        design = _opening(parameters) if not n_widened else _beyond(parameters, edges)
        for start in range(first, n_wanted, n_lanes):
            indices = range(start, min(start + n_lanes, n_wanted))
            fixed = {index: design[index - first] for index in indices if index - first < len(design)} | again
            _run_round(study, name, parameters, objective, indices, fixed, seed=seed)
        results = _results(study)[:n_wanted]
        edges = find_edges(results, parameters)
        if not edges or n_widened == _MAX_WIDENINGS:
            break
        parameters = tuple(replace(p, range=p.range.widened(edges.get(p.name, ""))) for p in parameters)
        wider = ", ".join(_told(p) for p in parameters if p.name in edges)
        tell(f"{stage}: the best value lies at the end of what was tried; {wider}")
        first, n_wanted = n_wanted, n_wanted + max(2, n_trials // 2)
    return StudyEnd(name=name, parameters=parameters, results=tuple(results), edges=edges)


def _told(parameter: Hyperparameter) -> str:
    low, high = (format_hyperparameter(parameter.name, end) for end in (parameter.range.low, parameter.range.high))
    return f"{parameter.name} widened to {low} to {high}"


def _opening(parameters: Sequence[Hyperparameter]) -> list[dict[str, float]]:
    """The values that a study begins with: the space's own; for a single hyperparameter also a spread of its range."""
    own = {p.name: p.range.clip(p.own) for p in parameters}
    if len(parameters) > 1:
        return [own]
    [parameter] = parameters
    return [own, *({parameter.name: parameter.at(share)} for share in _SPREAD)]


def _beyond(parameters: Sequence[Hyperparameter], edges: Mapping[str, Edge]) -> list[dict[str, float]]:
    """The first values to try in a range just widened: two in its new part; with several hyperparameters none."""
    if len(parameters) > 1:
        return []
    [parameter] = parameters
    return [
        {parameter.name: parameter.at(share if edges[parameter.name] == "low" else 1 - share)} for share in (0.1, 0.2)
    ]


def _run_round(
    study: Any,
    name: str,
    parameters: Sequence[Hyperparameter],
    objective: Objective,
    indices: Sequence[int],
    fixed: Mapping[int, Mapping[str, float]],
    *,
    seed: int,
) -> None:
    """Train every trial of a round that has no result yet, then tell Optuna of all of them."""
    from optuna.trial import TrialState

    told = {trial.user_attrs[_INDEX] for trial in _told_trials(study)}
    trials = {
        index: _ask(study, parameters, index, fixed.get(index), seed=_seed(name, seed, index))
        for index in indices
        if index not in told
    }
    lock = threading.Lock()
    executor = ThreadPoolExecutor(max_workers=max(1, len(trials)))
    try:
        training = [
            executor.submit(_train, trial, StudyTrial(study=name, index=index, values=trial.params), objective, lock)
            for index, trial in trials.items()
        ]
        done, _ = wait(training, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        # After Ctrl-C the threads wait for lanes that are about to be ended; nobody waits for the threads.
        executor.shutdown(wait=False, cancel_futures=True)
    for trial in trials.values():
        _tell(study, trial.number, trial.user_attrs[_RESULT], TrialState)


def _ask(
    study: Any, parameters: Sequence[Hyperparameter], index: int, values: Mapping[str, float] | None, *, seed: int
) -> Any:
    import optuna
    from optuna.distributions import FloatDistribution, IntDistribution

    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_N_STARTUP, constant_liar=True)
    if values is not None:
        study.enqueue_trial({p.name: int(values[p.name]) if p.step else values[p.name] for p in parameters})
    trial = study.ask(
        {
            p.name: IntDistribution(int(p.range.low), int(p.range.high), step=p.step)
            if p.step
            else FloatDistribution(p.range.low, p.range.high, log=p.range.log)
            for p in parameters
        }
    )
    trial.set_user_attr(_INDEX, index)
    return trial


def _train(asked: Any, trial: StudyTrial, objective: Objective, lock: threading.Lock) -> None:
    """Measure milestone after milestone, and write the result into the database."""
    losses: dict[int, float] = {}
    failed, pruned, flops = "", False, 0.0
    for milestone in objective.milestones:
        try:
            reading = objective.measure(trial, milestone)
        except TrainingFailed as error:
            failed = str(error)
            break
        losses[milestone] = reading.loss
        flops += reading.flops
        with lock:
            asked.report(losses[milestone], step=milestone)
            pruned = milestone != objective.milestones[-1] and bool(asked.should_prune())  # numpy's
        if pruned:
            break
    with lock:
        asked.set_user_attr(_RESULT, {"losses": losses, "failed": failed, "pruned": pruned, "flops": flops})
    objective.forget(trial)


def _take_up(study: Any) -> dict[int, Mapping[str, float]]:
    """Close what an interrupted round left open; returns the indices to train again, with the values they had."""
    from optuna.trial import TrialState

    again = {}
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if result := trial.user_attrs.get(_RESULT):
            _tell(study, trial.number, result, TrialState)
            continue
        if _INDEX in trial.user_attrs:
            again[trial.user_attrs[_INDEX]] = trial.params
        study.tell(trial.number, state=TrialState.FAIL)
    while study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        study.tell(study.ask(), state=TrialState.FAIL)  # enqueued and not begun; its index is asked for again
    return again


def _tell(study: Any, number: int, result: Mapping[str, Any], states: Any) -> None:
    if result["failed"] or result["pruned"]:
        study.tell(number, state=states.PRUNED)
    else:
        study.tell(number, sum(result["losses"].values()) / len(result["losses"]))


def _told_trials(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    trials: list[Any] = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
    return trials


def _results(study: Any) -> list[StudyResult]:
    """The results of all trials that Optuna was told of, by index."""
    by_place = {trial.user_attrs[_INDEX]: trial for trial in _told_trials(study)}
    found = []
    for _, trial in sorted(by_place.items()):
        result = trial.user_attrs[_RESULT]
        # In JSON the milestones have become strings.
        losses = {int(tokens): loss for tokens, loss in result["losses"].items()}
        found.append(StudyResult(**result | {"values": trial.params, "losses": losses}))
    return found


def _seed(name: str, seed: int, index: int) -> int:
    """Seed of a trial's sampler; made of its stage and not of the run's name, so that runs do not differ."""
    return int.from_bytes(hashlib.blake2b(f"{_stage(name)}/{seed}/{index}".encode(), digest_size=4).digest(), "little")


def _stage(name: str) -> str:
    """The stage in a study's name; runs that share a database put their own name before it."""
    return name.rpartition(" ")[2]
