"""The live law of a sweep that runs, as other people's jobs meet it: the notebook, a bare loop, a table."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import raysplit
from benchmarks.live.live_replay import SURFACE, played_sweep
from raysplit.live.client import LiveLaw
from raysplit.runs import Observation
from raysplit.trainers.outside_run import OutsideRun

WAIT_SECONDS = 120


@pytest.fixture(scope="module")
def played(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a sweep of the measured surface, in mid-course with a first law."""
    folder = tmp_path_factory.mktemp("played") / "run"
    with played_sweep(folder, seconds=0.05) as sweep:
        law = LiveLaw(sweep.actor)
        wait_for_law(law)
        yield folder


def wait_for_law(law: LiveLaw) -> None:
    pause = threading.Event()
    for _ in range(WAIT_SECONDS * 5):
        stamp = law.stamp()
        if stamp is not None and stamp.n_observations >= 24:
            return
        pause.wait(0.2)
    raise AssertionError("the sweep came to no law")


def test_the_notebook_runs_whole(played: Path, tmp_path: Path, repository: Path) -> None:
    picture = tmp_path / "picture.png"
    environment = {
        **os.environ,
        "PYTHONPATH": str(repository),
        "PYTHONWARNINGS": "error::UserWarning",
        "RUN": str(played),
        "PICTURE": str(picture),
    }
    done = subprocess.run(
        [sys.executable, "notebooks/live_questions.py"],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Best split of 1.50e12 FLOPs" in done.stdout
    assert "at 6.00e12 FLOPs: N = " in done.stdout
    assert done.stdout.count("90 % interval") == 4
    assert len(re.findall(r"^\d\.\d{3}: (?:go on|stop), ", done.stdout, flags=re.MULTILINE)) == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_bare_loop_reports_to_it(played: Path, tmp_path: Path) -> None:
    law = raysplit.connect(played)
    said = law.predict("code", n_params=27_000, pretrain_tokens=250_000, specialize_tokens=100_000)
    loss = said.mean
    run = OutsideRun(
        lambda: raysplit.connect(played), n_params=27_000, domain="code", pretrain_tokens=250_000, seed=77,
        kept_in=tmp_path / "kept.jsonl", patience_seconds=60,
    )  # fmt: skip
    assert run.should_go_on(tokens=50_000, loss=loss)
    assert run.last_answer.law is not None
    assert not run.should_go_on(tokens=90_000, loss=5 * loss)
    run.finish(tokens=100_000, loss=loss)
    run.close()
    mine = law.observations().query("seed == 77")
    assert mine[["n_params", "pretrain_tokens", "specialize_tokens", "loss"]].values.tolist() == [
        [27_000, 250_000, 100_000, loss]
    ]


def test_a_table_goes_through_it_and_not_past_it(played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from raysplit.cli import main

    rows = pd.read_csv(SURFACE).head(3).assign(seed=88)
    rows.to_csv(tmp_path / "mine.csv", index=False)
    result = CliRunner().invoke(main, ["observe", str(played), str(tmp_path / "mine.csv")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("stored by the live law: 3 new, 0 known already")
    law = raysplit.connect(played)
    assert (law.observations()["seed"] == 88).sum() == 3
    # Its journal is still the actor's own.
    assert law.observe([Observation(n_params=5, pretrain_tokens=5, specialize_tokens=0, domain="code", loss=5.0)]).n_new
