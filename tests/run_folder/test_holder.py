"""One command at a time holds a run folder: who holds it is told, who is gone is succeeded."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from raysplit.errors import FolderTaken, RunError
from raysplit.live import endpoint
from raysplit.run_folder import holder
from raysplit.run_folder.folder import RunFolder
from raysplit.run_folder.holder import STALE_SECONDS, Holder, held
from raysplit.run_folder.holder import _this_process as this_process

HOLD = """
    import sys, time
    from pathlib import Path
    from raysplit.errors import FolderTaken
    from raysplit.run_folder import holder
    holder.BEAT_SECONDS = 0.1
    try:
        with holder.held(Path(sys.argv[1]), command="raysplit sweep"):
            print("holds", flush=True)
            time.sleep(60)
    except FolderTaken as error:
        print(error, flush=True)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds ``tmp_path``."""
    code = textwrap.dedent(HOLD)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def claims(run: Path) -> list[str]:
    return sorted(os.listdir(run / "holder"))


def ended(run: Path) -> str:
    """When the only holder so far gave it back."""
    return Holder(**json.loads((run / "holder" / "000001.json").read_text())).ended


def leave_behind(run: Path, **changes: Any) -> Path:
    """A claim as a holder that did not end in order leaves it."""
    left = replace(this_process("raysplit sweep"), **changes)
    path = run / "holder" / "000007.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(left)))
    return path


def test_a_second_start_is_told_who_holds_it(tmp_path: Path) -> None:
    with held(tmp_path / "run", command="raysplit sweep"):
        now = this_process("")
        with pytest.raises(RunError) as refused, held(tmp_path / "run", command="raysplit tune"):
            pytest.fail("held twice")
    said = str(refused.value)
    assert "\n" not in said
    for part in ("`raysplit sweep`", f"process {os.getpid()}", now.user, now.host, now.since[:10], "--take-over"):
        assert part in said
    assert ended(tmp_path / "run")


def test_one_after_the_other_needs_no_word(tmp_path: Path) -> None:
    told: list[str] = []
    for number in (1, 2, 3):
        with held(tmp_path, command="raysplit sweep", tell=told.append):
            assert claims(tmp_path) == [f"00000{number}.json"]
    assert told == []


def test_a_command_that_failed_does_not_hold_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path, command="raysplit sweep"):
        raise ZeroDivisionError
    assert ended(tmp_path)


def test_one_that_was_killed_is_succeeded_at_once(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(RunError, match=f"process {other.pid} "), held(tmp_path, command="raysplit sweep"):
        pytest.fail("held twice")
    told: list[str] = []
    other.kill()  # and nobody has asked how it ended: a zombie
    time.sleep(0.1)
    with held(tmp_path, command="raysplit sweep", tell=told.append):
        assert claims(tmp_path) == ["000002.json"]
    [line] = told
    assert f"process {other.pid} " in line
    assert line.endswith("which is gone")


def test_its_number_may_be_another_process_by_now(tmp_path: Path) -> None:
    leave_behind(tmp_path, started="17")
    with held(tmp_path, command="raysplit sweep"):
        assert claims(tmp_path) == ["000008.json"]


def test_on_another_machine_signs_of_life_tell(tmp_path: Path) -> None:
    path = leave_behind(tmp_path, machine="another boot", host="node17", pid=1)
    with pytest.raises(RunError, match=r"of .* on node17"), held(tmp_path, command="raysplit sweep"):
        pytest.fail("held twice")
    os.utime(path, (0, time.time() - STALE_SECONDS - 5))
    told: list[str] = []
    with held(tmp_path, command="raysplit sweep", tell=told.append):
        assert claims(tmp_path) == ["000008.json"]
    assert "on node17" in told[0]


def test_a_clock_that_was_set_back_keeps_nobody_out(tmp_path: Path) -> None:
    path = leave_behind(tmp_path, machine="another boot", host="node17", pid=1)
    os.utime(path, (0, time.time() + 3 * 3600))
    with held(tmp_path, command="raysplit sweep"):
        assert claims(tmp_path) == ["000008.json"]


def test_it_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "BEAT_SECONDS", 0.05)
    with held(tmp_path, command="raysplit sweep"):
        path = tmp_path / "holder" / "000001.json"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("here", [True, False], ids=["this machine", "another machine"])
def test_who_is_taken_over_ends_in_order_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: subprocess.Popen[str], here: bool
) -> None:
    if not here:
        monkeypatch.setattr(holder, "_machine", lambda: "another boot")
    told: list[str] = []
    began = time.monotonic()
    with held(tmp_path, command="raysplit tune", take_over=True, tell=told.append):
        assert time.monotonic() - began < STALE_SECONDS / 2
        assert other.stdout is not None
        said = other.stdout.read()
        assert other.wait(timeout=10) == 0
        assert claims(tmp_path) == ["000002.json"]
    assert told[0].endswith("which is told to end")
    assert f"taken over by `raysplit tune` (process {os.getpid()} " in said
    assert "everything measured is kept" in said


@pytest.mark.parametrize("what", ["run/holder/000001.json", "run/holder", "run"])
def test_a_claim_that_was_deleted_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(holder, "BEAT_SECONDS", 0.05)

    def lose_it() -> None:
        gone = tmp_path / what
        gone.unlink() if gone.is_file() else shutil.rmtree(gone)
        time.sleep(10)

    run = tmp_path / "run"
    with pytest.raises(FolderTaken, match="claim of this command is deleted"), held(run, command="raysplit sweep"):
        lose_it()
    with held(run, command="raysplit sweep"):
        pass


def test_a_copy_of_a_folder_that_is_held_can_be_taken(tmp_path: Path) -> None:
    path = leave_behind(tmp_path)
    os.utime(path, (0, time.time() - STALE_SECONDS - 5))
    with pytest.raises(RunError, match="if this is a copy"), held(tmp_path, command="raysplit sweep"):
        pytest.fail("held twice")


def no_links(source: str, target: str) -> None:
    raise OSError(errno.EPERM, "no links here")


def a_lost_answer(source: Path, target: Path, link: Any = os.link) -> None:
    link(source, target)
    raise FileExistsError(errno.EEXIST, "the second try of a request whose answer was lost")


@pytest.mark.parametrize("link", [os.link, no_links, a_lost_answer], ids=["links", "no links", "a lost answer"])
@pytest.mark.parametrize("left", [{}, {"pid": 2**22 + 1}], ids=["new", "after one that is gone"])
def test_of_many_at_once_one_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Any, left: dict[str, int]
) -> None:
    monkeypatch.setattr(os, "link", link)
    if left:
        leave_behind(tmp_path, **left)
    together, ended = threading.Barrier(6), threading.Barrier(6)
    outcomes: list[str] = []

    def start() -> None:
        together.wait()
        try:
            with held(tmp_path, command="raysplit sweep"):
                outcomes.append("holds")
                ended.wait()
        except RunError as error:
            outcomes.append(str(error))
            ended.wait()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("holds" if o == "holds" else "refused" for o in outcomes) == ["holds"] + ["refused"] * 5
    assert [name for name in claims(tmp_path) if name.endswith(".partial")] == []


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', "[]"])
def test_a_claim_that_cannot_be_read_holds_for_a_while(tmp_path: Path, content: str) -> None:
    path = leave_behind(tmp_path)
    path.write_text(content)
    with pytest.raises(RunError, match="is held by"), held(tmp_path, command="raysplit sweep"):
        pytest.fail("held twice")
    os.utime(path, (0, time.time() - STALE_SECONDS - 5))
    with held(tmp_path, command="raysplit sweep"):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run: cannot be written"), held(tmp_path / "file" / "run", command="x"):
        pytest.fail("held")


def test_ctrl_c_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held(tmp_path, command="raysplit sweep"):
        signal.raise_signal(signal.SIGINT)
    assert ended(tmp_path)


def test_the_docs_say_so(repository: Path) -> None:
    page = (repository / "docs" / "run-folder.md").read_text(encoding="utf-8")
    for field in Holder.__dataclass_fields__:
        assert f"| `{field}` |" in page
    folder = RunFolder(path=repository)
    paths = [getattr(folder, name) for name in vars(RunFolder) if isinstance(getattr(folder, name, None), Path)]
    for path in [*paths, folder.observations("csv"), repository / endpoint.FILE_NAME, repository / holder.FOLDER_NAME]:
        assert f"| `{path.name}` |" in page or path == repository
    assert f"no sign of life for {STALE_SECONDS:.0f} s" in page
    assert f"notices within {holder.BEAT_SECONDS:.0f} s" in page
