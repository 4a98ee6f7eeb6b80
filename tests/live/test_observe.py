"""Runs measured elsewhere: what the law learns from them, and what the sweep does not."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.design.tasks import Measured
from raysplit.errors import RunError, TableError
from raysplit.journal import ReadJournal, read_journal
from raysplit.live.answers import Accepted
from raysplit.live.questions import ObservationBatch, Observe
from raysplit.live.service import LawService
from raysplit.runs import Observation
from tests.design.doubles import PRETRAIN, SIZES, SPECIALIZE, spec
from tests.live.doubles import open_service, true_losses

ASKED = spec(policy="grid")
LOSSES = true_losses(ASKED)
ELSEWHERE = Observation(
    n_params=SIZES[0] + 1, pretrain_tokens=777, specialize_tokens=333, domain=ASKED.domains[0], loss=3.25, seed=7
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LawService]:
    service = open_service(ASKED, tmp_path / "journal.jsonl")
    yield service
    service.journal.close()  # type: ignore[union-attr]


def test_what_was_seen_elsewhere_is_known_and_survives(service: LawService, tmp_path: Path) -> None:
    assert service.observe([ELSEWHERE, replace(ELSEWHERE, seed=8)]).n_new == 2
    assert service.status().n_observations == 2
    again = LawService(None, ReadJournal(read_journal(tmp_path / "journal.jsonl")))
    assert again.observations().equals(service.observations())
    row = service.observations().iloc[0]
    assert (row["n_params"], row["loss"], row["seed"]) == (ELSEWHERE.n_params, 3.25, 7)


def test_the_same_again_changes_nothing(service: LawService) -> None:
    service.observe([ELSEWHERE])
    n_records = len(service.journal.records)
    assert service.observe([replace(ELSEWHERE, wall_seconds=1.0)]) == Accepted(n_new=0, n_repeated=1, n_known=1)
    assert len(service.journal.records) == n_records


def test_what_a_run_replayed_and_lost_elsewhere_is_kept(tmp_path: Path) -> None:
    sweep = replace(ASKED, replay_shares=(0.0, 0.2))
    rows = [replace(ELSEWHERE, replay_share=share, general_loss=2.5 + share) for share in sweep.replay_shares]
    service = open_service(sweep, tmp_path / "journal.jsonl")
    with closing(service.journal):  # type: ignore[type-var]
        batch = ObservationBatch.model_validate(ObservationBatch.of(Observe(rows)))  # as it goes over HTTP
        assert service.observe(batch.question().observations).n_new == 2
        assert service.observe(rows).n_repeated == 2
        with pytest.raises(TableError, match=r"unknown replay_share '0\.1'.* Known: 0\.0, 0\.2"):
            service.observe([replace(ELSEWHERE, replay_share=0.1)])
        with pytest.raises(TableError, match=r"replay_share = 1\.5 is not within 0 to 1"):
            service.observe([replace(ELSEWHERE, replay_share=1.5)])
        page = service.observations_page()
    assert [(row.replay_share, row.general_loss) for row in page.observations] == [(0.0, 2.5), (0.2, 2.7)]


def test_it_buys_no_points_of_the_grid(service: LawService) -> None:
    inside = Observation(
        n_params=SIZES[0],
        pretrain_tokens=PRETRAIN[0],
        specialize_tokens=SPECIALIZE[0],
        domain=ASKED.domains[0],
        loss=3.0,
    )
    before = service.tree_state()
    service.observe([inside])
    assert service.tree_state() == before
    asked = [service.claim().trial]
    assert asked[0] is not None
    assert service.tree_state().spent_flops == 0


def test_the_sweeps_own_measurement_replaces_it(service: LawService) -> None:
    trial = service.claim().trial
    assert trial is not None
    milestone = trial.milestones[0]
    first = ASKED.domains[0]
    outside = Observation(
        n_params=trial.n_params, pretrain_tokens=milestone, specialize_tokens=0, domain=first, loss=9.0
    )
    service.observe([outside])
    losses = LOSSES(trial, milestone)
    service.record(trial, milestone, Measured(losses=losses, tokens=0, wall_seconds=0.0))
    frame = service.observations()
    assert len(frame) == len(ASKED.domains)
    assert frame.loc[frame["domain"] == first, "loss"].tolist() == [losses[first]]
    with pytest.raises(TableError, match=r"loss = 9 of .* is known of this run; .* another seed"):
        service.observe([outside])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"loss": float("nan")}, "loss = nan is not a finite number"),
        ({"loss": -1.0}, "loss = -1.0 must be positive"),
        ({"pretrain_tokens": -5}, "pretrain_tokens = -5 must not be negative"),
        ({"domain": "nonsense"}, "unknown domain 'nonsense'"),
    ],
)
def test_nothing_is_stored_of_a_bad_table(service: LawService, change: dict[str, object], complaint: str) -> None:
    bad = replace(ELSEWHERE, seed=8, **change)  # type: ignore[arg-type]
    with pytest.raises(TableError, match=complaint):
        service.observe([ELSEWHERE, bad])
    assert service.status().n_observations == 0
    assert [record.kind for record in service.journal.records] == ["spec"]


def test_a_reader_stores_nothing(tmp_path: Path, service: LawService) -> None:
    reader = LawService(service.run, ReadJournal([]))
    with pytest.raises(RunError, match="only read"):
        reader.observe([ELSEWHERE])
