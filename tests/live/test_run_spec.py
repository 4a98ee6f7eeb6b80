"""A journal that begins with its specification answers by itself."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.design.tasks import Measured
from raysplit.design.tree import Trial
from raysplit.errors import RunError
from raysplit.journal import Journal, ReadJournal, read_journal
from raysplit.live.run_spec import ModelFamily, RunSpec
from raysplit.live.service import LawService
from tests.design.doubles import spec
from tests.live.doubles import true_losses

TRIAL = Trial(n_params=14_000, seed=3, domain="domain-1", pretrain_tokens=500_000, milestones=(125_000, 250_000))
ASKED = replace(spec(n_domains=3, repeats=(TRIAL,)), budget_flops=math.inf)
RUN = RunSpec(
    spec=ASKED, bytes_per_token={**dict.fromkeys(ASKED.domains, 2.5), "domain-2": math.nan},
    family=ModelFamily(vocab_size=512, context_length=128),
)  # fmt: skip


def test_a_spec_comes_back_from_json() -> None:
    read = RunSpec.of_data(json.loads(json.dumps(RUN.to_data(), allow_nan=False)))
    assert read.spec == ASKED
    assert read.family == RUN.family
    assert read.to_data() == RUN.to_data()
    assert [read.spec.tree.cooldown_start(n) for n in range(0, 10**6, 4321)] == [
        ASKED.tree.cooldown_start(n) for n in range(0, 10**6, 4321)
    ]


def test_a_spec_that_is_none_is_refused_by_its_field() -> None:
    data = RUN.to_data()
    data["spec"]["policy"] = "random"
    with pytest.raises(RunError, match=r"spec\.spec\.policy: Input should be 'adaptive' or 'grid'"):
        RunSpec.of_data(data)


def test_it_is_stored_once_and_again_where_it_changes(tmp_path: Path) -> None:
    for given, n_stored in ((RUN, 1), (RUN, 1), (replace(RUN, spec=replace(ASKED, lanes=7)), 2), (None, 2)):
        journal = Journal(tmp_path / "journal")
        service = LawService(given, journal)
        journal.close()
        kinds = [record.kind for record in journal.records]
        assert kinds == ["spec"] * n_stored
    assert service.spec.lanes == 7


def test_a_journal_of_an_older_raysplit_needs_to_be_told(tmp_path: Path) -> None:
    """What it measured is read off by the specification that comes after it."""
    journal = Journal(tmp_path / "journal")
    service, losses = LawService(RUN, journal), true_losses(ASKED)
    trial = service.claim().trial
    assert trial is not None
    first = trial.milestones[0]
    service.record(trial, first, Measured(losses=losses(trial, first), tokens=0, wall_seconds=0.0))
    journal.close()
    old = Journal(tmp_path / "old")
    old.append_many([(r.kind, r.data) for r in journal.records if r.kind != "spec"])
    with pytest.raises(RunError, match="of an older raysplit"):
        LawService(None, ReadJournal(old.records))
    assert LawService(RUN, old).observations().equals(service.observations())
    old.close()
    assert LawService(None, ReadJournal(read_journal(tmp_path / "old"))).observations().equals(service.observations())


def test_a_journal_in_the_words_of_an_older_raysplit_is_read(tmp_path: Path) -> None:
    data = RUN.to_data()
    journal = Journal(tmp_path / "journal")
    journal.append("setup", {"setup" if name == "spec" else name: value for name, value in data.items()})
    journal.close()
    assert LawService(None, ReadJournal(read_journal(tmp_path / "journal"))).spec == ASKED
    again = Journal(tmp_path / "journal")
    LawService(RUN, again)
    again.close()
    assert [record.kind for record in again.records] == ["setup"], "it says the same"
