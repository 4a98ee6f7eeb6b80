"""Giving a table of runs to a sweep's law: through the live law while there is one, else into the journal."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd

from raysplit.errors import RunError
from raysplit.http.client import HttpClient
from raysplit.journal import Journal, read_journal
from raysplit.live import endpoint
from raysplit.live.answers import Accepted
from raysplit.live.law_store import laws_beside
from raysplit.live.observations import MAX_BATCH, checked
from raysplit.live.service import LawService
from raysplit.run_folder.folder import run_with_journal
from raysplit.run_folder.holder import held
from raysplit.runs import Observation
from raysplit.sweep.launch import write_results
from raysplit.sweep.run_spec import run_spec_of
from raysplit.trainers.reporter import LawToTell


def observe_server(url: str, token: str | None, runs: pd.DataFrame) -> tuple[Accepted, str]:
    """Give a checked table to a live law over HTTP; returns what became of it, and who took it.

    Raises:
        TableError: the law refuses a row; of its batch of `MAX_BATCH` nothing was stored.
        RunError: the server cannot be reached, or refuses the token.
    """
    return _tell(HttpClient(url, token, timeout_seconds=120.0), _batches(runs)), f"the live law at {url}"


def observe_run(run_folder: Path, runs: pd.DataFrame, *, offline: bool = False) -> tuple[Accepted, str]:
    """Give a checked table to a run's law, running or finished; returns what became of it, and who took it.

    The live law takes it where there is one. Otherwise it is written into the journal, and the results of a sweep that
    has ended are written anew. ``offline`` says that no live law writes this journal, though the folder names one.

    Raises:
        TableError: a row is of an unknown domain or contradicts a known one; of its batch of `MAX_BATCH` nothing was
            stored.
        RunError: the folder holds no run, its live law cannot be reached, or the disk refused.
        CorpusError: the corpus of a sweep is not there, and its journal is of an older raysplit.
    """
    if endpoint.find(run_folder) is not None:
        from raysplit.live.client import connect

        return _tell(connect(run_folder), _batches(runs)), "the live law"
    folder = run_with_journal(run_folder)
    if (folder.path / endpoint.FILE_NAME).exists() and not offline:
        raise RunError(
            f"{run_folder}: {endpoint.FILE_NAME} tells of a live law on a cluster that does not answer from here. Give "
            "the table on that cluster; or, if the sweep was killed, add --offline: a law that runs would have to stop"
        )
    run, batches = run_spec_of(folder, read_journal(folder.journal)), _batches(runs)
    for batch in batches:  # before opening the journal takes it from who writes it
        checked(batch, run.spec.domains, shares=run.spec.replay_shares)
    with (
        held(folder.path, command="raysplit observe", take_over=offline),
        closing(Journal(folder.journal)) as journal,
    ):
        service = LawService(run, journal, laws_in=laws_beside(folder.journal))
        accepted = _tell(service, batches)
        if accepted.n_new and service.status().finished:
            write_results(service, folder)
        service.close()
    return accepted, "the journal"


def _batches(runs: pd.DataFrame) -> list[list[Observation]]:
    known = runs[[name for name in Observation.__dataclass_fields__ if name in runs]]  # a base is known by its size
    observations = [Observation(**{str(k): v for k, v in row.items()}) for row in known.to_dict("records")]
    return [observations[i : i + MAX_BATCH] for i in range(0, len(observations), MAX_BATCH)]


def _tell(law: LawToTell, batches: Sequence[Sequence[Observation]]) -> Accepted:
    total = Accepted(n_new=0, n_repeated=0, n_known=0)
    for batch in batches:
        said = law.observe(batch)
        total = Accepted(
            n_new=total.n_new + said.n_new, n_repeated=total.n_repeated + said.n_repeated, n_known=said.n_known
        )
    return total
