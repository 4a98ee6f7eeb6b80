"""Ends a cluster, or with ``kill`` its raylet, while a worker hangs in its own exit; prints ``hangs`` if it did.

Ray 2.60 leaves such a worker behind: its raylet has done with it, and its own look for the raylet has stopped.
"""

import os
import signal
import sys
import time
from pathlib import Path

import ray

from raysplit.lanes.cluster import joined_cluster
from raysplit.machines import ComputeSpec


class Hanging:
    def pids(self) -> tuple[int, int]:
        import atexit

        atexit.register(time.sleep, 600)
        return os.getpid(), os.getppid()


if __name__ == "__main__":
    with joined_cluster(ComputeSpec(), address=None):
        hanging = ray.remote(num_cpus=0)(Hanging).remote()
        pid, raylet = ray.get(hanging.pids.remote())
        del hanging
        time.sleep(2)
        if Path(f"/proc/{pid}").exists():
            sys.stdout.write("hangs\n")
            sys.stdout.flush()
        if sys.argv[1:] == ["kill"]:
            os.kill(raylet, signal.SIGKILL)
