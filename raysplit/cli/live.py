"""Commands that ask a live law, or the journal where none is running."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raysplit import strict_json
from raysplit.cli.elsewhere import AskedAnywhere
from raysplit.cli.options import COUNT, QUANTITY, Share, asked_argument, say, show, version_option
from raysplit.errors import LawError, RunError

if TYPE_CHECKING:
    from raysplit.http.client import HttpClient
    from raysplit.live.answers import LawStamp, LiveAdvice, Status
    from raysplit.live.client import LiveLaw
    from raysplit.live.service import LawService

_PATIENCE_SECONDS = 20.0
"""After so long without a word from a law its journal is read: what a user asks for is not to wait in silence."""

json_option = click.option("--json", "output", flag_value="json", default="text", help="Print it as JSON.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answerer:
    """Who answers for a run."""

    law: "LiveLaw | HttpClient | LawService"
    is_live: bool

    @property
    def source(self) -> str:
        return "live law" if self.is_live else "journal"

    def told(self, stamp: "LawStamp") -> str:
        """On what an answer rests, in a line."""
        from raysplit.quantities import counted, format_seconds

        waiting = stamp.n_known - stamp.n_observations
        version = f"version {stamp.version}" if stamp.version else "a law fitted now"
        law = f"{version}, {counted(stamp.n_observations, 'observation')}"
        behind = f", {waiting} more known by now" if waiting else ""
        if self.is_live:
            return f"asked the live law: {law}, {format_seconds(stamp.age_seconds)} old{behind}"
        return f"read from the journal, no live law answers: {law}{behind}"


def ask_run(run_folder: Path | str) -> Answerer:
    """The run's live law when one is running, else its journal; of a URL, the law that answers there.

    Raises:
        RunError: the folder holds no run, or its sweep has not begun.
    """
    if isinstance(run_folder, str):
        from raysplit.http.client import HttpClient

        return Answerer(law=HttpClient(run_folder, os.environ.get("RAYSPLIT_TOKEN")), is_live=True)
    from raysplit.live import endpoint

    if endpoint.find(run_folder) is not None:
        from raysplit.live.client import LiveLaw, connect

        try:
            law = connect(run_folder)
            LiveLaw(law.actor, timeout_seconds=_PATIENCE_SECONDS).status()  # one whose node is gone answers nobody
            return Answerer(law=law, is_live=True)
        except RunError as error:
            say(f"{error}; reading the journal")
    from raysplit.sweep.launch import read_service

    return Answerer(law=read_service(run_folder), is_live=False)


@click.command(cls=AskedAnywhere)
@asked_argument
@click.option("--domain", required=True, help="Domain whose expert is asked about.")
@click.option("--n-params", type=QUANTITY, required=True, help="Non-embedding parameters.")
@click.option("--pretrain-tokens", type=COUNT, required=True, help="D, tokens of the mixture.")
@click.option("--specialize-tokens", type=COUNT, required=True, help="D', tokens of the domain.")
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="How often the interval is to hold the measurement.",
)
@click.option(
    "--replay-share",
    type=Share(may_be_zero=True),
    help="p, from bases where the sweep tries several: the share of D' that is general text; the least when left out.",
)
@version_option
@json_option
def predict(
    run_folder: Path | str,
    domain: str,
    n_params: float,
    pretrain_tokens: int,
    specialize_tokens: int,
    level: float,
    replay_share: float | None,
    version: int | None,
    output: str,
) -> None:
    """The loss that a sweep's law expects at one point, in the sweep's unit, with an interval for one measurement."""
    asked = ask_run(run_folder)
    live = asked.law.predict(
        domain,
        n_params=n_params,
        pretrain_tokens=pretrain_tokens,
        specialize_tokens=specialize_tokens,
        level=level,
        replay_share=replay_share,
        version=version,
    )
    if output == "json":
        show(strict_json.dumps({**asdict(live), "source": asked.source}))
        return
    show(asked.told(live.law), err=True)
    show(f"{live.mean:.4f} {live.loss_unit}, {level:.0%} interval {live.low:.4f} to {live.high:.4f}")


@click.command(cls=AskedAnywhere)
@asked_argument
@json_option
def status(run_folder: Path | str, output: str) -> None:
    """Where a sweep stands, running or finished, and why trials failed."""
    asked = ask_run(run_folder)
    now = asked.law.status()
    failed = {trial.name: trial.why for trial in asked.law.trials() if trial.state == "failed"} if now.n_failed else {}
    if output == "json":
        show(strict_json.dumps({**asdict(now), "failures": failed, "source": asked.source}))
        return
    show(_where(now))
    for why in dict.fromkeys(failed.values()):
        show(f"failed: {', '.join(name for name in failed if failed[name] == why)}: {why}")
    if now.trouble:
        show(f"trouble: {now.trouble}")
    if now.waiting:
        show(now.waiting)
    show(f"({asked.source})", err=True)


@click.command(cls=AskedAnywhere)
@asked_argument
@click.option(
    "--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--json", "output", flag_value="json", default="text", help="One JSON object a line.")
def watch(run_folder: Path | str, every: float, output: str) -> None:
    """How the split moves while a sweep measures: a line at each change, until the sweep ends or Ctrl-C."""
    say(f"looking for the law of {run_folder}")
    asked, before = ask_run(run_folder), None
    show(f"watching the {asked.source}; Ctrl-C ends it", err=True)
    try:
        while True:
            try:
                now = asked.law.status()
                live = _advice_or_none(asked)
            except RunError:  # the sweep has ended, or its cluster: the journal knows
                if isinstance(run_folder, str):  # of a URL nobody else does
                    raise
                asked = ask_run(run_folder)
                continue
            seen = (now, live.law.version if live else 0)
            if seen != before:
                show(_line(now, live, asked.source, as_json=output == "json"))
                before = seen
            if now.finished:
                return
            time.sleep(every if asked.is_live else max(every, 5.0))
            if not asked.is_live:
                asked = ask_run(run_folder)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed again, it would end in Ray's own leaving
        sys.exit(130)


def _advice_or_none(asked: Answerer) -> "LiveAdvice | None":
    try:
        return asked.law.advise()
    except LawError:
        return None


def _line(now: "Status", live: "LiveAdvice | None", source: str, *, as_json: bool) -> str:
    if as_json:
        advice = None if live is None else json.loads(live.advice.to_json())
        law = None if live is None else asdict(live.law)
        return strict_json.dumps({"status": asdict(now), "advice": advice, "law": law, "source": source})
    from raysplit.quantities import format_count

    clock = time.strftime("%H:%M:%S")
    if live is None:
        return f"{clock}  no law yet; {_where(now)}"
    advice = live.advice
    share = advice.pretrain_share
    return (
        f"{clock}  law {live.law.version} of {live.law.n_observations}: D/T {share.mean:.3f} "
        f"({share.low:.3f} to {share.high:.3f}) at N = {format_count(advice.split.n_params)}, loss "
        f"{advice.loss.mean:.4f}, expected regret {advice.expected_regret:.2%}; {_where(now)}"
    )


def _where(now: "Status") -> str:
    from raysplit.quantities import counted, format_flops

    return (
        f"round {now.round}: {now.n_trials - now.n_trials_left} of {counted(now.n_trials, 'trial')} done; "
        f"{counted(now.n_observations, 'observation')}, {format_flops(now.spent_flops)}, "
        f"{counted(now.n_stopped, 'trial')} stopped, "
        f"{now.n_failed} failed; {now.finished or 'not ended'}"
    )
