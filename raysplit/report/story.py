"""Everything that the report is made from, read once from a run folder."""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.errors import RunError
from raysplit.journal import read_journal
from raysplit.law import Law
from raysplit.live.state import SweepState, state_of
from raysplit.run_folder.folder import RunFolder, existing_run
from raysplit.runs import read_runs
from raysplit.space import Space
from raysplit.split import Advice, Choice, Problem
from raysplit.sweep.final_run import FinalRun, read_final
from raysplit.sweep.run_spec import run_spec_of
from raysplit.tuning.storage import masked
from raysplit.tuning.tuned import Tuned, read_tuned

if TYPE_CHECKING:
    from raysplit.corpus.manifest import Manifest
    from raysplit.evaluate.results import Evaluation

_SAME_BUDGET = 0.02
"""A final run within this share of the advice's budget counts as made at it, since runs are rounded to whole steps."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """A finished sweep, its answer and, where it was trained, the final run."""

    space: Space
    space_yaml: str
    manifest: "Manifest"
    spec: ResolvedSpec
    problem: Problem
    """The problem that the advice answers."""
    observations: pd.DataFrame
    """The table of runs, as `raysplit.runs.check_runs` gives it."""
    law: Law
    choice: Choice | None
    """How the forms of the law were chosen; None where they were not."""
    advice: Advice
    history: SweepState
    """The sweep's state after its last record."""
    final: FinalRun | None
    """None where no final run was trained."""
    tuned: Tuned | None = None
    """The hyperparameters, where they were tuned."""
    evaluation: "Evaluation | None" = None
    """What `raysplit eval` found, where it was run."""

    @property
    def bytes_per_token(self) -> dict[str, float]:
        """Bytes per token of each domain's held-out text."""
        return {name: record.validation.bytes_per_token for name, record in self.manifest.domains.items()}

    @property
    def final_is_comparable(self) -> bool:
        """Whether the final run was made at the advice's size and budget."""
        return (
            self.final is not None
            and self.final.n_params == self.advice.split.n_params
            and abs(self.final.budget_flops / self.advice.budget_flops - 1) <= _SAME_BUDGET
        )


def read_story(folder: RunFolder) -> Story:
    """Read a run folder.

    Raises:
        RunError: the sweep has not finished, or a file is damaged.
        CorpusError, LawError, SpaceError, SplitError, TableError: the file of that kind is missing or damaged.
    """
    from raysplit.corpus.manifest import read_manifest  # loads tokenizers, which importing this module must not
    from raysplit.evaluate.results import RESULTS, read_evaluation  # loads torch, likewise

    folder, space = existing_run(folder.path)
    for path in (folder.law, folder.advice, folder.observations("parquet")):
        if not path.exists():
            raise RunError(f"{path}: is missing; a report needs a finished sweep (run the same `raysplit sweep` again)")
    manifest = read_manifest(folder.corpus)
    records = read_journal(folder.journal)
    history = state_of(records, run_spec_of(folder, records))
    spec = history.run.spec
    law_text = folder.law.read_text(encoding="utf-8")
    advice = Advice.from_json(folder.advice.read_text(encoding="utf-8"))
    return Story(
        space=space, space_yaml=masked(folder.space.read_text(encoding="utf-8")), manifest=manifest, spec=spec,
        problem=replace(
            spec.problem, budget_flops=advice.budget_flops, accounting=advice.accounting,
            seeds=advice.seeds, weights=[advice.weights[name] for name in spec.problem.domains],
        ),
        observations=read_runs(folder.observations("parquet")), law=Law.from_json(law_text),
        choice=_choice(folder, law_text), advice=advice, history=history,
        final=read_final(folder.final), tuned=read_tuned(folder.hyperparameters),
        evaluation=read_evaluation(folder.evaluation / RESULTS),
    )  # fmt: skip


def _choice(folder: RunFolder, law_text: str) -> Choice | None:
    """How the forms were chosen, which a sweep writes into the law's file; None for a law fitted otherwise."""
    raw = json.loads(law_text).get("choice")
    try:
        return None if raw is None else TypeAdapter(Choice).validate_python(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, ("choice", *problem["loc"])))
        raise RunError(f"{folder.law}: cannot be read: {where}: {problem['msg']}") from error
