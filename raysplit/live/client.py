"""Asking a live law from a notebook, a script or a service: the same methods, to wait for or to await."""

import asyncio
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from raysplit import ray_private
from raysplit.errors import RunError
from raysplit.live import endpoint
from raysplit.live.addresses import check_address, join_error
from raysplit.live.face import Face
from raysplit.live.questions import A, AnsweringLaw, AwaitedLaw, Question

NAMESPACE = "raysplit"


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
        found = endpoint.find(folder) if address is None else endpoint.read(folder)
        if found is None:
            raise RunError(f"{run}: no live law (its {endpoint.FILE_NAME} is missing, or the cluster it names is gone)")
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
    """Join a Ray cluster to ask a law there, without Ray's messages.

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
    ray_private.read_environment_again()


class LiveLaw(AnsweringLaw):
    """A live law: its methods are the questions of `raysplit.live.questions`.

    Each may raise LawError while there is no law, and RunError when the actor has ended or does not answer.
    """

    def __init__(self, actor: ActorHandle, *, timeout_seconds: float = 60.0) -> None:
        self.actor, self._timeout_seconds = actor, timeout_seconds
        self.aio = AsyncLiveLaw(actor, timeout_seconds=timeout_seconds)
        """The same methods, to be awaited."""

    def ask(self, question: Question[A]) -> A:
        """Ask and wait for the answer."""
        answer: A = pickle.loads(self._wait(sent(self.actor, question)))
        return answer

    def serve(self, face: Face) -> str:
        """Let the law's own process serve by a face; returns the address.

        Raises:
            RunError: it cannot be bound, or is open to others without a token.
        """
        return self._wait(self.actor.serve.remote(face))

    def _wait(self, reference: Any) -> Any:
        try:
            return ray.get(reference, timeout=self._timeout_seconds)
        except Exception as error:
            raise _in_our_words(error, self._timeout_seconds) from None


class AsyncLiveLaw(AwaitedLaw):
    """`LiveLaw`, to be awaited."""

    def __init__(self, actor: ActorHandle, *, timeout_seconds: float) -> None:
        self._actor, self._timeout_seconds = actor, timeout_seconds

    async def ask(self, question: Question[A]) -> A:
        try:
            pickled = await asyncio.wait_for(sent(self._actor, question), self._timeout_seconds)
        except Exception as error:
            raise _in_our_words(error, self._timeout_seconds) from None
        answer: A = pickle.loads(pickled)
        return answer


def _in_our_words(error: Exception, seconds: float) -> Exception:
    cause = getattr(error, "cause", None)
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(cause, Exception):
        return cause
    if isinstance(error, ray.exceptions.GetTimeoutError | TimeoutError):
        return RunError(f"the law actor did not answer within {seconds:g} s; it may be starting again")
    if isinstance(error, ray.exceptions.RayActorError):
        return RunError("the law actor has ended, with its sweep or its node: connect again, or ask the run folder")
    return error


def sent(actor: ActorHandle, question: Question[Any]) -> Any:
    """A reference to the answer, pickled."""
    return getattr(actor, question.group).remote(question)


def actor_name(sweep_id: str) -> str:
    return f"law-{sweep_id}"
