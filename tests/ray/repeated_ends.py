"""Starts and ends a pool of lanes many times, as a command does, and counts what outlives its cluster.

``python -m tests.ray.repeated_ends --times 20``: seconds to start, to end, and until the last process was gone; a
process that outlives its cluster by ``PATIENCE_SECONDS`` is named, its stack with it where py-spy is installed, and
ended.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from raysplit.corpus import build_corpus
from raysplit.design.tasks import Task
from raysplit.design.tree import Trial
from raysplit.lanes.cluster import joined_cluster
from raysplit.lanes.lanes import Lanes
from raysplit.space import parse_space
from raysplit.sweep.backend import run_all
from tests.ray.sweeps import MARK, marked_processes, tiny_space, write_texts

PATIENCE_SECONDS = 20.0


def first_task(seed: int) -> Task:
    trunk = Trial(n_params=14_000, seed=seed, domain="", pretrain_tokens=8192, milestones=(8192,))
    return Task(trial=trunk, milestone=8192)


def main() -> int:
    """Returns the number of processes that were left behind."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=20)
    options.add_argument("--lanes", type=int, default=2)
    arguments = options.parse_args()
    os.environ[MARK] = mark = uuid4().hex
    n_left = 0
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_texts(home / "texts")
        space = parse_space(tiny_space(home / "texts", compute={"lanes": arguments.lanes}), origin="repeated ends")
        build_corpus(space.corpus, home / "corpus")
        for number in range(1, arguments.times + 1):
            with joined_cluster(space.compute, address=None):
                lanes = Lanes(space, run_folder=home / "run", corpus_folder=home / "corpus", law=None)
                try:
                    started = time.monotonic()
                    run_all(lanes, [first_task(seed) for seed in range(arguments.lanes)])
                    up_seconds = time.monotonic() - started
                finally:
                    ending = time.monotonic()
                    lanes.close()
            ended = time.monotonic()
            while (left := others(mark)) and time.monotonic() - ended < PATIENCE_SECONDS:
                time.sleep(0.1)
            gone = time.monotonic() - ended
            say(f"{number}: up {up_seconds:.1f} s, ended in {ended - ending:.1f} s, all gone {gone:.1f} s later")
            for pid, title in left.items():
                say(f"left behind: {pid} {title}\n{stack(pid)}")
                os.kill(pid, signal.SIGKILL)
            n_left += len(left)
    say(f"{time.strftime('%Y-%m-%d')}: {n_left} processes left behind in {arguments.times} ends")
    return n_left


def others(mark: str) -> dict[int, str]:
    return {pid: title for pid, title in marked_processes(mark).items() if pid != os.getpid()}


def stack(pid: int) -> str:
    spy = shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if spy is None:
        return "(no py-spy)"
    return subprocess.run([spy, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False).stdout


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(min(main(), 1))
