"""Setting up a worker process of Ray's: without other launchers' variables, and so that it ends with its raylet."""

import ctypes
import os
import signal
import sys

from ray import cloudpickle

from raysplit.train import launchers

_PR_SET_PDEATHSIG = 1


def set_up_worker() -> None:
    """Ray's ``worker_process_setup_hook``, which runs first in every worker of a command, on any node."""
    launchers.forget_launchers()
    _end_with_the_raylet()


def _end_with_the_raylet() -> None:
    """Have the kernel end this process when its raylet ends.

    Ray 2.60 leaves that to a thread of the worker, which looks for its raylet once a second. A worker that hangs, or
    has stopped that thread while it ends, lives on with its half gigabyte for ever.
    """
    if sys.platform != "linux":
        return
    raylet = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != raylet:  # it has ended in between
        os.kill(os.getpid(), signal.SIGKILL)


# A worker runs its hook before it knows where the driver imports from, so this code travels with it.
for _module in (launchers, sys.modules[__name__]):
    cloudpickle.register_pickle_by_value(_module)
