"""The end of a command whose own raylet has died: Ray lets it wait for ever, and nothing reaches it any more."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from raysplit.errors import CutOff

_LOOK_SECONDS, _CONNECT_SECONDS = 2.0, 2.0
_REFUSALS = 3
"""So many in a row mean that it is gone. A raylet that is only busy, or stopped, still takes connections."""
_ORDERLY_SECONDS = 10.0
"""How long the command may take to end in order, which waits in vain for those that the raylet took along."""


@contextmanager
def tied_to_own_raylet() -> Iterator["Tie"]:
    """End the ``with`` block, or at worst the process, within seconds of the death of the raylet that it goes through.

    Ray must be joined.

    Raises:
        CutOff: the raylet died.
    """
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    with tied_to((node["NodeManagerAddress"], node["NodeManagerPort"])) as tie:
        yield tie


@contextmanager
def tied_to(address: tuple[str, int]) -> Iterator["Tie"]:
    """As `tied_to_own_raylet`, to a process that listens at (host, port)."""
    tie = Tie(address)
    tie.start()
    try:
        yield tie
    except BaseException as error:
        if tie.is_cut:
            raise _cut_off() from error
        raise
    finally:
        tie.let_go()
        tie.over.set()


class Tie(threading.Thread):
    """Interrupts the main thread when the raylet is gone, and ends the process where that does not help."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(name="raysplit-raylet", daemon=True)
        self._address, self._let_go = address, threading.Event()
        self.over = threading.Event()
        """The command has ended in order."""
        self.is_cut = False

    def let_go(self) -> None:
        """Look no more: Ray is about to be left, and the raylet may go."""
        self._let_go.set()

    def run(self) -> None:
        n_refused = 0
        while n_refused < _REFUSALS:
            if self._let_go.wait(_LOOK_SECONDS):
                return
            n_refused = n_refused + 1 if _refuses(self._address) else 0
        self.is_cut = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self.over.wait(_ORDERLY_SECONDS):
            sys.stderr.write(f"raysplit: {_cut_off()}\n")
            sys.stderr.flush()
            os._exit(2)


def _refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # a network that is away says nothing of a process of this machine
        return False
    return False


def _cut_off() -> CutOff:
    return CutOff(
        "the Ray node of this command is gone, and with it the command's way to the cluster; everything measured is "
        "kept, and the same command continues where it finds a cluster"
    )
