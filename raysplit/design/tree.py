"""The tree of runs: which tokens a wanted observation still has to train, given what others have trained.

A trunk is one size pretrained on the mixture at a constant rate; a branch leaves it at D tokens for one domain. Both
leave a checkpoint (a `Node`) wherever a cooldown or a branch may start, so every token is trained once: the price of an
observation is the part of its path that no one has trained yet.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from raysplit.space import CooldownStart


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Node:
    """A checkpoint: on a trunk when ``domain`` is empty, else on a branch."""

    n_params: int
    seed: int
    pretrain_tokens: int
    domain: str = ""
    specialize_tokens: int = 0
    cooldown_to: int = 0
    """The milestone of the cooldown that it lies in; 0 at the constant rate, from where alone others go on."""
    replay_share: float = 0.0
    """That of the branch, as `Trial.replay_share`; 0 on a trunk."""

    @property
    def folder(self) -> str:
        """Name of the checkpoint's folder."""
        trunk = f"n{self.n_params}-s{self.seed}-d{self.pretrain_tokens}"
        place = (
            f"{trunk}-{self.domain}{_replayed(self.replay_share)}-{self.specialize_tokens}" if self.domain else trunk
        )
        return f"{place}-to{self.cooldown_to}" if self.cooldown_to else place

    @property
    def position(self) -> int:
        """Tokens trained since the start of the trunk or of the branch."""
        return self.specialize_tokens if self.domain else self.pretrain_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A stretch of training from a checkpoint, on one stream, ending in a checkpoint or, cooled down, in a loss."""

    start: Node
    end_tokens: int
    domain: str
    """The domain whose text is trained on; empty for the mixture."""
    cooldown_tokens: int = 0
    """Length of the whole cooldown, of which the segment is all or the rest; 0 at the constant rate."""
    replay_share: float = 0.0
    """As `Trial.replay_share`."""

    @property
    def start_tokens(self) -> int:
        """Position of the start on the segment's own stream: 0 for a branch that leaves its trunk."""
        return self.start.specialize_tokens if self.domain else self.start.pretrain_tokens

    @property
    def tokens(self) -> int:
        return self.end_tokens - self.start_tokens

    @property
    def cooldown(self) -> bool:
        return self.cooldown_tokens > 0

    @property
    def end(self) -> Node:
        """The checkpoint at the end of a constant-rate segment."""
        return self.node_at(self.end_tokens)

    def node_at(self, tokens: int) -> Node:
        """The checkpoint at a position of the segment's own stream."""
        cooldown_to = self.end_tokens if self.cooldown else 0
        if self.domain:
            return replace(
                self.start, domain=self.domain, specialize_tokens=tokens, cooldown_to=cooldown_to,
                replay_share=self.replay_share,
            )  # fmt: skip
        return replace(self.start, pretrain_tokens=tokens, cooldown_to=cooldown_to)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Trial:
    """A chain of observations along one trunk (``domain`` empty) or one branch, measured at each milestone."""

    n_params: int
    seed: int
    domain: str
    pretrain_tokens: int
    """Where the branch leaves its trunk; for a trunk, how far it goes (its last milestone)."""
    milestones: tuple[int, ...]
    """Rising token counts at which to cool down and measure: D for a trunk, D' for a branch."""
    replay_share: float = 0.0
    """p of a branch where the space tries several; 0 leaves it to the space's own training."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` wrote, also after a trip through JSON or a Tune config with more in it."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**known, "milestones": tuple(known["milestones"])})

    @property
    def name(self) -> str:
        if self.domain:
            trunk = f"n{self.n_params}-s{self.seed}-d{self.pretrain_tokens}"
            return f"{trunk}-{self.domain}{_replayed(self.replay_share)}"
        return f"n{self.n_params}-s{self.seed}-trunk"

    @property
    def is_trunk(self) -> bool:
        return not self.domain

    @property
    def root(self) -> Node:
        """The checkpoint that must exist before the trial can start."""
        return Node(n_params=self.n_params, seed=self.seed, pretrain_tokens=self.pretrain_tokens if self.domain else 0)

    def point(self, milestone: int) -> tuple[int, int]:
        """(D, D') of the observation at a milestone."""
        return (self.pretrain_tokens, milestone) if self.domain else (milestone, 0)


class Checkpoints:
    """A set of nodes that knows which of them lie on one trunk or branch, so that a price is not a search."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self._by_chain: dict[tuple[int, int, str, int, int, float], set[Node]] = {}
        self.update(nodes)

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and node in self._by_chain.get(_chain_of(node), ())

    def __iter__(self) -> Iterator[Node]:
        return (node for own in self._by_chain.values() for node in own)

    def __len__(self) -> int:
        return sum(map(len, self._by_chain.values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checkpoints) and self._by_chain == other._by_chain

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, node: Node) -> None:
        self._by_chain.setdefault(_chain_of(node), set()).add(node)

    def update(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self.add(node)

    def copy(self) -> "Checkpoints":
        out = Checkpoints()
        out._by_chain = {chain: set(own) for chain, own in self._by_chain.items()}
        return out

    def on_trunk(self, n_params: int, seed: int) -> Iterable[Node]:
        """Nodes on the trunk of one size and seed."""
        return self._by_chain.get((n_params, seed, "", 0, 0, 0.0), ())

    def on_chain(self, trial: Trial, *, cooldown_to: int = 0) -> Iterable[Node]:
        """Nodes on a trial's own trunk or branch, beyond its root: at the constant rate, or in one cooldown."""
        at = (trial.n_params, trial.seed, trial.domain, _branch_point(trial), cooldown_to, trial.replay_share)
        return self._by_chain.get(at, ())


def _branch_point(at: Node | Trial) -> int:
    return at.pretrain_tokens if at.domain else 0


def _chain_of(node: Node) -> tuple[int, int, str, int, int, float]:
    return node.n_params, node.seed, node.domain, _branch_point(node), node.cooldown_to, node.replay_share


def _replayed(share: float) -> str:
    """Part of a name; no domain's name has a dot."""
    return f"-p{share:g}" if share else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """Geometry of the checkpoints of one search space."""

    cooldown_start: CooldownStart
    """Position at which the cooldown of a point of so many tokens begins."""
    pretrain_grid: tuple[int, ...]
    """Every D at which a trunk must leave a checkpoint for branches and cooldowns, rising."""
    given: tuple[tuple[int, int], ...] = ()
    """(N, D) of the trunks that exist already, which cost nothing: with any, no other is trained."""
    shares_trunks: bool = True
    """Whether a branch goes on from its trunk's checkpoint; else it has to be pretrained by itself first."""

    def is_given(self, node: Node) -> bool:
        """Whether it is a trunk's node that exists from the beginning, whatever the seed of what follows."""
        return not node.domain and (node.n_params, node.pretrain_tokens) in self.given

    def pretrain_tokens_of(self, n_params: int) -> tuple[int, ...]:
        """The D at which a size may be branched, rising."""
        return tuple(d for n, d in sorted(self.given) if n == n_params) if self.given else self.pretrain_grid

    def can_start(self, trial: Trial, nodes: Checkpoints) -> bool:
        """Whether nothing else must be trained first: a trunk, a branch from scratch, or one whose root is there."""
        is_there = trial.root.pretrain_tokens == 0 or self.is_given(trial.root) or trial.root in nodes
        return is_there or not self.shares_trunks

    def segments(self, trial: Trial, milestone: int, nodes: Checkpoints) -> list[Segment]:
        """What is left to train for the observation at ``milestone``, in order; the last segment is the cooldown.

        A trunk also runs on to the milestone itself at the constant rate, since branches leave it there. ``nodes`` are
        the checkpoints that exist; one in the midst of this cooldown shortens it. A trunk that is given has no segment.
        """
        if trial.is_trunk and self.is_given(self._node(trial, milestone)):
            return []
        cooldown_from = self.cooldown_start(milestone)
        stops = [cooldown_from]
        if trial.is_trunk and self.shares_trunks:
            stops = sorted(
                {
                    stop
                    for tokens in self.pretrain_grid
                    if 0 < tokens <= milestone
                    for stop in (self.cooldown_start(tokens), tokens)
                }
                | {cooldown_from, milestone}
            )
        at = self._deepest(trial, milestone, nodes)
        out: list[Segment] = []
        cooldown = None
        for stop in stops:
            if stop > _position(at, trial):
                out.append(Segment(start=at, end_tokens=stop, domain=trial.domain, replay_share=trial.replay_share))
                at = out[-1].end
            if stop == cooldown_from:
                cooldown = Segment(
                    start=max(
                        nodes.on_chain(trial, cooldown_to=milestone),
                        key=lambda node: node.position,
                        default=self._node(trial, stop),
                    ),
                    end_tokens=milestone,
                    domain=trial.domain,
                    cooldown_tokens=milestone - stop,
                    replay_share=trial.replay_share,
                )
        assert cooldown is not None
        return [*out, cooldown]

    def missing_tokens(self, trial: Trial, milestones: Iterable[int], nodes: Checkpoints) -> int:
        """Tokens still to train for the trial's observations at ``milestones``, its trunk's missing part included.

        Waypoints that one milestone trains are not counted again for the next. Each cooldown counts in full.
        """
        have = Checkpoints(nodes.on_chain(trial))  # what the milestones add stays on the chain
        total = 0
        if trial.domain and not self.shares_trunks:
            total += 0 if len(have) else trial.pretrain_tokens
        elif trial.domain and trial.root not in nodes and not self.is_given(trial.root):
            reached = (node.pretrain_tokens for node in nodes.on_trunk(trial.n_params, trial.seed))
            total += trial.pretrain_tokens - max((d for d in reached if d <= trial.pretrain_tokens), default=0)
        for milestone in milestones:
            for segment in self.segments(trial, milestone, have):
                total += segment.tokens
                if not segment.cooldown:
                    have.add(segment.end)
        return total

    def _node(self, trial: Trial, position: int) -> Node:
        if trial.is_trunk:
            return Node(n_params=trial.n_params, seed=trial.seed, pretrain_tokens=position)
        if position == 0:
            return trial.root
        return Node(
            n_params=trial.n_params,
            seed=trial.seed,
            pretrain_tokens=trial.pretrain_tokens,
            domain=trial.domain,
            specialize_tokens=position,
            replay_share=trial.replay_share,
        )

    def _deepest(self, trial: Trial, milestone: int, nodes: Checkpoints) -> Node:
        """The existing checkpoint from which least is left to train; the trial's root where there is none."""
        cooldown_from = self.cooldown_start(milestone)
        # A checkpoint beyond the cooldown's own start helps only where that start exists as well.
        limit = milestone if self._node(trial, cooldown_from) in nodes else cooldown_from
        on_the_way = (node for node in nodes.on_chain(trial) if node.position <= limit)
        return max(on_the_way, key=lambda node: node.position, default=self._node(trial, 0))


def _position(node: Node, trial: Trial) -> int:
    return node.specialize_tokens if trial.domain else node.pretrain_tokens
