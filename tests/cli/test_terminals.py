"""Whatever the terminal can write, and however much of the output is read, a command ends without a traceback."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
LATIN_1 = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
NAME = "légal 法 \u2028"


@pytest.fixture(scope="module")
def law(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> Path:
    """A law of domains whose names few terminals can write, fitted in the narrowest of them."""
    folder = tmp_path_factory.mktemp("terminals")
    table.assign(domain=table["domain"].replace({"domain-0": NAME, "domain-1": "[/]:code:"})).to_csv(
        folder / "runs.csv", index=False
    )
    said = run("fit", folder / "runs.csv", "--out", folder / "law.json", "--budget-flops", "1e12", **ASCII)
    assert said.returncode == 0, said.stderr
    assert rb"l\xe9gal \u6cd5" in said.stdout
    assert said.stdout.isascii()
    assert b" [/]:code: " in said.stdout, "nothing in a name is taken for markup"
    return folder / "law.json"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "raysplit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


def test_a_name_that_it_cannot_write_is_no_mistake(law: Path) -> None:
    advice = run("advise", "--law", law, "--budget-flops", "1e12", **LATIN_1)
    assert (advice.returncode, advice.stderr) == (0, b"")
    assert "légal \\u6cd5".encode("latin-1") in advice.stdout


def test_every_command_escapes_what_it_cannot_write(law: Path) -> None:
    advice = run("advise", "--law", law, "--budget-flops", "1e12", **ASCII)
    assert rb"l\xe9gal \u6cd5" in advice.stdout
    assert advice.stdout.isascii()


def test_a_mistake_is_told_there_too(tmp_path: Path) -> None:
    refused = run("advise", "--law", tmp_path / NAME, "--budget-flops", "1e12", **ASCII)
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert b"cannot be read" in line
    misused = run("advise", "--law", tmp_path / NAME, "--budget-flops", NAME, **ASCII)
    assert misused.returncode == 2
    assert misused.stderr.isascii()


def test_what_a_shell_wrote_in_utf_16_is_read(law: Path) -> None:
    """As PowerShell does with `> law.json`."""
    (law.parent / "law16.json").write_text(law.read_text(encoding="utf-8"), encoding="utf-16")
    advice = run("advise", "--law", law.parent / "law16.json", "--budget-flops", "1e12")
    assert (advice.returncode, advice.stderr) == (0, b"")


def test_a_narrow_terminal_gets_all_of_it(law: Path) -> None:
    master, slave = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "raysplit",
        "import",
        str(law.parent / "runs.csv"),
        "--out",
        str(law.parent / "o.csv"),
    ]
    environment = {**os.environ, "COLUMNS": "20", "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    said = b""
    with suppress(OSError):  # which tells that the other end is closed
        while part := os.read(master, 65536):
            said += part
    os.close(master)
    assert process.wait() == 0, said
    assert b"Traceback" not in said
    assert b"2 domains" in said


def test_a_reader_that_has_had_enough_ends_it_without_a_word(law: Path) -> None:
    """As with `| head -1`: the status is a shell's for SIGPIPE."""
    for arguments in (["advise", "--law", str(law), "--budget-flops", "1e12"], ["--help"], ["fit", "--help"]):
        read, write = os.pipe()
        os.close(read)
        command = [sys.executable, "-m", "raysplit", *arguments]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b""), arguments


def test_a_full_disk_is_named(law: Path) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "raysplit", "fit", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr == b"raysplit: a file or the output: cannot be written: No space left on device\n"
    done = run("fit", law.parent / "runs.csv", "--out", "/dev/full")
    assert done.stderr.endswith(b"raysplit: /dev/full: cannot be written: No space left on device\n")
