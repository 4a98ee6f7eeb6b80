"""How many tokens a training has trained on."""

import math
from typing import Any

from transformers import TrainerState, TrainingArguments

from raysplit.errors import RunError
from raysplit.trainers.data import look_for_padding


def check_counting(args: TrainingArguments, state: TrainerState, train_dataloader: Any, processing_class: Any) -> bool:
    """Whether the trainer may count padding as tokens without our seeing it beforehand.

    Raises:
        RunError: the trainer counts no tokens, its checkpoint has counted none, or it counts padding.
    """
    how = args.include_num_input_tokens_seen
    if how == "no":
        raise RunError(
            "LiveLawCallback: how many tokens is a step? Give tokens_per_step, or set "
            "include_num_input_tokens_seen='non_padding' in TrainingArguments"
        )
    if state.global_step > 0 and state.num_input_tokens_seen == 0:
        raise RunError(
            f"LiveLawCallback: the checkpoint of step {state.global_step} has counted no tokens; give tokens_per_step"
        )
    looked = look_for_padding(train_dataloader, batch_size=args.train_batch_size)
    if looked is None:
        return how == "all"
    knows_padding = looked.is_masked or getattr(processing_class, "pad_token_id", None) is not None
    if looked.share > 0 and (how == "all" or not knows_padding):
        remedy = "" if knows_padding else ", with an attention_mask in the batches"
        raise RunError(
            f"LiveLawCallback: include_num_input_tokens_seen={how!r} counts padding as tokens, and "
            f"{looked.share:.0%} of the training batches is padding; set 'non_padding'{remedy}, or give "
            "tokens_per_step"
        )
    return False


def trained_tokens(args: TrainingArguments, state: TrainerState, loader: Any, *, tokens_per_step: int | None) -> int:
    """Tokens of all steps so far, those before a checkpoint included; the trainer's own count without
    ``tokens_per_step``.
    """
    if tokens_per_step is None:
        return int(state.num_input_tokens_seen)
    return round(tokens_per_step * _full_steps(args, state, loader))


def _full_steps(args: TrainingArguments, state: TrainerState, loader: Any) -> float:
    """The steps so far, counted in whole optimizer steps by their tokens.

    The last step of an epoch may have fewer batches than are accumulated, and its last batch fewer rows. With
    ``auto_find_batch_size`` all batches may be smaller than asked for. Where the loader has no length, as over a
    stream, every step counts as whole.
    """
    n_rows = state.train_batch_size if args.auto_find_batch_size else None
    rows_of_batch = n_rows or args.train_batch_size
    return _steps(state.global_step, loader, args, rows_of_batch) * rows_of_batch / args.train_batch_size


def _steps(n_steps: int, loader: Any, args: TrainingArguments, rows_of_batch: int) -> float:
    try:
        n_batches = len(loader)
    except TypeError:
        return n_steps
    if not n_batches:
        return n_steps
    accumulated = args.gradient_accumulation_steps
    batches_of_epoch = n_batches - 1 + _share_of_last_batch(n_batches, loader, args, rows_of_batch)
    n_epochs, steps_of_last = divmod(n_steps, math.ceil(n_batches / accumulated))
    return (n_epochs * batches_of_epoch + min(steps_of_last * accumulated, batches_of_epoch)) / accumulated


def _share_of_last_batch(n_batches: int, loader: Any, args: TrainingArguments, rows_of_batch: int) -> float:
    """Rows of an epoch's last batch, as a share of a whole one; 1 among several processes, which fill it up."""
    try:
        n_in_last = len(loader.dataset) - (n_batches - 1) * rows_of_batch
    except (TypeError, AttributeError):
        return 1.0
    is_whole = args.world_size > 1 or not 0 < n_in_last <= rows_of_batch
    return 1.0 if is_whole else n_in_last / rows_of_batch
