"""The text, its corpus and two uninterrupted sweeps over it, made once."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raysplit.corpus import build_corpus
from raysplit.live.answers import LiveAdvice, LivePrediction
from raysplit.live.client import connect
from raysplit.run_folder.folder import RunFolder
from raysplit.space import parse_space
from tests.ray.sweeps import Command, kill, start, tiny_space, write_space, write_texts

Sweep = Callable[..., Command]
ADAPTIVE: dict[str, dict[str, Any]] = {"sweep": {"pretrain_tokens": [4096, 8192, 16384], "policy": "adaptive"}}
"""Changes of the tiny space for a sweep that chooses its own points."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces in its name that holds texts, spaces and runs."""
    folder = tmp_path_factory.mktemp("a path") / "with spaces"
    write_texts(folder / "texts")
    return folder


@pytest.fixture(scope="session")
def corpus_folder(home: Path) -> Path:
    """The corpus of `tiny_space`, built."""
    space = parse_space(tiny_space(home / "texts"), origin="tests")
    build_corpus(space.corpus, home / "corpus")
    return home / "corpus"


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


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """An adaptive sweep that nobody disturbed, and what it answered while it ran."""

    out: Path
    prediction: LivePrediction
    advice: LiveAdvice


@pytest.fixture(scope="session")
def adaptive(run: Sweep, ray_address: str) -> Adaptive:
    sweep = run("sweep", "--ray-address", ray_address, run="adaptive", changes=ADAPTIVE)
    sweep.wait_for_measurements(10)
    law = connect(RunFolder(path=sweep.out).sweep_id)
    until = time.monotonic() + 120
    while law.stamp() is None:  # the first fit is under way
        assert time.monotonic() < until
        time.sleep(0.2)
    prediction = law.predict("code", n_params=14_000, pretrain_tokens=10_000, specialize_tokens=5_000)
    advice = law.advise()
    status, said = sweep.end()
    assert status == 0, said
    return Adaptive(out=sweep.out, prediction=prediction, advice=advice)
