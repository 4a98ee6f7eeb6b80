"""Starts a lane of a space that has no corpus, in a run folder, on a cluster; prints what is said of its end.

A driver of its own: what Ray Train reserves for a lane that it is about to start again is given back with its driver.
"""

import sys
from pathlib import Path

from raysplit.design.tasks import Task
from raysplit.design.tree import Trial
from raysplit.errors import RaysplitError
from raysplit.lanes.cluster import joined_cluster
from raysplit.lanes.lanes import Lanes
from raysplit.space import load_space

if __name__ == "__main__":
    space, folder, address = load_space(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    with joined_cluster(space.compute, address=address):
        lanes = Lanes(space, run_folder=folder, corpus_folder=folder / "nowhere", law=None)
        try:
            trunk = Trial(n_params=14_000, seed=0, domain="", pretrain_tokens=8192, milestones=(8192,))
            lanes.submit(Task(trial=trunk, milestone=8192)).result()
        except RaysplitError as error:
            sys.stdout.write(f"{error}\n")
        finally:
            lanes.close()
