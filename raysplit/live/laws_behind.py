"""The law kept up to date behind the answers of a live actor."""

import threading
import time
from collections.abc import Callable

from raysplit.errors import LawError, RaysplitError, RunError
from raysplit.live.fitted import FitTarget, Fitted, LawVersion
from raysplit.live.fitting import FitJob, Fitter
from raysplit.live.law_store import Laws, LawStore
from raysplit.live.observations import ObservationTable
from raysplit.quantities import counted

MakeFitter = Callable[[ObservationTable, FitTarget, int], Fitter]
"""Makes a fitter of a table, for a target, at a niceness."""
_QUIET_SECONDS = 2.0
"""A full fit follows when nothing new has come in for so long."""
_GROWTH = 0.25
"""While observations keep coming, the forms are chosen again when this share more are known than at the last choice."""
_RETRY_SECONDS = 5.0
_QUICK_NICENESS, _FULL_NICENESS = 5, 10


class LawsBehind(Laws):
    """Fits by two fitters while the last finished law answers.

    The first fits quickly, from the last law, whenever something new has come in: at most one such fit is under way,
    and one more, of the newest table, waits. The second fits fully: for the sweep's rounds; when nothing new has come
    in for a while; and when the table has grown so much that the forms should be chosen again.
    """

    def __init__(
        self,
        table: ObservationTable,
        target: FitTarget,
        store: LawStore,
        *,
        make_fitter: MakeFitter,
        quiet_seconds: float = _QUIET_SECONDS,
    ) -> None:
        self._table, self._target, self.store = table, target, store
        self._quiet_seconds = quiet_seconds
        self._changed = threading.Condition()
        self._closed = False
        self._grown_at = time.monotonic()
        self._trouble = ""
        self._wanted: dict[int, Fitted | RaysplitError | None] = {}
        """Laws that rounds wait for, by seq."""
        latest = store.latest
        full = [v.fitted for v in store.all() if v.fitted.full]
        self._chosen: Fitted | None = full[-1] if full else latest.fitted if latest else None
        self._failed_seq = -1
        """Record up to which a full fit has failed; the same fit would fail again."""
        self._fitters = [make_fitter(table, target, niceness) for niceness in (_QUICK_NICENESS, _FULL_NICENESS)]
        self._threads = [
            threading.Thread(target=loop, args=(fitter,), daemon=True, name=loop.__name__)
            for loop, fitter in zip((self._fit_quickly, self._fit_fully), self._fitters, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def grew(self) -> None:
        with self._changed:
            self._grown_at = time.monotonic()
            self._changed.notify_all()

    def latest(self) -> LawVersion:
        if (latest := self.store.latest) is not None:
            return latest
        if len(self._table) == 0:
            raise LawError("no observations yet; the law needs the opening round")
        if self._trouble:
            raise LawError(f"no law yet: {self._trouble}")
        raise LawError(f"no law yet: the first fit, of {counted(len(self._table), 'observation')}, is under way")

    def of_round(self, seq: int) -> Fitted:
        for version in self.store.all():
            if version.fitted.full and version.fitted.seq == seq:
                return (version if version.of_round else self.store.keep(version.version)).fitted
        with self._changed:
            if not isinstance(self._wanted.get(seq), Fitted):  # a failure was told to who asked then; this asks again
                self._wanted[seq] = None
            self._changed.notify_all()
            while (found := self._wanted.get(seq)) is None:
                if self._closed:
                    raise LawError("the law actor is shutting down")
                self._changed.wait()
        if isinstance(found, RaysplitError):
            raise found
        return found

    def trouble(self) -> str:
        return self._trouble or self.store.trouble

    def close(self) -> None:
        """End both fitters."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for fitter in self._fitters:
            fitter.close()

    # The two threads.

    def _fit_quickly(self, fitter: Fitter) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._is_behind():
                    self._changed.wait()
                if self._closed:
                    return
                chosen, seq = self._chosen, self._table.last_seq
            assert chosen is not None
            latest = self.store.latest
            goes_on = latest is not None and latest.fitted.choice.weights == chosen.choice.weights
            start = latest.fitted.law if latest is not None and goes_on else chosen.law
            try:
                fitted = fitter.fit(FitJob(seq=seq, chosen=chosen, start=start))
            except Exception as error:  # a thread that died of it would leave the law behind for good
                self._pause(_told(error))
                continue
            if self._is_newest(fitted):
                self.store.put(fitted)
            self._done()

    def _fit_fully(self, fitter: Fitter) -> None:
        while True:
            with self._changed:
                while not self._closed and (seq := self._to_fit_fully()) is None:
                    self._changed.wait(timeout=self._seconds_to_wait())
                if self._closed:
                    return
                assert seq is not None
            try:
                fitted = fitter.fit(FitJob(seq=seq))
            except Exception as error:  # a thread that died of it would leave rounds waiting for ever
                if isinstance(error, LawError):
                    self._failed_seq = seq
                self._answer(seq, _told(error))
                self._pause(_told(error))
                continue
            with self._changed:
                of_round = seq in self._wanted
            self.store.put(fitted, of_round=of_round)
            self._chosen = fitted
            self._answer(seq, fitted)
            self._done()

    def _is_behind(self) -> bool:
        """Whether there are observations that the latest law does not know, and a choice of forms to fit them by."""
        latest = self.store.latest
        return self._chosen is not None and (latest is None or latest.fitted.seq < self._table.last_seq)

    def _is_newest(self, fitted: Fitted) -> bool:
        latest = self.store.latest
        return latest is None or latest.fitted.seq < fitted.seq

    def _to_fit_fully(self) -> int | None:
        """The record up to which to fit fully now; None while no full fit is due."""
        for seq, found in self._wanted.items():
            if found is None:
                return seq
        seq, latest = self._table.last_seq, self.store.latest
        is_known = latest is not None and latest.fitted.seq >= seq and latest.fitted.full
        if len(self._table) == 0 or is_known or seq == self._failed_seq:
            return None
        if self._chosen is None or len(self._table) >= (1 + _GROWTH) * self._chosen.n_chosen:
            return seq
        return seq if time.monotonic() - self._grown_at >= self._quiet_seconds else None

    def _seconds_to_wait(self) -> float | None:
        """Seconds until a full fit may be due; None while only news can make it due."""
        left = self._quiet_seconds - (time.monotonic() - self._grown_at)
        return left if left > 0 else None

    def _answer(self, seq: int, found: Fitted | RaysplitError) -> None:
        with self._changed:
            if seq in self._wanted:
                waiting = {other: None for other, law in self._wanted.items() if law is None}
                self._wanted = {**waiting, seq: found}
            self._changed.notify_all()

    def _done(self) -> None:
        self._trouble = ""
        with self._changed:
            self._changed.notify_all()

    def _pause(self, error: RaysplitError) -> None:
        if self._closed:
            return
        self._trouble = str(error)
        with self._changed:
            self._changed.wait(timeout=_RETRY_SECONDS)


def _told(error: Exception) -> RaysplitError:
    if isinstance(error, RaysplitError):
        return error
    return RunError(f"the fit failed: {type(error).__name__}: {error}")
