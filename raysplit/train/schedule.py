"""Learning rate as a pure function of position, so that a resumed run cannot differ from an uninterrupted one."""

from raysplit.design.tree import Segment
from raysplit.space import TrainingSpec


def learning_rate(
    segment: Segment, position_tokens: int, *, training: TrainingSpec, n_params: int, horizon_tokens: int
) -> float:
    """Rate of the optimizer step that starts at ``position_tokens`` of the segment's own stream.

    Constant after a linear warm-up, at the peak of the size for trunks that are meant for ``horizon_tokens``, in a
    branch from a pretrained trunk times `TrainingSpec.branch_rate_factor`; in a cooldown the constant rate times a
    straight line from one at its start towards zero at its end (Hagele 2405.18392, section 3, where the falling line
    has other shapes too).
    """
    from_scratch = segment.start.pretrain_tokens == 0 or not segment.domain
    warmup_tokens = training.warmup_tokens if from_scratch else training.branch_warmup_tokens
    rate = training.learning_rate.peak(n_params, horizon_tokens)
    if not from_scratch:
        rate *= training.branch_rate_factor
    after_step = position_tokens + training.batch_tokens
    if after_step < warmup_tokens:
        rate *= after_step / warmup_tokens
    if segment.cooldown:
        rate *= (segment.end_tokens - position_tokens) / (segment.cooldown_tokens + training.batch_tokens)
    return rate
