"""One training run that raysplit did not start, as the live law knows runs: its size, its tokens, its losses.

A law compares losses after a cooldown: at the end of the schedule, with the learning rate down. So a run is reported
when it has ended. On the way its loss is higher than the law expects at as many tokens, by what the cooldown would
still take off. A question asked on the way allows for that, generously, so that no healthy run is stopped.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from raysplit.errors import RunError
from raysplit.live.answers import GoOn
from raysplit.quantities import parse_count
from raysplit.runs import Observation, check_runs, to_frame
from raysplit.trainers.reporter import LawToTell, Reporter

_log = logging.getLogger("raysplit")

Number = int | float | str
"""A number as people write it: 2000000000, 2e9 or "2B"."""
COOLDOWN_GAIN = 0.1
"""Share of the loss that a cooldown is taken to remove, at most."""


_MAX_NAME = 200
"""Characters of a run's name that the law takes."""
_NO_NAME = re.compile(r"^\.|[/\\\x00-\x1f\x7f]")
"""What a run's name may not hold, since it may become the name of a file."""


def whole_number(name: str, value: object, *, least: int = 0) -> int:
    """Read a whole number, in any form that `raysplit.quantities.parse_count` reads.

    Raises:
        RunError: the value is no whole number, or below ``least``.
    """
    try:
        number = parse_count(value)
    except ValueError as error:
        raise RunError(f"{name}: {error}") from error
    if number < least:
        raise RunError(f"{name}: must be at least {least}, got {value!r}")
    return number


def check_law(law: object) -> None:
    """Check that something is a live law, or a function that connects to one.

    Raises:
        RunError: it is neither, such as a path or an address.
    """
    if not callable(law) and not hasattr(law, "observe"):
        raise RunError(
            f"law: {law!r} is none; give what connects to it, such as lambda: raysplit.connect('runs/mine'), or "
            "HttpClient(url, token)"
        )


class OutsideRun:
    """One run of a training loop of one's own, which reports to a live law and asks it whether to go on.

    ::

        run = OutsideRun(lambda: raysplit.connect("runs/mine"), n_params=count_params(model), domain="law",
                         pretrain_tokens=2_000_000_000, kept_in=out / "reports.jsonl")
        for step in range(n_steps):
            ...
            if step % 500 == 0 and not run.should_go_on(tokens=step * batch_tokens, loss=held_out_loss(model)):
                break
        else:
            run.finish(tokens=n_steps * batch_tokens, loss=held_out_loss(model))  # the learning rate is down now

    Neither `should_go_on` nor `finish` raises, or waits for the law longer than ``patience_seconds``.
    """

    def __init__(
        self,
        law: LawToTell | Callable[[], LawToTell],
        *,
        n_params: Number,
        kept_in: Path | str,
        domain: str = "",
        pretrain_tokens: Number | None = None,
        seed: int = 0,
        name: str = "",
        patience_seconds: float = 1.0,
        cooldown_gain: float = COOLDOWN_GAIN,
    ) -> None:
        """Describe the run; nothing is sent yet.

        Args:
            law: the live law, or a function that connects to it (`Reporter`).
            n_params: N, non-embedding parameters; `raysplit.trainers.model_params.count_params` counts them.
            kept_in: this job's own file for reports that the law has not stored yet.
            domain: the domain that the run specializes on, and that a plain loss is of. It may be left out where losses
                are given by domain, as a pretraining run gives them.
            pretrain_tokens: D, the tokens that the model had seen before this run; None where this run is the
                pretraining itself.
            seed: of this run.
            name: of this run, for people.
            patience_seconds: the longest that a question waits for the law.
            cooldown_gain: share of the loss that the cooldown still to come may take off.

        Raises:
            RunError: a number is out of its range, ``pretrain_tokens`` has no domain, or ``law`` is neither a law nor
                callable.
        """
        check_law(law)
        self._n_params = whole_number("n_params", n_params, least=1)
        self._before = None if pretrain_tokens is None else whole_number("pretrain_tokens", pretrain_tokens)
        if pretrain_tokens is not None and not domain:
            raise RunError("domain: name the one that the run specializes on")
        self._seed = whole_number("seed", seed)
        if not 0 <= cooldown_gain < 1:
            raise RunError(f"cooldown_gain must be a share of the loss, got {cooldown_gain!r}")
        if patience_seconds <= 0:
            raise RunError(f"patience_seconds must be positive, got {patience_seconds!r}")
        self._domain, self._gain = domain or "", cooldown_gain
        self._name = _NO_NAME.sub("_", name)[:_MAX_NAME]
        self.reporter = Reporter(law, kept_in=Path(kept_in), patience_seconds=patience_seconds)
        self.last_answer = GoOn(go_on=True, why="nothing was asked yet")
        self._has_warned = False

    def should_go_on(self, *, tokens: int, loss: float | Mapping[str, float], cooled_down: bool = False) -> bool:
        """Whether the law takes the run to be worth its next tokens; True where the law does not answer.

        The law says no to a run that does badly, and to every run once its own question is settled; `last_answer` says
        which. Where the loss is no number, the answer is the last one.

        Args:
            tokens: tokens that this run has trained on so far.
            loss: loss on held-out text in nats per token, or such losses by domain.
            cooled_down: whether the learning rate is down; if not, `cooldown_gain` is allowed for.
        """
        factor = 1.0 if cooled_down else 1.0 - self._gain
        if seen := self._observations(tokens, loss, factor=factor):
            self.last_answer = self.reporter.should_go_on(seen)
        return self.last_answer.go_on

    def finish(self, *, tokens: int, loss: float | Mapping[str, float]) -> None:
        """Report the losses of the run after its cooldown.

        Args:
            tokens: tokens that this run was trained on.
            loss: loss on held-out text in nats per token, or such losses by domain.
        """
        for observation in self._observations(tokens, loss, factor=1.0):
            self.reporter.report(observation)

    def close(self) -> None:
        """Send the reports that are still kept, for at most 10 s; also done when the process ends."""
        self.reporter.close()

    def _observations(self, tokens: int, loss: float | Mapping[str, float], *, factor: float) -> list[Observation]:
        """The run's losses as observations; none, and one warning in the log, where a number is impossible."""
        losses = dict(loss) if isinstance(loss, Mapping) else {self._domain: loss}
        if self._before is not None:
            losses = {name: value for name, value in losses.items() if name == self._domain}
        try:
            pretrain, specialize = (int(tokens), 0) if self._before is None else (self._before, int(tokens))
            made = [
                Observation(
                    n_params=self._n_params,
                    pretrain_tokens=pretrain,
                    specialize_tokens=specialize,
                    domain=domain,
                    loss=float(value) * factor,
                    seed=self._seed,
                    trial=self._name,
                )
                for domain, value in losses.items()
            ]
            bad = [o.domain for o in made if not (math.isfinite(o.loss) and o.loss > 0)]
            if bad or not made:
                raise ValueError(f"no loss of {', '.join(bad) or self._domain or 'any domain'}")
            check_runs(to_frame(made), origin="this run")
        except Exception as error:  # numbers of a training that went wrong must not end it
            if not self._has_warned:
                self._has_warned = True
                _log.warning("nothing is said to the live law of %s: %s", self._name or "this run", error)
            return []
        return made
