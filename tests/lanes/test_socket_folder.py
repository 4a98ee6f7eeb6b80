"""Where Ray's sockets go: a folder that the environment names, as long as it will do."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysplit.errors import RunError
from raysplit.lanes import socket_folder
from raysplit.lanes.socket_folder import LONGEST, choose_socket_folder


@pytest.fixture
def usual(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's usual place, when the environment names none."""
    folder = Path("/tmp")
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket_folder, "_USUAL", (str(folder),))
    return folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A path, for a folder or not, short enough for sockets, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "short"


def test_without_a_word_it_is_the_usual_one(usual: Path) -> None:
    folder, why = choose_socket_folder()
    assert folder.parent == usual
    assert why == ""


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_short_one_is_taken_and_made(name: str, usual: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(short))
    assert choose_socket_folder() == (short / "ray", "")
    assert (short / "ray").is_dir()


def test_rays_own_variable_comes_first(usual: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "x" * 200)
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert choose_socket_folder() == (short / "ray", "")


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_long_one_is_passed_over_with_a_word(name: str, usual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/scratch/" + "slurm_job/" * 13)
    folder, why = choose_socket_folder()
    assert folder.parent == usual
    assert why.startswith(f"Ray's sockets and logs are in {folder}: {name} is too long for sockets, by ")


def test_the_longest_name_that_fits_is_taken(tmp_path: Path) -> None:
    sockets = "/session_2026-11-30_12-00-00_000000_1234567/sockets/plasma_store.12"
    assert len("/" + "x" * (LONGEST - 1) + sockets) == 107


def test_one_that_cannot_be_written_is_passed_over(usual: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short.write_text("a file where a folder should be")
    monkeypatch.setenv("TMPDIR", str(short))
    assert choose_socket_folder()[1].endswith(f"TMPDIR cannot be written ({short}: Not a directory)")


def test_a_full_one_is_passed_over(usual: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*, dir: Path, **_: object) -> object:
        if short in dir.parents:
            raise OSError(28, "No space left on device")
        return open("/dev/null", "wb")

    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert choose_socket_folder()[1].endswith(f"TMPDIR cannot be written ({short}: No space left on device)")


def test_where_none_will_do_all_are_named(usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(socket_folder, "_USUAL", (str(tmp_path / "file"),))
    monkeypatch.setenv("TMPDIR", "relative")
    with pytest.raises(RunError, match=r"TMPDIR is no full path \(relative\); .*file .*Set RAY_TMPDIR to a folder"):
        choose_socket_folder()
