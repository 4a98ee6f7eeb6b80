"""Sweeps on a cluster that outlives them: what they leave, what they survive, whom they answer."""

import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import ray

from raysplit.live.client import connect
from raysplit.run_folder.folder import RunFolder
from tests.ray.conftest import Adaptive, Sweep
from tests.ray.sweeps import losses, records


def cpus_free(*, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def training_workers() -> list[int]:
    """Process ids of this cluster's training workers."""
    mine = {node["NodeID"] for node in ray.nodes()}
    assert len(mine) == 1
    session = ray._private.worker._global_node.get_session_dir_path()
    return _processes("ray::RayTrainWorker", session)


def _processes(title: str, session: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_bytes().startswith(title.encode())
            if named and any(session in os.readlink(fd) for fd in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def law_actor_process() -> list[int]:
    return _processes("ray::LawActor", ray._private.worker._global_node.get_session_dir_path())


def test_a_sweep_measures_the_grid_and_answers(uninterrupted: Path) -> None:
    measured = losses(uninterrupted)
    assert len(measured) == 20
    table = pd.read_parquet(uninterrupted / "observations.parquet")
    assert len(table) == 24, "a trunk's point is an observation of both domains"
    pd.testing.assert_frame_equal(table, pd.read_csv(uninterrupted / "observations.csv"), check_dtype=False)
    assert table["loss"].between(2.0, 5.7).all()
    for at, group in table.groupby(["n_params", "pretrain_tokens", "domain"]):
        by_tokens = group.sort_values("specialize_tokens")["loss"].tolist()
        assert by_tokens[-1] < by_tokens[0], f"training on a domain helps there: {at}"
    advice = json.loads((uninterrupted / "advice.json").read_text())
    assert advice["split"]["n_params"] in set(table["n_params"])
    assert (uninterrupted / "law.json").exists()
    assert [r["why"] for r in records(uninterrupted, "finish")] == ["every point of the grid is measured"]


def test_each_token_is_trained_once(uninterrupted: Path) -> None:
    """Trunks to 16k with two cooldowns of a quarter, branches to 8k likewise."""
    trained: dict[tuple[int, str, int], int] = {}
    for data in records(uninterrupted, "measurement"):
        trial = data["trial"]
        at = (trial["n_params"], trial["domain"], trial["pretrain_tokens"] if trial["domain"] else 0)
        trained[at] = trained.get(at, 0) + data["tokens"]
    for (_, domain, _), tokens in trained.items():
        assert tokens == ((6144 + 2048) + 1024 if domain else 16384 + 2048 + 4096)


def test_crashes_change_nothing_and_nothing_stays(run: Sweep, uninterrupted: Path, ray_address: str) -> None:
    """A training worker, the law actor and then the driver are killed, each in mid-sweep.

    On one lane, so another must have begun where the killed worker's ended; nobody disturbed the sweep of two.
    """
    address = ("--ray-address", ray_address)
    first = run("sweep", *address, run="crashed")
    first.wait_for_measurements(2)
    os.kill(training_workers()[0], signal.SIGKILL)
    first.wait_for_measurements(4)

    law = connect(RunFolder(path=first.out).sweep_id)
    [process] = law_actor_process()
    before = len(first.measurements())
    os.kill(process, signal.SIGKILL)
    status = law.status()
    assert status.n_observations >= before, "restarted with all it had"
    assert law_actor_process() != [process]
    first.wait_for_measurements(before + 2)

    before_kill = losses(first.out)
    first.process.kill()
    first.wait_until_gone()
    second = run("sweep", *address, run="crashed")
    ended, said = second.end()
    assert ended == 0, said
    assert "taking up the sweep" in said
    after = losses(second.out)  # also: none twice
    assert all(after[at] == value for at, value in before_kill.items())
    assert after == losses(uninterrupted), "losses do not depend on crashes, lanes or order"
    assert _answer(second.out) == _answer(uninterrupted)
    assert cpus_free()
    assert training_workers() == []
    assert ray.util.list_named_actors() == []  # of our namespace


def test_a_running_sweep_answers_from_another_process(adaptive: Adaptive) -> None:
    prediction, advice = adaptive.prediction, adaptive.advice.advice
    assert prediction.low < prediction.mean < prediction.high
    assert advice.split.total_tokens > 0
    assert len(records(adaptive.out, "round")) > 1, "it decided by what it had measured"
    assert cpus_free()


def test_runs_that_diverge_are_recorded_and_the_sweep_ends(run: Sweep, ray_address: str) -> None:
    rate = {"reference": "1e30", "reference_params": "14k", "exponent": 0}
    changes = {"training": {"learning_rate": rate}, "model": {"sizes": ["14k"]}}
    sweep = run("sweep", "--ray-address", ray_address, run="diverging", changes=changes)
    status, said = sweep.end()
    failures = records(sweep.out, "failure")
    assert any("training loss is nan" in failure["why"] for failure in failures)
    assert not sweep.measurements()
    assert status == 2, said
    assert "Traceback" not in said
    assert cpus_free()


def _answer(out: Path) -> dict[str, object]:
    answer: dict[str, object] = json.loads((out / "advice.json").read_text())
    return answer
