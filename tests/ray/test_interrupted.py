"""An adaptive sweep on a cluster of its own, stopped in every way that people and machines stop things, and taken up
again; the last kill comes when it has begun to choose.
"""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import LONG
from tests.ray.conftest import ADAPTIVE, Adaptive, Sweep
from tests.ray.sweeps import Command, losses, records

QUIET_SECONDS = 20
WAYS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) if LONG else (signal.SIGINT, signal.SIGKILL)


@pytest.mark.timeout(1500)  # nine minutes on two busy cores, the undisturbed sweep included
def test_a_sweep_stopped_again_and_again_ends_like_one_that_ran_through(run: Sweep, adaptive: Adaptive) -> None:
    known: dict[tuple[object, ...], dict[str, float]] = {}
    killed: list[Command] = []
    for number, how in enumerate(WAYS):
        command = run("sweep", run="stopped", changes=ADAPTIVE)
        command.wait_for_measurements(len(known) + 3)
        if how is signal.SIGKILL:
            command.wait_for(partial(has_begun_to_choose, command.out))
        raylets = command.processes("raylet")
        assert raylets, "its own cluster"
        groups = {os.getpgid(pid) for pid in raylets}
        assert command.process.pid not in groups, "a signal to the command's group is not for Ray's processes"
        stopped = time.monotonic()
        if how is signal.SIGKILL:
            command.process.kill()  # the driver alone; the next one does not wait for what it left
            killed.append(command)
            _, said = command.end()
        else:
            command.signal(how)
            status, said = command.end()
            command.wait_until_gone()
            assert time.monotonic() - stopped < QUIET_SECONDS
            assert status == 130, said
            assert said.rstrip().endswith("everything measured is kept, and the same command continues")
        assert_only_our_words(said)
        assert ("taking up the sweep" in said) == (number > 0)
        now = losses(command.out)
        assert known.items() <= now.items(), "lost or changed"
        known = now

    command = run("sweep", run="stopped", changes=ADAPTIVE)
    status, said = command.end()
    assert status == 0, said
    assert_only_our_words(said)
    command.wait_until_gone()
    assert losses(command.out) == losses(adaptive.out)
    assert json.loads((command.out / "advice.json").read_text()) == json.loads(
        (adaptive.out / "advice.json").read_text()
    )
    assert len(records(command.out, "finish")) == 1

    command = run("sweep", run="stopped", changes=ADAPTIVE)
    status, said = command.end()
    assert status == 0
    assert "lanes" not in said, "a finished sweep starts nothing"
    for command in killed:
        # Ray 2.60's agents may try for 60 s to tell a head that is gone of their raylet's death.
        command.wait_until_gone(seconds=75)


def has_begun_to_choose(out: Path) -> bool:
    """The second round rests on a law; the first is the same for every sweep."""
    return len(records(out, "round")) > 1


def assert_only_our_words(said: str) -> None:
    for noise in ("Traceback", "(raylet)", "WARNING", "Error", "pid=", "worker processes have been started", "Tune"):
        assert noise not in said, said
