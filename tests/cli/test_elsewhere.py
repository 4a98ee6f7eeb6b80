"""Commands asked from outside the cluster on which a run lies: what is said there, and what comes back."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from raysplit.cli import main
from raysplit.sweep.jobs import SubmittedJobs
from tests.cli.conftest import Command
from tests.conftest import free_port

HEAD = "http://head:8265"


class Elsewhere:
    """Stands for the jobs of a cluster."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def ask(self, words: list[str], *, tell: Callable[[str], Any], tell_beside: Callable[[str], Any]) -> int:
        self.asked.append(words)
        tell("answer")
        tell_beside("a word beside it")
        return 3


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    found = Elsewhere()
    monkeypatch.setattr(SubmittedJobs, "at", lambda address: found if address == HEAD else None)
    return found


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (["status", "/shared/a", "--address", HEAD, "--json"], ["status", "/shared/a", "--json"]),
        (["watch", f"--address={HEAD}", "/shared/a", "--every", "5"], ["watch", "/shared/a", "--every", "5"]),
        (["advise", "/shared/a", "--budget-flops", "1e21", "--address", HEAD],
         ["advise", "/shared/a", "--budget-flops", "1e21"]),
    ],
)  # fmt: skip
def test_the_same_words_are_said_there_and_its_answer_and_status_come_back(
    raysplit: Command, elsewhere: Elsewhere, said: list[str], asked: list[str]
) -> None:
    result = raysplit(*said)
    assert elsewhere.asked == [asked]
    assert (result.stdout, result.exit_code) == ("answer\n", 3)
    assert result.stderr == f"raysplit: asking the Ray dashboard at {HEAD}\na word beside it\n"


def test_ctrl_c_ends_the_asking_and_not_the_sweep(
    raysplit: Command, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(elsewhere, "ask", pressed)
    result = raysplit("watch", "/shared/a", "--address", HEAD)
    assert result.exit_code == 130
    assert result.stderr.endswith("raysplit: no longer asking; the sweep goes on\n")


@pytest.mark.parametrize(
    ("command", "loaded_next", "word"),
    [
        (["serve", __file__, "--out", "mine"], "raysplit.sweep.serve", "starting Ray on this machine, then the law of"),
        (["serve", __file__, "--out", "mine", "--ray-address", "auto"], "raysplit.sweep.serve", "joining Ray at auto"),
        (["submit", "space.yaml", "--out", "/mine"], "raysplit.sweep.jobs", "asking the Ray dashboard of this node"),
        (["resume", "/mine", "--address", HEAD], "raysplit.sweep.jobs", f"asking the Ray dashboard at {HEAD}"),
        (["stop", "/mine", "--address", HEAD], "raysplit.sweep.jobs", f"asking the Ray dashboard at {HEAD}"),
        (["doctor"], "raysplit.cli.bases", "looking at this machine"),
        (["watch", "mine"], "raysplit.live", "looking for the law of mine"),
    ],
)
def test_what_takes_long_says_so_before_ray_is_loaded(
    monkeypatch: pytest.MonkeyPatch, command: list[str], loaded_next: str, word: str
) -> None:
    monkeypatch.setitem(sys.modules, loaded_next, None)  # importing it fails
    result = CliRunner().invoke(main, command)
    assert isinstance(result.exception, ImportError)
    assert result.stderr.startswith(f"raysplit: {word}")


def test_a_path_of_this_machine_is_refused(refusal: Callable[..., str]) -> None:
    assert "an absolute path on the cluster" in refusal("status", "runs/a", "--address", HEAD)
    assert "an absolute path on the cluster" in refusal("advise", "--law", "law.json", "--address", HEAD)


@pytest.mark.parametrize("command", ["status", "watch", "advise"])
def test_a_url_where_nobody_answers_is_told_at_once(raysplit: Command, command: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = raysplit(command, url)
    assert result.exit_code == 2
    assert url in result.stderr.splitlines()[-1]
