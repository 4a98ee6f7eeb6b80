"""The promises of a backend, for those that need no cluster; `tests/ray/test_lanes.py` has them for Ray's lanes."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import LaneError, RaysplitError
from raysplit.journal import Journal
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.sweep.final import carry_out
from raysplit.sweep.final_plan import FinalPart
from raysplit.sweep.replay import KnownLosses, drive
from tests.design.doubles import spec
from tests.live.doubles import remember_laws, true_losses
from tests.sweep.backends import BackendPromises, FakeLanes, Tried

ASKED = spec(sizes=(14_000,), pretrain_grid=(250_000,), specialize_grid=(125_000,), policy="grid")
DIVERGING_SEED = 9


def losses(trial: Trial, milestone: int) -> Mapping[str, float] | None:
    return None if trial.seed == DIVERGING_SEED else true_losses(ASKED)(trial, milestone)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LawService]:
    remember_laws(monkeypatch)
    with closing(Journal(tmp_path / "journal")) as journal:
        yield LawService(RunSpec(spec=ASKED, bytes_per_token=dict.fromkeys(ASKED.domains, 2.0)), journal)


def tried_with(backend: KnownLosses | FakeLanes, service: LawService) -> Tried:
    trunk = Trial(n_params=14_000, seed=DIVERGING_SEED, domain="", pretrain_tokens=250_000, milestones=(250_000,))
    assert isinstance(service.journal, Journal)
    journal = Path(service.journal.location)
    return Tried(backend=backend, service=service, journal=journal, diverging=Task(trial=trunk, milestone=250_000))


class TestKnownLosses(BackendPromises):
    @pytest.fixture
    def tried(self, service: LawService) -> Tried:
        return tried_with(KnownLosses(losses, service), service)


class TestFakeLanes(BackendPromises):
    @pytest.fixture
    def tried(self, service: LawService) -> Tried:
        return tried_with(FakeLanes(losses, service), service)


class Losing:
    """A backend whose machines fail over one trial."""

    def __init__(self, backend: KnownLosses, lost: str) -> None:
        self._backend, self._lost = backend, lost

    def submit(self, task: Task) -> Future[Outcome]:
        if task.trial.name != self._lost:
            return self._backend.submit(task)
        lost: Future[Outcome] = Future()
        lost.set_exception(LaneError(f"{task.trial.name}: its lane died 3 times"))
        return lost

    def n_blocked(self) -> int:
        return 0

    def close(self) -> None:
        self._backend.close()


def test_what_machines_do_ends_the_sweep_with_its_cause_and_the_trial_stays_open(service: LawService) -> None:
    """So the same command goes on, where another would have the trial's failure for a fact."""
    backend = KnownLosses(losses, service)
    lost = "n14000-s0-d250000-domain-1"
    with pytest.raises(LaneError, match=f"^{lost}: its lane died 3 times$"):
        drive(service, Losing(backend, lost))
    assert [t.state for t in service.trials() if t.name == lost] != ["failed"]
    assert service.status().n_failed == 0
    assert drive(service, backend).finished == "every point of the grid is measured"


class Nobody:
    def record(self, trial: Trial, milestone: int, outcome: Outcome) -> None: ...


def parts() -> list[FinalPart]:
    trunk = Trial(n_params=14_000, seed=0, domain="", pretrain_tokens=250_000, milestones=(250_000,))
    first = FinalPart(after="", task=Task(trial=trunk, milestone=250_000))
    longer = replace(trunk, pretrain_tokens=500_000, milestones=(500_000,))
    second = FinalPart(after=first.name, task=Task(trial=longer, milestone=500_000))
    branches = [
        FinalPart(
            after=trunk.name, task=Task(trial=replace(part.task.trial, domain=name, milestones=(1000,)), milestone=1000)
        )
        for part, trunk in ((first, first), (second, second))
        for name in ASKED.domains
    ]
    return [first, second, *branches]


@pytest.mark.parametrize("n_lanes", [1, 3])
def test_a_final_run_hands_in_no_part_before_what_it_starts_from_is_there(n_lanes: int) -> None:
    backend, done = FakeLanes(true_losses(ASKED), Nobody(), n_lanes=n_lanes), set[str]()
    finished = [name for name, outcome in carry_out(parts(), done, backend) if isinstance(outcome, Measured)]
    assert sorted(finished) == sorted(part.name for part in parts())
    started = [task.trial.name + str(task.milestone) for task in backend.started]
    for part in parts():
        before = next((each for each in parts() if each.name == part.after), None)
        if before is not None:
            names = [each.task.trial.name + str(each.task.milestone) for each in (before, part)]
            assert started.index(names[0]) < started.index(names[1])
    backend.close()


def test_a_final_run_goes_on_from_what_is_there_and_ends_at_a_failure() -> None:
    known = true_losses(ASKED)
    backend = FakeLanes(lambda trial, m: None if trial.domain == "domain-1" else known(trial, m), Nobody())
    first, second, *branches = parts()
    rest = carry_out([second, branches[0]], {first.name}, backend)
    assert {name for name, _ in rest} == {second.name, branches[0].name}
    with pytest.raises(RaysplitError, match=r"^final run: n14000-s0-d250000-domain-1 at 1000: diverged$"):
        list(carry_out([branches[1]], {first.name}, backend))
    assert isinstance(backend.submit(branches[1].task).result(), Failed)
    backend.close()
