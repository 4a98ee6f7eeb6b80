"""What a sweep has measured and paid for, whatever the order in which it came in."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raysplit.design.setup import Setup
from raysplit.design.tree import Checkpoints, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Made by `evidence_of`."""

    losses: Mapping[tuple[Trial, int], Mapping[str, float]]
    """`key` of a measurement -> held-out loss of every domain, nats per token."""
    closed: frozenset[Trial]
    """Chains that failed, by `chain`."""
    paused: frozenset[Trial]
    """Chains that were stopped in this round; a later round may go on with them."""
    nodes: Checkpoints
    """Checkpoints that the measurements left behind."""
    spent_flops: float
    """Price of the measurements, each token of the tree paid once."""


def chain(trial: Trial) -> Trial:
    """The trial without its milestones: the trunk or branch that it measures."""
    return replace(trial, milestones=(), pretrain_tokens=trial.pretrain_tokens if trial.domain else 0)


def key(trial: Trial, milestone: int) -> tuple[Trial, int]:
    """What identifies a measurement, whichever trial asked for it."""
    return chain(trial), milestone


def evidence_of(
    setup: Setup,
    losses: Mapping[tuple[Trial, int], Mapping[str, float]],
    closed: Collection[Trial] = (),
    paused: Collection[Trial] = (),
) -> Evidence:
    """Evidence of a set of measurements, whatever the order in which they came in.

    What was spent follows from the tree and not from a meter, so that tokens lost in a crash change no decision.
    """
    nodes = Checkpoints()
    spent = 0.0
    for at, milestone in sorted(losses, key=lambda k: (bool(k[0].domain), k)):
        trial = replace(at, milestones=(milestone,), pretrain_tokens=at.pretrain_tokens if at.domain else milestone)
        spent += price_together(setup, [trial], nodes)
    return Evidence(losses=losses, closed=frozenset(closed), paused=frozenset(paused), nodes=nodes, spent_flops=spent)


def is_orphan(trial: Trial, evidence: Evidence) -> bool:
    """Whether a trial can never start, because the trunk that should reach its root was closed before."""
    trunk = Trial(n_params=trial.n_params, seed=trial.seed, domain="", pretrain_tokens=0, milestones=())
    return bool(trial.domain) and trunk in evidence.closed and trial.root not in evidence.nodes


def remaining(trial: Trial, evidence: Evidence) -> tuple[int, ...]:
    """Milestones of a trial still to be measured in this round; none when its chain has failed or was stopped."""
    if chain(trial) in evidence.closed or chain(trial) in evidence.paused or is_orphan(trial, evidence):
        return ()
    return tuple(m for m in trial.milestones if key(trial, m) not in evidence.losses)


def price(setup: Setup, trial: Trial, milestones: Sequence[int], nodes: Checkpoints) -> float:
    """FLOPs still to train for a trial's milestones, its trunk's missing part included."""
    return setup.tree.missing_tokens(trial, milestones, nodes) * setup.flops_per_token[trial.n_params]


def price_together(setup: Setup, trials: Iterable[Trial], nodes: Checkpoints) -> float:
    """FLOPs of trials trained one after the other; the checkpoints that they leave are added to ``nodes``."""
    flops = 0.0
    for trial in trials:
        flops += price(setup, trial, trial.milestones, nodes)
        nodes.add(replace(trial.root, pretrain_tokens=0))
        for milestone in trial.milestones:
            nodes.update(s.end for s in setup.tree.segments(trial, milestone, nodes) if not s.cooldown)
    return flops
