"""Who holds a run folder: one command at a time changes it.

Each start that holds it writes ``RUN/holder/NUMBER.json`` with a number above every earlier one; the highest number
holds the folder until it says that it has ended. A number is taken by a link, which no two can make, so that this needs
no locks and works on NFS, Lustre and FUSE.
"""

import getpass
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from raysplit.errors import FolderTaken, RunError
from raysplit.quantities import format_seconds
from raysplit.run_folder.folder import write_text

FOLDER_NAME = "holder"
BEAT_SECONDS = 5.0
"""Between signs of life, each of which also looks whether the folder was taken over."""
STALE_SECONDS = 60.0
"""Without a sign of life, after which a holder on another machine is gone."""
_MISSING_LOOKS = 2
"""After which a folder that is not there is deleted, and not a mount that is away for a moment."""
_CLAIM_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A command that holds, or held, a run folder."""

    command: str
    pid: int
    user: str
    host: str
    since: str
    """UTC, ISO 8601."""
    machine: str
    """Boot of the machine and namespace of its processes: where it is ours, ``pid`` can be looked up. Empty where the
    system does not tell."""
    started: str
    """When the process started, in the kernel's ticks since boot: not those of another that got its number since."""
    ended: str = ""
    """UTC; empty while it holds the folder."""

    def __str__(self) -> str:
        since = self.since[:16].replace("T", " ")
        return f"`{self.command}` (process {self.pid} of {self.user} on {self.host}, since {since} UTC)"


@contextmanager
def held(
    run: Path, *, command: str, take_over: bool = False, tell: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a run folder, which is made where it is missing, for the length of a ``with`` block in the main thread.

    A holder that is gone is succeeded: one on this machine whose process has ended, one on another after
    `STALE_SECONDS` without a sign of life. When another start takes the folder over, the block is interrupted as by
    Ctrl-C.

    Args:
        run: the run folder.
        command: shown to whoever is refused.
        take_over: also succeed a holder that lives; it is given `STALE_SECONDS` to end in order.
        tell: is told of a holder that is succeeded.

    Raises:
        RunError: another command holds the folder, or it cannot be written.
        FolderTaken: another start took it over while the block ran.
    """
    folder, me = run.absolute() / FOLDER_NAME, _this_process(command)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number, before = _claim(folder, me, run, take_over=take_over)
    except OSError as error:
        raise RunError(f"{run}: cannot be written: {error.strerror or error}") from error
    beat = _Beat(folder, number)
    beat.start()
    try:
        if before is not None:
            lives = take_over and _is_alive(folder, *before)
            if tell is not None:
                tell(f"{run}: was held by {before[1]}, which {'is told to end' if lives else 'is gone'}")
            _wait_for_end(folder, *before)
        _forget_below(folder, number)
        yield
    finally:
        beat.stop()
        with suppress(OSError):  # who comes next finds that this process is gone
            if (path := folder / _name(number)).exists():
                write_text(path, _text(replace(me, ended=_now())))
        if beat.lost:
            newest = _newest(folder)
            how = (
                f"taken over by {newest[1]}"
                if newest and newest[0] > number
                else "the claim of this command is deleted"
            )
            raise FolderTaken(f"{run}: {how}; this command has ended, and everything measured is kept")


class _Beat(threading.Thread):
    """Gives signs of life, and interrupts the main thread when the folder was taken over."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(name="raysplit-holder", daemon=True)
        self._folder, self._number, self._stopped = folder, number, threading.Event()
        self._n_missing = 0
        self.lost = False

    def run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            with suppress(OSError):  # a network file system that is away for a moment
                self._look()

    def _look(self) -> None:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            self._n_missing += 1
            if self._n_missing < _MISSING_LOOKS:
                return
            names = []
        if not self.lost and (_name(self._number) not in names or max(_numbers(names)) > self._number):
            self.lost = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        os.utime(self._folder / _name(self._number))  # also while ending: a successor waits for it
        self._n_missing = 0

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _claim(folder: Path, me: Holder, run: Path, *, take_over: bool) -> tuple[int, tuple[int, Holder] | None]:
    """The number that was taken, and the holder that is succeeded where it has not ended by itself.

    Raises:
        RunError: another holds the folder.
        OSError: the folder cannot be written.
    """
    for _ in range(_CLAIM_ATTEMPTS):
        newest = _newest(folder)
        if newest is not None and not take_over and _is_alive(folder, *newest):
            ago = max(0.0, _age_seconds(folder, newest[0]))
            copy = ", or take it over if this is a copy of the folder that it holds" if ago > STALE_SECONDS else ""
            raise RunError(
                f"{run}: is held by {newest[1]}, last sign of life {format_seconds(ago)} ago; wait for it, or "
                f"end it{copy}; --take-over makes it end"
            )
        number = newest[0] + 1 if newest else 1
        # Who was slow may have taken a number that others have passed meanwhile.
        if _take(folder, number, me):
            if max(_numbers(os.listdir(folder))) == number:
                return number, None if newest is None or newest[1].ended else newest
            (folder / _name(number)).unlink(missing_ok=True)
    raise RunError(f"{run}: others keep taking it over; look for what starts raysplit in this folder again and again")


def _take(folder: Path, number: int, me: Holder) -> bool:
    """Write a claim unless there is one of this number: whole at once, and by only one of several."""
    partial, path = folder / f"{uuid4().hex}.partial", folder / _name(number)
    try:
        partial.write_text(_text(me), encoding="utf-8")
        try:
            os.link(partial, path)
        except FileExistsError:
            return os.stat(partial).st_nlink == 2  # NFS may have made the link and lost the answer
        except OSError:  # a file system without links
            return _take_without_link(path, me)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _take_without_link(path: Path, me: Holder) -> bool:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(_text(me))
    except FileExistsError:
        return False
    return True


def _text(holder: Holder) -> str:
    return json.dumps(asdict(holder), indent=1)


def _newest(folder: Path) -> tuple[int, Holder] | None:
    """The highest claim; one that cannot be read is of an unknown command."""
    try:
        number = max(_numbers(os.listdir(folder)), default=0)
    except FileNotFoundError:
        return None
    return (number, _read(folder, number)) if number else None


def _read(folder: Path, number: int) -> Holder:
    try:
        return Holder(**json.loads((folder / _name(number)).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # being written, or not by this raysplit
        return Holder(command="?", pid=0, user="?", host="?", since="?", machine="", started="")


def _is_alive(folder: Path, number: int, holder: Holder) -> bool:
    if holder.ended:
        return False
    if holder.machine and holder.machine == _machine():
        try:
            os.kill(holder.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        if started := _started(holder.pid):
            return started == holder.started
        # The system does not show other users' processes.
    return abs(_age_seconds(folder, number)) < STALE_SECONDS  # of a time to come, the clock was set back since


def _age_seconds(folder: Path, number: int) -> float:
    """Since the last sign of life, by the file server's clock alone; opening the file asks it for the newest."""
    probe = folder / f"{uuid4().hex}.partial"
    try:
        probe.touch()
        with open(folder / _name(number), "rb") as file:
            return probe.stat().st_mtime - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return 0.0  # it was replaced just now
    finally:
        probe.unlink(missing_ok=True)


def _wait_for_end(folder: Path, number: int, holder: Holder) -> None:
    """Until the holder that was taken over has ended, so that two never train into one folder; with an end to it."""
    deadline = time.monotonic() + STALE_SECONDS
    while _is_alive(folder, number, holder) and time.monotonic() < deadline:
        time.sleep(0.2)
        holder = _read(folder, number)


def _forget_below(folder: Path, number: int) -> None:
    with suppress(OSError):
        for old in _numbers(os.listdir(folder)):
            if old < number:
                (folder / _name(old)).unlink(missing_ok=True)


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _numbers(names: list[str]) -> list[int]:
    return [int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdecimal()]


def _this_process(command: str) -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = str(os.getuid())
    pid = os.getpid()
    return Holder(
        command=command, pid=pid, user=user, host=socket.gethostname(), since=_now(), machine=_machine(),
        started=_started(pid),
    )  # fmt: skip


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Empty where the process is gone or hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return "ended" if state in "ZX" else fields[18]  # its parent has not asked how it ended


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
