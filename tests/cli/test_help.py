"""Every command explains itself, whatever is installed, and none loads Ray or torch to do so."""

import os
import subprocess
import sys

import click
import pytest

from raysplit.cli import main
from raysplit.cli.main import BY_PURPOSE
from tests.cli.conftest import Command


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_has_help(raysplit: Command, path: tuple[str, ...]) -> None:
    result = raysplit(*path, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    usage, *rest = result.stdout.split("\n\n")
    assert rest[0].strip(), usage  # a sentence on what it does


def test_the_help_lists_every_command_once_by_purpose(raysplit: Command) -> None:
    assert sorted(name for names in BY_PURPOSE.values() for name in names) == sorted(main.commands)
    said = raysplit("--help").stdout
    assert said.index("From runs that exist:") < said.index("\n  fit ") < said.index("\n  sweep ")


def test_the_issue_s_commands_are_there() -> None:
    wanted = [
        "run",
        "corpus",
        "plan",
        "tune",
        "sweep",
        "train",
        "controls",
        "report",
        "route",
        "generate",
        "eval",
        "replay",
        "simulate",
        "fit",
        "compare",
        "advise",
        "predict",
        "status",
        "import",
        "observe",
        "journal",
        "serve",
        "watch",
        "doctor",
        "submit",
        "resume",
        "stop",
    ]
    assert set(wanted) == set(main.commands)


@pytest.mark.parametrize("command", [["--help"], ["fit", "--help"], ["sweep", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\nfrom raysplit.cli import main\n"
        f"try: main({command!r})\nexcept SystemExit: pass\n"
        "assert not {'ray', 'torch', 'scipy', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_command_in_a_ray_job_uses_the_cluster_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    [option] = [p for p in main.commands["sweep"].params if p.name == "ray_address"]
    context = click.Context(main.commands["sweep"])
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    assert option.get_default(context) is None, "left from another day"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert option.get_default(context) == "192.0.2.1:6379"
