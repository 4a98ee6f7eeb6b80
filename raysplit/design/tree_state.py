"""What a sweep has measured and paid for, whatever the order in which it came in."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.design.tree import Checkpoints, Tree, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeState:
    """What a sweep has measured and paid for so far; made by `tree_state_of`."""

    losses: Mapping[tuple[Trial, int], Mapping[str, float]]
    """`key` of a measurement -> held-out loss of every domain, nats per token."""
    closed: frozenset[Trial]
    """Chains that failed, by `chain`."""
    paused: frozenset[Trial]
    """Chains that were stopped in this round; a later round may go on with them."""
    nodes: Checkpoints
    """Checkpoints that the measurements left behind."""
    tokens: Mapping[int, int]
    """n_params -> tokens trained, each token of the tree once."""
    spent_flops: float
    """Price of the measurements, each token of the tree paid once."""
    tree: Tree

    def can_start(self, trial: Trial) -> bool:
        """Whether nothing else has to be trained before."""
        return self.tree.can_start(trial, self.nodes)


def chain(trial: Trial) -> Trial:
    """The trial without its milestones: the trunk or branch that it measures."""
    return replace(trial, milestones=(), pretrain_tokens=trial.pretrain_tokens if trial.domain else 0)


def key(trial: Trial, milestone: int) -> tuple[Trial, int]:
    """What identifies a measurement, whichever trial asked for it."""
    return chain(trial), milestone


def tree_state_of(
    spec: ResolvedSpec,
    losses: Mapping[tuple[Trial, int], Mapping[str, float]],
    closed: Collection[Trial] = (),
    paused: Collection[Trial] = (),
    *,
    before: TreeState | None = None,
) -> TreeState:
    """The state after a set of measurements, whatever the order in which they came in.

    What was spent follows from the tree and not from a meter, so that tokens lost in a crash change no decision.

    Args:
        spec: of the sweep.
        losses: what was measured, in the order in which it came in.
        closed: chains that failed.
        paused: chains that were stopped in this round.
        before: the state after the first few of these losses, so that they need not be counted again.
    """
    nodes, tokens = Checkpoints(), dict.fromkeys(spec.flops_per_token, 0)
    more = sorted(losses, key=_trunks_first)
    if before is not None:
        new = sorted(islice(losses, len(before.losses), None), key=_trunks_first)
        if all(_goes_on(spec.tree, *at, before) for at in new):
            nodes, tokens, more = before.nodes.copy(), dict(before.tokens), new
    for at, milestone in more:
        trial = replace(at, milestones=(milestone,), pretrain_tokens=at.pretrain_tokens if at.domain else milestone)
        tokens[trial.n_params] += _train(spec.tree, trial, nodes)
    return TreeState(
        losses=losses,
        closed=frozenset(closed),
        paused=frozenset(paused),
        nodes=nodes,
        tokens=tokens,
        # From whole numbers, so that the order in which they came does not show in the last digit.
        spent_flops=sum(flops * tokens[n_params] for n_params, flops in spec.flops_per_token.items()),
        tree=spec.tree,
    )


def _trunks_first(at: tuple[Trial, int]) -> tuple[bool, tuple[Trial, int]]:
    return bool(at[0].domain), at


def _goes_on(tree: Tree, at: Trial, milestone: int, before: TreeState) -> bool:
    """Whether a measurement lies beyond all that its chain has measured, so that it costs the same now as in order."""
    nodes = before.nodes
    if any(node.position >= milestone for node in nodes.on_chain(at)):
        return False
    if at.domain or not tree.shares_trunks:
        return tree.can_start(at, nodes)
    # A branch that was there before its trunk has paid for the trunk.
    return all(branch.root in nodes for branch, _ in before.losses if branch.n_params == at.n_params)


def is_orphan(trial: Trial, tree_state: TreeState) -> bool:
    """Whether a trial can never start, because the trunk that should reach its root was closed before."""
    trunk = Trial(n_params=trial.n_params, seed=trial.seed, domain="", pretrain_tokens=0, milestones=())
    return trunk in tree_state.closed and not tree_state.can_start(trial)


def remaining(trial: Trial, tree_state: TreeState) -> tuple[int, ...]:
    """Milestones of a trial still to be measured in this round; none when its chain has failed or was stopped."""
    if chain(trial) in tree_state.closed or chain(trial) in tree_state.paused or is_orphan(trial, tree_state):
        return ()
    return tuple(m for m in trial.milestones if key(trial, m) not in tree_state.losses)


def price(spec: ResolvedSpec, trial: Trial, milestones: Sequence[int], nodes: Checkpoints) -> float:
    """FLOPs still to train for a trial's milestones, its trunk's missing part included."""
    return spec.tree.missing_tokens(trial, milestones, nodes) * spec.flops_per_token[trial.n_params]


def price_together(spec: ResolvedSpec, trials: Iterable[Trial], nodes: Checkpoints | None = None) -> float:
    """FLOPs of trials trained one after the other; the checkpoints that they leave are added to ``nodes``.

    Without ``nodes`` they start from nothing.
    """
    if nodes is None:
        nodes = Checkpoints()
    flops = 0.0
    for trial in trials:
        flops += _train(spec.tree, trial, nodes) * spec.flops_per_token[trial.n_params]
    return flops


def _train(tree: Tree, trial: Trial, nodes: Checkpoints) -> int:
    """Tokens that a trial trains; the checkpoints that it leaves are added to ``nodes``."""
    tokens = tree.missing_tokens(trial, trial.milestones, nodes)
    nodes.add(replace(trial.root, pretrain_tokens=0))
    for milestone in trial.milestones:
        nodes.update(s.end for s in tree.segments(trial, milestone, nodes) if not s.cooldown)
    return tokens
