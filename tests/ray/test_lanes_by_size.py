"""Each size has the machines that it takes, on a cluster of unequal nodes that come and go."""

import re
import shutil
from pathlib import Path

import pytest

from tests.ray.sweeps import Command, start


@pytest.mark.timeout(600)
def test_small_and_large_lanes_share_a_cluster_whose_nodes_come_and_go(
    home: Path, corpus_folder: Path, tmp_path: Path, commands: list[Command]
) -> None:
    for name, made in (("texts", home / "texts"), ("corpus", corpus_folder)):
        shutil.copytree(made, tmp_path / name)
    commands.append(start(tmp_path, out=tmp_path, cwd=tmp_path, module="tests.ray.lanes_by_size"))
    status, said = commands[-1].end()
    assert status == 0, said
    assert re.search(r"^after [01] s: a lane needs 1 worker of 1 CPU, and the Ray cluster has no room", said, re.M), (
        said
    )
    assert "measured by 1 worker of 1 CPU and 2 workers of 2 CPU on 2 nodes" in said
    assert re.search(r"^lane \d was lost over n\d+-s1-trunk: .*, as was known after \d s$", said, re.M), said
    assert said.rstrip().endswith("measured elsewhere")
