"""The address of a server of ours, and what to do where it cannot be had."""

import errno
import socket

from raysplit.errors import RunError

_REMEDIES = {
    errno.EADDRINUSE: "; give another port, or 0 for any that is free",
    errno.EACCES: "; ports below 1024 are the system's, give one above",
    errno.EADDRNOTAVAIL: "; it is no address of this machine, 0.0.0.0 means all that it has",
    socket.EAI_NONAME: "; give localhost, or an address of this machine",
}


def bind(host: str, port: int) -> socket.socket:
    """A socket to listen at, bound before anyone is told where; port 0 takes one that is free.

    Raises:
        RunError: the address cannot be bound.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle off only where the protocol is named, and with it on an answer takes 40 ms more.
        bound = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "")
        raise RunError(f"http://{host}:{port}: cannot be bound: {error.strerror}{remedy}") from error
    return bound
