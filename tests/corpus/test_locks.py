"""A lock keeps others out; where a file system has none, work goes on with one warning."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from raysplit.corpus import locks
from raysplit.corpus.locks import lock_file


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_warned", set())


def test_a_lock_is_held_by_one_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as one, path.open("w") as other:
        assert lock_file(one.fileno(), path, wait=False)
        with pytest.raises(BlockingIOError):
            lock_file(other.fileno(), path, wait=False)
        one.close()
        assert lock_file(other.fileno(), path, wait=True)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_it_goes_on_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lock"
    with path.open("w") as one, caplog.at_level(logging.WARNING, logger="raysplit"):
        assert not lock_file(one.fileno(), path, wait=False)
        assert not lock_file(one.fileno(), path, wait=True)
    (message,) = caplog.messages
    assert str(tmp_path) in message
    assert "no file locks" in message
    assert "never start two" in message


def test_other_refusals_are_errors(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock_file(fd, tmp_path, wait=False)
