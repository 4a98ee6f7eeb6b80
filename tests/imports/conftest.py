"""Runs that MLflow and W&B recorded themselves, each made once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def _record(tool: str, folder: Path) -> Path:
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "WANDB_SILENT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WANDB_"))}
    made = subprocess.run(
        [sys.executable, "-m", "tests.imports.recorders", tool, str(folder)],
        env=own | quiet,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``mlflow.db`` and ``search_runs.csv``; not to be changed."""
    return _record("mlflow", tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="session")
def wandb_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a folder ``wandb`` of offline runs; not to be changed."""
    return _record("wandb", tmp_path_factory.mktemp("wandb"))
