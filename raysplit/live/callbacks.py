"""The live law for Hugging Face's `Trainer`: reports a run when its schedule has ended, and stops one that is not worth
its next tokens.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from raysplit.errors import RunError, unknown
from raysplit.live.outside_run import COOLDOWN_GAIN, OutsideRun
from raysplit.live.reporting import LawToTell

_log = logging.getLogger("raysplit")

_COOLED = 0.2
"""A learning rate of at most this share of its peak is down: schedules end at zero or, commonly, at a tenth."""
_When = Literal["end", "evaluations"]


def count_params(model: torch.nn.Module) -> int:
    """N of a model: every parameter but those of embeddings and of the output head, each counted once.

    Weights that DeepSpeed's stage 3 has partitioned count in full.
    """
    embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    head = getattr(model, "get_output_embeddings", lambda: None)()
    apart = {id(p) for m in [*embeddings, *([head] if head is not None else [])] for p in m.parameters()}
    once = {id(p): p for p in model.parameters()}
    return sum(int(getattr(p, "ds_numel", p.numel())) for key, p in once.items() if key not in apart)


class LiveLawCallback(TrainerCallback):
    """Reports to a live law, and asks it at each evaluation whether to go on.

    ::

        Trainer(..., callbacks=[LiveLawCallback(lambda: raysplit.connect("runs/mine"), domain="law",
                                                pretrain_tokens=2_000_000_000)])

    A run that specializes (``pretrain_tokens`` given) is judged by its loss on ``domain``. One that pretrains is read
    on every set of the mapping that ``Trainer`` got as ``eval_dataset``, named by domain, or on the one of ``domain``.
    """

    def __init__(
        self,
        law: LawToTell | Callable[[], LawToTell],
        *,
        domain: str = "",
        pretrain_tokens: int | None = None,
        tokens_per_step: int | None = None,
        n_params: int | None = None,
        seed: int | None = None,
        report: _When = "end",
        may_stop: bool = True,
        kept_in: Path | str | None = None,
        patience_seconds: float = 1.0,
        cooldown_gain: float = COOLDOWN_GAIN,
    ) -> None:
        """Nothing is asked before training begins.

        Args:
            law: the live law, or what connects to it.
            domain: see above.
            pretrain_tokens: D, that the model had seen before this run; None where this run is the pretraining itself.
            tokens_per_step: of all processes together; not needed with ``include_num_input_tokens_seen``.
            n_params: N; counted from the model when None.
            seed: of the run; the trainer's when None.
            report: at the end of the schedule, when the learning rate is down, or at every evaluation, for a training
                whose every evaluation follows a cooldown.
            may_stop: whether the law's answer ends the training. It says no to ill runs, and to all once its question
                is settled: right for a run that is to teach the law, wrong for one that is wanted for itself.
            kept_in: file for reports that the law has not stored yet; in the trainer's ``output_dir`` when None.
            patience_seconds: the longest that an evaluation waits for the law, for each set.
            cooldown_gain: share of the loss that the cooldown still to come may take off, for the question.

        Raises:
            RunError: ``report`` is neither.
        """
        if report not in ("end", "evaluations"):
            raise RunError("report: " + unknown("time", report, ("end", "evaluations")))
        self._law, self._domain, self._pretrain_tokens = law, domain, pretrain_tokens
        self._tokens_per_step, self._n_params, self._seed = tokens_per_step, n_params, seed
        self._report, self._may_stop = report, may_stop
        self._kept_in, self._patience, self._gain = kept_in, patience_seconds, cooldown_gain
        self.run: OutsideRun | None = None
        """Once training has begun, in the first process."""
        self._peak = 0.0
        self._reported_at = -1
        self._evaluated_at_end = self._was_stopped = False
        self._has_warned = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Check what can be checked before the first step.

        Raises:
            RunError: tokens cannot be counted, or the numbers make no run.
        """
        if self._tokens_per_step is None and args.include_num_input_tokens_seen == "no":
            raise RunError(
                "LiveLawCallback: how many tokens is a step? Give tokens_per_step, or set "
                "include_num_input_tokens_seen=True in TrainingArguments"
            )
        if self.run is not None:
            self.run.close()
        self._peak, self._reported_at = 0.0, -1
        self._evaluated_at_end = self._was_stopped = False
        self.run = None
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

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, lr_scheduler: Any = None, **_: Any
    ) -> None:
        self._peak = max(self._peak, _rate(lr_scheduler))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        lr_scheduler: Any = None,
        **_: Any,
    ) -> None:
        losses = self._losses(metrics or {})
        if not losses or state.global_step == 0:
            return
        ended = state.global_step >= state.max_steps and not self._was_stopped
        self._evaluated_at_end |= ended
        cooled = _rate(lr_scheduler) <= _COOLED * self._peak
        go_on = True
        if self.run is not None:
            tokens = self._tokens(state)
            if self._report == "evaluations" or (ended and cooled):
                self.run.finish(tokens=tokens, loss=losses)
                self._reported_at = state.global_step
            elif ended:
                _log.warning(
                    "the training ends with its learning rate at %.0f%% of the peak: its loss cannot be compared and "
                    "is not given to the live law; let the schedule end lower, or say report='evaluations'",
                    100 * _rate(lr_scheduler) / self._peak,
                )
            if self._may_stop and not ended:
                go_on = self.run.should_go_on(tokens=tokens, loss=losses, cooled_down=cooled)
        if self._may_stop and not ended and not _agreed(go_on, args):
            self._was_stopped = control.should_training_stop = True
            if self.run is not None:
                _log.warning("stopped by the live law: %s", self.run.last_answer.why)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.run is None or self._reported_at == state.global_step or self._was_stopped:
            return
        if state.global_step < state.max_steps:
            _log.warning("stopped before the end of its schedule, the training is not reported to the live law")
        elif not self._evaluated_at_end:
            _log.warning("no evaluation at the last step: the live law is told by trainer.evaluate()")

    def _losses(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """By domain: ``eval_loss`` is the domain's, ``eval_law_loss`` that of the evaluation set `law`."""
        if "eval_loss" in metrics:
            if not self._domain and not self._has_warned:
                self._has_warned = True
                _log.warning(
                    "the live law is told nothing: give LiveLawCallback domain=..., or Trainer eval sets by domain"
                )
            return {self._domain: metrics["eval_loss"]} if self._domain else {}
        named = {
            name.removeprefix("eval_").removesuffix("_loss"): value
            for name, value in metrics.items()
            if name.startswith("eval_") and name.endswith("_loss")
        }
        return {name: value for name, value in named.items() if self._domain in ("", name)}

    def _tokens(self, state: TrainerState) -> int:
        if self._tokens_per_step is not None:
            return state.global_step * self._tokens_per_step
        return int(state.num_input_tokens_seen)


def _rate(lr_scheduler: Any) -> float:
    return max(map(float, lr_scheduler.get_last_lr())) if lr_scheduler is not None else 0.0


def _agreed(go_on: bool, args: TrainingArguments) -> bool:
    """What the first process was told, in every process: one that went on alone would wait for the others for ever."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return go_on
    told = torch.tensor(int(go_on), device=args.device)
    torch.distributed.broadcast(told, src=0)
    return bool(told.item())
