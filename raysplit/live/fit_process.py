"""A process that fits, so that no fit holds up an answer: it keeps a copy of the table and is sent what is new.

Run as ``python -m raysplit.live.fit_process``; speaks pickles, each after its length, over its standard input and
output. It ends when its input does, in the middle of a fit too, so that no fit outlives the actor it was for.
"""

import contextlib
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from typing import IO, Any

from raysplit.errors import RaysplitError, RunError
from raysplit.law import Law
from raysplit.live.fitting import Fitted, Target, fit_quickly, fit_thoroughly
from raysplit.live.observations import ObservationTable

_CHUNK_ROWS = 5_000
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")}


class FitProcess:
    """The parent's end. One thread calls it at a time."""

    def __init__(self, table: ObservationTable, target: Target, *, niceness: int) -> None:
        self._table, self._target, self._niceness = table, target, niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._sent_seq = -1

    def thorough(self, seq: int) -> Fitted:
        """`fit_thoroughly` of what was known after a journal record.

        Raises:
            LawError: no form can be fitted.
            RunError: the process died twice.
        """
        return self._ask(("thorough", seq))

    def quick(self, seq: int, *, chosen: Fitted, start: Law) -> Fitted:
        """`fit_quickly` of what was known after a journal record.

        Raises:
            LawError: a new domain cannot be fitted.
            RunError: the process died twice.
        """
        return self._ask(("quick", seq, chosen, start))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process, whatever it is at."""
        process, self._process, self._sent_seq = self._process, None, -1
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent yet to one that died
                    pipe.close()

    def _ask(self, job: tuple[Any, ...]) -> Fitted:
        for attempt in range(2):
            try:
                answer = self._exchange(job)
            except (OSError, EOFError) as error:  # killed, by whoever was short of memory for one
                status = self._process.wait() if self._process else None
                self.close()
                if attempt:
                    raise RunError(f"the process that fits the law died twice (status {status})") from error
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        raise AssertionError

    def _exchange(self, job: tuple[Any, ...]) -> Any:
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        rows = self._table.since(self._sent_seq)
        for first in range(0, len(rows), _CHUNK_ROWS):
            _send(self._process.stdin, ("rows", rows[first : first + _CHUNK_ROWS]))
        if rows:
            self._sent_seq = rows[-1].seq
        _send(self._process.stdin, job)
        return _receive(self._process.stdout)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "raysplit.live.fit_process", str(self._niceness)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        _send(process.stdin, self._target)
        return process


def _send(pipe: IO[bytes], message: Any) -> None:
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(struct.pack("<Q", len(body)) + body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    [n_bytes] = struct.unpack("<Q", head)
    body = pipe.read(n_bytes)
    if len(body) < n_bytes:
        raise EOFError
    return pickle.loads(body)


def _main() -> None:
    os.nice(int(sys.argv[1]))
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def read() -> None:
        pipe = sys.stdin.buffer
        try:
            while True:
                inbox.put(_receive(pipe))
        except EOFError:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    target: Target = inbox.get()
    table = ObservationTable()
    while True:
        kind, *content = inbox.get()
        if kind == "rows":
            table.add(content[0])
            continue
        try:
            if kind == "thorough":
                answer: Fitted | RaysplitError = fit_thoroughly(table.until(content[0]), content[0], target)
            else:
                seq, chosen, start = content
                answer = fit_quickly(table.until(seq), seq, target, chosen=chosen, start=start)
        except RaysplitError as error:
            answer = error
        except Exception as error:  # a bug in a fit must not take the answers away
            answer = RunError(f"the fit failed: {type(error).__name__}: {error}")
        _send(out, answer)


if __name__ == "__main__":
    _main()
