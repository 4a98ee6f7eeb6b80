"""Fits in a Ray actor, so that no fit holds up an answer: it keeps a copy of the table and is sent what is new.

The actor lives on its maker's node, at a niceness of its own, and ends with its maker, in the middle of a fit too.
"""

import os
from collections.abc import Sequence

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysplit.errors import RaysplitError, RunError
from raysplit.live.fitted import FitTarget, Fitted
from raysplit.live.fitting import FitJob, FitterHere
from raysplit.live.observations import ObservationTable, Reported

_CHUNK_ROWS = 5_000
"""Rows in one message, so that a large table does not hold up the sender."""


class FitWorker:
    """What runs in the actor: a fitter and its copy of the table."""

    def __init__(self, target: FitTarget, niceness: int) -> None:
        os.nice(niceness)
        self._table = ObservationTable()
        self._fitter = FitterHere(self._table, target)

    def know(self, rows: Sequence[Reported]) -> None:
        self._table.add(rows)

    def fit(self, job: FitJob) -> Fitted:
        return self._fitter.fit(job)


class FitActor:
    """A `raysplit.live.fitting.Fitter`. One thread calls it at a time."""

    def __init__(self, table: ObservationTable, target: FitTarget, niceness: int) -> None:
        self._table, self._target, self._niceness = table, target, niceness
        self.worker: ActorHandle | None = None
        self._sent_seq = -1

    def fit(self, job: FitJob) -> Fitted:
        """Carry out a job; by a second worker if the first is killed, as when the node is short of memory.

        Raises:
            LawError: no form can be fitted.
            RunError: two workers have died, or the fit has failed otherwise.
        """
        for _ in range(2):
            try:
                return self._asked(job)
            except ray.exceptions.RayActorError as error:
                died = error
                self.close()
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, RaysplitError):
                    raise error.cause from None
                raise RunError(f"the fit failed: {type(error.cause).__name__}: {error.cause}") from error
        raise RunError("the process that fits the law died twice") from died

    def close(self) -> None:
        worker, self.worker, self._sent_seq = self.worker, None, -1
        if worker is not None:
            ray.kill(worker)

    def _asked(self, job: FitJob) -> Fitted:
        if self.worker is None:
            self.worker = self._started()
        rows = self._table.since(self._sent_seq)
        for first in range(0, len(rows), _CHUNK_ROWS):
            self.worker.know.remote(rows[first : first + _CHUNK_ROWS])
        if rows:
            self._sent_seq = rows[-1].seq
        fitted: Fitted = ray.get(self.worker.fit.remote(job))
        return fitted

    def _started(self) -> ActorHandle:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        worker: ActorHandle = (
            ray.remote(FitWorker).options(num_cpus=0, scheduling_strategy=here).remote(self._target, self._niceness)
        )
        return worker
