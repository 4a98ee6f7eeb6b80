"""One small run with experts for all tests of them, which none changes."""

from pathlib import Path

import pytest

from tests.experts.tiny_runs import make_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("experts") / "run")
