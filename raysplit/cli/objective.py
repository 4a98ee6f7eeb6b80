"""`raysplit advise --objective`: a split for a benchmark, by what `raysplit eval` has found in the run."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysplit.errors import RunError

if TYPE_CHECKING:
    from raysplit.evaluate.benchmark_law import BenchmarkLaw
    from raysplit.split import Advice


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkObjective:
    """A benchmark in place of domain weights."""

    law: "BenchmarkLaw"
    bytes_per_token: Mapping[str, float]
    """Of each domain's held-out text."""

    @property
    def weights(self) -> dict[str, float]:
        return self.law.weights(self.bytes_per_token)

    def said_of(self, advice: "Advice") -> list[str]:
        """What is expected of the benchmark at a split, and how far that is to be trusted."""
        from raysplit.evaluate.benchmark_law import sentences

        return sentences(self.law, self._bits(advice))

    def to_json(self, advice: "Advice") -> dict[str, Any]:
        return asdict(self.law) | {
            "foretold": self.law.foretold, "is_trusted": self.law.is_trusted,
            "expected_bits_per_byte": self.law.bits(self._bits(advice)),
        }  # fmt: skip

    def _bits(self, advice: "Advice") -> dict[str, float]:
        return {name: loss.mean / math.log(2) / self.bytes_per_token[name] for name, loss in advice.losses.items()}


def read_objective(run_folder: Path, task: str) -> BenchmarkObjective:
    """The second law of a run, of its evaluation.

    Raises:
        RunError: nothing was evaluated in the run.
        TaskError: the task or the held-out losses were not, or of too few models.
        CorpusError: the run's corpus is missing or damaged.
    """
    from raysplit.corpus.manifest import read_manifest
    from raysplit.evaluate.benchmark_law import fit_benchmark
    from raysplit.evaluate.results import RESULTS, read_evaluation
    from raysplit.run_folder.folder import existing_run

    folder, space = existing_run(run_folder)
    evaluation = read_evaluation(folder.evaluation / RESULTS)
    if evaluation is None:
        raise RunError(
            f"--objective {task}: nothing was evaluated in {run_folder}; "
            f"run `raysplit eval {shlex.quote(str(run_folder))} --variants --tasks held-out,{task}` first"
        )
    domains = read_manifest(folder.corpus).domains
    return BenchmarkObjective(
        law=fit_benchmark(evaluation, task),
        # A loss in bits a byte is one in nats a token of log2(e) bytes.
        bytes_per_token={
            name: 1 / math.log(2) if space.counts_bytes else record.validation.bytes_per_token
            for name, record in domains.items()
        },
    )
