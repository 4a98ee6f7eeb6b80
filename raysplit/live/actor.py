"""The law actor: the sweep's `LawService` as a named, detached Ray actor that anyone on the cluster can ask."""

import pickle
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from raysplit.design.campaign import Verdict
from raysplit.design.setup import Setup
from raysplit.design.tree import Trial
from raysplit.errors import RaysplitError, RunError
from raysplit.journal import Journal
from raysplit.law import Law
from raysplit.live.answers import (
    Accepted,
    Curve,
    Event,
    GoOn,
    LawStamp,
    LiveAdvice,
    LivePrediction,
    Question,
    TrialState,
)
from raysplit.live.asking import ShapeOf
from raysplit.live.face import Face, Served
from raysplit.live.refit import LawsBehind
from raysplit.live.service import Claim, LawService, Status
from raysplit.live.shelf import Shelf
from raysplit.runs import Observation
from raysplit.split import Advice

NAMESPACE = "raysplit"
_THREADS = {"ask": 4, "ingest": 4, "look": 2}
"""Threads of each group of methods, so that no one waits for another kind's work; what a sweep decides has its own."""
_DECIDING_THREADS = 8
_PACKED_KEPT = 64
_SERVE_RETRY_SECONDS = 2.0

_ask = ray.method(concurrency_group="ask")
_ingest = ray.method(concurrency_group="ingest")
_look = ray.method(concurrency_group="look")


class LawActor:
    """`LawService` behind Ray; restarted after a crash, it reads its journal and goes on."""

    def __init__(
        self,
        setup: Setup,
        journal: str | Path,
        bytes_per_token: Mapping[str, float],
        shape_of: ShapeOf | None = None,
    ) -> None:
        opened = Journal(journal)
        last_seq = opened.records[-1].seq if opened.records else -1
        self._service = LawService(
            setup,
            opened,
            bytes_per_token=bytes_per_token,
            shape_of=shape_of,
            make_laws=LawsBehind,
            shelf=Shelf(laws_beside(journal), last_seq=last_seq, fence=opened.fence),
        )

        self._packed: dict[int, tuple[Advice, bytes]] = {}
        self._served: Served | None = None
        self._face: Face
        self._serving = threading.Lock()
        self._serving_trouble = ""
        if ray.get_runtime_context().was_current_actor_reconstructed:
            threading.Thread(target=self._serve_again, daemon=True).start()

    @_look
    def serve(self, face: Face) -> str:
        """Serve from this process, also after it was restarted.

        Returns the server's address, that of the first call if there were more.

        Raises:
            RunError: the address cannot be bound, or is open to others without a token; or the first call was given
                less than is asked for now.
        """
        with self._serving:
            if self._served is None:
                self._served = face.serve(self._service)
                self._face = face.at(self._served.url)
                _internal_kv_put(_face_key(), pickle.dumps(self._face), namespace=NAMESPACE)
            elif lacking := self._face.lacks(face):
                raise RunError(
                    f"the law is served already, at {self._served.url}, without the {' and '.join(lacking)} of now; "
                    "what counts is given to `raysplit sweep --http`, at its next start"
                )
            return self._served.url

    def _serve_again(self) -> None:
        """Where the process before this one served; the law matters more than its page, so nobody waits for it."""
        while True:
            try:
                stored = _internal_kv_get(_face_key(), namespace=NAMESPACE)
                if stored is not None:
                    self.serve(pickle.loads(stored))
            except Exception as error:  # the port may still be another's, or the cluster's memory away for a moment
                self._serving_trouble = f"not served over HTTP since the restart: {error}"
                time.sleep(_SERVE_RETRY_SECONDS)
            else:
                self._serving_trouble = ""
                return

    def claim(self, running: Collection[Trial]) -> Claim:
        return self._service.claim(running)

    def judge(self, trial: Trial, milestone: int) -> Verdict:
        return self._service.judge(trial, milestone)

    @_ingest
    def record(
        self, trial: Trial, milestone: int, losses: Mapping[str, float], tokens: int, wall_seconds: float
    ) -> None:
        self._service.record(trial, milestone, losses=losses, tokens=tokens, wall_seconds=wall_seconds)

    @_ingest
    def record_failure(self, trial: Trial, milestone: int, why: str) -> None:
        self._service.record_failure(trial, milestone, why)

    @_ingest
    def observe(self, observations: Sequence[Observation]) -> Accepted:
        return self._service.observe(observations)

    @_ask
    def advise(self, question: Question | None = None, version: int | None = None) -> LiveAdvice:
        return self._service.advise(question, version=version)

    @_ask
    def advise_packed(self, question: Question | None = None, version: int | None = None) -> bytes:
        """`advise` for `raysplit.live.client`, as `pack_answer` lays it out: Ray hands bytes over as they are, and the
        advice is pickled once, however often it is asked for.
        """
        live = self._service.advise(question, version=version)
        packed = self._packed.get(id(live.advice))
        if packed is None or packed[0] is not live.advice:
            if len(self._packed) >= _PACKED_KEPT:
                self._packed = {}
            packed = self._packed[id(live.advice)] = (live.advice, pickle.dumps(live.advice))
        return pack_answer(packed[1], live.law)

    @_ask
    def predict(
        self,
        domain: str,
        n_params: float,
        pretrain_tokens: float,
        specialize_tokens: float,
        level: float = 0.9,
        version: int | None = None,
    ) -> LivePrediction:
        return self._service.predict(
            domain,
            n_params=n_params,
            pretrain_tokens=pretrain_tokens,
            specialize_tokens=specialize_tokens,
            level=level,
            version=version,
        )

    @_ask
    def curve(self, question: Question | None = None, n_params: int | None = None, version: int | None = None) -> Curve:
        return self._service.curve(question, n_params=n_params, version=version)

    @_ask
    def should_go_on(self, observation: Observation) -> GoOn:
        return self._service.should_go_on(observation)

    @_ask
    def law(self, version: int | None = None) -> Law:
        return self._service.law(version)

    @_ask
    def laws(self) -> list[LawStamp]:
        return self._service.laws()

    @_ask
    def stamp(self) -> LawStamp | None:
        return self._service.stamp()

    @_look
    def status(self) -> Status:
        status = self._service.status()
        return replace(status, trouble="; ".join(filter(None, (status.trouble, self._serving_trouble))))

    @_look
    def observations(self) -> Any:
        return self._service.observations()

    @_look
    def trials(self) -> list[TrialState]:
        return self._service.trials()

    @_look
    def events(self, after_seq: int = -1) -> list[Event]:
        return self._service.events(after_seq)

    @_ask
    def nothing(self) -> None:
        """What a call costs that does nothing: the floor under every answer's time."""


_stamp_values = attrgetter(*LawStamp.__dataclass_fields__)


def _face_key() -> bytes:
    """Of where this actor serves, in the cluster's memory."""
    return f"face-{ray.get_runtime_context().get_actor_id()}".encode()


def pack_answer(advice: bytes, stamp: LawStamp) -> bytes:
    """A pickled advice and its law's stamp; `unpack_answer` takes them apart."""
    return pickle.dumps((advice, _stamp_values(stamp)))


def unpack_answer(packed: bytes) -> tuple[bytes, LawStamp]:
    advice, values = pickle.loads(packed)
    return advice, LawStamp(**dict(zip(LawStamp.__dataclass_fields__, values, strict=True)))


def start_law_actor(
    sweep_id: str,
    setup: Setup,
    journal: str | Path,
    bytes_per_token: Mapping[str, float],
    shape_of: ShapeOf | None = None,
    *,
    resources: Mapping[str, float] | None = None,
    face: Face | None = None,
) -> ActorHandle:
    """Start the sweep's law actor, or take over one that survived its driver.

    Args:
        sweep_id: of this run folder and no other, so that an actor of an earlier sweep is never picked up.
        setup: the sweep's question and grid.
        journal: where the sweep's journal lies, on storage that the actor's node reaches after a restart too.
        bytes_per_token: of each domain's held-out text.
        shape_of: as `LawService` takes it.
        resources: of the nodes that may hold it, in Ray's terms, where not all of them reach the storage.
        face: by which the actor serves, now and after a restart.

    Raises:
        RunError: the journal cannot be opened, or the address not be bound.
    """
    remote = ray.remote(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=_DECIDING_THREADS,
        concurrency_groups=_THREADS,
    )(LawActor)
    options = remote.options(
        name=actor_name(sweep_id),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        resources=dict(resources or {}),
    )
    actor: ActorHandle = options.remote(setup, journal, dict(bytes_per_token), shape_of)
    try:
        ray.get(actor.status.remote())
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


def find_law_actor(sweep_id: str) -> ActorHandle:
    """The running law actor of a sweep, from any driver on its cluster.

    Raises:
        RunError: there is none; the sweep has ended or runs on another cluster.
    """
    try:
        actor: ActorHandle = ray.get_actor(actor_name(sweep_id), namespace=NAMESPACE)
    except ValueError as error:
        raise RunError(f"no law actor {actor_name(sweep_id)!r} on this Ray cluster; is the sweep running?") from error
    return actor


def actor_name(sweep_id: str) -> str:
    return f"law-{sweep_id}"


def laws_beside(journal: str | Path) -> str | Path:
    """Where the laws of a journal are kept."""
    if isinstance(journal, str) and "://" in journal:
        return journal.rpartition("/")[0] + "/laws"
    return Path(journal).parent / "laws"
