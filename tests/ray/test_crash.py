"""Whole sweeps as a user runs them, on real clusters of their own, interrupted in every way that a shell knows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raysplit.live.journal import read_journal
from raysplit.split import Advice

pytestmark = pytest.mark.timeout(300)

STDLIB = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of real text (two corners of the standard library), seconds long, in a path with a space."""
    folder = tmp_path_factory.mktemp("a sweep")
    space = {
        "name": "tiny",
        "corpus": {
            "domains": {
                "mail": {"kind": "files", "path": str(STDLIB / "email"), "pattern": "*.py"},
                "tests": {"kind": "files", "path": str(STDLIB / "asyncio"), "pattern": "*.py"},
            },
            "tokenizer": {"kind": "bpe", "vocab_size": 300},
            "validation_fraction": 0.1,
        },
        "model": {"sizes": ["14k", "28k"], "context_length": 64},
        "training": {
            "batch_tokens": 1024,
            "micro_batch_sequences": 16,
            "learning_rate": {"reference": 1e-2, "reference_params": "14k"},
            "warmup_tokens": 4096,
            "validation_tokens": 4096,
        },
        "sweep": {
            "pretrain_tokens": [16384, 32768, 65536],
            "specialize_tokens": [8192, 16384, 32768],
            "policy": "grid",
        },
        "target": {"budget_flops": 5e10},
        "compute": {"lanes": 2},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(space))
    return path


@pytest.fixture(scope="module")
def whole(space_file: Path) -> Path:
    """The run folder of a sweep that nobody interrupted."""
    out = space_file.parent / "whole"
    done = subprocess.run(command(space_file, out), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A fresh run folder, its corpus at hand."""
    folder = tmp_path / "cut off"
    folder.mkdir()
    shutil.copytree(whole / "corpus", folder / "corpus")
    return folder


def command(space_file: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "raysplit", "sweep", str(space_file), "--out", str(out)]


def measured(out: Path) -> list[tuple[str, int]]:
    """(trial, milestone) of each measurement in a run folder's journal."""
    journal = out / "journal.jsonl"
    records = read_journal(journal) if journal.exists() else []
    return [
        (json.dumps(r.data["trial"], sort_keys=True), r.data["milestone"]) for r in records if r.kind == "measurement"
    ]


def start_until_measured(space_file: Path, out: Path, *, at_least: int) -> subprocess.Popen[str]:
    """Start a sweep in a session of its own and wait until it has measured something more."""
    running = subprocess.Popen(
        command(space_file, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 150
    while len(measured(out)) < at_least:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, "nothing was measured in time"
        time.sleep(0.2)
    return running


def processes_of(run: subprocess.Popen[str]) -> list[str]:
    """Command lines of what is left of a run's own Ray cluster, whose session folder carries the driver's number."""
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"_{run.pid}/" in line and "/ray/session_" in line:
                left.append(line)
    return left


def wait_until_gone(run: subprocess.Popen[str], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(run):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def finish(space_file: Path, out: Path) -> str:
    done = subprocess.run(command(space_file, out), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same_end(out: Path, whole: Path) -> None:
    """Nothing measured twice, the same losses, the same answer."""
    assert len(measured(out)) == len(set(measured(out)))
    ours, theirs = (
        pd.read_parquet(folder / "observations.parquet").drop(columns="wall_seconds") for folder in (out, whole)
    )
    pd.testing.assert_frame_equal(ours, theirs)
    assert (out / "advice.json").read_text() == (whole / "advice.json").read_text()


def test_a_sweep_leaves_its_results(whole: Path) -> None:
    advice = Advice.from_json((whole / "advice.json").read_text())
    assert set(advice.losses) == {"mail", "tests"}
    csv, parquet = pd.read_csv(whole / "observations.csv"), pd.read_parquet(whole / "observations.parquet")
    # Two sizes; three points of each trunk are read on two domains, and each of 3 x 2 branches at three D'.
    assert len(csv) == len(parquet) == 2 * (3 * 2 + 3 * 2 * 3)
    assert json.loads((whole / "law.json").read_text())["domains"] == ["mail", "tests"]


def test_kill_9_of_the_driver_loses_and_repeats_nothing(space_file: Path, out: Path, whole: Path) -> None:
    kept: list[tuple[str, int]] = []
    for at_least in (4, 16):
        running = start_until_measured(space_file, out, at_least=at_least)
        running.kill()
        running.communicate()
        wait_until_gone(running, seconds=30)
        assert measured(out)[: len(kept)] == kept
        kept = measured(out)
    printed = finish(space_file, out)
    assert "taking up the sweep" in printed
    assert measured(out)[: len(kept)] == kept
    assert_same_end(out, whole)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_leaves_no_process_and_goes_on(
    space_file: Path, out: Path, whole: Path, stop: signal.Signals
) -> None:
    running = start_until_measured(space_file, out, at_least=6)
    if stop == signal.SIGINT:
        os.killpg(running.pid, stop)  # as a terminal does
    else:
        running.send_signal(stop)
    printed = running.communicate(timeout=60)[0]
    assert running.returncode == 130, printed
    assert "the same command continues" in printed
    wait_until_gone(running, seconds=30)
    kept = measured(out)
    finish(space_file, out)
    assert measured(out)[: len(kept)] == kept
    assert_same_end(out, whole)
