"""The package as a whole: importing it is light, and the command line answers at once."""

import importlib.util
import os
import subprocess
import sys
import time
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import raysplit

HEAVY = ("ray", "torch", "transformers", "datasets", "deepspeed", "tokenizers", "optuna", "matplotlib", "vl_convert")

PURE = (
    "raysplit",
    "raysplit.space",
    "raysplit.imports",
    "raysplit.doubts",
    "raysplit.runs",
    "raysplit.ladder",
    "raysplit.law",
    "raysplit.split",
    "raysplit.design",
    "raysplit.pictures",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("module", [name for name in (*PURE, "raysplit.cli") if exists(name)])
def test_importing_loads_nothing_heavy(module: str) -> None:
    done = run("-c", f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_process_that_is_spawned_does_not_run_the_command_again() -> None:
    done = run("-c", "import runpy; runpy.run_module('raysplit.__main__', run_name='__mp_main__')", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "version" in run("-m", "raysplit", "--version").stdout


installed = pytest.mark.skipif(not any(distributions(name="raysplit")), reason="raysplit is on the path, not installed")


@installed
@pytest.mark.skipif(not exists("raysplit.cli"), reason="there is no command line yet")
def test_help_answers_within_a_second() -> None:
    command = str(Path(sys.executable).parent / "raysplit")
    fastest = float("inf")
    for _ in range(3):  # the best of three, since other work may share the machine
        start = time.perf_counter()
        done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False, timeout=60)
        fastest = min(fastest, time.perf_counter() - start)
    assert done.returncode == 0, done.stderr
    assert "Usage: raysplit" in done.stdout
    assert fastest < 1.0


@installed
def test_the_version_is_the_installed_one() -> None:
    assert raysplit.__version__ == version("raysplit")


def test_every_pin_is_exact_and_names_no_host(repository: Path) -> None:
    pins = [
        line
        for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    names = [line.partition("==")[0].lower() for line in pins]
    assert all("==" in line and "/" not in line and "+" not in line for line in pins)
    assert names == sorted(set(names))
    assert "torch" in names


def test_every_pinned_package_can_be_had_on_debian_s_python() -> None:
    """pip refuses a pin that wants a later patch of Python, with a word on a conflict."""
    wanted = {found.metadata["Name"]: str(found.metadata.json.get("requires_python", "")) for found in distributions()}
    assert [name for name, pythons in wanted.items() if not SpecifierSet(pythons or "").contains("3.11.2")] == []
