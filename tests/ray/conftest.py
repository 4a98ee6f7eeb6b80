"""The text, its corpus and an uninterrupted sweep over it, made once."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ray.sweeps import Command, kill, start, tiny_space, write_space, write_texts

Sweep = Callable[..., Command]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces in its name that holds texts, spaces and runs."""
    folder = tmp_path_factory.mktemp("a path") / "with spaces"
    write_texts(folder / "texts")
    return folder


@pytest.fixture(scope="session")
def commands() -> Iterator[list[Command]]:
    """Every command started; what a failed test left running is ended with the session."""
    started: list[Command] = []
    yield started
    for command in started:
        kill(command.processes())
        command.process.communicate()


@pytest.fixture(scope="session")
def run(home: Path, commands: list[Command]) -> Sweep:
    """Start ``raysplit NAME space --out run``, from another directory than the repository's."""

    def begin(
        name: str, *options: object, run: str, changes: dict[str, Any] | None = None, **environment: str
    ) -> Command:
        space = write_space(home / f"{run}.yaml", tiny_space(home / "texts", **(changes or {})))
        out = home / run
        if (
            not out.exists()
            and (built := home / "uninterrupted" / "corpus").exists()
            and "corpus" not in (changes or {})
        ):
            shutil.copytree(built, out / "corpus")
        commands.append(start(name, space, "--out", out, *options, out=out, cwd=home, **environment))
        return commands[-1]

    return begin


@pytest.fixture(scope="session")
def uninterrupted(run: Sweep, ray_address: str) -> Path:
    """Run folder of a sweep that nobody disturbed."""
    command = run("sweep", "--ray-address", ray_address, run="uninterrupted")
    status, said = command.end()
    assert status == 0, said
    return command.out
