"""Trials that Ray Tune itself recorded, whatever became of them."""

import math
from pathlib import Path
from typing import Any

import pytest

from raysplit.imports import guess_kind, import_runs


def _train(config: dict[str, Any]) -> None:
    from ray import tune

    for step in (1, 2):
        if config["fate"] == "crashes" and step == 2:
            raise RuntimeError("as asked")
        loss = math.nan if config["fate"] == "diverges" else 4.0 - step
        tune.report({"loss": loss, "pretrain_tokens": 1000 * step})


def test_an_experiment_as_tune_writes_it(
    ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray import tune

    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    # A function of a test module cannot be imported by Tune's workers.
    import ray.cloudpickle as pickle

    import tests.ray.test_import as this_module

    pickle.register_pickle_by_value(this_module)
    try:
        tune.Tuner(
            tune.with_resources(_train, {"CPU": 0.5}),
            param_space={
                "model": {"n_params": 14_000},
                "domain": "law",
                "fate": tune.grid_search(["ends", "crashes", "diverges"]),
            },
            run_config=tune.RunConfig(name="experiment", storage_path=str(tmp_path), verbose=0),
        ).fit()
    finally:
        pickle.unregister_pickle_by_value(this_module)
    assert guess_kind(tmp_path) == "tune"
    imported = import_runs(tmp_path, constants={"specialize_tokens": "0"})
    assert imported.runs[["n_params", "pretrain_tokens", "domain", "loss"]].values.tolist() == [
        [14_000, 2000, "law", 2.0]
    ]
    assert {reason: len(runs) for reason, runs in imported.skipped.items()} == {
        "crashed": 1,
        "diverged: the loss is no finite number": 1,
    }
