"""The documented example of a trainable of one's own, run as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from raysplit.live.journal import read_journal
from tests.conftest import REPOSITORY


@pytest.mark.timeout(300)
def test_the_example_searches_and_answers(tmp_path: Path) -> None:
    if " " in sys.executable:
        pytest.skip("Ray 2.60 starts no workers on a cluster whose Python lies in a path with spaces")
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "own_trainable.py")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "own"), "--budget-share", "0.004"],
        capture_output=True, text=True, timeout=280, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\nended: the sweep's budget is spent\n" in done.stdout
    assert "% in pretraining" in done.stdout
    measured = [r.data for r in read_journal(tmp_path / "own" / "journal") if r.kind == "measurement"]
    at = [
        (d["trial"]["n_params"], d["trial"]["domain"], d["trial"]["pretrain_tokens"], d["milestone"]) for d in measured
    ]
    assert len(at) == len(set(at)) >= 8
    assert f"{sum(1 if domain else 2 for _, domain, *_ in at)} losses" in done.stdout
