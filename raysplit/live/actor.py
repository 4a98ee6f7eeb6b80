"""The law actor: the sweep's `LawService` as a named, detached Ray actor that anyone on the cluster can ask."""

import pickle
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from raysplit import ray_private
from raysplit.design.campaign import Verdict
from raysplit.design.tasks import Outcome
from raysplit.design.tree import Trial
from raysplit.errors import RaysplitError, RunError
from raysplit.journal import Journal
from raysplit.live.client import NAMESPACE, actor_name, sent
from raysplit.live.face import Face, Served
from raysplit.live.fit_actor import FitActor
from raysplit.live.law_store import laws_beside
from raysplit.live.laws_behind import LawsBehind
from raysplit.live.lease import Lease, Renewals
from raysplit.live.questions import AskStatus, Question
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import Claim, LawService

_THREADS = {"ask": 4, "ingest": 4, "look": 2}
"""Threads of each group of methods, so that no one waits for another kind's work; what a sweep decides has its own."""
_DECIDING_THREADS = 8
_SERVE_RETRY_SECONDS = 2.0
_SURVIVOR_SECONDS = 30.0
"""An actor that outlived its driver and lost its node starts elsewhere within so long, or no node may hold it."""

_ingest = ray.method(concurrency_group="ingest")
_look = ray.method(concurrency_group="look")


class LawActor:
    """`LawService` behind Ray; restarted after a crash, it reads its journal and goes on."""

    def __init__(self, run: RunSpec, journal: str | Path, lease: Lease | None = None) -> None:
        opened = Journal(journal)
        self._service = LawService(
            run,
            opened,
            make_laws=partial(LawsBehind, make_fitter=FitActor),
            laws_in=laws_beside(journal),
            fence=opened.fence,
        )
        self._renewals = None if lease is None else Renewals(lease, end=_end_this_actor)
        if self._renewals is not None:
            threading.Thread(target=self._renewals.watch, daemon=True).start()
        self._served: Served | None = None
        self._face: Face
        self._serving = threading.Lock()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            threading.Thread(target=self._serve_again, daemon=True).start()

    @_look
    def serve(self, face: Face) -> str:
        """Serve from this process, also after it was restarted.

        Returns:
            The server's address; that of the first call if there were several.

        Raises:
            RunError: the address cannot be bound, or is open to others without a token; or the first call did not give
                something that is asked for now.
        """
        with self._serving:
            if self._served is None:
                self._served = face.serve(self._service)
                self._face = face.at(self._served.url)
                ray_private.put_in_cluster(_face_key(), pickle.dumps(self._face), namespace=NAMESPACE)
            elif lacking := self._face.lacks(face):
                raise RunError(
                    f"the law is served already, at {self._served.url}, without the {' and '.join(lacking)} of now; "
                    "what counts is given to `raysplit sweep --http`, at its next start"
                )
            return self._served.url

    def _serve_again(self) -> None:
        """Serve where the process before this one did; a thread does so, as the law matters more than its page."""
        while True:
            try:
                stored = ray_private.kept_in_cluster(_face_key(), namespace=NAMESPACE)
                if stored is not None:
                    self.serve(pickle.loads(stored))
            except Exception as error:  # the port may still be another's, or the cluster's memory away for a moment
                self._service.trouble_elsewhere = f"not served over HTTP since the restart: {error}"
                time.sleep(_SERVE_RETRY_SECONDS)
            else:
                self._service.trouble_elsewhere = ""
                return

    # Any question of `raysplit.live.questions`, by a method for each group of threads: Ray Client takes no option that
    # names the group of a call. An answer goes out pickled: Ray's own pickler asks Python about each object within it,
    # which under load takes longer than finding an advice.

    @ray.method(concurrency_group="ask")
    def ask(self, question: Question[Any]) -> bytes:
        return pickle.dumps(self._service.ask(question))

    @_look
    def look(self, question: Question[Any]) -> bytes:
        return pickle.dumps(self._service.ask(question))

    @_ingest
    def ingest(self, question: Question[Any]) -> bytes:
        return pickle.dumps(self._service.ask(question))

    @_look
    def renew(self) -> None:
        """Renew the lease: the driver is alive."""
        if self._renewals is not None:
            self._renewals.renew()

    @_look
    def tell_waiting(self, why: str) -> None:
        """Keep for the status why nothing happens; an empty text says that something does."""
        self._service.waiting = why

    def claim(self, running: Collection[Trial]) -> Claim:
        return self._service.claim(running)

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        return self._service.judge(trial, milestone)

    @_look
    def recorded(self, trial: Trial, milestone: int) -> Outcome | None:
        return self._service.recorded(trial, milestone)

    @_ingest
    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None:
        self._service.record(trial, milestone, outcome)


def _end_this_actor() -> None:
    ray.kill(ray.get_runtime_context().current_actor)  # all that it knows is in its journal


def _face_key() -> bytes:
    """Key under which the cluster's memory holds how this actor serves."""
    return f"face-{ray.get_runtime_context().get_actor_id()}".encode()


def _end_if_nothing_holds_it(name: str) -> None:
    """End an actor that an earlier command left, if its node is gone and Ray waits, maybe for ever, for another one."""
    with suppress(ValueError):  # there is none, or no longer
        actor = ray.get_actor(name, namespace=NAMESPACE)
        until = time.monotonic() + _SURVIVOR_SECONDS
        while ray_private.starts_again(actor):
            if time.monotonic() > until:
                ray.kill(actor)  # all that it knows is in its journal
            time.sleep(0.1)
            ray.get_actor(name, namespace=NAMESPACE)


def start_law_actor(
    sweep_id: str,
    run: RunSpec,
    journal: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    face: Face | None = None,
    lease: Lease | None = None,
) -> ActorHandle:
    """Start the sweep's law actor, or take over one that survived its driver.

    Args:
        sweep_id: of this run folder and no other, so that an actor of an earlier sweep is never picked up.
        run: what the sweep rests on.
        journal: where the sweep's journal lies, on storage that the actor's node reaches after a restart too.
        options: Ray's own, which say what nodes may hold it.
        face: by which the actor serves, now and after a restart.
        lease: after which it ends unless it is renewed; None for an actor that stays until it is killed.

    Raises:
        RunError: the journal cannot be opened, or the address cannot be bound.
    """
    remote = ray.remote(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=_DECIDING_THREADS,
        concurrency_groups=_THREADS,
    )(LawActor)
    placed = remote.options(
        name=actor_name(sweep_id),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        **(options or {}),
    )
    _end_if_nothing_holds_it(actor_name(sweep_id))
    actor: ActorHandle = placed.remote(run, journal, lease)
    try:
        ray.get(sent(actor, AskStatus()))
        if face is not None:
            ray.get(actor.serve.remote(face))
    except ray.exceptions.RayActorError as error:  # its text ends in what went wrong when it was made
        raise RunError(f"the law actor could not start: {str(error).strip().splitlines()[-1]}") from error
    except ray.exceptions.RayTaskError as error:
        ray.kill(actor)  # all that it knows is in its journal
        if isinstance(error.cause, RaysplitError):
            raise error.cause from None
        raise
    return actor
