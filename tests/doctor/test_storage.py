"""A folder that several nodes should share, seen by nodes that are played here."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysplit.doctor.storage import check_folder, check_readable


def nodes(*roots: Path) -> Callable[..., list[tuple[str, object]]]:
    """Each sees the folder below a root of its own, as where nothing is shared."""

    def on_each(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, object]]:
        seen = []
        for number, root in enumerate(roots):
            own = [
                root / argument.relative_to("/") if isinstance(argument, Path) else argument for argument in arguments
            ]
            seen.append((f"node{number}", function(f"node{number}", *own)))
        return seen

    return on_each


def test_a_shared_folder_has_no_findings_and_keeps_nothing(tmp_path: Path) -> None:
    assert check_folder(Path("/runs/first"), nodes(tmp_path, tmp_path), marker="m") == []
    assert list((tmp_path / "runs" / "first").iterdir()) == []


def test_a_folder_that_each_node_has_for_itself_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.doctor.storage._SEEN_WITHIN_SECONDS", 0.0)
    found = check_folder(Path("/runs"), nodes(tmp_path / "a", tmp_path / "b"), marker="m")
    assert [finding.where for finding in found] == ["node0", "node1"]
    assert "does not show what node1 wrote" in found[0].what
    assert "every node mounts at the same path" in found[0].remedy


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysplit.doctor.storage._SEEN_WITHIN_SECONDS", 0.0)
    (tmp_path / "file").write_text("")
    found = check_folder(Path("/runs"), nodes(tmp_path / "a", tmp_path / "file"), marker="m")
    assert any(finding.where == "node1" and "cannot be written" in finding.what for finding in found)


def test_too_little_room_and_files_without_locks_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("raysplit.doctor.storage.fcntl.flock", refuse)
    found = check_folder(tmp_path, nodes(Path("/")), marker="m", needed_bytes=1e18)
    assert [finding.severity for finding in found] == ["warning", "warning"]
    assert "cannot be locked (No locks available)" in found[0].what
    assert "checkpoints may come to 1" in found[1].what


def test_what_a_node_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "corpus").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    [finding] = check_readable([Path("/corpus")], _with_lists(tmp_path / "a", tmp_path / "b"))
    here = tmp_path / "b" / "corpus"
    assert finding.where == "node1"
    assert f"cannot read {here} (No such file" in finding.what


def _with_lists(*roots: Path) -> Callable[..., list[tuple[str, object]]]:
    def on_each(function: Callable[..., Any], paths: list[Path]) -> list[tuple[str, object]]:
        return [
            (f"node{n}", function(f"node{n}", [root / path.relative_to("/") for path in paths]))
            for n, root in enumerate(roots)
        ]

    return on_each
