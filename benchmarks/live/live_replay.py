"""How does a running sweep answer, without training one? The measured surface is played back behind a real law actor.

.venv/bin/python benchmarks/live/live_replay.py --out runs/replayed        # until Ctrl-C
RUN=runs/replayed .venv/bin/python notebooks/live_questions.py        # in another shell
"""

import argparse
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ray.actor import ActorHandle

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Trial
from raysplit.design.tree_state import TreeState, tree_state_of
from raysplit.lanes.cluster import joined_cluster
from raysplit.lanes.law_client import ActorLaw
from raysplit.live.run_spec import RunSpec
from raysplit.run_folder.folder import RunFolder
from raysplit.runs import read_runs
from raysplit.sweep.launch import live_law
from raysplit.sweep.replay import replay, spec_of_table, table_losses

SURFACE = Path(__file__).parents[1] / "data" / "surface-2026-11-23.csv"
BUDGET_FLOPS, SWEEP_BUDGET_FLOPS = 1.5e12, 9e12


class PlayedLaw(ActorLaw):
    """The law actor as the replay wants a service: it begins with nothing measured."""

    def __init__(self, actor: ActorHandle, spec: ResolvedSpec) -> None:
        super().__init__(actor)
        self.spec = spec

    def tree_state(self) -> TreeState:
        return tree_state_of(self.spec, {}, ())


@dataclass
class Played:
    """A sweep under way."""

    actor: ActorHandle
    thread: threading.Thread
    """Ends with the sweep; the actor goes on answering."""


class _Ended(Exception):
    """The one who plays the sweep has left."""


@contextmanager
def played_sweep(folder: Path, *, seconds: float, sweep_budget_flops: float = SWEEP_BUDGET_FLOPS) -> Iterator[Played]:
    """Play a sweep on the Ray cluster that this process has joined, and let it be found by its folder.

    Args:
        folder: new, for journal and laws; `raysplit.connect` takes it.
        seconds: that each measurement takes.
        sweep_budget_flops: after which the sweep ends.
    """
    folder.mkdir(parents=True)
    runs = read_runs(SURFACE)
    spec = spec_of_table(
        runs, budget_flops=BUDGET_FLOPS, sweep_budget_flops=sweep_budget_flops, regret_tolerance=3e-4, lanes=2
    )
    run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 1.0))
    ended = threading.Event()
    known = table_losses(runs, spec.domains)

    def look_up(trial: Trial, milestone: int) -> Mapping[str, float] | None:
        if ended.wait(seconds):
            raise _Ended
        return known(trial, milestone)

    def play(actor: ActorHandle) -> None:
        with suppress(_Ended):
            replay(PlayedLaw(actor, spec), look_up)

    with live_law(run, RunFolder(path=folder.absolute()), face=None) as actor:
        sweep = threading.Thread(target=play, args=(actor,))
        sweep.start()
        try:
            yield Played(actor=actor, thread=sweep)
        finally:
            ended.set()
            sweep.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder for journal and laws; replaced if it is there.")
    parser.add_argument("--seconds", type=float, default=1.0, help="That each measurement takes.")
    options = parser.parse_args()
    if options.out.exists():
        if not (options.out / "journal").exists():
            parser.error(f"--out {options.out}: is there, and not from here")
        shutil.rmtree(options.out)
    with joined_cluster(None, address=None), played_sweep(options.out, seconds=options.seconds) as played:
        print(f"raysplit.connect({str(options.out)!r}) asks this sweep; Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            played.thread.join()
            print("the sweep has ended; its law goes on answering", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
