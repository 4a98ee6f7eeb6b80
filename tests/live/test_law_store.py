"""Laws kept beside a journal: what is read back is what was stored, the advice on the target with it."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.errors import LawError
from raysplit.live import law_store
from raysplit.live.fitted import Fitted
from raysplit.live.fitting import FitJob, FitterHere
from raysplit.live.law_store import LawStore
from raysplit.live.observations import ObservationTable
from tests.live.test_laws_behind import TARGET, rows

N_ROWS = 48


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    table = ObservationTable()
    table.add(rows(N_ROWS))
    return FitterHere(table, TARGET).fit(FitJob(seq=table.last_seq))


def test_a_law_read_back_answers_without_a_search(tmp_path: Path, fitted: Fitted) -> None:
    LawStore(tmp_path / "laws", last_seq=-1, fence=1).put(fitted)
    found = LawStore(tmp_path / "laws", last_seq=fitted.seq).latest
    assert found is not None
    assert fitted.advice is not None
    assert found.fitted.advice == fitted.advice
    assert found.fitted.law.to_json() == fitted.law.to_json()
    assert found.fitted.choice == fitted.choice


def test_laws_of_another_journal_and_damaged_ones_are_passed_over(tmp_path: Path, fitted: Fitted) -> None:
    written = LawStore(tmp_path / "laws", last_seq=-1, fence=1)
    first, second = written.put(fitted), written.put(fitted)
    assert LawStore(tmp_path / "laws", last_seq=fitted.seq - 1).latest is None, "it knows of records not in the journal"
    [damaged] = (tmp_path / "laws").glob(f"law-{second.version:08d}-*.json")
    damaged.write_bytes(damaged.read_bytes()[:-20])
    found = LawStore(tmp_path / "laws", last_seq=fitted.seq, fence=2)
    assert [law.version for law in found.all()] == [first.version]
    with pytest.raises(LawError, match="version of the law"):
        found.get(second.version)


def test_a_reader_keeps_its_own_newest_law_beside_as_many_as_are_stored(
    tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(law_store, "_KEPT", 2)
    written = LawStore(tmp_path / "laws", last_seq=-1, fence=1)
    stored = [written.put(fitted) for _ in range(2)]
    read = LawStore(tmp_path / "laws", last_seq=fitted.seq + 1)
    newest = read.put(replace(fitted, seq=fitted.seq + 1))
    assert read.latest is newest, "else the law is fitted again for every question"
    assert [law.version for law in read.all()] == [newest.version, *(law.version for law in stored)]
    assert len(list((tmp_path / "laws").iterdir())) == 2
