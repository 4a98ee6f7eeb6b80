"""A journal that begins with its set-up answers by itself."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.design.tasks import Measured
from raysplit.design.tree import Trial
from raysplit.errors import RunError
from raysplit.journal import Journal, ReadJournal, read_journal
from raysplit.live.run_setup import ModelFamily, RunSetup
from raysplit.live.service import LawService
from tests.design.doubles import setup
from tests.live.doubles import true_losses

TRIAL = Trial(n_params=14_000, seed=3, domain="domain-1", pretrain_tokens=500_000, milestones=(125_000, 250_000))
ASKED = replace(setup(n_domains=3, repeats=(TRIAL,)), budget_flops=math.inf)
RUN = RunSetup(
    setup=ASKED, bytes_per_token={**dict.fromkeys(ASKED.domains, 2.5), "domain-2": math.nan},
    family=ModelFamily(vocab_size=512, context_length=128),
)  # fmt: skip


def test_a_setup_comes_back_from_json() -> None:
    read = RunSetup.of_data(json.loads(json.dumps(RUN.to_data(), allow_nan=False)))
    assert read.setup == ASKED
    assert read.family == RUN.family
    assert read.to_data() == RUN.to_data()
    assert [read.setup.tree.cooldown_start(n) for n in range(0, 10**6, 4321)] == [
        ASKED.tree.cooldown_start(n) for n in range(0, 10**6, 4321)
    ]


def test_a_setup_that_is_none_is_refused_by_its_field() -> None:
    data = RUN.to_data()
    data["setup"]["policy"] = "random"
    with pytest.raises(RunError, match=r"setup\.setup\.policy: Input should be 'adaptive' or 'grid'"):
        RunSetup.of_data(data)


def test_it_is_stored_once_and_again_where_it_changes(tmp_path: Path) -> None:
    for given, n_stored in ((RUN, 1), (RUN, 1), (replace(RUN, setup=replace(ASKED, lanes=7)), 2), (None, 2)):
        journal = Journal(tmp_path / "journal")
        service = LawService(given, journal)
        journal.close()
        kinds = [record.kind for record in journal.records]
        assert kinds == ["setup"] * n_stored
    assert service.setup.lanes == 7


def test_a_journal_of_an_older_raysplit_needs_to_be_told(tmp_path: Path) -> None:
    """What it measured is read off by the set-up that comes after it."""
    journal = Journal(tmp_path / "journal")
    service, losses = LawService(RUN, journal), true_losses(ASKED)
    trial = service.claim().trial
    assert trial is not None
    service.record(
        trial, trial.milestones[0], Measured(losses=losses(trial, trial.milestones[0]), tokens=0, wall_seconds=0.0)
    )
    journal.close()
    old = Journal(tmp_path / "old")
    old.append_many([(r.kind, r.data) for r in journal.records if r.kind != "setup"])
    with pytest.raises(RunError, match="of an older raysplit"):
        LawService(None, ReadJournal(old.records))
    assert LawService(RUN, old).observations().equals(service.observations())
    old.close()
    assert LawService(None, ReadJournal(read_journal(tmp_path / "old"))).observations().equals(service.observations())
