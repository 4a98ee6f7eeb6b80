"""The components for a trainable of one's own, driven by hand: what is stored, refused, and gone on with."""

import json
import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle
from ray.tune import PlacementGroupFactory
from ray.tune.search import Searcher, SearchGenerator

from raysplit.design.tree import Trial
from raysplit.errors import RunError, SpaceError
from raysplit.journal import read_journal
from raysplit.sweep import capacity
from raysplit.sweep.capacity import Capacity
from raysplit.sweep.grid_spec import spec_of_grid
from raysplit.sweep.replay import replay
from raysplit.sweep.reports import read_report
from raysplit.sweep.tune import LawScheduler, LawSearcher
from raysplit.sweep.tune_plan import TunePlan
from tests.design.doubles import spec
from tests.live.doubles import account, open_service, remember_laws, true_losses

ASKED = spec(budget_flops=0.9e12, lanes=2)
LOSSES = true_losses(ASKED)


@pytest.fixture(scope="module", autouse=True)
def _laws_are_weighed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        remember_laws(patch)
        yield


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[TunePlan]:
    with TunePlan(ASKED, tmp_path / "plan") as plan:
        yield plan


class TuneTrial:
    """The part of Tune's trial that the components look at."""

    def __init__(self, trial_id: str, config: dict[str, Any], status: str = "PENDING") -> None:
        self.trial_id, self.config, self.status = trial_id, config, status
        self.placement_group_factory = PlacementGroupFactory([{"CPU": 1}])
        self.error_file: str | None = None

    def is_finished(self) -> bool:
        return self.status in ("ERROR", "TERMINATED")


class Controller:
    """One trial after the other, each to its end, as Tune does with room for one."""

    def __init__(self, plan: TunePlan) -> None:
        self.searcher, self.scheduler = plan.searcher(), plan.scheduler()
        self.search_alg = SearchGenerator(self.searcher)
        self.trials: list[TuneTrial] = []
        self.stopped: list[str] = []

    def get_live_trials(self) -> list[TuneTrial]:
        return [trial for trial in self.trials if not trial.is_finished()]

    def stop_trial(self, trial: TuneTrial) -> None:
        self.stopped.append(trial.trial_id)
        self._end(trial, "TERMINATED")

    def next(self) -> TuneTrial | None:
        trial_id = f"t{len(self.trials)}"
        config = self.searcher.suggest(trial_id)
        if not isinstance(config, dict):
            return None
        return self.add(TuneTrial(trial_id, config))

    def add(self, trial: TuneTrial) -> TuneTrial:
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def flat(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {"time_this_iter_s": 1.0} | {
            f"{name}/{key}" if key else name: inner
            for name, value in result.items()
            for key, inner in (value.items() if isinstance(value, dict) else [("", value)])
        }

    def report(self, trial: TuneTrial, result: Mapping[str, Any]) -> str:
        flat = self.flat(result)
        decision = self.scheduler.on_trial_result(self, trial, flat)
        if decision == "STOP":
            self.complete(trial, flat)
        return decision

    def complete(self, trial: TuneTrial, result: Mapping[str, Any]) -> None:
        self.scheduler.on_trial_complete(self, trial, dict(result))
        self._end(trial, "TERMINATED")
        self.scheduler.choose_trial_to_run(self)

    def fail(self, trial: TuneTrial, error_file: Path, error: str) -> None:
        error_file.write_text(f"Failure # 1\nTraceback (most recent call last):\n  ...\n{error}\n\n")
        trial.error_file, trial.status = str(error_file), "RUNNING"
        self.scheduler.on_trial_error(self, trial)
        self._end(trial, "ERROR")
        self.scheduler.choose_trial_to_run(self)

    def _end(self, trial: TuneTrial, status: str) -> None:
        trial.status = status
        self.searcher.on_trial_complete(trial.trial_id, error=status == "ERROR")

    def run(self, *, at_most: float = math.inf, n_trials: float = math.inf) -> None:
        """Report every loss that is asked for, ``at_most`` so many, or of so many trials."""
        n = 0
        while n < at_most and len(self.trials) < n_trials and (trial := self.next()) is not None:
            for point in trial.config["points"]:
                n += 1
                if self.report(trial, report(trial, point)) == "STOP" or n >= at_most:
                    break


def report(trial: TuneTrial, point: tuple[int, int]) -> dict[str, Any]:
    asked = Trial.of(trial.config)
    milestone = {asked.point(m): m for m in asked.milestones}[point]
    losses = LOSSES(asked, milestone)
    at = {"pretrain_tokens": point[0], "specialize_tokens": point[1]}
    return {**at, "losses": losses} if asked.is_trunk else {**at, "loss": losses[asked.domain]}


def kinds(plan: TunePlan) -> list[str]:
    return [record.kind for record in read_journal(plan.folder / "journal")]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    service = open_service(ASKED, tmp_path_factory.mktemp("replayed") / "journal")
    replay(service, LOSSES)
    service.journal.close()  # type: ignore[union-attr]
    return account(service)


def accounted(plan: TunePlan) -> dict[str, Any]:
    """As `account`, without the bits per byte that only the double knows."""
    return _comparable(account(plan.law))


def _comparable(account: dict[str, Any]) -> dict[str, Any]:
    rows = [{k: v for k, v in row.items() if k != "bits_per_byte"} for row in account["observations"]]
    return {**account, "observations": rows}


def test_reports_make_the_search_that_a_replay_makes(plan: TunePlan, replayed: dict[str, Any]) -> None:
    Controller(plan).run()
    assert plan.finished
    assert plan.stopper().stop_all()
    assert accounted(plan) == _comparable(replayed)
    assert replayed["stopped"], "or pruning was not compared"


def test_the_same_arrival_order_makes_the_same_journal(plan: TunePlan, tmp_path: Path) -> None:
    with TunePlan(ASKED, tmp_path / "again") as again:
        for each in (plan, again):
            Controller(each).run()
        journals = [[(r.kind, r.data) for r in read_journal(p.folder / "journal")] for p in (plan, again)]
    assert journals[0] == journals[1]


@pytest.mark.parametrize("n_reports", [1, 2, 5, 9, 14])
def test_components_made_anew_go_on_as_if_nothing_had_happened(
    plan: TunePlan, replayed: dict[str, Any], n_reports: int
) -> None:
    Controller(plan).run(at_most=n_reports)
    plan.close()  # with a trial under way, as after a kill
    Controller(plan).run()
    assert accounted(plan) == _comparable(replayed)


def test_what_tune_restores_is_gone_on_with_and_what_has_ended_since_is_not_run_again(plan: TunePlan) -> None:
    first = Controller(plan)
    _, trunk = first.next(), first.next()
    assert trunk is not None
    assert len(trunk.config["points"]) > 1
    first.searcher.save(str(plan.folder / "searcher"))
    saved = cloudpickle.dumps((first.searcher, first.scheduler))
    first.report(trunk, report(trunk, trunk.config["points"][0]))
    plan.close()

    second = Controller(plan)
    second.searcher, second.scheduler = cloudpickle.loads(saved)
    plan.running["lost"] = Trial.of(trunk.config)
    second.searcher.restore(str(plan.folder / "searcher"))
    assert not plan.running, "only what Tune adds again is running"
    restored = second.add(TuneTrial(trunk.trial_id, trunk.config))
    assert plan.running == {trunk.trial_id: Trial.of(trunk.config)}
    second.report(restored, report(restored, trunk.config["points"][0]))  # from its last checkpoint: once more
    assert kinds(plan).count("measurement") == 1
    for point in trunk.config["points"][1:]:
        second.report(restored, report(restored, point))
    late = second.add(TuneTrial("late", trunk.config))  # an older snapshot knows it as running
    second.scheduler.choose_trial_to_run(second)
    assert second.stopped == [late.trial_id]
    assert not plan.running


def test_a_stopped_trial_that_tune_ends_after_the_next_round_has_begun_has_not_failed(plan: TunePlan) -> None:
    tune = Controller(plan)
    n_between = 0
    while (trial := tune.next()) is not None:
        for point in trial.config["points"]:
            flat = tune.flat(report(trial, point))
            if tune.scheduler.on_trial_result(tune, trial, flat) == "STOP":
                break
        told_to_stop = kinds(plan)[-1] == "stop"
        plan.law.claim(plan.running.values())
        n_between += told_to_stop and "round" in kinds(plan)[-2:]
        tune.complete(trial, flat)
    assert n_between, "or there was nothing to confuse a stop with"
    assert "failure" not in kinds(plan)


def test_copies_are_the_same_search(plan: TunePlan) -> None:
    searcher = deepcopy(plan.searcher())
    again = cloudpickle.loads(cloudpickle.dumps(plan.searcher()))
    assert isinstance(searcher.suggest("a"), dict)
    assert set(plan.running) == {"a"}
    again.on_trial_complete("a")
    assert not plan.running


def test_no_more_than_the_lanes_run_at_once(tmp_path: Path) -> None:
    with TunePlan(replace(ASKED, lanes=1), tmp_path / "plan") as plan:
        searcher = plan.searcher()
        assert isinstance(searcher.suggest("a"), dict)
        assert searcher.suggest("b") is None
        searcher.on_trial_complete("a", error=True)
        assert isinstance(searcher.suggest("b"), dict)


def test_a_report_between_the_points_is_the_trainables_own_affair(plan: TunePlan) -> None:
    tune = Controller(plan)
    trial = tune.next()
    assert trial is not None
    for result in ({"train_loss": 3.0}, {"pretrain_tokens": 17, "specialize_tokens": 0, "loss": 9.0}):
        assert tune.report(trial, result) == "CONTINUE"
    assert "measurement" not in kinds(plan)


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"losses": {"domain-0": 3.0}}, r"losses\['domain-1'\] = None"),
        ({"loss": 3.0}, r"a trunk reports losses=\{domain: loss\} of domain-0, domain-1"),
        ({"losses": {"domain-0": 3.0, "domain-1": "low"}}, "'low'"),
    ],
)
def test_a_report_without_its_losses_ends_the_experiment_and_stores_nothing(
    plan: TunePlan, losses: dict[str, Any], named: str
) -> None:
    tune = Controller(plan)
    trial = tune.next()
    assert trial is not None
    pretrain, specialize = trial.config["points"][0]
    with pytest.raises(RunError, match=named):
        tune.report(trial, {"pretrain_tokens": pretrain, "specialize_tokens": specialize, **losses})
    assert set(kinds(plan)) == {"spec", "round"}
    plan.close()
    Controller(plan).run()  # mended, in the same folder
    assert plan.finished


@pytest.mark.parametrize("ends", ["with an exception", "without its loss"])
def test_what_goes_wrong_before_anything_was_measured_is_the_trainables_mistake(
    plan: TunePlan, tmp_path: Path, ends: str
) -> None:
    tune = Controller(plan)
    trial = tune.next()
    assert trial is not None
    if ends == "with an exception":
        end = partial(tune.fail, trial, tmp_path / "error", "ValueError: no such file: weights.pt")
    else:
        end = partial(tune.complete, trial, {"pretrain_tokens": 5, "specialize_tokens": 0})
    with pytest.raises(RunError, match="nothing was measured yet") as caught:
        end()
    assert ("ValueError: no such file: weights.pt" in str(caught.value)) == (ends == "with an exception")
    assert ("its last report was at pretrain_tokens = 5" in str(caught.value)) == (ends == "without its loss")
    assert set(kinds(plan)) == {"spec", "round"}


def test_a_trial_that_fails_later_is_not_tried_again_and_the_search_goes_on(plan: TunePlan) -> None:
    tune = Controller(plan)
    tune.run(n_trials=2)
    failed = tune.next()
    assert failed is not None
    tune.fail(failed, plan.folder / "error", "MemoryError: out of memory")
    tune.run()
    assert plan.finished
    [failure] = [r.data for r in read_journal(plan.folder / "journal") if r.kind == "failure"]
    assert failure["why"] == "MemoryError: out of memory"
    assert Trial.of(failure["trial"]) == Trial.of(failed.config)
    after = tune.trials[tune.trials.index(failed) + 1 :]
    own = [(t.config["n_params"], t.config["domain"], t.config["pretrain_tokens"]) for t in after]
    assert (failed.config["n_params"], failed.config["domain"], failed.config["pretrain_tokens"]) not in own


def test_a_worker_that_dies_and_is_tried_again_is_no_failure(plan: TunePlan) -> None:
    tune = Controller(plan)
    trial = tune.next()
    assert trial is not None
    trial.status = "ERROR"  # which Tune sets before it puts a trial back
    tune.scheduler.on_trial_error(tune, trial)
    tune.scheduler.choose_trial_to_run(tune)
    assert set(kinds(plan)) == {"spec", "round"}
    assert trial.trial_id in plan.running


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_diverged_is_a_failure(plan: TunePlan, loss: float) -> None:
    tune = Controller(plan)
    tune.run(n_trials=2)
    trial = tune.next()
    assert trial is not None
    at = dict(zip(("pretrain_tokens", "specialize_tokens"), trial.config["points"][0], strict=True))
    losses = {"losses": dict.fromkeys(ASKED.domains, loss)}
    assert tune.report(trial, {**at, "loss": loss, **losses}) == "STOP"
    assert kinds(plan)[-1] == "failure"


def test_sizes_that_fit_nowhere_are_given_up_after_a_while(plan: TunePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    monkeypatch.setattr("raysplit.sweep.capacity.time.monotonic", lambda: now)
    monkeypatch.setattr("raysplit.sweep.capacity.ray.nodes", lambda: nodes)
    tune = Controller(plan)
    tune.run(n_trials=2)
    trial, other = tune.next(), tune.next()
    assert trial is not None
    assert other is not None
    trial.placement_group_factory = PlacementGroupFactory([{"CPU": 1}, {"CPU": 2}])
    now += 2
    tune.scheduler.choose_trial_to_run(tune)
    now += plan.patience_seconds - 2
    tune.scheduler.choose_trial_to_run(tune)
    assert not tune.stopped
    now += 2
    tune.scheduler.choose_trial_to_run(tune)
    assert tune.stopped == [trial.trial_id]
    [failure] = [r.data for r in read_journal(plan.folder / "journal") if r.kind == "failure"]
    assert failure["why"] == "no room for 1 CPU, 2 CPU in 600 s; the nodes have 2 CPU"


def test_time_in_which_nobody_waits_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now, node = 100.0, {"CPU": 2.0}
    monkeypatch.setattr("raysplit.sweep.capacity.time.monotonic", lambda: now)
    monkeypatch.setattr("raysplit.sweep.capacity.ray.nodes", lambda: [{"Alive": True, "Resources": node}])
    trial = SimpleNamespace(status="PENDING", placement_group_factory=PlacementGroupFactory([{"CPU": 8}]))
    asked, given_up = Capacity(patience_seconds=600), []
    for seconds, cpus, n_waiting in (
        (100, 2, 1), (200, 2, 0), (9000, 2, 1), (9599, 2, 1), (9600, 2, 1),
        (9700, 2, 0), (9800, 2, 1),  # no room has come since
        (9900, 8, 0), (20000, 2, 1),  # there was room
    ):  # fmt: skip
        now, node["CPU"] = float(seconds), float(cpus)
        given_up += [seconds for _ in asked.given_up([trial] * n_waiting)]
    assert given_up == [9600, 9800]


def test_a_cluster_that_grows_in_time_is_waited_for(plan: TunePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setattr("raysplit.sweep.capacity.time.monotonic", lambda: now)
    monkeypatch.setattr("raysplit.sweep.capacity.ray.nodes", lambda: nodes)
    tune = Controller(plan)
    trial = tune.next()
    assert trial is not None
    trial.placement_group_factory = PlacementGroupFactory([{"CPU": 8, "GPU": 8}])
    for resources in ({"CPU": 2.0}, {"CPU": 16.0, "GPU": 8.0}, {"CPU": 2.0}):
        nodes[0]["Resources"] = resources
        tune.scheduler.choose_trial_to_run(tune)
        now += 400
    assert not tune.stopped


@pytest.mark.parametrize(
    ("bundles", "nodes", "fit"),
    [
        ([{"CPU": 1.0}] * 2, [{"CPU": 2.0}], True),
        ([{"CPU": 1.0}] * 3, [{"CPU": 2.0}], False),
        ([{"CPU": 2.0}, {"CPU": 2.0}], [{"CPU": 3.0}, {"CPU": 1.0}], False),
        ([{"CPU": 1.0}, {"CPU": 2.0}], [{"CPU": 2.0}, {"CPU": 1.0}], True),
        ([{"CPU": 1.0, "GPU": 8.0}], [{"CPU": 64.0, "GPU": 4.0}] * 2, False),
        ([{}], [], False),
    ],
)
def test_bundles_fit_whole_on_nodes(bundles: list[dict[str, float]], nodes: list[dict[str, float]], fit: bool) -> None:
    assert capacity.fits(bundles, nodes) is fit


def test_a_folder_of_another_search_is_refused(plan: TunePlan, tmp_path: Path) -> None:
    other = replace(ASKED, problem=replace(ASKED.problem, budget_flops=2e12))
    with pytest.raises(RunError, match=r"problem\.budget_flops: 1000000000000\.0 there, 2000000000000\.0 here"):
        TunePlan(other, plan.folder)
    with TunePlan(replace(ASKED, lanes=7), plan.folder):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        TunePlan(ASKED, tmp_path / "file" / "plan")


GRID: dict[str, Any] = {
    "flops_per_token": [10, 20],
    "pretrain_tokens": [0, 100, 200],
    "specialize_tokens": [50],
    "domains": ["a", "b"],
    "target_flops": 1e6,
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"flops_per_token": [20, 10]}, r"flops_per_token.* must rise without repeats, got \[20, 10\]"),
        ({"pretrain_tokens": []}, r"pretrain_tokens: .* at least 1 item"),
        ({"pretrain_tokens": [0]}, "at least one D must be above 0"),
        ({"specialize_tokens": [0, 50]}, r"specialize_tokens\.0: .* greater than 0"),
        ({"specialize_tokens": [1.5]}, "specialize_tokens.*whole number, got 1.5"),
        ({"cooldown_fraction": 1.0}, "cooldown_fraction: .* less than 1, got 1.0"),
        ({"lanes": 0}, "lanes: .* greater than 0"),
        ({"lanes": 1.5}, "lanes: expected a whole number, got 1.5"),
        ({"seed": -1}, "seed: .*, got -1"),
        ({"design": "foo"}, "design: .*'value', .*, got 'foo'"),
        ({"policy": "foo"}, "policy: .* 'adaptive' or 'grid', got 'foo'"),
        ({"domains": "ab"}, "domains: .*, got 'ab'"),
        ({"domains": ["a", ""]}, r"domains\.1: .* at least 1 character"),
        ({"flops_per_token": [1000.7, 2000]}, "flops_per_token.*whole number, got 1000.7"),
        ({"specialize_tokens": [True, 1000]}, r"specialize_tokens\.0: .*, got True"),
        ({"target_flops": "lots"}, "target_flops: .* number .*, got 'lots'"),
        ({"regret_tolerance": "a bit"}, "regret_tolerance: .* number"),
        ({"budget_flops": -1.0}, "budget_flops: .* greater than 0, got -1.0"),
        ({"flops_per_token": {1000: -5.0}, "target_flops_per_token": [1000]}, r"flops_per_token\.1000: .*, got -5.0"),
        ({"target_flops_per_token": {1000: math.nan}}, r"target_flops_per_token\.1000: .*, got nan"),
        ({"flops_per_token": {1000: "x"}}, r"flops_per_token\.1000: .*, got 'x'"),
        ({"weights": {"a": "x"}}, r"weights\.a: .*, got 'x'"),
        ({"weights": {"c": 1.0}}, "weights: unknown domain 'c'"),
    ],
)
def test_grids_that_cannot_be_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(SpaceError, match=named):
        spec_of_grid(**{**GRID, **change})


def test_numbers_may_be_written_as_in_a_search_space() -> None:
    written = {"flops_per_token": ["10", 20.0], "pretrain_tokens": [0, "0.1k", 200], "target_flops": "1e6"}
    assert spec_of_grid(**{**GRID, **written}) == spec_of_grid(**GRID)


def test_numpy_grids_are_plain_ones() -> None:
    arrays = {name: np.array(GRID[name]) for name in ("flops_per_token", "pretrain_tokens", "specialize_tokens")}
    assert spec_of_grid(**{**GRID, **arrays}) == spec_of_grid(**GRID)


def test_plain_grids_are_a_set_up() -> None:
    asked = spec_of_grid(**GRID, weights={"a": 3.0}, cooldown_fraction=0.25)
    assert asked.flops_per_token == {10: 60.0, 20: 120.0} == asked.problem.sizes
    assert asked.problem.weights == (0.75, 0.25)
    assert (asked.scratch, asked.pretrain_grid, asked.tree.cooldown_start(100)) == (True, (100, 200), 75)
    exact = spec_of_grid(**{**GRID, "flops_per_token": {10: 77.0}}, target_flops_per_token=[10, 40])
    assert exact.flops_per_token == {10: 77.0}
    assert exact.problem.sizes == {10: 60.0, 40: 240.0}
    assert cloudpickle.loads(cloudpickle.dumps(asked)) == asked


def test_a_single_domains_trunk_may_report_a_plain_loss() -> None:
    trunk = Trial(n_params=10, seed=0, domain="", pretrain_tokens=100, milestones=(100,))
    result = {"pretrain_tokens": 100, "specialize_tokens": 0, "loss": 2.0}
    assert read_report(trunk, result, ["a"]) == (100, {"a": 2.0})


def test_the_searcher_refuses_to_sample_what_it_cannot(plan: TunePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNE_MAX_PENDING_TRIALS_PG", raising=False)
    searcher = plan.searcher()
    assert isinstance(searcher, Searcher)
    assert isinstance(searcher, LawSearcher)
    assert isinstance(plan.scheduler(), LawScheduler)
    assert searcher.set_search_properties(None, None, {"lr": 1.0}) is False
    searcher.save(str(plan.folder / "state"))
    assert json.loads((plan.folder / "state").read_text())["running"] == {}
