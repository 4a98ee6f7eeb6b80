"""A callback that joins Hugging Face's `Trainer` to a live law.

It reports a run when its schedule has ended, and stops a run that is not worth its next tokens.
"""

import functools
import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raysplit.errors import RunError, unknown
from raysplit.trainers.data import untouched_randomness
from raysplit.trainers.loss import token_loss
from raysplit.trainers.model_params import check_causal, count_params
from raysplit.trainers.outside_run import COOLDOWN_GAIN, Number, OutsideRun, check_law, whole_number
from raysplit.trainers.rates import learning_rate, peak_before
from raysplit.trainers.reporter import LawToTell
from raysplit.trainers.tokens import check_counting, trained_tokens

_log = logging.getLogger("raysplit")

_COOLED = 0.2
"""A learning rate of at most this share of its peak counts as down: schedules end at zero or, commonly, at a tenth."""
_ROUNDING = 1e-4
"""Share by which two ways to sum up the same losses may differ. Within it the trainer's own figure is reported."""
_When = Literal["end", "evaluations"]


def _harmless(event: Callable[..., None]) -> Callable[..., None]:
    """Make a fault in an event of the callback a warning: no fault of ours may end a training."""

    @functools.wraps(event)
    def called(self: "LiveLawCallback", *args: Any, **kwargs: Any) -> None:
        try:
            event(self, *args, **kwargs)
        except Exception as error:
            self._warn("fault", f"the live law is told nothing of this: {type(error).__name__}: {error}")

    return called


@dataclass(kw_only=True, slots=True)
class _Training:
    """The state of the training under way, the same in every process."""

    peak_rate: float
    """The highest learning rate so far."""
    padding_may_count: bool
    """Whether the trainer counts padding as tokens, and the training set could not be looked at for any."""
    goes_on: bool = True
    was_stopped: bool = False
    sets: dict[str, Any] = field(default_factory=dict)
    """The evaluation sets that the trainer evaluated during the training, by domain."""
    others: set[str] = field(default_factory=set)
    """Names of evaluated sets that are not of the run's domain."""
    ended_on: set[str] = field(default_factory=set)
    """Domains evaluated at the last step."""
    told_at: dict[str, int] = field(default_factory=dict)
    """The step of a domain's last report."""


class LiveLawCallback(TrainerCallback):
    """Reports to a live law, and asks it at each evaluation whether to go on.

    ::

        arguments = TrainingArguments(..., eval_strategy="steps", include_num_input_tokens_seen="non_padding")
        law = LiveLawCallback(lambda: raysplit.connect("runs/mine"), domain="law", pretrain_tokens=2_000_000_000)
        Trainer(model, arguments, train_dataset=..., eval_dataset=..., callbacks=[law]).train()

    A run that specializes (``pretrain_tokens`` given) is judged by its loss on ``domain``. One that pretrains is read
    on every set of the mapping that ``Trainer`` got as ``eval_dataset``, named by domain, or on the one of ``domain``.

    The law is told once: the loss of the run's own evaluation set at its last step, in nats per token. That loss is
    measured by one more pass over the set, since ``eval_loss`` may be an average of batches, smoothed, or another loss
    altogether. docs/trainer.md says what is counted, and which warnings may come. Only the checks as a training begins
    raise.
    """

    def __init__(
        self,
        law: LawToTell | Callable[[], LawToTell],
        *,
        domain: str = "",
        pretrain_tokens: Number | None = None,
        tokens_per_step: Number | None = None,
        n_params: Number | None = None,
        seed: int | None = None,
        report: _When = "end",
        may_stop: bool = True,
        kept_in: Path | str | None = None,
        patience_seconds: float = 1.0,
        cooldown_gain: float = COOLDOWN_GAIN,
    ) -> None:
        """Describe the run; the law is not asked before training begins.

        Args:
            law: the live law, or a function that connects to it.
            domain: the domain that the run specializes on, or that its one evaluation set is of; see above.
            pretrain_tokens: D, the tokens that the model had seen before this run; None where this run is the
                pretraining itself. Numbers may be written as 2e9 or "2B".
            tokens_per_step: tokens of one optimizer step, with all its batches of all processes; not needed with
                ``include_num_input_tokens_seen``.
            n_params: N, non-embedding parameters; counted from the model when None.
            seed: of the run; the trainer's when None.
            report: "end" reports at the end of the schedule, when the learning rate is down. "evaluations" reports at
                every evaluation, for a training whose every evaluation follows a cooldown.
            may_stop: whether the law's answer ends the training. The law says no to a run that does badly, and to every
                run once its question is settled. That is right for a run that is to teach the law, and wrong for one
                that is wanted for itself.
            kept_in: file for reports that the law has not stored yet; in the trainer's ``output_dir`` when None.
            patience_seconds: the longest that an evaluation waits for the law, for each set.
            cooldown_gain: share of the loss that the cooldown still to come may take off. The question to the law
                allows for it.

        Raises:
            RunError: ``report`` is neither of the two, ``tokens_per_step`` is no positive whole number, or ``law`` is
                neither a law nor callable.
        """
        if report not in ("end", "evaluations"):
            raise RunError("report: " + unknown("time", report, ("end", "evaluations")))
        check_law(law)
        if tokens_per_step is not None:
            tokens_per_step = whole_number("tokens_per_step", tokens_per_step, least=1)
        self._law, self._domain, self._pretrain_tokens = law, domain or "", pretrain_tokens
        self._tokens_per_step, self._n_params, self._seed = tokens_per_step, n_params, seed
        self._report, self._may_stop = report, may_stop
        self._kept_in, self._patience, self._gain = kept_in, patience_seconds, cooldown_gain
        self.run: OutsideRun | None = None
        """The run as the law knows it; None before training, and in every process but the first."""
        self._training: _Training | None = None
        self._trained: weakref.ref[torch.nn.Module] | None = None
        """The model that has made a step."""
        self._is_first_process = True
        self._warned: set[str] = set()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        lr_scheduler: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Check all that can be checked before the first step, and begin a run.

        Raises:
            RunError: the model is no causal language model, its parameters or the tokens cannot be counted, or a number
                is out of its range.
        """
        if self.run is not None:
            self.run.close()
        self.run = self._training = None
        self._warned.clear()
        self._is_first_process = state.is_world_process_zero
        check_causal(model)
        padding_may_count = self._tokens_per_step is None and check_counting(
            args, state, train_dataloader, processing_class
        )
        if state.global_step == 0 and self._trained is not None and self._trained() is model:
            self._warn(
                "again",
                "this model was trained before, and those tokens are not counted in this training, which is not "
                "reported to the live law: load the model anew, or train on with resume_from_checkpoint",
            )
            return
        if state.is_world_process_zero:
            self.run = OutsideRun(
                self._law,
                n_params=count_params(model) if self._n_params is None else self._n_params,
                domain=self._domain,
                pretrain_tokens=self._pretrain_tokens,
                seed=args.seed if self._seed is None else self._seed,
                name=args.run_name or "",
                kept_in=self._kept_in or Path(args.output_dir) / "raysplit_reports.jsonl",
                patience_seconds=self._patience,
                cooldown_gain=self._gain,
            )
        self._training = _Training(
            peak_rate=peak_before(state, lr_scheduler, optimizer), padding_may_count=padding_may_count
        )

    @_harmless
    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        lr_scheduler: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        self._trained = weakref.ref(model)
        if self._training is not None:
            self._training.peak_rate = max(self._training.peak_rate, learning_rate(lr_scheduler, optimizer))

    @_harmless
    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        model: Any = None,
        train_dataloader: Any = None,
        eval_dataloader: Any = None,
        lr_scheduler: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        training = self._training
        if training is None or (read := self._read(metrics or {})) is None:
            return
        domain, eval_loss = read
        if training.goes_on:
            training.sets.setdefault(domain, _set_of(eval_dataloader))
        rate = learning_rate(lr_scheduler, optimizer)
        is_cooled = training.peak_rate > 0 and rate <= _COOLED * training.peak_rate
        is_last = state.global_step >= state.max_steps and not training.was_stopped
        tells = self._report == "evaluations" or is_last
        asks = self._may_stop and training.goes_on and not (is_last or training.was_stopped)
        if state.global_step == 0 or not (tells or asks):
            return
        if not training.goes_on and not self._is_of_the_run(args, state, domain, eval_dataloader):
            return
        if is_last:
            training.ended_on.add(domain)
        if self._report == "end" and is_last and not is_cooled:
            self._warn("rate", _rate_too_high(rate, training.peak_rate))
            return
        loss = self._measured(args, model, eval_dataloader, eval_loss)
        if loss is None:
            return
        go_on = True
        try:
            tokens = trained_tokens(args, state, train_dataloader, tokens_per_step=self._tokens_per_step)
            if tells:
                training.told_at[domain] = state.global_step
                if self.run is not None:
                    self.run.finish(tokens=tokens, loss={domain: loss})
            if asks and self.run is not None:
                go_on = self.run.should_go_on(tokens=tokens, loss={domain: loss}, cooled_down=is_cooled)
        finally:  # after a fault too, since the other processes wait for the answer
            go_on = not asks or _agreed(go_on, args)
        if not go_on:
            training.was_stopped = control.should_training_stop = True
            if self.run is not None:
                self._warn("stopped", f"stopped by the live law: {self.run.last_answer.why}")

    @_harmless
    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        training = self._training
        if training is None:
            return
        training.goes_on = False
        if training.was_stopped or (self._report == "evaluations" and training.told_at):
            return
        if state.global_step < state.max_steps:
            self._warn("early", "stopped before the end of its schedule, the training is not reported to the live law")
        elif not training.ended_on and "domain" not in self._warned:
            of = f" of {self._domain!r}" if self._domain else ""
            only = f", only of {', '.join(sorted(training.others))}" if training.others else ""
            self._warn(
                "unevaluated",
                f"no evaluation at the last step{of}{only}: the live law is told by trainer.evaluate(), before any "
                "other set is evaluated",
            )

    def _read(self, metrics: Mapping[str, float]) -> tuple[str, float] | None:
        """Domain and loss of an evaluation; None where it is not of the run's domain, or holds no loss.

        ``eval_loss`` is of the run's own domain, ``eval_law_loss`` of the evaluation set `law`. Other metrics may end
        in ``_loss`` too, so the set's name is taken from the metric of its running time.
        """
        prefix = min((name.removesuffix("_runtime") for name in metrics if name.endswith("_runtime")), default="eval")
        loss = metrics.get(f"{prefix}_loss")
        if loss is None or not f"{prefix}_".startswith("eval_"):
            return None
        name = prefix.removeprefix("eval").removeprefix("_")
        if not name and not self._domain:
            self._warn(
                "domain",
                "the live law is told nothing: give LiveLawCallback domain=..., or Trainer eval sets by domain",
            )
            return None
        if name and self._domain not in ("", name):
            if self._training is not None:
                self._training.others.add(name)
            return None
        return name or self._domain, float(loss)

    def _is_of_the_run(self, args: TrainingArguments, state: TrainerState, domain: str, loader: Any) -> bool:
        """Whether an evaluation after the training is the first of the last step's weights on the run's own set.

        Where nothing was evaluated during the training, the first evaluation of a domain is taken for the run's.
        """
        training = self._training
        if training is None or domain in training.ended_on or training.told_at.get(domain) == state.global_step:
            return False
        has_loaded_best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if has_loaded_best and state.best_global_step != state.global_step:
            self._warn(
                "best",
                f"load_best_model_at_end has loaded the weights of step {state.best_global_step}: their loss is not "
                "that of the whole run, and is not given to the live law; evaluate at the last step",
            )
            return False
        if training.sets and training.sets.get(domain) != _set_of(loader):
            if not training.told_at:
                self._warn(
                    "other set",
                    "evaluated after the training was another set than in it: its loss is not given to the live law",
                )
            return False
        return True

    def _measured(self, args: TrainingArguments, model: Any, loader: Any, eval_loss: float) -> float | None:
        """The loss in nats per token; the trainer's own figure where both differ by rounding alone. None if unknown."""
        try:
            with untouched_randomness():
                measured = token_loss(model, loader, args)
        except Exception as error:  # a model or a set may be anything
            self._warn(
                "loss",
                f"the live law is told nothing: the loss per token cannot be measured: {error}",
                everywhere=not isinstance(error, RunError),  # it may be of this process alone, as where memory runs out
            )
            return None
        if self._training is not None and self._training.padding_may_count and measured.has_padding:
            self._warn(
                "padding",
                "the live law is told nothing: include_num_input_tokens_seen='all' counts padding as tokens; set "
                "'non_padding'",
            )
            return None
        nats = measured.nats_per_token
        return eval_loss if abs(eval_loss - nats) <= _ROUNDING * nats else nats

    def _warn(self, kind: str, message: str, *, everywhere: bool = False) -> None:
        """Log a warning: once for each kind in a training, and in the first process alone unless ``everywhere``."""
        if (self._is_first_process or everywhere) and kind not in self._warned:
            self._warned.add(kind)
            _log.warning(message)


def _set_of(loader: Any) -> Any:
    """The evaluation set behind a loader; its fingerprint where it is a `datasets.Dataset`, which Trainer copies."""
    dataset: Any = getattr(loader, "dataset", None)
    if type(dataset).__name__ == "IterableDatasetShard":
        dataset = dataset.dataset
    return getattr(dataset, "_fingerprint", dataset)


def _rate_too_high(rate: float, peak_rate: float) -> str:
    share = f"at {rate / peak_rate:.0%} of the peak" if peak_rate > 0 else "unknown"
    return (
        f"the training ends with its learning rate {share}: its loss cannot be compared and is not given to the live "
        "law; let the schedule end lower, or say report='evaluations'"
    )


def _agreed(go_on: bool, args: TrainingArguments) -> bool:
    """The first process's answer, in every process: a process that went on alone would wait for the others for ever."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return go_on
    told = torch.tensor(int(go_on), device=args.device)
    torch.distributed.broadcast(told, src=0)
    return bool(told.item())
