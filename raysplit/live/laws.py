"""The law fitted when someone asks for it, as in a replay or by one who only reads: nothing runs behind the answers."""

import threading

from raysplit.live.fitted import FitTarget, Fitted, LawVersion
from raysplit.live.fitting import fit_fully
from raysplit.live.law_store import Laws, LawStore
from raysplit.live.observations import ObservationTable


class LawsOnDemand(Laws):
    """Fits the law of all observations when someone asks and it is not there: nothing else runs."""

    def __init__(self, table: ObservationTable, target: FitTarget, store: LawStore) -> None:
        self._table, self._target, self.store = table, target, store
        self._lock = threading.Lock()
        self._rounds: dict[int, Fitted] = {}

    def latest(self) -> LawVersion:
        seq = self._table.last_seq
        with self._lock:
            latest = self.store.latest
            if latest is None or latest.fitted.seq != seq or not latest.fitted.full:
                latest = self.store.put(self._fit(seq))
            return latest

    def of_round(self, seq: int) -> Fitted:
        if seq == self._table.last_seq:
            return self.latest().fitted
        with self._lock:
            if seq not in self._rounds:
                self._rounds = {seq: self._fit(seq)}
            return self._rounds[seq]

    def _fit(self, seq: int) -> Fitted:
        return fit_fully(self._table.until(seq), seq, self._target, with_advice=False)
