"""The text, its corpus and two uninterrupted sweeps over it, made once for all of pytest's workers."""

import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from filelock import FileLock

from raysplit.corpus import build_corpus
from raysplit.live.answers import LiveAdvice, LivePrediction
from raysplit.live.client import connect
from raysplit.run_folder.folder import RunFolder
from raysplit.space import parse_space
from tests.ray.sweeps import Command, kill, start, tiny_space, write_space, write_texts

T = TypeVar("T")
Sweep = Callable[..., Command]
TWO_LANES: dict[str, dict[str, Any]] = {"compute": {"lanes": 2}}
ADAPTIVE: dict[str, dict[str, Any]] = {"sweep": {"pretrain_tokens": [4096, 8192, 16384], "policy": "adaptive"}}
"""Changes of the tiny space for a sweep that chooses its own points."""


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this session, the same for all of its workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, name: str, make: Callable[[], T]) -> T:
    """What the first worker makes; the others wait for it and read it."""
    kept = folder / f"{name}.pickle"
    with FileLock(folder / f"{name}.lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make()))
        made: T = pickle.loads(kept.read_bytes())
    return made


@pytest.fixture(scope="session")
def home(shared_folder: Path) -> Path:
    """A folder with spaces in its name that holds texts, spaces and runs."""
    folder = shared_folder / "a path" / "with spaces"

    def write() -> Path:
        write_texts(folder / "texts")
        return folder

    return once(shared_folder, "home", write)


@pytest.fixture(scope="session")
def corpus_folder(home: Path, shared_folder: Path) -> Path:
    """The corpus of `tiny_space`, built."""

    def build() -> Path:
        space = parse_space(tiny_space(home / "texts"), origin="tests")
        build_corpus(space.corpus, home / "corpus")
        return home / "corpus"

    return once(shared_folder, "corpus", build)


@pytest.fixture(scope="session")
def commands() -> Iterator[list[Command]]:
    """Every command started; what a failed test left running is ended with the session."""
    started: list[Command] = []
    yield started
    for command in started:
        kill(command.processes())
        command.process.communicate()


@pytest.fixture(scope="session")
def run(home: Path, corpus_folder: Path, commands: list[Command]) -> Sweep:
    """Start ``raysplit NAME space --out run``, from another directory than the repository's.

    All but the first start from a corpus that is there.
    """

    def begin(
        name: str, *options: object, run: str, changes: dict[str, Any] | None = None, **environment: str
    ) -> Command:
        space = write_space(home / f"{run}.yaml", tiny_space(home / "texts", **(changes or {})))
        out = home / run
        if not out.exists() and run != "uninterrupted" and "corpus" not in (changes or {}):
            shutil.copytree(corpus_folder, out / "corpus")
        commands.append(start(name, space, "--out", out, *options, out=out, cwd=home, **environment))
        return commands[-1]

    return begin


@pytest.fixture(scope="session")
def uninterrupted(run: Sweep, ray_address: str, shared_folder: Path) -> Path:
    """Run folder of a sweep that nobody disturbed."""

    def sweep() -> Path:
        command = run("sweep", "--ray-address", ray_address, run="uninterrupted", changes=TWO_LANES)
        status, said = command.end()
        assert status == 0, said
        return command.out

    return once(shared_folder, "uninterrupted", sweep)


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """An adaptive sweep that nobody disturbed, and what it answered while it ran."""

    out: Path
    prediction: LivePrediction
    advice: LiveAdvice


@pytest.fixture(scope="session")
def adaptive(run: Sweep, ray_address: str, shared_folder: Path) -> Adaptive:
    def sweep() -> Adaptive:
        command = run("sweep", "--ray-address", ray_address, run="adaptive", changes=ADAPTIVE)
        command.wait_for_measurements(10)
        law = connect(RunFolder(path=command.out).sweep_id)
        until = time.monotonic() + 120
        while law.stamp() is None:  # the first fit is under way
            assert time.monotonic() < until
            time.sleep(0.2)
        prediction = law.predict("code", n_params=14_000, pretrain_tokens=10_000, specialize_tokens=5_000)
        advice = law.advise()
        status, said = command.end()
        assert status == 0, said
        return Adaptive(out=command.out, prediction=prediction, advice=advice)

    return once(shared_folder, "adaptive", sweep)
