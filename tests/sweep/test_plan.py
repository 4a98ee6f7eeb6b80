"""What a plan says beforehand is what a sweep then spends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysplit.design.campaign import whole_grid
from raysplit.design.resolved_spec import ResolvedSpec, spec_of
from raysplit.space import Space, load_space
from raysplit.sweep.plan import Plan, describe_plan, make_plan, plan_notes
from raysplit.sweep.speed import busy_share
from tests.live.doubles import carry_on, open_service, remember_laws, true_losses


@pytest.fixture(scope="module")
def smoke(repository: Path) -> Space:
    return load_space(repository / "search_spaces" / "smoke.yaml")


def plan_of(
    space: Space, *, seconds_per_token: float | None = None, policy: str = "adaptive"
) -> tuple[Plan, ResolvedSpec]:
    space = space.model_copy(update={"sweep": space.sweep.model_copy(update={"policy": policy})})
    spec = spec_of(space, vocab_size=512)
    timed = {} if seconds_per_token is None else dict.fromkeys(spec.sizes, seconds_per_token)
    return make_plan(space, spec, vocab_size=512, seconds_per_token=timed), spec


def test_a_grid_sweep_spends_what_was_planned(smoke: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_laws(monkeypatch)
    plan, spec = plan_of(smoke, policy="grid")
    service = open_service(spec, tmp_path / "journal")
    carry_on(service, true_losses(spec))
    service.journal.close()  # type: ignore[union-attr]
    assert service.status().spent_flops == pytest.approx(plan.grid_flops)
    measured = [record for record in service.journal.records if record.kind == "measurement"]
    assert len(measured) == sum(row.n_points for row in plan.rows)
    for row in plan.rows:
        assert row.flops == pytest.approx(row.tokens * spec.flops_per_token[row.n_params])
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
    assert any("not timed" in note for note in plan_notes(untimed))


def test_an_opening_over_the_budget_is_said(smoke: Space) -> None:
    plan, _ = plan_of(smoke)
    notes = plan_notes(replace(plan, budget_flops=plan.opening_flops / 2))
    assert any(note.startswith("warning") and "sweep.budget_flops" in note for note in notes)
    for _, rows in describe_plan(plan):
        assert len({len(row) for row in rows}) == 1
    assert not any("warning" in note for note in plan_notes(plan))
    assert not any("inf" in note for note in plan_notes(replace(plan, budget_flops=float("inf"))))


@pytest.fixture(scope="module")
def cluster(repository: Path) -> Space:
    return load_space(repository / "search_spaces" / "cluster_8x8.yaml")


def plan_of_cluster(space: Space, **compute: Any) -> Plan:
    space = space.model_copy(update={"compute": space.compute.model_copy(update=compute)})
    vocab_size = space.corpus.tokenizer.vocab_size
    return make_plan(space, spec_of(space, vocab_size=vocab_size), vocab_size=vocab_size, seconds_per_token={})


def test_a_cluster_is_reckoned_without_a_gpu(cluster: Space) -> None:
    plan = plan_of_cluster(cluster)
    assert [row.lane.n_workers for row in plan.rows] == [8, 4, 8, 16, 32]
    assert plan.rows[-1].lane.n_nodes == 4
    for row in plan.rows:
        assert row.rank_bytes < 0.9 * 80e9
        assert row.checkpoint_bytes == 12 * row.n_params_total
        assert row.speed is not None
        reached = row.speed.of_lane(row.lane) * row.flops / row.tokens
        assert reached == pytest.approx(0.4 * 989e12 * row.lane.n_workers, rel=0.01)
    assert plan.seconds_high is not None
    # All GPUs at once and always busy would take this long; waiting is on top.
    assert plan.seconds_high > plan.budget_flops / (64 * 0.4 * 989e12) / plan.busy_share


def test_lanes_that_wait_take_longer_than_those_that_fill(cluster: Space) -> None:
    first, *rest = cluster.compute.shapes
    many = cluster.compute.model_copy(update={"shapes": (first.model_copy(update={"workers": 1}), *rest)})
    filling = cluster.model_copy(update={"compute": many})
    waiting = filling.model_copy(update={"sweep": cluster.sweep.model_copy(update={"idle_lanes": "wait"})})
    plans = [plan_of_cluster(space) for space in (waiting, filling)]
    assert (plans[0].seconds_high or 0) > (plans[1].seconds_high or 0) > 0
    assert "61 % of it (measured on replayed sweeps" in " ".join(plan_notes(plans[1]))


def test_what_is_measured_of_idle_lanes_is_met_and_carried_on() -> None:
    assert busy_share(1, idle_lanes="wait") == busy_share(0.5, idle_lanes="wait") == 1
    assert busy_share(8, idle_lanes="fill") == pytest.approx(0.43)
    assert 0.43 < busy_share(6, idle_lanes="fill") < 0.68
    assert busy_share(32, idle_lanes="wait") == pytest.approx(0.17 / 2)


def test_a_gpu_that_nobody_names_is_not_reckoned_with(cluster: Space) -> None:
    plan = plan_of_cluster(cluster, gpu=None)
    assert plan.seconds_high is None
    assert any("compute.gpu does not name it" in note for note in plan_notes(plan))


def test_disk_is_what_the_tree_keeps(smoke: Space) -> None:
    """A trunk each D, a branch its deepest, each lane one more; nothing for weights that a seed gives."""
    plan, spec = plan_of(smoke)
    for row in plan.rows:
        trials = [trial for trial in whole_grid(spec).trials if trial.n_params == row.n_params]
        kept = sum(len(spec.pretrain_grid) if trial.is_trunk else 1 for trial in trials)
        assert row.disk_bytes == kept * row.checkpoint_bytes
    largest = max(row.checkpoint_bytes for row in plan.rows)
    assert plan.disk_bytes == sum(row.disk_bytes for row in plan.rows) + 2 * largest


def test_the_final_run_is_reckoned_on_all_machines(cluster: Space, repository: Path) -> None:
    [note] = [note for note in plan_notes(plan_of_cluster(cluster)) if note.startswith("a final run")]
    assert note.endswith("costs 4 times what the sweep may spend, about 88 h on 64 GPUs that never wait")
    assert "88 h on all 64 GPUs" in (repository / "search_spaces" / "cluster_8x8.yaml").read_text()
