"""Asking a live law from a notebook, a script or a service: the same methods, to wait for or to await."""

import logging
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle

from raysplit.errors import RunError, unknown
from raysplit.live import beacon
from raysplit.live.actor import NAMESPACE, actor_name, unpack_answer
from raysplit.live.addresses import check_address, join_error
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
from raysplit.live.face import Face
from raysplit.live.observing import check_batch
from raysplit.runs import Observation
from raysplit.split import Advice

if TYPE_CHECKING:
    import pandas as pd

    from raysplit.law import Law
    from raysplit.live.service import Status


def connect(
    run: str | Path, *, address: str | None = None, namespace: str = NAMESPACE, timeout_seconds: float = 60.0
) -> "LiveLaw":
    """A client of the live law of a run.

    A process that has joined a Ray cluster already asks on that one; else it joins the run's, which needs Ray's token
    where the cluster asks for one (``RAY_AUTH_MODE=token`` and ``~/.ray/auth_token`` or ``RAY_AUTH_TOKEN``).

    Args:
        run: a run folder on this machine or shared storage, or the name that the sweep prints.
        address: of the Ray cluster, ``auto`` for this node's, ``ray://HOST:10001`` through Ray Client; None goes by the
            run folder.
        namespace: that the actor lives in.
        timeout_seconds: after which a question is given up; the actor may be restarting meanwhile.

    Raises:
        RunError: there is no such cluster or no such actor on it, or the token is wrong.
    """
    name, found = actor_name(str(run)), None
    if os.sep in str(run) or Path(run).is_dir():
        folder = Path(run)
        # A cluster that is named may be reachable in another way than the file says, as through Ray Client.
        found = beacon.find(folder) if address is None else beacon.read(folder)
        if found is None:
            raise RunError(f"{run}: no live law (its {beacon.FILE_NAME} is missing, or the cluster it names is gone)")
        name, namespace = found.actor, found.namespace
    elif str(run).startswith(actor_name("")):
        name = str(run)
    if not ray.is_initialized():
        if found and found.auth_mode == "token" and "RAY_AUTH_MODE" not in os.environ:
            _show_token()
        join(address or (found.address if found else "auto"), namespace=namespace)
    try:
        actor = ray.get_actor(name, namespace=namespace)
    except ValueError as error:
        raise RunError(f"no law actor {name!r} in namespace {namespace!r} on this Ray cluster") from error
    return LiveLaw(actor, timeout_seconds=timeout_seconds)


def join(address: str, *, namespace: str = NAMESPACE) -> None:
    """Join a Ray cluster quietly, to ask.

    Raises:
        RunError: it cannot be joined.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    found = address if "://" in address else check_address(address)
    try:
        ray.init(address=found, namespace=namespace, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray raises many kinds
        raise join_error(address, error) from error


def _show_token() -> None:
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")  # Ray 2.60 has read the mode when it was imported


@dataclass(frozen=True, slots=True)
class _Call:
    """One method of the actor, its errors in our words."""

    actor: ActorHandle
    timeout_seconds: float

    def wait(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self.actor, method).remote(*arguments), timeout=self.timeout_seconds)
        except Exception as error:
            raise _in_our_words(error, self.timeout_seconds) from None

    async def later(self, method: str, *arguments: Any) -> Any:
        import asyncio

        try:
            reference = getattr(self.actor, method).remote(*arguments)
            return await asyncio.wait_for(reference, self.timeout_seconds)
        except Exception as error:
            raise _in_our_words(error, self.timeout_seconds) from None


def _in_our_words(error: Exception, seconds: float) -> Exception:
    cause = getattr(error, "cause", None)
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(cause, Exception):
        return cause
    if isinstance(error, ray.exceptions.GetTimeoutError | TimeoutError):
        return RunError(f"the law actor did not answer within {seconds:g} s; it may be starting again")
    if isinstance(error, ray.exceptions.RayActorError):
        return RunError("the law actor has ended; has the sweep?")
    return error


class LiveLaw:
    """A live law. Every method raises LawError while there is no law, RunError when the actor has ended."""

    def __init__(self, actor: ActorHandle, *, timeout_seconds: float = 60.0) -> None:
        self.actor = actor
        self._call = _Call(actor, timeout_seconds)
        self.aio = AsyncLiveLaw(self._call)
        """The same methods, to be awaited."""

    def advise(self, question: Question | None = None, *, version: int | None = None, **changes: Any) -> LiveAdvice:
        """The best split of the sweep's target, or of another question; ``changes`` are fields of `Question`.

        Raises:
            SplitError: no split satisfies the question, or it names an unknown domain or size.
            LawError: there is no such version.
        """
        return _unpacked(self._call.wait("advise_packed", *_asked(_question(question, changes), version)))

    def predict(
        self,
        domain: str,
        *,
        n_params: float,
        pretrain_tokens: float,
        specialize_tokens: float,
        level: float = 0.9,
        version: int | None = None,
    ) -> LivePrediction:
        """Expected loss at a point, nats per token, with an interval for one new measurement.

        Raises:
            LawError: the domain is unknown, or the point or the level is impossible.
        """
        return self._call.wait("predict", domain, n_params, pretrain_tokens, specialize_tokens, level, version)

    def curve(
        self,
        question: Question | None = None,
        *,
        n_params: int | None = None,
        version: int | None = None,
        **changes: Any,
    ) -> Curve:
        """The best loss against D / T at one size, by default the advised one."""
        return self._call.wait("curve", _question(question, changes), n_params, version)

    def observe(self, observations: Sequence[Observation]) -> Accepted:
        """Report runs measured elsewhere, at most `MAX_BATCH` of `raysplit.live.observing` at once; durable after this.

        Raises:
            TableError: one is impossible, of an unknown domain or contradicts a known one; nothing was stored.
            RunError: the disk refused; nothing was stored.
        """
        return self._call.wait("observe", _batch(observations))

    def should_go_on(self, observation: Observation) -> GoOn:
        """Whether a run that raysplit did not start is worth its next tokens."""
        return self._call.wait("should_go_on", observation)

    def law(self, version: int | None = None) -> "Law":
        return self._call.wait("law", version)

    def serve(self, face: Face) -> str:
        """Let the law's own process serve over HTTP; returns the address.

        Raises:
            RunError: it cannot be bound, or is open to others without a token.
        """
        return self._call.wait("serve", face)

    def laws(self) -> list[LawStamp]:
        """The laws that can be asked for by version, newest last."""
        return self._call.wait("laws")

    def stamp(self) -> LawStamp | None:
        """Which law is the latest; None before there is one."""
        return self._call.wait("stamp")

    def status(self) -> "Status":
        return self._call.wait("status")

    def observations(self) -> "pd.DataFrame":
        return self._call.wait("observations")

    def trials(self) -> list[TrialState]:
        return self._call.wait("trials")

    def events(self, after_seq: int = -1) -> list[Event]:
        """The journal's records beyond one, oldest first."""
        return self._call.wait("events", after_seq)


class AsyncLiveLaw:
    """`LiveLaw`, to be awaited."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    async def advise(
        self, question: Question | None = None, *, version: int | None = None, **changes: Any
    ) -> LiveAdvice:
        return _unpacked(await self._call.later("advise_packed", *_asked(_question(question, changes), version)))

    async def predict(
        self,
        domain: str,
        *,
        n_params: float,
        pretrain_tokens: float,
        specialize_tokens: float,
        level: float = 0.9,
        version: int | None = None,
    ) -> LivePrediction:
        return await self._call.later("predict", domain, n_params, pretrain_tokens, specialize_tokens, level, version)

    async def curve(
        self,
        question: Question | None = None,
        *,
        n_params: int | None = None,
        version: int | None = None,
        **changes: Any,
    ) -> Curve:
        return await self._call.later("curve", _question(question, changes), n_params, version)

    async def observe(self, observations: Sequence[Observation]) -> Accepted:
        return await self._call.later("observe", _batch(observations))

    async def should_go_on(self, observation: Observation) -> GoOn:
        return await self._call.later("should_go_on", observation)

    async def law(self, version: int | None = None) -> "Law":
        return await self._call.later("law", version)

    async def serve(self, face: Face) -> str:
        return await self._call.later("serve", face)

    async def laws(self) -> list[LawStamp]:
        return await self._call.later("laws")

    async def stamp(self) -> LawStamp | None:
        return await self._call.later("stamp")

    async def status(self) -> "Status":
        return await self._call.later("status")

    async def observations(self) -> "pd.DataFrame":
        return await self._call.later("observations")

    async def trials(self) -> list[TrialState]:
        return await self._call.later("trials")

    async def events(self, after_seq: int = -1) -> list[Event]:
        return await self._call.later("events", after_seq)


def _asked(question: Question | None, version: int | None) -> tuple[Any, ...]:
    """Nothing where nothing is asked but the target: what is not sent need not be packed."""
    return () if question is None and version is None else (question, version)


def _unpacked(packed: bytes) -> LiveAdvice:
    advice, law = unpack_answer(packed)
    return LiveAdvice(advice=_advice(advice), law=law)


@lru_cache(maxsize=64)
def _advice(packed: bytes) -> Advice:
    """Most answers are the same as the last one, and half of an answer's time would go into taking it apart."""
    advice: Advice = pickle.loads(packed)
    return advice


def _question(question: Question | None, changes: dict[str, Any]) -> Question | None:
    if question is not None and changes:
        raise RunError(f"give a question or {', '.join(changes)}, not both")
    if unknown_names := [name for name in changes if name not in Question.__dataclass_fields__]:
        raise RunError(unknown("field of a question", unknown_names[0], Question.__dataclass_fields__))
    return Question(**changes) if changes else question


def _batch(observations: Sequence[Observation]) -> list[Observation]:
    """Refused here when it is too long to send."""
    check_batch(observations)
    return list(observations)
