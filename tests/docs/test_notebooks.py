"""The notebook that needs no sweep runs whole; that of a live sweep is run in tests/ray/test_outside.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

from docs.generators.notebooks import as_notebook


def test_from_a_wandb_export_to_a_decision(repository: Path, tmp_path: Path) -> None:
    picture = tmp_path / "split.png"
    environment = {**os.environ, "PYTHONPATH": str(repository), "PICTURE": str(picture)}
    done = subprocess.run(
        [sys.executable, "notebooks/from_wandb.py"],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out: with State crashed: jolly-brook-149" in done.stdout
    assert "loss               eval/loss" in done.stdout
    assert "Best split of 1.50e12 FLOPs" in done.stdout
    assert "costs at most 0.5 % more loss." in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_script_is_a_notebook() -> None:
    cells = json.loads(as_notebook("# %% [markdown]\n# # Title\n# words\n\n# %%\nx = 1\n"))["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == [
        ("markdown", "# Title\nwords"),
        ("code", "x = 1"),
    ]
