"""Several real ranks, and processes that are killed: the same losses, and little trained twice."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.train.jobs import LOG, measure, measure_deterministically, measure_logged, stop_at
from tests.train.processes import Ranks, wait_for

TRUNK, BRANCH = [(None, 2048), (None, 4096)], [(4096, 2048)]
SAVE_STEPS = 4


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Measured by one rank without a pause, at stage 0."""
    return Ranks(measure, tmp_path_factory.mktemp("alone"), [*TRUNK, *BRANCH], {"zero_stage": 0}).answer()


def losses(measured: Any) -> list[float]:
    return [loss for each in measured for _, loss in sorted(each.losses.items())]


@pytest.mark.parametrize("stages", [(1, 1, 1), (1, 3, 0), (0, 2, 3)], ids=str)
def test_ranks_and_stages_may_change_between_checkpoints(
    tmp_path: Path, alone: Any, stages: tuple[int, int, int]
) -> None:
    """A trunk begun on one rank and continued on two, its branch on one: nothing is trained again, or otherwise."""
    measured = []
    for n_ranks, stage, tasks in zip((1, 2, 1), stages, (TRUNK[:1], TRUNK[1:], BRANCH), strict=True):
        training = {"zero_stage": stage, "micro_batch_sequences": 2}
        measured += Ranks(measure, tmp_path, tasks, training, n_ranks=n_ranks).answer()
    assert [each.tokens for each in measured] == [each.tokens for each in alone]
    assert losses(measured) == pytest.approx(losses(alone), rel=1e-5)


def test_one_rank_that_is_told_to_stop_stops_and_saves_for_all(tmp_path: Path, alone: Any) -> None:
    said = Ranks(stop_at, tmp_path, 2048, 256, 1, n_ranks=2).answer()
    assert said.startswith("asked to stop after ")
    (rest,) = Ranks(measure, tmp_path, TRUNK[:1], {}).answer()
    assert rest.tokens < alone[0].tokens
    assert losses([rest]) == pytest.approx(losses(alone[:1]), rel=1e-5)


def test_deterministic_kernels_train_alike(tmp_path: Path, alone: Any) -> None:
    assert losses(Ranks(measure_deterministically, tmp_path, 2048).answer()) == pytest.approx(
        losses(alone[:1]), rel=1e-5
    )


def test_two_lanes_train_the_same_branch_from_nothing_at_once(tmp_path: Path) -> None:
    """As two hosts do when one is taken for dead: neither has anything to write where the other does."""
    tasks = [(0, 1024), (0, 2048)]
    lanes = [Ranks(measure, tmp_path, tasks, {}) for _ in range(2)]
    one, other = (lane.answer() for lane in lanes)
    assert losses(one) == losses(other)


def test_what_is_killed_goes_on_from_its_last_save(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = Ranks(measure_logged, whole, 8192, 10**6, 0.0).answer()
    random = Random(0)
    log = tmp_path / LOG
    log.touch()
    for _ in range(3):
        lane = Ranks(measure_logged, tmp_path, 8192, SAVE_STEPS, 0.05)
        n_lines = len(log.read_text().splitlines()) + random.randrange(2, 14)
        wait_for(lambda n=n_lines: len(log.read_text().splitlines()) >= n)  # type: ignore[misc]
        lane.kill()
    resumed = Ranks(measure_logged, tmp_path, 8192, SAVE_STEPS, 0.05).answer()
    assert losses([resumed]) == losses([expected])
    assert max(trained_again(log.read_text())) <= SAVE_STEPS
    steps = log.read_text().splitlines()
    assert sorted(set(steps)) == sorted((whole / LOG).read_text().splitlines()), "and nothing is left out"


def trained_again(log: str) -> list[int]:
    """Steps that each restart has trained once more."""
    seen: set[str] = set()
    out = [0]
    for line in log.splitlines():
        if line in seen:
            out[-1] += 1
        elif out[-1]:
            out.append(0)
        seen.add(line)
    return out
