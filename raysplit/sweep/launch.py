"""A whole sweep on Ray: law actor, lanes, Tune; and the results that it leaves in the run folder."""

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import ray
from ray import tune
from ray.actor import ActorHandle
from rich.console import Console

from raysplit import strict_json
from raysplit.corpus import Corpus
from raysplit.corpus.by_base import every_corpus
from raysplit.design.campaign import opening
from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree_state import price_together
from raysplit.errors import RunError
from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.journal import ReadJournal, Record, read_journal
from raysplit.lanes.cluster import joined_cluster
from raysplit.lanes.lanes import running_lanes
from raysplit.lanes.law_client import ActorLaw
from raysplit.lanes.stable import stable_options, stable_share
from raysplit.live import endpoint
from raysplit.live.actor import start_law_actor
from raysplit.live.answers import Status
from raysplit.live.client import NAMESPACE, actor_name
from raysplit.live.endpoint import Endpoint
from raysplit.live.law_store import laws_beside
from raysplit.live.lease import LEASE_SECONDS, Lease, renewed
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.quantities import counted
from raysplit.run_folder.folder import RunFolder, run_with_journal, write_text
from raysplit.runs import BASE
from raysplit.space import Space, dump_space
from raysplit.split import Base
from raysplit.sweep.backend import Backend, run_all
from raysplit.sweep.run_spec import recorded, run_spec_of, run_spec_of_space
from raysplit.sweep.tune import LawScheduler, LawSearcher, TrialRunner, Trials
from raysplit.train.checkpoints import check_checkpoints
from raysplit.tuning.stages import points_of
from raysplit.tuning.stages import tune as tune_hyperparameters
from raysplit.tuning.storage import open_store
from raysplit.tuning.tuned import read_tuned


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepEnd:
    """How a sweep ended."""

    status: Status
    wall_seconds: float


@contextmanager
def live_law(run: RunSpec, folder: RunFolder, *, face: HttpFace | None) -> Iterator[ActorHandle]:
    """A run's law actor on the cluster that this process has joined, for the length of a ``with`` block.

    Meanwhile the run folder says where the actor is. An actor whose driver was killed ends when its lease has run out;
    a command that starts before that takes it over.
    """
    lease = Lease(seconds=LEASE_SECONDS, folder=folder.path)
    law = start_law_actor(folder.sweep_id, run, folder.journal, options=stable_options(), face=face, lease=lease)
    address = ray.get_runtime_context().gcs_address
    mode = os.environ.get("RAY_AUTH_MODE", "")
    found = Endpoint(actor=actor_name(folder.sweep_id), namespace=NAMESPACE, address=address, auth_mode=mode)
    try:
        endpoint.write(folder.path, found)
        with renewed(law, lease):
            yield law
    finally:
        ray.kill(law)
        endpoint.remove(folder.path)


def run_sweep(
    space: Space,
    folder: RunFolder,
    corpus: Corpus,
    *,
    console: Console,
    ray_address: str | None,
    http: HttpOptions | None = None,
    wait_seconds: float = 0.0,
) -> SweepEnd:
    """Run a sweep to its end, or take up one that was interrupted; a finished one is only read.

    The law is served over ``http``, where it is given, as long as the sweep lasts. The sweep waits ``wait_seconds``
    for nodes where the cluster has no room for the smallest lane.

    Raises:
        RunError: the budget does not pay for the opening round, the cluster has no room for the lanes, or the folder
            cannot be written.
        CheckpointError: the folder holds a checkpoint of another model.
        LaneError: machines were at fault, as often as was put up with; every trial stays open.
    """
    started = time.perf_counter()
    run = run_spec_of_space(space, corpus)
    service = _reading(run, folder, recorded(folder.journal))
    before = service.status()
    if before.finished:
        write_results(service, folder)
        return SweepEnd(status=before, wall_seconds=0.0)
    checkpoints = folder.checkpoints_at(space.compute.storage)
    check_checkpoints(checkpoints, space, vocab_size=corpus.vocab_size)
    check_opening(run.spec)
    if before.n_observations:
        console.print(f"taking up the sweep at {counted(before.n_observations, 'observation')}")
    with joined_cluster(space.compute, address=ray_address):
        console.print(
            f"live law: raysplit.connect({str(folder.path)!r}), or `raysplit advise {shlex.quote(str(folder.path))}`"
        )
        face = None if http is None else HttpFace(http)
        with live_law(run, folder, face=face) as law:
            if face is not None:
                console.print(f"its page: {ray.get(law.serve.remote(face))}")
            with running_lanes(
                space, folder, law=law, console=console, title="sweep", wait_seconds=wait_seconds
            ) as lanes:
                _tune(folder, Trials(ActorLaw(law), lanes=run.spec.lanes, n_blocked=lanes.n_blocked), lanes)
    service = _reading(run, folder, recorded(folder.journal))
    status = service.status()
    if status.finished:
        write_results(service, folder)
    return SweepEnd(status=status, wall_seconds=time.perf_counter() - started)


def check_opening(spec: ResolvedSpec) -> None:
    """Refuse a sweep whose budget does not pay for its opening round.

    Raises:
        RunError: its budget does not.
    """
    opening_flops = price_together(spec, opening(spec).trials)
    if spec.policy == "adaptive" and opening_flops > spec.budget_flops:
        raise RunError(
            f"sweep.budget_flops = {spec.budget_flops:g} is less than the {opening_flops:.3g} FLOPs of the opening "
            "round; raise it, or shorten the grids"
        )


def run_tuning(
    space: Space,
    folder: RunFolder,
    corpus: Corpus,
    *,
    console: Console,
    ray_address: str | None,
    wait_seconds: float = 0.0,
) -> Space:
    """Tune the hyperparameters that the space asks for, or go on with an interrupted run; returns the space to sweep.

    A space without a section ``tuning`` comes back as it is.

    Raises:
        CorpusError: a domain has too few tokens for the points.
        RunError: the cluster has no room for the lanes, or Optuna's database cannot be used.
        LaneError: machines were at fault, as often as was put up with.
    """
    if space.tuning is None:
        return space
    if (tuned := read_tuned(folder.hyperparameters)) is None:
        points = points_of(space, vocab_size=corpus.vocab_size)
        for own in every_corpus(space, corpus):
            own.check_capacity(
                max_pretrain_tokens=points.pretrain_tokens[-1],
                max_specialize_tokens=points.specialize_tokens[-1],
                max_epochs=space.corpus.max_epochs,
                context_length=space.model.context_length,
            )
        # Opened before the lanes start, to refuse early.
        store = open_store(space, default=folder.optuna, run_name=folder.sweep_id)
        console.print(f"tuning; Optuna's database is {store.url}")
        with (
            joined_cluster(space.compute, address=ray_address),
            running_lanes(space, folder, law=None, console=console, title="tuning", wait_seconds=wait_seconds) as lanes,
        ):
            tuned = tune_hyperparameters(
                space, store, checkpoints=folder.tuning, vocab_size=corpus.vocab_size,
                train_all=partial(run_all, lanes), tell=lambda line: console.print(line),
            )  # fmt: skip
        write_text(folder.tuned_space, dump_space(tuned.apply(space)))
        write_text(folder.hyperparameters, tuned.to_json())  # last: where it is, tuning has ended
    return tuned.apply(space)


def read_service(run_folder: Path) -> LawService:
    """The law service of a run, to ask and not to write; the run may be under way, finished or only served.

    Raises:
        RunError: the folder holds no run, or its sweep has not begun.
        CorpusError: the corpus of a sweep is not there, and its journal is of an older raysplit.
    """
    folder = run_with_journal(run_folder)
    records = read_journal(folder.journal)
    return _reading(run_spec_of(folder, records), folder, records)


def _reading(run: RunSpec, folder: RunFolder, records: list[Record]) -> LawService:
    """The service by the journal's records; it writes nothing, since a law actor may."""
    return LawService(run, ReadJournal(records), laws_in=laws_beside(folder.journal))


def _with_bases(observations: pd.DataFrame, bases: Mapping[int, Base]) -> pd.DataFrame:
    """The observations as a table of continued pretraining, as `raysplit fit` reads one; unchanged without bases."""
    if not bases:
        return observations
    names = [base.name for base in bases.values()]
    named = {n: base.name if names.count(base.name) == 1 else f"{base.name}-{n}" for n, base in bases.items()}
    return observations.assign(**{BASE: observations["n_params"].map(named)})


def write_results(service: LawService, folder: RunFolder) -> None:
    """Write observations, law and advice as files that other tools read."""
    frame = _with_bases(service.observations(), service.spec.problem.bases)
    frame.to_csv(folder.observations("csv"), index=False)
    frame.to_parquet(folder.observations("parquet"), index=False)
    law = service.law().to_dict()
    law["choice"] = asdict(service.choice())
    law["loss_unit"] = service.spec.problem.loss_unit
    write_text(folder.law, strict_json.dumps(law, indent=1))
    write_text(folder.advice, service.advise().advice.to_json())


def _tune(folder: RunFolder, trials: Trials, backend: Backend) -> None:
    """Drive the trials; returns when the searcher says that the sweep has ended.

    Raises:
        LaneError: machines were at fault, as often as was put up with.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the journal has it all, and loading theirs takes seconds
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is ours: Tune would wait for the trials and talk of them
    tuner = tune.Tuner(
        # No CPU: a cluster may be exactly as large as its lanes.
        tune.with_resources(tune.with_parameters(TrialRunner, backend=backend), dict(stable_share())),
        tune_config=tune.TuneConfig(
            search_alg=LawSearcher(trials), scheduler=LawScheduler(trials), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            # A name of its own for each start: what carries over is the journal, not Tune's snapshot.
            name=time.strftime("tune-%Y%m%d-%H%M%S"),
            storage_path=str(folder.path / "ray"),
            verbose=0,
        ),
    )
    tuner.fit()
