"""Every block of commands is executed, in the order of its page, in one folder; or its page says why not.

Blocks that train are executed where ``RAYSPLIT_LONG_DOCS=1`` is set.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from raysplit.cli import main
from raysplit.space import SourceSpec, Space, load_space
from tests.conftest import REPOSITORY
from tests.docs.pages import BLOCKS, Block

BY_OTHER_TESTS = {
    "docs/cluster.md": "commands for clusters: tests/ray/test_jobs.py, tests/doctor",
    "docs/evaluate.md": "tests/cli/test_experts.py, with other names",
    "docs/experts.md": "tests/train/test_export.py, tests/cli/test_experts.py and tests/experts, with other names",
    "docs/from-a-checkpoint.md": "needs bases that were trained elsewhere",
}
"""Pages whose blocks have no marks, and what executes them; for cluster/README.md see test_cluster_commands.py."""

CODE = [
    block
    for block in BLOCKS
    if (block.is_commands or block.language == "python")
    and str(block.page.relative_to(REPOSITORY)) not in BY_OTHER_TESTS
]
RUN_HERE = [block for block in CODE if not block.marks]
LONG = [block for block in CODE if "long" in block.marks]


def commands_in(block: Block) -> list[list[str]]:
    """Words of each line, without its comment."""
    return [words for line in block.text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("fits_remembered")
def test_every_command_runs(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has the libraries loaded."""
    monkeypatch.chdir(stage)
    assert len(RUN_HERE) >= 4
    for block in RUN_HERE:
        assert block.is_commands, f"{block.place}: name what runs this block"
        shutil.copy(stage / "four.csv", stage / "runs.csv")  # whatever the block before has made of it
        for program, *arguments in commands_in(block):
            assert program == "raysplit", f"{block.place}: {program} is run by no test: mark the block"
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, f"{block.place}: raysplit {shlex.join(arguments)}\n{done.output}"


@pytest.mark.skipif(not os.environ.get("RAYSPLIT_LONG_DOCS"), reason="trains for minutes; RAYSPLIT_LONG_DOCS=1 runs it")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", LONG, ids=lambda block: block.place)
def test_long_blocks(block: Block, stage: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    done = subprocess.run(
        ["bash", "-euc", block.text], cwd=stage, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_block_that_is_not_run_says_why() -> None:
    for block in CODE:
        if "not run here" in block.marks:
            assert len(block.marks["not run here"].split()) >= 2, block.place
        for test in re.findall(r"tests/[\w/]+\.py", block.marks.get("run by", "")):
            assert (REPOSITORY / test).is_file(), f"{block.place}: {test}"


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: block.place
)
def test_every_part_of_a_search_space_can_be_read(block: Block) -> None:
    raw = yaml.load(block.text, yaml.BaseLoader)
    if "kind" in raw:
        SourceSpec.model_validate(raw)
        return
    whole = "from_checkpoint.yaml" if block.page.name == "from-a-checkpoint.md" else "smoke.yaml"
    base: dict[str, Any] = load_space(REPOSITORY / "search_spaces" / whole).model_dump()
    for section, fields in raw.items():
        if {"domains", "sources"} & fields.keys():
            base[section] = fields
        elif section == "compute" or "checkpoints" in fields:
            base["training"]["batch_tokens"] = 2**20
            base["sweep"] |= {"pretrain_tokens": [2**30], "specialize_tokens": [2**30], "repeats": ()}
            if "checkpoints" in fields:  # trunks that exist
                base["sweep"] |= {"pretrain_tokens": ()}
            base[section] = fields
        else:
            base[section] |= fields
        if "replay_shares" in fields:  # in place of one
            base["training"].pop("replay_share")
    Space.model_validate(base)
