"""Whole sweeps on machines that are simulated: what they cost in time and money, and what failures do to them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raysplit.cli import main
from raysplit.errors import RunError
from raysplit.ladder import ModelShape
from raysplit.simulation.machines import HOUR
from raysplit.simulation.rates import Rates
from raysplit.simulation.simulate import Simulated, simulate
from raysplit.space import Space, parse_space
from tests.live.doubles import weighed_law
from tests.ray.sweeps import tiny_space, write_space

STEADY = Rates(mtbf_hours=1e9, queue_minutes=1e-6, start_seconds=30.0, price=10.0, node_bytes_per_second=1e9)
OBSERVATIONS = 24
"""Each of the four points of a trunk is one of both domains."""


@pytest.fixture(autouse=True)
def _weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laws at once: what is fitted is no matter here."""
    monkeypatch.setattr("raysplit.live.fitting.fit_for_decision", weighed_law)


def space(**compute: object) -> Space:
    return parse_space(tiny_space(Path("texts"), compute=compute), origin="tests")


def played(
    rates: Rates = STEADY, *, nodes: int = 1, seed: int = 0, hours_each: float = 0.1, **compute: object
) -> Simulated:
    """A sweep in which every token of the largest takes as long as every other, some six minutes a point."""
    asked = space(**compute)
    seconds = {asked.shape(n, 300).n_params_non_embedding: hours_each * HOUR / 8192 for n in asked.model.sizes}
    return simulate(asked, most_nodes=nodes, rates=rates, seed=seed, seconds_per_token=seconds)


def test_one_lane_takes_as_long_as_its_tokens_and_its_start() -> None:
    went = played()
    assert went.finished == "every point of the grid is measured"
    assert went.n_observations == OBSERVATIONS
    trunk, branch = 16384 + 2048 + 4096, (6144 + 2048) + 1024
    tokens = 2 * (trunk + 4 * branch) + 2 * 10 * 2 * 2048 / 3
    assert went.hours == pytest.approx(tokens * 0.1 / 8192 + 30 / HOUR, rel=0.01)
    assert went.node_hours == pytest.approx(went.hours, rel=1e-3)
    assert went.cost == pytest.approx(10 * went.node_hours)
    assert went.trained_share == pytest.approx(1.0, abs=0.01)
    assert (went.n_failures, went.lost_share, went.most_lanes) == (0, 0.0, 1)


def test_more_nodes_are_sooner_done_and_no_cheaper() -> None:
    one, four = played(), played(nodes=4)
    assert four.most_nodes == 4
    assert four.hours < 0.6 * one.hours
    assert four.cost >= one.cost


def test_lanes_that_start_together_share_the_cores_of_their_node() -> None:
    def hours(starts_at_once: float) -> float:
        asked = space(lanes=4)
        seconds = {asked.shape(n, 300).n_params_non_embedding: 1e-3 for n in asked.model.sizes}
        rates = replace(STEADY, start_seconds=600.0, starts_at_once=starts_at_once)
        return simulate(asked, most_nodes=1, rates=rates, seconds_per_token=seconds, node={"CPU": 4.0}).hours

    # Two trunks wait at first, and their lanes start together; the lanes of the branches do so later.
    assert hours(1.0) - hours(2.0) == pytest.approx(600 / HOUR, rel=0.01)


def test_lost_nodes_cost_what_was_not_saved_and_no_point() -> None:
    unsteady = Rates(mtbf_hours=0.3, queue_minutes=1.0)
    went = played(unsteady, nodes=2, save_minutes=2.0)
    assert went.n_failures > 3
    assert went.n_observations == OBSERVATIONS
    assert 0 < went.lost_share < 0.1
    rare = played(unsteady, nodes=2, save_minutes=20.0)
    assert rare.lost_share > went.lost_share, "work is kept as often as it is saved"


def test_spot_nodes_save_before_they_go() -> None:
    spot = Rates(mtbf_hours=1e9, spot_share=1.0, spot_hours=0.3, spot_price=1.0, queue_minutes=1.0)
    went = played(spot, nodes=2)
    assert went.n_taken > 3
    assert went.n_observations == OBSERVATIONS
    assert went.lost_share == 0.0
    assert went.cost == pytest.approx(went.node_hours)


def test_the_same_seed_is_the_same_story() -> None:
    rates = Rates(mtbf_hours=2.0)
    first, again, other = (played(rates, nodes=2, seed=seed) for seed in (1, 1, 2))
    assert (first.hours, first.nodes_over_time) == (again.hours, again.nodes_over_time)
    assert first.hours != other.hours


def test_what_is_asked_of_storage_and_broker_is_told() -> None:
    slow = Rates(mtbf_hours=1e9, storage_bytes_per_second=1000.0, broker_calls_per_second=1e-4)
    went = played(slow, save_minutes=1.0)
    assert went.storage_share > 1
    assert went.broker_share > 1
    assert went.saving_share > 0.5


def test_checkpoints_are_of_what_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates(mtbf_hours=1e9, storage_bytes_per_second=1e9)
    whole = played(rates)
    monkeypatch.setattr(ModelShape, "n_params_trained", property(lambda shape: shape.n_params_total // 100))
    assert played(rates).storage_share < 0.1 * whole.storage_share


def test_speeds_that_nobody_knows_and_lanes_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(RunError, match="name the GPU to reckon with"):
        simulate(space(), most_nodes=1, rates=STEADY)
    asked = space(workers_per_lane=2)
    seconds = {asked.shape(n, 300).n_params_non_embedding: 1.0 for n in asked.model.sizes}
    with pytest.raises(RunError, match="needs 2 workers of 1 CPU"):
        simulate(asked, most_nodes=1, rates=STEADY, seconds_per_token=seconds, node={"CPU": 1.0})


def test_the_command_hands_its_rates_on_and_warns_of_what_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}
    went = played(Rates(mtbf_hours=1e9, storage_bytes_per_second=1000.0), save_minutes=1.0)

    def play(space: Space, **options: Any) -> Simulated:
        asked.update(options)
        return went

    monkeypatch.setattr("raysplit.simulation.simulate.simulate", play)
    file = write_space(tmp_path / "space.yaml", tiny_space(tmp_path))
    words = ["simulate", str(file), "--nodes", "1000", "--mtbf", "100", "--spot", "0.5"]
    said = CliRunner().invoke(main, words, catch_exceptions=False).stdout
    assert (asked["most_nodes"], asked["rates"]) == (1000, replace(Rates(), mtbf_hours=100.0, spot_share=0.5))
    assert f"{went.hours:.1f}" in said
    assert "warning: the storage is asked for more than it can do" in said
    told = json.loads(CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False).stdout)
    assert told["cost"] == went.cost
