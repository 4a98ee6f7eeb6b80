"""How a command ends that was told to stop, whatever its last error is."""

import os
import signal
from collections.abc import Callable

import click
import pytest

from raysplit.cli import main
from raysplit.errors import RaysplitError
from tests.cli.conftest import Command

STOPPED = "raysplit: stopped; everything measured is kept, and the same command continues\n"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def command(raysplit: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], tuple[int, str]]:
    """Run a function as a command of raysplit's; (status, what it wrote to stderr)."""

    def run(body: Callable[[], None]) -> tuple[int, str]:
        monkeypatch.setitem(main.commands, "body", click.Command("body", callback=body))
        result = raysplit("body")
        return result.exit_code, result.stderr

    return run


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_command_in_order(command: Callable[..., tuple[int, str]], number: signal.Signals) -> None:
    assert command(lambda: os.kill(os.getpid(), number)) == (130, STOPPED)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what is dropped is the point
@pytest.mark.parametrize("error", [RuntimeError("the cluster is gone"), RaysplitError("lane 0 has failed for good")])
@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_that_was_dropped_is_not_forgotten(
    command: Callable[..., tuple[int, str]], number: signal.Signals, error: Exception
) -> None:
    class Dropping:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    def body() -> None:
        Dropping()
        raise error

    assert command(body) == (130, STOPPED)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_error_in_place_of_the_interrupt_is_no_failure(
    command: Callable[..., tuple[int, str]], number: signal.Signals
) -> None:
    def body() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            raise RuntimeError("the cluster is gone")

    assert command(body) == (130, STOPPED)


def test_under_nohup_a_terminal_may_go_away(command: Callable[..., tuple[int, str]]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command(lambda: os.kill(os.getpid(), signal.SIGHUP)) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_signals_are_given_back(command: Callable[..., tuple[int, str]]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    command(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_without_a_signal_an_error_is_an_error(command: Callable[..., tuple[int, str]]) -> None:
    def body() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        command(body)
