"""Reports of a training that raysplit did not start, and its question "should I go on?", never in the training's way.

A law that is unreachable, slow or refuses costs a training nothing but a warning. Reports are kept in a file until the
law has stored them. They are sent again, also by the next process that is given the same file. One thread does all
talking. The training waits for an answer no longer than its patience.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from raysplit.errors import RaysplitError, TableError
from raysplit.live.answers import Accepted, GoOn
from raysplit.runs import Observation, check_runs, to_frame

_log = logging.getLogger("raysplit")
_BATCH = 1000
_FAREWELL_SECONDS = 10.0
"""How long the end of the process waits for reports still to be sent."""


class LawToTell(Protocol):
    """What a training needs of a live law; `raysplit.connect` and `raysplit.http.client.HttpClient` give one."""

    def observe(self, observations: Sequence[Observation]) -> Accepted: ...
    def should_go_on(self, observation: Observation) -> GoOn: ...


class Reporter:
    """Talks to a live law from a thread of its own; no report or question raises, or waits longer than its patience."""

    def __init__(
        self,
        law: LawToTell | Callable[[], LawToTell],
        *,
        kept_in: Path,
        patience_seconds: float = 1.0,
        retry_seconds: float = 30.0,
    ) -> None:
        """Take up the reports that an earlier process left in the file.

        Args:
            law: the live law, or a function that connects to it. The thread calls it, and again after it failed, so
                that a job may start before its sweep.
            kept_in: this job's own file for reports that the law has not stored yet. It is deleted when there are none.
            patience_seconds: the longest that a question makes its caller wait for the law.
            retry_seconds: time until reports that failed are sent again.
        """
        self._connect = law if callable(law) else lambda: law
        self._law: LawToTell | None = None
        self._path = kept_in
        self._patience, self._retry = patience_seconds, retry_seconds
        self._changed = threading.Condition()
        self._kept: dict[str, Observation] = {}
        self._refused: set[str] = set()
        self._asked: tuple[Sequence[Observation], Future[GoOn]] | None = None
        self._closing = False
        self._warned: set[str] = set()
        self._read_kept()
        self._send_at = 0.0
        """On the monotonic clock."""
        self._thread = threading.Thread(target=self._talk, name="raysplit-reporter", daemon=True)
        self._thread.start()
        # Not `atexit`: Ray, imported later, would have left the cluster by the time that our turn comes.
        threading.Thread(target=self._close_at_the_end, name="raysplit-farewell").start()

    @property
    def n_kept(self) -> int:
        """Reports that the law has not stored yet."""
        with self._changed:
            return len(self._kept)

    def report(self, observation: Observation) -> None:
        """Write a report to the file and have the thread send it; the caller does not wait."""
        with self._changed:
            self._kept[observation.identity] = observation
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(_line(observation))
            except OSError as error:
                self._warn("file", f"{self._path}: report kept in memory only: {error.strerror or error}")
            self._send_at = 0.0
            self._changed.notify_all()

    def should_go_on(self, observations: Sequence[Observation]) -> GoOn:
        """What the law says of a run with these losses: to stop, if it says so of one of them.

        Without an answer in time the run goes on. An answer "stop" that comes late counts at the next question.
        """
        with self._changed:
            if self._asked is not None:
                earlier = self._asked[1]
                if not earlier.done():
                    return GoOn(go_on=True, why="the law has not answered the question before this one")
                self._asked = None
                if not earlier.result().go_on:
                    return earlier.result()
            answer: Future[GoOn] = Future()
            self._asked = (observations, answer)
            self._changed.notify_all()
        try:
            said = answer.result(timeout=self._patience)
        except TimeoutError:
            self._warn("slow", f"the live law did not answer within {self._patience:g} s; training goes on")
            return GoOn(go_on=True, why=f"no answer within {self._patience:g} s")
        with self._changed:
            self._asked = None
        return said

    def close(self, *, wait_seconds: float = _FAREWELL_SECONDS) -> None:
        """Send what is kept, for at most ``wait_seconds``; what remains stays in the file.

        The end of the process does the same.
        """
        with self._changed:
            if self._closing:
                return
            self._closing, self._send_at = True, 0.0
            self._changed.notify_all()
        self._thread.join(timeout=wait_seconds)
        if n_kept := self.n_kept:
            self._warn("left", f"{n_kept} reports could not be given to the live law; they are in {self._path}")

    def _close_at_the_end(self) -> None:
        threading.main_thread().join()
        self.close()

    # In the thread.

    def _talk(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, timeout=self._seconds_to_wait())
                asked = self._asked if self._asked and not self._asked[1].done() else None
                waiting = [o for i, o in self._kept.items() if i not in self._refused][:_BATCH]
                due = bool(waiting) and time.monotonic() >= self._send_at
                if self._closing and not due and asked is None:
                    return
            if asked is not None:
                asked[1].set_result(self._answer(asked[0]))
            if due:
                self._send(waiting)

    def _has_work(self) -> bool:
        asked = self._asked is not None and not self._asked[1].done()
        due = len(self._kept) > len(self._refused) and time.monotonic() >= self._send_at
        return asked or due or self._closing

    def _seconds_to_wait(self) -> float | None:
        return max(0.0, self._send_at - time.monotonic()) if len(self._kept) > len(self._refused) else None

    def _reach(self) -> LawToTell:
        if self._law is None:
            self._law = self._connect()
        return self._law

    def _answer(self, observations: Sequence[Observation]) -> GoOn:
        said = GoOn(go_on=True, why="nothing was asked")
        for observation in observations:
            try:
                said = self._reach().should_go_on(observation)
            except Exception as error:  # whatever it is, training goes on
                self._fail(error, "question")
                return GoOn(go_on=True, why=f"no answer: {error}")
            if not said.go_on:
                return said
        return said

    def _send(self, observations: Sequence[Observation]) -> None:
        try:
            self._reach().observe(observations)
        except TableError as error:
            if len(observations) > 1:  # one of them is to blame, and not the others
                for observation in observations:
                    self._send([observation])
                return
            with self._changed:
                self._refused.add(observations[0].identity)
            self._warn("refused", f"the live law refuses a report, which stays in {self._path}: {error}")
        except Exception as error:  # whatever it is, training goes on
            with self._changed:
                self._send_at = time.monotonic() + self._retry
            self._fail(error, "report")
        else:
            self._forget(observations)

    def _fail(self, error: Exception, what: str) -> None:
        if not isinstance(error, TableError):
            self._law = None  # connect anew: it may live elsewhere by then
        kept = f"; reports are kept in {self._path} and sent again" if what == "report" else ""
        reason = error if isinstance(error, RaysplitError) else f"{type(error).__name__}: {error}"
        self._warn(what, f"the live law took no {what}, training goes on{kept}: {reason}")

    def _forget(self, observations: Sequence[Observation]) -> None:
        with self._changed:
            for observation in observations:
                self._kept.pop(observation.identity, None)
            try:
                if self._kept:
                    partial = self._path.with_name(self._path.name + ".partial")
                    partial.write_text("".join(map(_line, self._kept.values())), encoding="utf-8")
                    os.replace(partial, self._path)
                else:
                    self._path.unlink(missing_ok=True)
            except OSError as error:
                # They will be sent once more, which changes nothing.
                self._warn("file", f"{self._path}: cannot be written: {error.strerror or error}")

    def _read_kept(self) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            self._warn("file", f"{self._path}: kept reports cannot be read: {error}")
            return
        for line in lines:
            try:
                observation = Observation(**json.loads(line))
                check_runs(to_frame([observation]), origin=str(self._path))
            except (ValueError, TypeError, TableError) as error:
                self._warn("line", f"{self._path}: a kept report cannot be read and is left out: {error}")
                continue
            self._kept[observation.identity] = observation

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, once for each kind. Python's own warnings may be made exceptions."""
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning(message)


def _line(observation: Observation) -> str:
    fields = ((name, getattr(observation, name)) for name in Observation.__dataclass_fields__)
    return json.dumps({name: value for name, value in fields if value == value}) + "\n"  # no NaN
