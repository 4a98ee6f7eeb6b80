"""A whole sweep on Ray: law actor, lanes, Tune; and what it leaves in the run folder."""

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import ray
from ray import tune
from rich.console import Console

from raysplit import strict_json
from raysplit.corpus import Corpus
from raysplit.design.campaign import opening
from raysplit.design.evidence import price_together
from raysplit.design.setup import Setup
from raysplit.errors import RunError
from raysplit.http.options import HttpOptions
from raysplit.journal import ReadJournal, Record, has_journal, read_journal
from raysplit.live import beacon
from raysplit.live.actor import NAMESPACE, actor_name, laws_beside, start_law_actor
from raysplit.live.beacon import Beacon
from raysplit.live.service import LawService, Status
from raysplit.live.shelf import Shelf
from raysplit.quantities import format_seconds
from raysplit.space import Space, dump_space
from raysplit.sweep.basis import Basis, basis_of_corpus, basis_of_run, recorded
from raysplit.sweep.cluster import joined_cluster
from raysplit.sweep.display import Display
from raysplit.sweep.folder import RunFolder, existing_run, write_text
from raysplit.sweep.law_client import ActorLaw
from raysplit.sweep.pool import Pool
from raysplit.sweep.storage import masked
from raysplit.sweep.tune import LawScheduler, LawSearcher, NoLanesLeft, TrialRunner
from raysplit.sweep.tuned import read_tuned
from raysplit.sweep.tuning import points_of, storage_of
from raysplit.sweep.tuning import tune as tune_hyperparameters
from raysplit.train.checkpoints import check_checkpoints


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepEnd:
    """How a sweep ended."""

    why: str
    status: Status
    wall_seconds: float


def show_law(folder: RunFolder) -> None:
    """Tell in the run folder where its law actor, of the cluster that this process has joined, can be found."""
    address = ray.get_runtime_context().gcs_address
    mode = os.environ.get("RAY_AUTH_MODE", "")
    found = Beacon(actor=actor_name(folder.sweep_id), namespace=NAMESPACE, address=address, auth_mode=mode)
    beacon.light(folder.path, found)


def run_sweep(
    space: Space,
    folder: RunFolder,
    corpus: Corpus,
    *,
    console: Console,
    ray_address: str | None,
    http: HttpOptions | None = None,
) -> SweepEnd:
    """Run a sweep to its end, or take up one that was interrupted; a finished one is only read.

    The law is served over ``http``, where it is given, as long as the sweep lasts.

    Raises:
        RunError: the budget does not pay for the opening round, the cluster has no room for the lanes, or the folder
            cannot be written.
        CheckpointError: the folder holds a checkpoint of another model.
        RaysplitError: a lane has failed for good.
    """
    started = time.perf_counter()
    basis = basis_of_corpus(space, corpus)
    service = _reading(basis, folder, recorded(folder))
    before = service.status()
    if before.finished:
        write_results(service, folder)
        return SweepEnd(why=before.finished, status=before, wall_seconds=0.0)
    check_checkpoints(folder.checkpoints, space, vocab_size=corpus.vocab_size)
    check_opening(basis.setup)
    if before.n_observations:
        console.print(f"taking up the sweep at {before.n_observations} observations")
    with joined_cluster(space.compute, address=ray_address):
        console.print(f"live law: raysplit.connect({str(folder.path)!r}), or `raysplit advise {folder.path}`")
        law = start_law_actor(
            folder.sweep_id, basis.setup, folder.journal, basis.bytes_per_token, basis.shapes, face=http
        )
        if http is not None:
            console.print(f"its page: {ray.get(law.serve.remote(http))}")
        show_law(folder)
        pool = Pool(space, run_folder=folder.path, corpus_folder=folder.corpus, law=law)
        try:
            console.print(
                f"starting {space.compute.lanes} lanes of {space.compute.workers_per_lane} DeepSpeed workers ...",
                end=" ",
            )
            console.print(f"up after {format_seconds(pool.wait_until_ready())}")
            with Display(console, law=law, broker=pool.broker, title="sweep"):
                _tune(basis.setup, folder, law=ActorLaw(law), pool=pool)
            pool.check()
        finally:
            pool.close()
            beacon.put_out(folder.path)
            ray.kill(law)
    service = _reading(basis, folder, recorded(folder))
    status = service.status()
    if status.finished:
        write_results(service, folder)
    return SweepEnd(why=status.finished, status=status, wall_seconds=time.perf_counter() - started)


def check_opening(setup: Setup) -> None:
    """Refuse a sweep whose budget does not pay for its first round.

    Raises:
        RunError: it does not.
    """
    opening_flops = price_together(setup, opening(setup).trials)
    if setup.policy == "adaptive" and opening_flops > setup.budget_flops:
        raise RunError(
            f"sweep.budget_flops = {setup.budget_flops:g} is less than the {opening_flops:.3g} FLOPs of the opening "
            "round; raise it, or shorten the grids"
        )


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
                console.print(f"tuning on {space.compute.lanes} lanes; Optuna's database is {masked(storage.url)}")
                console.print(f"lanes up after {format_seconds(pool.wait_until_ready())}")
                with Display(console, law=None, broker=pool.broker, title="tuning"):
                    tuned = tune_hyperparameters(
                        space, folder, storage=storage, vocab_size=corpus.vocab_size, train_all=pool.run_all,
                        check=pool.check, tell=lambda line: console.print(line),
                    )  # fmt: skip
            finally:
                pool.close()
        write_text(folder.tuned_space, dump_space(tuned.apply(space)))
        write_text(folder.hyperparameters, tuned.to_json())  # last: where it is, tuning has ended
    return tuned.apply(space)


def read_service(run_folder: Path) -> LawService:
    """The law service of a run, be it running, finished or only served, to ask and not to write.

    Raises:
        RunError: the folder holds no run, or its sweep has not begun.
        CorpusError: the corpus of a sweep is not there.
    """
    folder, space = existing_run(run_folder)
    if not has_journal(folder.journal):
        raise RunError(f"{run_folder}: its sweep has not begun; start it with `raysplit sweep`")
    records = read_journal(folder.journal)
    return _reading(basis_of_run(folder, space, records), folder, records)


def _reading(basis: Basis, folder: RunFolder, records: list[Record]) -> LawService:
    """The service as the journal has it now; only the law actor writes, which may be at it."""
    last_seq = records[-1].seq if records else -1
    return LawService(
        basis.setup,
        ReadJournal(records),
        bytes_per_token=basis.bytes_per_token,
        shape_of=basis.shapes,
        shelf=Shelf(laws_beside(folder.journal), last_seq=last_seq),
    )


def write_results(service: LawService, folder: RunFolder) -> None:
    """Write observations, law and advice as files that other tools read."""
    frame = service.observations()
    frame.to_csv(folder.observations("csv"), index=False)
    frame.to_parquet(folder.observations("parquet"), index=False)
    law = json.loads(service.law().to_json())
    law["choice"] = asdict(service.choice())
    write_text(folder.law, strict_json.dumps(law, indent=1))
    write_text(folder.advice, service.advise().advice.to_json())


def _tune(setup: Setup, folder: RunFolder, *, law: ActorLaw, pool: Pool) -> None:
    """Drive the trials; returns when the searcher says that the sweep has ended."""
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is ours: Tune would wait for the trials and talk of them
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(setup.lanes))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialRunner, broker=pool.broker), {"CPU": 0.01}),
        tune_config=tune.TuneConfig(
            search_alg=LawSearcher(law),
            scheduler=LawScheduler(law),
            num_samples=-1,
            max_concurrent_trials=setup.lanes,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            # A name of its own for each start: what carries over is the journal, not Tune's snapshot.
            name=time.strftime("tune-%Y%m%d-%H%M%S"),
            storage_path=str(folder.path / "ray"),
            verbose=0,
            stop=NoLanesLeft(pool.broker),
        ),
    )
    tuner.fit()
