"""A lane: a point has the same losses whoever measured what before it, and no token is trained twice."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import spec_of, tree_of
from raysplit.design.tasks import Measured
from raysplit.design.tree import Node, Trial
from raysplit.design.tree_state import key, tree_state_of
from raysplit.errors import CheckpointError
from raysplit.space import Space
from raysplit.train.checkpoints import stored
from raysplit.train.engine import Divergence, Engine
from raysplit.train.run import Lane
from tests.train.conftest import VOCAB, Texts, make_space

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.fixture
def lane(tmp_path: Path, text: np.ndarray) -> Iterator[Callable[..., Lane]]:
    made: list[Lane] = []

    def make(name: str = "checkpoints", **training: Any) -> Lane:
        space = make_space(tmp_path, **training)
        shape = lane_shape_of(space, 14_000)
        made.append(Lane(space, Texts(text), shape=shape, vocab_size=VOCAB, checkpoints=tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        for engine in each._engines.values():
            engine.close()


def size(space: Space, wanted: int = 14_000) -> int:
    return space.shape(wanted, VOCAB).n_params_non_embedding


def trunk(lane: Lane, *milestones: int, seed: int = 0, wanted: int = 14_000) -> Trial:
    n = size(lane.space, wanted)
    return Trial(n_params=n, seed=seed, domain="", pretrain_tokens=milestones[-1], milestones=milestones)


def branch(lane: Lane, domain: str, root: int, *milestones: int, seed: int = 0) -> Trial:
    return Trial(n_params=size(lane.space), seed=seed, domain=domain, pretrain_tokens=root, milestones=milestones)


def kept(lane: Lane) -> set[Node]:
    return set(stored(lane.storage)[0])


def measure(lane: Lane, trial: Trial, milestone: int) -> Measured:
    tree = tree_of(lane.space)
    out = lane.measure(trial, milestone, tree=tree, on_progress=lambda tokens, loss: None)
    lane.forget_passed(trial, milestone, tree=tree)
    return out


def test_a_longer_trunk_goes_on_from_a_shorter_one(lane: Callable[..., Lane]) -> None:
    step_by_step, at_once = lane("a"), lane("b")
    first = measure(step_by_step, trunk(step_by_step, 2048), 2048)
    second = measure(step_by_step, trunk(step_by_step, 2048, 4096), 4096)
    alone = measure(at_once, trunk(at_once, 4096), 4096)
    assert second.losses == alone.losses
    assert first.tokens == 2048 + 512
    assert second.tokens == 2048 + 1024
    assert alone.tokens == 4096 + 1024


def test_a_point_passed_over_is_measured_later_for_its_cooldown_alone(lane: Callable[..., Lane]) -> None:
    there, fresh = lane("a"), lane("b")
    measure(there, trunk(there, 4096), 4096)
    late = measure(there, trunk(there, 2048), 2048)
    assert late.tokens == 512
    assert late.losses == measure(fresh, trunk(fresh, 2048), 2048).losses


@pytest.mark.parametrize("optimizer", ["carry", "reset"])
def test_a_branch_does_not_depend_on_lane_or_order(lane: Callable[..., Lane], optimizer: str) -> None:
    one = lane("a", branch_optimizer=optimizer)
    measure(one, trunk(one, 2048, 4096), 4096)
    library = measure(one, branch(one, "library", 2048, 1024, 2048), 1024).losses
    longer = measure(one, branch(one, "library", 2048, 1024, 2048), 2048)
    other = measure(one, branch(one, "license", 4096, 1024), 1024).losses
    assert longer.tokens == (2048 - 512) - (1024 - 256) + 512, "only the difference"

    two = lane("b", branch_optimizer=optimizer)
    measure(two, trunk(two, 2048), 2048)
    assert measure(two, branch(two, "library", 2048, 2048), 2048).losses == longer.losses
    measure(two, trunk(two, 4096), 4096)
    assert measure(two, branch(two, "license", 4096, 1024), 1024).losses == other

    three = lane("b", branch_optimizer=optimizer)  # another process, the same folder
    assert measure(three, branch(three, "library", 2048, 1024), 1024).losses == library


def test_a_branch_that_was_stopped_goes_on_in_a_later_round_from_its_checkpoint(lane: Callable[..., Lane]) -> None:
    """In another process, after others have trained in the same folder, asked for its deeper points only."""
    first, straight = lane("a"), lane("b")
    measure(first, trunk(first, 2048), 2048)
    measure(first, branch(first, "library", 2048, 512, 1024, 2048), 1024)  # and here the scheduler stops it
    other = lane("a")
    measure(other, trunk(other, 2048, 4096), 4096)
    measure(other, branch(other, "license", 2048, 1024), 1024)
    later = lane("a")
    resumed = measure(later, branch(later, "library", 2048, 2048), 2048)
    measure(straight, trunk(straight, 2048), 2048)
    assert resumed.losses == measure(straight, branch(straight, "library", 2048, 2048), 2048).losses
    assert resumed.tokens == (2048 - 512) - (1024 - 256) + 512, "what lies beyond its checkpoint, and a cooldown"


def test_what_lanes_train_is_what_the_design_reckons_with(lane: Callable[..., Lane]) -> None:
    """Whoever measures what, in any order, with pauses between: each token is trained once, and paid once."""
    one = lane("a")
    spec = spec_of(one.space, vocab_size=VOCAB)
    losses: dict[tuple[Trial, int], dict[str, float]] = {}
    trained = 0
    for trial, milestone in (
        (trunk(one, 2048), 2048),
        (branch(one, "library", 2048, 1024, 2048), 1024),
        (trunk(one, 2048, 4096), 4096),
        (branch(one, "license", 4096, 2048), 2048),
        (branch(one, "library", 2048, 2048), 2048),
        (branch(one, "library", 4096, 1024), 1024),
    ):
        here = lane("a")
        measured = measure(here, trial, milestone)
        losses[key(trial, milestone)] = dict(measured.losses)
        trained += measured.tokens
        spent_flops = tree_state_of(spec, losses).spent_flops
        assert spent_flops == trained * spec.flops_per_token[trial.n_params]


@pytest.mark.parametrize(
    "changes", [{"branch_rate_factor": 0.5}, {"replay_share": 0.25}, {"branch_warmup_tokens": 512}], ids=str
)
def test_what_a_branch_has_of_its_own_leaves_trunks_and_experts_from_scratch_as_they_are(
    lane: Callable[..., Lane], changes: dict[str, float]
) -> None:
    plain, other = lane("a"), lane("b", **changes)
    trials = [trunk(plain, 2048), branch(plain, "library", 2048, 1024), branch(plain, "library", 0, 1024)]
    trained, changed, scratch = (
        measure(plain, trial, trial.milestones[-1]).losses == measure(other, trial, trial.milestones[-1]).losses
        for trial in trials
    )
    assert (trained, changed, scratch) == (True, False, True)


def test_a_lane_that_turns_to_other_hyperparameters_and_back_is_as_it_was(
    lane: Callable[..., Lane], tmp_path: Path
) -> None:
    one, fresh = lane("a"), lane("b")
    plain = one.space.training
    measure(one, trunk(one, 2048), 2048)
    for change in ({"batch_tokens": 128}, {"learning_rate": plain.learning_rate.model_copy(update={"reference": 0.1})}):
        one.turn_to(plain.model_copy(update=change), str(tmp_path / str(*change)))
        turned = measure(one, trunk(one, 2048), 2048).losses
        assert turned == measure(lane(f"c{next(iter(change))}", **_plain(change)), trunk(fresh, 2048), 2048).losses
    one.turn_to(plain, str(tmp_path / "a"))
    measure(fresh, trunk(fresh, 2048), 2048)
    assert (
        measure(one, branch(one, "library", 2048, 1024), 1024).losses
        == measure(fresh, branch(fresh, "library", 2048, 1024), 1024).losses
    )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in fields.items()}


def test_carrying_and_zeroing_the_optimizer_differ(lane: Callable[..., Lane]) -> None:
    losses = []
    for optimizer in ("carry", "reset"):
        each = lane(optimizer, branch_optimizer=optimizer)
        measure(each, trunk(each, 2048), 2048)
        losses.append(measure(each, branch(each, "library", 2048, 1024), 1024).losses)
    assert losses[0] != losses[1]


def test_seeds_and_sizes_do_not_mix(lane: Callable[..., Lane]) -> None:
    mixed, apart = lane("a"), lane("b")
    for seed, wanted in ((0, 14_000), (1, 14_000), (0, 28_000)):
        measure(mixed, trunk(mixed, 2048, seed=seed, wanted=wanted), 2048)
    second = measure(mixed, branch(mixed, "library", 2048, 1024, seed=1), 1024)
    measure(apart, trunk(apart, 2048, seed=1), 2048)
    assert second.losses == measure(apart, branch(apart, "library", 2048, 1024, seed=1), 1024).losses
    assert second.losses != measure(mixed, branch(mixed, "library", 2048, 1024), 1024).losses


def test_an_interrupted_measurement_goes_on_from_its_last_checkpoint(
    lane: Callable[..., Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted, whole = lane("a"), lane("b")

    def stop(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("raysplit.train.engine.Engine.step", _after(12, stop))
        with pytest.raises(KeyboardInterrupt):
            measure(interrupted, trunk(interrupted, 4096), 4096)
    assert kept(interrupted)
    again = lane("a")
    resumed = measure(again, trunk(again, 4096), 4096)
    assert resumed.tokens < 4096 + 1024
    assert resumed.losses == measure(whole, trunk(whole, 4096), 4096).losses


def _after(n: int, then: Callable[..., Any]) -> Callable[..., Any]:
    original = Engine.step
    calls = iter(range(n))

    def step(self: Engine, windows: np.ndarray, *, learning_rate: float) -> torch.Tensor:
        made = original(self, windows, learning_rate=learning_rate)
        return made if next(calls, None) is not None else then()

    return step


def test_forgetting_keeps_what_others_start_from(lane: Callable[..., Lane]) -> None:
    one = lane()
    grid = one.space.pretrain_grid
    n = size(one.space)
    measure(one, trunk(one, *grid), grid[0])
    measure(one, trunk(one, *grid), grid[1])
    roots = {Node(n_params=n, seed=0, pretrain_tokens=d) for d in grid}
    assert kept(one) == roots, "roots of branches, no start of a measured cooldown, and no seed"
    measure(one, branch(one, "library", 2048, 1024, 2048), 1024)
    measure(one, branch(one, "library", 2048, 1024, 2048), 2048)
    assert roots < kept(one)
    assert len(kept(one)) == len(roots) + 1, "a branch keeps its deepest"


def test_a_branch_without_its_trunk_is_refused(lane: Callable[..., Lane]) -> None:
    one = lane()
    with pytest.raises(CheckpointError, match=r"d2048: no complete checkpoint"):
        measure(one, branch(one, "library", 2048, 1024), 1024)


def test_a_branch_from_no_pretraining_needs_no_trunk(lane: Callable[..., Lane]) -> None:
    one, two = lane("a"), lane("b")
    measure(two, trunk(two, 2048), 2048)
    losses = measure(one, branch(one, "library", 0, 2048), 2048).losses
    assert losses == measure(two, branch(two, "library", 0, 2048), 2048).losses


def test_an_absurd_rate_diverges_and_the_lane_goes_on(lane: Callable[..., Lane]) -> None:
    for rate, stage, complaint in (
        (1e10, 0, "training loss is nan"),
        (1e10, 1, "the gradient overflowed after"),  # DeepSpeed skips each such step, and the loss may stay finite
        (10.0, 1, r"held-out loss of .* blind guess"),
    ):
        peak = {"reference": rate, "reference_params": 14_000}
        bad = lane(f"{rate} {stage}", learning_rate=peak, warmup_tokens=0, zero_stage=stage)
        with pytest.raises(Divergence, match=complaint):
            measure(bad, trunk(bad, 4096), 4096)
    one, other = lane("b"), lane("c")
    measure(one, trunk(one, 2048), 2048)
    expected = measure(one, branch(one, "library", 2048, 1024), 1024).losses
    measure(other, trunk(other, 2048), 2048)
    with torch.no_grad():
        for parameter in other._engines[other.space.shape(14_000, VOCAB), other.shape]._engine.module.parameters():
            parameter.fill_(float("nan"))
    assert measure(other, branch(other, "library", 2048, 1024), 1024).losses == expected


def test_after_a_divergence_the_engine_trains_the_next_trial_as_a_new_one(
    lane: Callable[..., Lane], tmp_path: Path
) -> None:
    bad = lane("bad", learning_rate={"reference": 1e10, "reference_params": 14_000}, warmup_tokens=0)
    with pytest.raises(Divergence, match="training loss is nan"):
        measure(bad, trunk(bad, 4096), 4096)
    plain = lane("plain")
    bad.turn_to(plain.space.training, tmp_path / "next")
    assert measure(bad, trunk(bad, 2048), 2048).losses == measure(plain, trunk(plain, 2048), 2048).losses


def test_a_loss_that_runs_away_ends_the_measurement_early(
    lane: Callable[..., Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lane()
    calls = itertools.count()
    original = Engine._loss

    def climbing(self: Engine, windows: np.ndarray) -> torch.Tensor:
        return original(self, windows) + (3.0 if next(calls) > 80 else 0.0)

    monkeypatch.setattr(Engine, "_loss", climbing)
    told: list[int] = []
    with pytest.raises(Divergence, match=r"training loss is \S+, above \S+ for 50 steps, after \d+ tokens of "):
        one.measure(
            trunk(one, 40_960), 40_960, tree=tree_of(one.space), on_progress=lambda tokens, loss: told.append(tokens)
        )
    assert not told or max(told) < 30_720


def test_a_poisoned_loss_is_a_divergence(lane: Callable[..., Lane], monkeypatch: pytest.MonkeyPatch) -> None:
    one = lane()
    measure(one, trunk(one, 2048), 2048)
    nodes = kept(one)

    with monkeypatch.context() as patch:
        patch.setattr("raysplit.train.engine.Engine._loss", _poisoned)
        with pytest.raises((Divergence, CheckpointError)):
            measure(one, branch(one, "library", 2048, 1024), 1024)
    assert kept(one) == nodes, "nothing of it is kept"


def test_a_branch_whose_loss_of_another_domain_is_no_number_says_so(
    lane: Callable[..., Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lane()
    losses = iter([float("inf"), 1.0, 1.0])
    monkeypatch.setattr(Engine, "loss_on", lambda self, windows: next(losses))
    domain, other = one.corpus.domains[1], one.corpus.domains[0]
    with pytest.raises(Divergence, match=f"^held-out loss of {other} is inf$"):
        measure(one, branch(one, domain, 0, 1024), 1024)


def _poisoned(self: Any, windows: np.ndarray) -> torch.Tensor:
    return self._engine(torch.as_tensor(windows)) * float("nan")


def test_progress_tells_the_tokens_of_this_measurement(lane: Callable[..., Lane]) -> None:
    one = lane()
    told: list[tuple[int, float]] = []
    out = one.measure(
        trunk(one, 2048), 2048, tree=tree_of(one.space), on_progress=lambda tokens, loss: told.append((tokens, loss))
    )
    tokens = [t for t, _ in told]
    assert tokens == sorted(tokens)
    assert tokens[-1] == out.tokens
    assert all(np.isfinite(loss) for _, loss in told)


def test_waypoints_of_a_final_run_do_not_touch_a_sweeps_checkpoints(lane: Callable[..., Lane]) -> None:
    one = lane()
    grid = one.space.pretrain_grid
    for tokens in grid:
        measure(one, trunk(one, *grid), tokens)
    before = kept(one)
    final = replace(tree_of(one.space), pretrain_grid=(6144,))
    trial = trunk(one, 6144)
    one.measure(trial, 6144, tree=final, on_progress=lambda tokens, loss: None)
    one.forget_passed(trial, 6144, tree=final)
    assert before <= kept(one)
