"""Who keeps the law up to date: fits behind the answers in a live actor, or fits when asked in a replay or a reader."""

import threading
import time
from typing import Protocol

from raysplit.errors import LawError, RaysplitError, RunError
from raysplit.live.fit_process import FitProcess
from raysplit.live.fitting import Fitted, Target, fit_thoroughly
from raysplit.live.observations import ObservationTable
from raysplit.live.shelf import Shelf, Version

_SETTLE_SECONDS = 2.0
"""Without anything new for so long, the law is fitted thoroughly: it is then that of the observations alone."""
_GROWTH = 0.25
"""While observations keep coming, the forms are chosen again when there are so many more than at the last choice."""
_RETRY_SECONDS = 5.0
_QUICK_NICENESS, _THOROUGH_NICENESS = 5, 10


class Laws(Protocol):
    """The laws of a table."""

    shelf: Shelf

    def grew(self) -> None:
        """The table has more observations."""

    def latest(self) -> Version:
        """The law to answer from.

        Raises:
            LawError: there is none.
        """
        ...

    def of_round(self, seq: int) -> Fitted:
        """The thorough law of what was known after a journal record, which is waited for.

        Raises:
            LawError: no form can be fitted.
        """
        ...

    def trouble(self) -> str:
        """What last went wrong behind the answers; empty when nothing has."""
        ...

    def close(self) -> None: ...


class LawsOnDemand:
    """Fits the law of all observations when someone asks and it is not there: nothing else runs."""

    def __init__(self, table: ObservationTable, target: Target, shelf: Shelf) -> None:
        self._table, self._target, self.shelf = table, target, shelf
        self._lock = threading.Lock()
        self._rounds: dict[int, Fitted] = {}

    def grew(self) -> None:
        pass

    def latest(self) -> Version:
        seq = self._table.last_seq
        with self._lock:
            latest = self.shelf.latest
            if latest is None or latest.fitted.seq != seq or not latest.fitted.thorough:
                latest = self.shelf.put(self._fit(seq))
            return latest

    def of_round(self, seq: int) -> Fitted:
        if seq == self._table.last_seq:
            return self.latest().fitted
        with self._lock:
            if seq not in self._rounds:
                self._rounds = {seq: self._fit(seq)}
            return self._rounds[seq]

    def trouble(self) -> str:
        return ""

    def close(self) -> None:
        pass

    def _fit(self, seq: int) -> Fitted:
        return fit_thoroughly(self._table.until(seq), seq, self._target, with_advice=False)


class LawsBehind:
    """Fits in two processes of their own while the last finished law answers.

    One goes on from the last law whenever something new has come in: at most one such fit is under way, and one more,
    of the newest table, waits. The other fits thoroughly: for the sweep's rounds; when nothing new has come in for a
    while; and when the table has grown so much that the forms should be chosen again.
    """

    def __init__(
        self, table: ObservationTable, target: Target, shelf: Shelf, *, settle_seconds: float = _SETTLE_SECONDS
    ) -> None:
        self._table, self._target, self.shelf = table, target, shelf
        self._settle_seconds = settle_seconds
        self._changed = threading.Condition()
        self._closed = False
        self._grown_at = time.monotonic()
        self._trouble = ""
        self._wanted: dict[int, Fitted | RaysplitError | None] = {}
        """Laws that rounds wait for, by seq."""
        latest = shelf.latest
        thorough = [v.fitted for v in shelf.all() if v.fitted.thorough]
        self._chosen: Fitted | None = thorough[-1] if thorough else latest.fitted if latest else None
        self._failed_seq = -1
        """A thorough fit of what was known then has failed; it would again."""
        self._processes = [
            FitProcess(table, target, niceness=niceness) for niceness in (_QUICK_NICENESS, _THOROUGH_NICENESS)
        ]
        self._threads = [
            threading.Thread(target=loop, args=(process,), daemon=True, name=loop.__name__)
            for loop, process in zip((self._go_on, self._settle), self._processes, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def grew(self) -> None:
        with self._changed:
            self._grown_at = time.monotonic()
            self._changed.notify_all()

    def latest(self) -> Version:
        if (latest := self.shelf.latest) is not None:
            return latest
        if len(self._table) == 0:
            raise LawError("no observations yet; the law needs the opening round")
        if self._trouble:
            raise LawError(f"no law yet: {self._trouble}")
        raise LawError(f"no law yet: the first fit, of {len(self._table)} observations, is under way")

    def of_round(self, seq: int) -> Fitted:
        for version in self.shelf.all():
            if version.fitted.thorough and version.fitted.seq == seq:
                return (version if version.of_round else self.shelf.keep(version.version)).fitted
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
        return self._trouble or self.shelf.trouble

    def close(self) -> None:
        """End both processes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for process in self._processes:
            process.close()

    # The two threads.

    def _go_on(self, process: FitProcess) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._is_behind():
                    self._changed.wait()
                if self._closed:
                    return
                chosen, seq = self._chosen, self._table.last_seq
            assert chosen is not None
            latest = self.shelf.latest
            goes_on = latest is not None and latest.fitted.choice.weights == chosen.choice.weights
            start = latest.fitted.law if latest is not None and goes_on else chosen.law
            try:
                fitted = process.quick(seq, chosen=chosen, start=start)
            except Exception as error:  # a thread that died of it would leave the law behind for good
                self._pause(_told(error))
                continue
            if self._is_newest(fitted):
                self.shelf.put(fitted)
            self._done()

    def _settle(self, process: FitProcess) -> None:
        while True:
            with self._changed:
                while not self._closed and (seq := self._to_settle()) is None:
                    self._changed.wait(timeout=self._seconds_to_settle())
                if self._closed:
                    return
                assert seq is not None
            try:
                fitted = process.thorough(seq)
            except Exception as error:  # a thread that died of it would leave rounds waiting for ever
                if isinstance(error, LawError):
                    self._failed_seq = seq
                self._answer(seq, _told(error))
                self._pause(_told(error))
                continue
            with self._changed:
                of_round = seq in self._wanted
            self.shelf.put(fitted, of_round=of_round)
            self._chosen = fitted
            self._answer(seq, fitted)
            self._done()

    def _is_behind(self) -> bool:
        """Whether there are observations that the latest law does not know, and a choice of forms to fit them by."""
        latest = self.shelf.latest
        return self._chosen is not None and (latest is None or latest.fitted.seq < self._table.last_seq)

    def _is_newest(self, fitted: Fitted) -> bool:
        latest = self.shelf.latest
        return latest is None or latest.fitted.seq < fitted.seq

    def _to_settle(self) -> int | None:
        """Up to which record to fit thoroughly now; None while there is nothing to."""
        for seq, found in self._wanted.items():
            if found is None:
                return seq
        seq, latest = self._table.last_seq, self.shelf.latest
        settled = latest is not None and latest.fitted.seq >= seq and latest.fitted.thorough
        if len(self._table) == 0 or settled or seq == self._failed_seq:
            return None
        if self._chosen is None or len(self._table) >= (1 + _GROWTH) * self._chosen.n_chosen:
            return seq
        return seq if time.monotonic() - self._grown_at >= self._settle_seconds else None

    def _seconds_to_settle(self) -> float | None:
        """When to look again; None while only news can change anything."""
        left = self._settle_seconds - (time.monotonic() - self._grown_at)
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
