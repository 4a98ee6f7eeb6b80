"""Reports from training that raysplit did not start: none is lost, and the training is never in their way."""

import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysplit.errors import RunError
from raysplit.live.questions import ObservationRow
from raysplit.runs import Observation
from raysplit.trainers.outside_run import OutsideRun
from raysplit.trainers.reporter import LawToTell, Reporter
from tests.trainers.laws_to_tell import FakeLaw

SEEN = Observation(n_params=1000, pretrain_tokens=500, specialize_tokens=20, domain="law", loss=3.0)
Start = Callable[..., OutsideRun]


@pytest.fixture
def kept_in(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "reports.jsonl"


@pytest.fixture
def start(kept_in: Path) -> Iterator[Start]:
    """A run of a bare loop; closed, with its threads, when the test ends."""
    runs = []

    def begin(law: LawToTell | Callable[[], LawToTell], **options: object) -> OutsideRun:
        given = {"n_params": 1000, "domain": "law", "pretrain_tokens": 500, "kept_in": kept_in, **options}
        runs.append(OutsideRun(law, **given))  # type: ignore[arg-type]
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


def train(run: OutsideRun, losses: list[float]) -> int:
    """A bare loop of ten tokens a step; gives how many steps it took."""
    for step, loss in enumerate(losses, start=1):
        if step < len(losses) and not run.should_go_on(tokens=10 * step, loss=loss):
            return step
    run.finish(tokens=10 * len(losses), loss=losses[-1])
    return len(losses)


def test_a_bare_loop_reports_its_end_and_is_asked_about_on_the_way(start: Start, kept_in: Path) -> None:
    law = FakeLaw()
    run = start(law, seed=3, name="mine")
    assert train(run, [5.0, 4.0, 3.0]) == 3
    run.close()
    [told] = law.told.values()
    assert told == Observation(
        n_params=1000, pretrain_tokens=500, specialize_tokens=30, domain="law", loss=3.0, seed=3, trial="mine"
    )
    assert [o.specialize_tokens for o in law.asked] == [10, 20]
    assert not kept_in.exists()


def test_a_loss_before_its_cooldown_is_judged_by_what_the_cooldown_may_leave(start: Start) -> None:
    law = FakeLaw(limit=4.0)
    run = start(law, cooldown_gain=0.1)
    assert run.should_go_on(tokens=10, loss=4.4)
    assert not run.should_go_on(tokens=10, loss=4.4, cooled_down=True)
    assert run.last_answer.why == "the limit is 4"
    assert train(run, [9.0, 9.0, 9.0]) == 1
    run.close()
    assert not law.told  # stopped on the way: its loss can be compared with nothing


def test_a_pretraining_run_is_read_on_every_domain(start: Start) -> None:
    law = FakeLaw()
    run = start(law, pretrain_tokens=None, domain="")
    run.finish(tokens=700, loss={"law": 3.0, "code": 2.0})
    run.close()
    assert sorted((o.pretrain_tokens, o.specialize_tokens, o.domain, o.loss) for o in law.told.values()) == [
        (700, 0, "code", 2.0),
        (700, 0, "law", 3.0),
    ]


def test_a_specialist_is_judged_on_its_own_domain(start: Start) -> None:
    law = FakeLaw()
    run = start(law)
    run.finish(tokens=700, loss={"law": 3.0, "code": 2.0})
    run.close()
    assert [o.domain for o in law.told.values()] == ["law"]


class TestALawThat:
    def test_is_down_costs_a_warning_and_nothing_is_lost(
        self, start: Start, kept_in: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        law = FakeLaw()
        law.is_down = True
        run = start(law)
        assert train(run, [5.0, 4.0, 4.5, 3.0]) == 4
        assert run.last_answer.go_on
        run.close()
        assert [r.message for r in caplog.records if "took no question" in r.message] == [
            "the live law took no question, training goes on: the law actor has ended, with its sweep or its node: "
            "connect again, or ask the run folder"
        ]
        assert f"1 reports could not be given to the live law; they are in {kept_in}" in caplog.text
        law.is_down = False
        start(law).close()  # the next process with the same file
        assert [o.loss for o in law.told.values()] == [3.0]
        assert not kept_in.exists()

    def test_comes_back_is_told(self, kept_in: Path) -> None:
        law = FakeLaw()
        law.is_down = True
        reporter = Reporter(law, kept_in=kept_in, retry_seconds=0.01)
        reporter.report(SEEN)
        assert _told_within(reporter, seconds=0.3) == 1
        law.is_down = False
        assert _told_within(reporter, seconds=30) == 0
        reporter.close()
        assert list(law.told.values()) == [SEEN]

    def test_is_not_there_yet_is_connected_to_later(self, kept_in: Path) -> None:
        law, attempts = FakeLaw(), []

        def connect() -> LawToTell:
            attempts.append(1)
            if len(attempts) < 3:
                raise RunError("no law actor")
            return law

        reporter = Reporter(connect, kept_in=kept_in, retry_seconds=0.01)
        reporter.report(SEEN)
        assert _told_within(reporter, seconds=30) == 0
        reporter.close()
        assert len(attempts) == 3

    def test_hangs_does_not_hold_the_training(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        law = FakeLaw(limit=1.0)
        law.held = threading.Event()
        run = start(law, patience_seconds=0.05)
        assert run.should_go_on(tokens=10, loss=4.0)
        assert "no answer within 0.05 s" in run.last_answer.why
        assert run.should_go_on(tokens=20, loss=4.0)  # the first question is still open
        run.finish(tokens=30, loss=4.0)
        law.held.set()
        assert _told_within(run.reporter, seconds=30) == 0
        assert not run.should_go_on(tokens=40, loss=4.0)  # the answer came late, and counts
        assert caplog.text.count("did not answer within") == 1

    def test_refuses_a_report_takes_the_others(self, kept_in: Path, caplog: pytest.LogCaptureFixture) -> None:
        law = FakeLaw(domains=("law",))
        law.is_down = True
        reporter = Reporter(law, kept_in=kept_in, retry_seconds=3600)
        for domain in ("law", "nonsense"):
            reporter.report(Observation(n_params=1, pretrain_tokens=1, specialize_tokens=1, domain=domain, loss=1.0))
        law.is_down = False
        reporter.close()
        assert [o.domain for o in law.told.values()] == ["law"]
        assert "nonsense" in kept_in.read_text()
        assert "the live law refuses a report" in caplog.text

    def test_raises_anything_at_all(self, start: Start) -> None:
        def connect() -> LawToTell:
            raise ZeroDivisionError("a bug")

        run = start(connect)
        assert train(run, [5.0, 4.0, 3.0]) == 3


@pytest.mark.parametrize("n", [2_000_000_000, 2e9, "2B", "2,000,000,000", np.int64(2_000_000_000)])
def test_numbers_are_read_as_everywhere(start: Start, n: Any) -> None:
    law = FakeLaw()
    run = start(law, n_params=n, pretrain_tokens=n, seed="3")
    run.finish(tokens=10, loss=3.0)
    run.close()
    [seen] = law.told.values()
    assert (seen.n_params, seen.pretrain_tokens, seen.seed) == (2_000_000_000, 2_000_000_000, 3)


@pytest.mark.parametrize("name", ["./out/llama 1", "..\\x", ".hidden", "a\nb", "x" * 300])
def test_any_name_of_a_run_is_taken_over_http(start: Start, name: str) -> None:
    law = FakeLaw()
    run = start(law, name=name)
    run.finish(tokens=10, loss=3.0)
    run.close()
    [seen] = law.told.values()
    row = {"n_params": 1, "pretrain_tokens": 1, "specialize_tokens": 1, "domain": "law", "loss": 1, "trial": seen.trial}
    assert ObservationRow.model_validate(row).trial == seen.trial != ""


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"n_params": 0}, "n_params: must be at least 1, got 0"),
            ({"n_params": 1.5}, r"n_params: expected a whole number, got 1\.5"),
            ({"domain": ""}, "domain: name the one"),
            ({"pretrain_tokens": -1}, "pretrain_tokens: must be at least 0, got -1"),
            ({"seed": -1}, "seed: must be at least 0, got -1"),
            ({"cooldown_gain": 1.0}, "cooldown_gain must be a share"),
            ({"patience_seconds": 0}, "patience_seconds must be positive"),
        ],
    )
    def test_are_named_before_the_training(self, start: Start, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(RunError, match=complaint):
            start(FakeLaw(), **options)

    @pytest.mark.parametrize("law", ["runs/mine", Path("runs/mine"), "http://127.0.0.1:8350", None])
    def test_where_a_law_is_is_no_law(self, start: Start, law: Any) -> None:
        with pytest.raises(RunError, match=r"give what connects to it, such as lambda: raysplit\.connect"):
            start(law)

    @pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0])
    def test_a_loss_that_is_none_is_kept_to_itself(
        self, start: Start, loss: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        law = FakeLaw()
        run = start(law)
        run.finish(tokens=10, loss=loss)
        assert run.should_go_on(tokens=10, loss=loss)
        run.close()
        assert not law.told
        assert "no loss of law" in caplog.text

    def test_a_file_that_is_none_of_ours(self, kept_in: Path, caplog: pytest.LogCaptureFixture) -> None:
        kept_in.parent.mkdir()
        kept_in.write_text('nonsense\n{"n_params": 1}\n')
        Reporter(FakeLaw(), kept_in=kept_in).close()
        assert "a kept report cannot be read" in caplog.text

    def test_a_file_that_cannot_be_written(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "file").write_text("")
        law = FakeLaw()
        reporter = Reporter(law, kept_in=tmp_path / "file" / "reports.jsonl")
        reporter.report(SEEN)
        reporter.close()
        assert list(law.told.values()) == [SEEN]
        assert "report kept in memory only" in caplog.text


def test_the_end_of_the_process_waits_for_the_last_report(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from raysplit.trainers.outside_run import OutsideRun
from tests.trainers.laws_to_tell import FakeLaw

class Slow(FakeLaw):
    def observe(self, observations):
        time.sleep(0.3)
        Path({str(tmp_path / "told")!r}).write_text(str(len(observations)))
        return super().observe(observations)

run = OutsideRun(Slow, n_params=1, domain="law", pretrain_tokens=1, kept_in={str(tmp_path / "kept")!r})
run.finish(tokens=1, loss=2.0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert (tmp_path / "told").read_text() == "1"
    assert not (tmp_path / "kept").exists()


def _told_within(reporter: Reporter, *, seconds: float) -> int:
    """Reports that are still kept when there are none, or when the time is up."""
    waited = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if not reporter.n_kept:
            break
        waited.wait(0.02)
    return reporter.n_kept


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="raysplit")
