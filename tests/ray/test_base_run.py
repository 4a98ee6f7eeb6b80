"""The tutorial of docs/from-a-checkpoint.md in small: bases made, a sweep, an answer, a final run and a report."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from transformers import AutoModelForCausalLM

from tests.conftest import REPOSITORY
from tests.ray.sweeps import Command, start

NAMES = ("llama", "neox", "qwen3")
BASELINES = {"no training", "equal tokens", "one pass", "union of domains"}


def revisions_of(base: Path) -> list[str]:
    """By their steps."""
    return sorted((folder.name for folder in base.iterdir()), key=lambda name: int(name.removeprefix("step")))


@pytest.mark.timeout(400)
def test_bases_are_swept_answered_for_trained_and_reported(
    tmp_path: Path, ray_address: str, commands: list[Command]
) -> None:
    script = REPOSITORY / "benchmarks" / "train" / "make_bases.py"
    made = [sys.executable, str(script), "--out", "bases", "--tokens", "60k", "--characters", "300k"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    space = yaml.safe_load((REPOSITORY / "search_spaces" / "from_checkpoint.yaml").read_text(encoding="utf-8"))
    del space["corpus"]["domains"]["cloud"]
    for source in space["corpus"]["domains"].values():
        source["max_bytes"] = "300k"
    for checkpoint in space["model"]["checkpoints"]:
        checkpoint["path"] = checkpoint["path"].removeprefix("../")
        checkpoint["revisions"] = revisions_of(tmp_path / checkpoint["path"])[-1:]
    first = space["model"]["checkpoints"][0]
    first["revisions"] = revisions_of(tmp_path / first["path"])[1:]
    space["training"] |= {"branch_warmup_tokens": 4096, "validation_tokens": 8192}
    del space["training"]["replay_share"]
    space["sweep"] = {"specialize_tokens": [16384, 32768], "replay_shares": [0, 0.2], "policy": "grid"}
    space["target"] = {"budget_flops": 3e10, "max_general_rise": 0.3}
    space["compute"]["lanes"] = 1
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")

    command = start(
        "run", "space.yaml", "--out", "run", "--baselines", "--yes", "--ray-address", ray_address,
        out=tmp_path / "run", cwd=tmp_path,
    )  # fmt: skip
    commands.append(command)
    status, said = command.end(seconds=360)
    assert status == 0, said
    assert "general loss rises by at most" in said
    run = tmp_path / "run"
    advice = json.loads((run / "advice.json").read_text(encoding="utf-8"))
    assert set(advice["bases"].values()) == set(NAMES)
    assert advice["replay_share"] in (0.0, 0.2)
    assert set(advice["general_rise"]) == {"code", "drama"}
    table = pd.read_parquet(run / "observations.parquet")
    assert set(table["base"]) == set(NAMES)
    assert table["general_loss"].notna().all()
    final = json.loads((run / "final.json").read_text(encoding="utf-8"))
    assert set(final["variants"]) == BASELINES | {"recommended"}
    paid = {name: variant["flops"] for name, variant in final["variants"].items()}
    assert paid["union of domains"] == paid["equal tokens"] == paid["recommended"]
    assert paid["no training"] == 0
    for model in final["variants"]["recommended"]["models"].values():
        AutoModelForCausalLM.from_pretrained(run / model)
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "union of domains" in page
    assert "What each expert loses on general text" in page
