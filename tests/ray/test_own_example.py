"""The documented example of a trainable of one's own, run as a user of a cluster runs it."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from raysplit.journal import read_journal
from tests.conftest import REPOSITORY


@pytest.mark.timeout(300)
def test_the_example_searches_and_answers(tmp_path: Path, ray_address: str) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "sweep" / "own_trainable.py")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "own"), "--budget-share", "0.004"],
        capture_output=True, text=True, timeout=280,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": ray_address},
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


def test_a_run_whose_worker_died_goes_on_and_a_longer_trunk_begins_at_the_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks" / "sweep")
    example = import_module("own_trainable")
    trained: list[tuple[int, int]] = []
    reported: list[dict[str, Any]] = []
    advance = example.advance

    def count(at: dict[str, int], pretrain_tokens: int, specialize_tokens: int) -> None:
        before = at["pretrain_tokens"], at["specialize_tokens"]
        advance(at, pretrain_tokens, specialize_tokens)
        trained.append((pretrain_tokens - before[0], specialize_tokens - before[1]))

    monkeypatch.setattr(example, "advance", count)
    monkeypatch.setattr(example.tune, "report", reported.append)
    sized = {"n_params": 10_000_000, "seed": 0}
    example.train({**sized, "domain": "", "points": [(100, 0)]}, str(tmp_path))
    example.train({**sized, "domain": "", "points": [(200, 0), (400, 0)]}, str(tmp_path))
    assert trained == [(100, 0), (100, 0), (200, 0)]

    trained.clear()
    branch = {**sized, "domain": "code", "points": [(200, 25), (200, 50), (200, 100)]}

    def die_after_one(report: dict[str, Any]) -> None:
        reported.append(report)
        if report["specialize_tokens"] == 50:
            raise KeyboardInterrupt

    monkeypatch.setattr(example.tune, "report", die_after_one)
    with pytest.raises(KeyboardInterrupt):
        example.train(branch, str(tmp_path))
    monkeypatch.setattr(example.tune, "report", reported.append)
    example.train(branch, str(tmp_path))
    # What the first worker had reached is read, not trained again; the losses are those of one run.
    assert trained == [(0, 25), (0, 25), (0, 0), (0, 0), (0, 50)]
    losses = {(r["specialize_tokens"], r["loss"]) for r in reported if "loss" in r}
    assert len(losses) == 3
