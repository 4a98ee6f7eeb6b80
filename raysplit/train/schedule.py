"""Learning rate as a pure function of position, so that a resumed run cannot differ from an uninterrupted one."""

from raysplit.design.tree import Segment
from raysplit.space import TrainingSpec


def learning_rate(
    segment: Segment, position_tokens: int, *, training: TrainingSpec, n_params: int, horizon_tokens: int
) -> float:
    """Rate of the optimizer step that starts at ``position_tokens`` of the segment's own stream.

    After a linear warm-up the rate is constant: the peak for this size and ``horizon_tokens``, in a branch from a
    pretrained trunk times `TrainingSpec.branch_rate_factor`. In a cooldown it falls on a straight line towards zero at
    the cooldown's end (Hagele et al., arXiv:2405.18392, section 3, which has other shapes too).

    Args:
        segment: of the tree.
        position_tokens: first token of the step.
        training: the hyperparameters.
        n_params: N.
        horizon_tokens: largest D that trunks are meant for.
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
