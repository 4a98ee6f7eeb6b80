"""Killed twenty times at random, what does a trunk train again, and is the answer the same?

    PYTHONPATH=. python benchmarks/train/kills.py --kills 20        # two minutes

One process of one rank is killed by SIGKILL after a random number of steps, and started again in the same folder, where
it goes on from its last save. The lane's clock is its number of steps, so that the interval of saves is exact on any
machine. It prints the most steps that were trained again after a kill, which should be no more than that interval, and
whether the losses equal those of an undisturbed trunk to the bit.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.train.jobs import LOG, measure_logged
from tests.train.processes import Ranks, wait_for
from tests.train.test_ranks import trained_again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=49_152)
    parser.add_argument("--save-steps", type=int, default=6, help="interval of saves")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, whole = Path(name), Path(name) / "whole"
        whole.mkdir()
        log = folder / LOG
        log.touch()
        expected = Ranks(measure_logged, whole, arguments.tokens, 10**9, 0.0).answer()
        n_killed = 0
        started = time.perf_counter()
        while n_killed < arguments.kills:
            lane = Ranks(measure_logged, folder, arguments.tokens, arguments.save_steps, 0.05)
            n_lines = len(log.read_text().splitlines()) + rng.randrange(1, 2 * arguments.save_steps + 4)
            over = lambda n=n_lines, p=lane.processes[0]: len(log.read_text().splitlines()) >= n or not p.is_alive()  # noqa: E731
            wait_for(over, seconds=600)
            n_killed += lane.processes[0].is_alive()
            lane.kill()
        resumed = Ranks(measure_logged, folder, arguments.tokens, arguments.save_steps, 0.05).answer()
        again = [n for n in trained_again(log.read_text()) if n]
        steps = set(log.read_text().splitlines())
        print(
            f"{n_killed} kills in {time.perf_counter() - started:.0f} s; saves every {arguments.save_steps} steps\n"
            f"steps trained again after a kill: most {max(again, default=0)}, in all {sum(again)} of {len(steps)}\n"
            f"every step trained: {steps == set((whole / LOG).read_text().splitlines())}\n"
            f"losses equal to the bit: {resumed.losses == expected.losses}"
        )


if __name__ == "__main__":
    main()
