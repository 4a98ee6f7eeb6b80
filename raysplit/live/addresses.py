"""Whether a Ray cluster answers at an address, found out within seconds: Ray itself waits for a cluster without end."""

import os
import re
import socket

from ray.exceptions import AuthenticationError

from raysplit import ray_private
from raysplit.errors import RunError

_PATIENCE_SECONDS = 10.0
_SERVING = b"\x08\x01"
"""gRPC's health protocol: HealthCheckResponse(status=SERVING)."""
_ASKS_FOR_TOKEN = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""One of Ray's own calls that changes nothing; without a token it is refused where the cluster asks for one."""
_TOKEN = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) to the cluster's"
_REMEDY = "give HOST:PORT of its head (6379 unless it was started otherwise), or auto for the cluster of this node"


def check_address(address: str) -> str:
    """HOST:PORT of the cluster's head at an address, once it has answered.

    Args:
        address: HOST:PORT, or ``auto`` for the cluster that runs on this node, or that RAY_ADDRESS names.

    Raises:
        RunError: the address is not HOST:PORT, no head of a Ray cluster answers there, or it asks for a token that this
            process does not show.
    """
    named, found = address, address
    if address == "auto":
        found = os.environ.get("RAY_ADDRESS") or "auto"
        named = "auto" if found == "auto" else f"{found} (auto, by RAY_ADDRESS)"
    if found == "auto":
        found = _running_here()
    _check_answer(named, *_parts(named, found))
    return found


def join_error(address: str, error: Exception) -> RunError:
    """Why Ray would not join a cluster, in a line."""
    if isinstance(error, AuthenticationError):
        return RunError(f"Ray cluster {address}: wrong or no token; {_TOKEN}")
    return RunError(f"Ray cluster {address}: cannot be joined: {in_a_line(error)}; if it asks for a token, {_TOKEN}")


def in_a_line(error: BaseException) -> str:
    """An exception's message without its line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _running_here() -> str:
    try:
        return ray_private.address_of_this_node()
    except ConnectionError:
        raise RunError("Ray cluster auto: none runs on this node; start one with `ray start --head`") from None


def _parts(named: str, address: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/]+):(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 2**16:
        raise RunError(f"Ray cluster {named}: is not HOST:PORT; {_REMEDY}")
    return match[1].strip("[]"), int(match[2])


def _check_answer(named: str, host: str, port: int) -> None:
    """Ask what listens there for its health by gRPC's own protocol, without a token; then whether Ray asks for one."""
    import grpc

    try:
        socket.create_connection((host, port), timeout=_PATIENCE_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error) or "no answer"
        raise RunError(f"Ray cluster {named}: nothing listens there ({why}); {_REMEDY}") from error
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=_PATIENCE_SECONDS)
        except grpc.RpcError:
            health = b""
        if health != _SERVING:
            raise RunError(f"Ray cluster {named}: what listens there is no head of a Ray cluster; {_REMEDY}")
        try:
            channel.unary_unary(_ASKS_FOR_TOKEN)(b"", timeout=_PATIENCE_SECONDS)
        except grpc.RpcError as error:
            asks = error.code() is grpc.StatusCode.UNAUTHENTICATED
            if asks and not ray_private.shows_a_token():
                raise RunError(f"Ray cluster {named}: asks for a token; {_TOKEN}") from error
