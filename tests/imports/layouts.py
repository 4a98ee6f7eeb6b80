"""Small exports in the layouts in which other tools write them, as seen with MLflow 3.17, Ray 2.60 and W&B's API."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from raysplit.imports import Imported

RUNS: tuple[dict[str, Any], ...] = (
    {"n_params": "14k", "pretrain_tokens": "2M", "specialize_tokens": 500_000, "domain": "law", "seed": 0, "loss": 3.1},
    {"n_params": 36_000, "pretrain_tokens": 2e6, "specialize_tokens": "1M", "domain": "law", "seed": 1, "loss": 2.9},
)
"""What every layout below holds; numbers as people write them."""
EXPECTED = [
    (14_000, 2_000_000, 500_000, "law", 3.1, 0),
    (36_000, 2_000_000, 1_000_000, "law", 2.9, 1),
]


def rows_of(imported: Imported) -> list[tuple[object, ...]]:
    """Runs as `EXPECTED` has them."""
    names = ["n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss", "seed"]
    return [tuple(row) for row in imported.runs[names].itertuples(index=False)]


def settings_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """As a training script would nest them."""
    return {
        "model": {"n_params": run["n_params"], "layers": 2},
        "pretrain_tokens": run["pretrain_tokens"],
        "specialize_tokens": run["specialize_tokens"],
        "domain": run["domain"],
        "seed": run["seed"],
        "learning_rate": 1e-3,
    }


def write_store(folder: Path, runs: Sequence[Mapping[str, Any]], statuses: Sequence[int]) -> Path:
    """An ``mlruns`` folder of one experiment; statuses as MLflow numbers them."""
    experiment = folder / "888289292500908045"
    _write(folder / "0" / "meta.yaml", yaml.safe_dump({"experiment_id": "0", "name": "Default"}))
    _write(experiment / "meta.yaml", yaml.safe_dump({"experiment_id": experiment.name, "name": "scaling"}))
    for i, (run, status) in enumerate(zip(runs, statuses, strict=True)):
        at = experiment / f"{i:032x}"
        meta = {"run_id": at.name, "run_name": f"run-{i}", "status": status, "lifecycle_stage": "active"}
        _write(at / "meta.yaml", yaml.safe_dump(meta))
        for name, value in settings_of(run).items():
            parts = {f"model/{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
            for parameter, text in parts.items():
                _write(at / "params" / parameter, str(text))
        # Logged out of order, as by a run that was resumed.
        _write(at / "metrics" / "eval" / "loss", f"1795548612005 {run['loss']} 20\n1795548612009 9.5 10\n")
        _write(at / "metrics" / "train_loss", "1795548612005 1.5 20\n")
        _write(at / "tags" / "mlflow.runName", f"run-{i}")
    return folder


def write_experiment(folder: Path, runs: Sequence[Mapping[str, Any]], statuses: Sequence[str]) -> Path:
    """A Ray Tune experiment of trials that reported twice; statuses as Tune names them."""
    states = []
    for i, (run, status) in enumerate(zip(runs, statuses, strict=True)):
        trial = folder / f"train_7f701_{i:05d}_{i}_n_params=1_2026-11-24_19-30-27"
        config = settings_of(run)
        reports = [
            {"loss": loss, "training_iteration": i, "done": False, "trial_id": f"7f701_{i:05d}", "config": config}
            for i, loss in enumerate((9.5, run["loss"]), start=1)
        ]
        _write(trial / "params.json", json.dumps(config))
        _write(trial / "result.json", "".join(json.dumps(report) + "\n" for report in reports))
        states.append([json.dumps({"relative_logdir": trial.name, "status": status}), "{}"])
    snapshot = {"trial_data": states, "runner_data": {}, "stats": {}}
    _write(folder / "experiment_state-2026-11-24_19-30-27.json", json.dumps(snapshot))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
