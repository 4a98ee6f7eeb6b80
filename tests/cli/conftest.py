"""Commands run in this process, and a run folder such as a sweep leaves behind."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from raysplit.cli import main
from raysplit.runs import check_runs
from tests.split.doubles import known_law, known_theta, law_of, measured_table

Command = Callable[..., Result]


@pytest.fixture
def raysplit() -> Command:
    """Run a command."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def refusal(raysplit: Command) -> Callable[..., str]:
    """Run a command that must end with status 2 and one line, and give that line.

    Before it there may be a word that Ray is about to be started.
    """

    def run(*arguments: object) -> str:
        result = raysplit(*arguments)
        assert result.exit_code == 2, result.output
        [line] = [said for said in result.stderr.splitlines() if not said.startswith("raysplit: starting Ray")]
        assert line.startswith("raysplit: ")
        return line

    return run


WORDS = ("river", "stone", "engine", "valley", "copper", "window", "harbour", "pencil", "market", "violet")


def write_texts(folder: Path, *, n_documents: int, seed: int) -> None:
    """Documents of a few made-up sentences, no two alike."""
    folder.mkdir(parents=True)
    for i in range(n_documents):
        words = (WORDS[(i * 7 + j * (seed + 3) + j * j) % len(WORDS)] for j in range(300))
        (folder / f"{i}.txt").write_text(f"document {i} of {seed}: " + " ".join(words))


SPACE: dict[str, Any] = {
    "name": "tiny",
    "corpus": {
        "domains": {name: {"kind": "files", "path": f"texts/{name}"} for name in ("domain-0", "domain-1")},
        "tokenizer": {"kind": "bpe", "vocab_size": 300},
        "validation_fraction": 0.2,
    },
    "model": {"sizes": ["14k", "28k"], "context_length": 16},
    "training": {
        "batch_tokens": 256,
        "micro_batch_sequences": 16,
        "learning_rate": {"reference": "1e-2", "reference_params": "14k"},
        "warmup_tokens": 0,
        "validation_tokens": 256,
    },
    "sweep": {"pretrain_tokens": [1024, 2048, 4096], "specialize_tokens": [1024, 2048], "policy": "grid"},
    "target": {"budget_flops": "1e9"},
}


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of texts of two domains, and one without any text."""
    folder = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(("domain-0", "domain-1")):
        write_texts(folder / "texts" / name, n_documents=60, seed=seed)
    (folder / "texts" / "empty").mkdir()
    return folder


@pytest.fixture
def space_file(texts: Path) -> Callable[..., Path]:
    """Write the tiny space, with some fields set, beside the texts; a field is given by its full name."""

    def write(**fields: object) -> Path:
        raw = json.loads(json.dumps(SPACE))
        for name, value in fields.items():
            *parents, last = name.split("__")
            section = raw
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        path = texts / "space.yaml"
        path.write_text(yaml.safe_dump(raw))
        return path

    return write


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A synthetic grid of runs of two domains and two sizes with one per cent of noise."""
    law = known_law(n_domains=2)
    grid = measured_table(
        law,
        sizes=(14_000, 36_000),
        pretrain_tokens=(0.25e6, 0.5e6, 1e6, 2e6),
        specialize_tokens=(0, 0.125e6, 0.25e6, 0.5e6),
        noise=0.01,
    )
    return check_runs(grid, origin="a synthetic table").drop(
        columns=["trial", "flops", "bits_per_byte", "wall_seconds"]
    )


@pytest.fixture
def sweep_folder(raysplit: Command, space_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Make runs whose corpus is real and tiny, and whose losses a known law put in the journal."""
    from raysplit.corpus import Corpus
    from raysplit.design.tasks import Measured
    from raysplit.journal import Journal
    from raysplit.live.service import LawService
    from raysplit.run_folder.folder import existing_run
    from raysplit.space import load_space
    from raysplit.sweep.run_spec import run_spec_of_space

    def make(*, n_trials: int) -> Path:
        path = tmp_path / "run"
        assert raysplit("corpus", "build", space_file(), "--out", path).exit_code == 0
        folder, space = existing_run(path)
        assert load_space(folder.space) == space
        run = run_spec_of_space(space, Corpus.open(folder.corpus))
        spec = run.spec
        law = law_of(known_theta(n_domains=2))

        def losses(trial: Any, milestone: int) -> dict[str, float]:
            d, s = trial.point(milestone)
            return dict(zip(spec.domains, map(float, law.loss([[trial.n_params]], [[d]], [[s]])[0]), strict=True))

        with closing(Journal(folder.journal)) as journal:
            service = LawService(replace(run, bytes_per_token=dict.fromkeys(spec.domains, 2.0)), journal)
            for _ in range(n_trials):
                if (trial := service.claim().trial) is None:
                    break
                for milestone in trial.milestones:
                    service.record(
                        trial, milestone, Measured(losses=losses(trial, milestone), tokens=0, wall_seconds=0.0)
                    )
        return path

    return make


@pytest.fixture
def run_folder(sweep_folder: Callable[..., Path]) -> Path:
    """A sweep that is not done."""
    return sweep_folder(n_trials=4)
