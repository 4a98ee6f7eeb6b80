"""A command is ended when its own raylet is gone; here any process that listens stands for the raylet."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from raysplit.errors import CutOff
from raysplit.lanes import own_raylet
from raysplit.lanes.own_raylet import tied_to


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(own_raylet, "_LOOK_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_what_waits_is_interrupted_when_the_raylet_is_gone(listening: socket.socket) -> None:
    def wait() -> None:
        with tied_to(listening.getsockname()):
            time.sleep(0.1)  # as long as it listens, nothing happens
            listening.close()
            time.sleep(30)

    with pytest.raises(CutOff, match="same command continues"):
        wait()


def test_a_raylet_that_is_left_may_go(listening: socket.socket) -> None:
    with tied_to(listening.getsockname()) as tie:
        tie.let_go()
        listening.close()
        time.sleep(0.1)
    assert not tie.is_cut


def test_a_process_that_cannot_be_interrupted_is_ended() -> None:
    code = """
import signal, socket, time
from raysplit.lanes import own_raylet
own_raylet._LOOK_SECONDS, own_raylet._ORDERLY_SECONDS = 0.01, 0.1
signal.signal(signal.SIGINT, lambda number, frame: None)  # as where Ray's own code waits, and hears of nothing
with socket.create_server(("127.0.0.1", 0)) as server:
    address = server.getsockname()
with own_raylet.tied_to(address):
    time.sleep(30)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr.count("same command continues")) == (2, 1), ended.stderr
