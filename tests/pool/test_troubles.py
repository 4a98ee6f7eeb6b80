"""Whose fault it is that a lane has ended, and what is said of it."""

import pytest

from raysplit.errors import CheckpointError, CorpusError, NotStored, RunError, StorageError
from raysplit.pool.troubles import Kind, kind_of, remedy


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StorageError("run/checkpoints: no space left on device"), Kind.STORAGE),
        (NotStored("run/journal: record 5 not stored: read-only file system"), Kind.STORAGE),
        (OSError(30, "Read-only file system"), Kind.STORAGE),
        (caused_by(ValueError("cannot save"), OSError(28, "No space left on device")), Kind.STORAGE),
        (ConnectionResetError(104, "Connection reset by peer"), Kind.MACHINE),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3213"), Kind.MACHINE),
        (RuntimeError("NCCL error in: ../torch/csrc/ProcessGroupNCCL.cpp, remote process exited"), Kind.MACHINE),
        (CheckpointError("n14-s0-d8: is of another model"), Kind.SET_UP),
        (RunError("run/journal: record 5 not stored: another writer has taken over"), Kind.SET_UP),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Kind.SET_UP),
        (CorpusError("run/corpus: no manifest"), Kind.CODE),
        (AssertionError("LOCAL_RANK"), Kind.CODE),
    ],
)
def test_the_kind_of_an_exception(error: Exception, kind: Kind) -> None:
    assert kind_of(error) is kind


def test_what_other_launchers_left_is_named_where_deepspeed_stumbles_over_it() -> None:
    said = remedy(Kind.CODE, "KeyError: 'OMPI_COMM_WORLD_LOCAL_RANK' (rank 0; lane-0.log)")
    assert "another launcher's variables are in the environment of Ray's nodes: unset them where Ray starts" in said
