"""What a plan says beforehand is what a sweep then spends."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.design.setup import Setup, setup_of
from raysplit.space import Space, load_space
from raysplit.sweep.plan import Plan, describe_plan, make_plan
from tests.live.doubles import carry_on, open_service, remember_laws, true_losses


@pytest.fixture(scope="module")
def smoke(repository: Path) -> Space:
    return load_space(repository / "search_spaces" / "smoke.yaml")


def plan_of(space: Space, *, seconds_per_token: float | None = None, policy: str = "adaptive") -> tuple[Plan, Setup]:
    space = space.model_copy(update={"sweep": space.sweep.model_copy(update={"policy": policy})})
    setup = setup_of(space, vocab_size=512)
    timed = None if seconds_per_token is None else dict.fromkeys(setup.sizes, seconds_per_token)
    return make_plan(space, setup, vocab_size=512, seconds_per_token=timed), setup


def test_a_grid_sweep_spends_what_was_planned(smoke: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_laws(monkeypatch)
    plan, setup = plan_of(smoke, policy="grid")
    service = open_service(setup, tmp_path / "journal")
    carry_on(service, true_losses(setup))
    service.journal.close()  # type: ignore[union-attr]
    assert service.status().spent_flops == pytest.approx(plan.grid_flops)
    measured = [record for record in service.journal.records if record.kind == "measurement"]
    assert len(measured) == sum(row.n_points for row in plan.rows)
    for row in plan.rows:
        assert row.flops == pytest.approx(row.tokens * setup.flops_per_token[row.n_params])
        trials = [r.data["trial"] for r in measured if r.data["trial"]["n_params"] == row.n_params]
        assert row.n_trials == len({(t["domain"], t["seed"], t["domain"] and t["pretrain_tokens"]) for t in trials})


def test_sharing_the_tree_saves_tokens(smoke: Space) -> None:
    plan, _ = plan_of(smoke)
    assert all(row.tokens < row.tokens_alone for row in plan.rows)


def test_the_opening_is_a_part_of_the_grid_and_a_grid_sweep_has_none(smoke: Space) -> None:
    plan, _ = plan_of(smoke)
    assert 0 < plan.opening_flops < plan.grid_flops
    whole, _ = plan_of(smoke, policy="grid")
    assert whole.opening_flops == pytest.approx(whole.grid_flops)


def test_times_follow_the_calibration(smoke: Space) -> None:
    slow, fast = (plan_of(smoke, seconds_per_token=seconds)[0] for seconds in (2e-5, 1e-5))
    assert [row.seconds for row in slow.rows] == pytest.approx([2 * (row.seconds or 0) for row in fast.rows])
    for plan in (slow, fast):
        assert plan.seconds_low is not None
        assert plan.seconds_high is not None
        assert 0 < plan.seconds_low <= plan.seconds_high
    untimed, _ = plan_of(smoke)
    assert untimed.seconds_low is untimed.seconds_high is None
    assert any("not timed" in note for note in describe_plan(untimed)[1])


def test_an_opening_over_the_budget_is_said(smoke: Space) -> None:
    plan, _ = plan_of(smoke)
    table, notes = describe_plan(replace(plan, budget_flops=plan.opening_flops / 2))
    assert any(note.startswith("warning") and "sweep.budget_flops" in note for note in notes)
    assert len({len(row) for row in table}) == 1
    assert not any("warning" in note for note in describe_plan(plan)[1])
    unlimited = describe_plan(replace(plan, budget_flops=float("inf")))[1]
    assert not any("inf" in note for note in unlimited)
