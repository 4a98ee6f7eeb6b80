"""Ray Tune's folders, whole and broken, and those of raysplit's own searches."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raysplit.design.tasks import Failed, Measured
from raysplit.design.tree import Trial
from raysplit.errors import TableError
from raysplit.imports import import_runs
from raysplit.sweep.reports import config_of
from raysplit.sweep.tune import result_of
from tests.imports.layouts import EXPECTED, RUNS, rows_of, write_experiment

ENDED = ("TERMINATED", "TERMINATED")
OTHER = {**RUNS[0], "seed": 7, "loss": 4.0}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "tune", RUNS, ENDED)


def first_trial(experiment: Path) -> Path:
    return min(path.parent for path in experiment.rglob("params.json"))


def state_of(experiment: Path) -> Path:
    return next(experiment.glob("experiment_state-*.json"))


class TestHowATrialEnded:
    def test_a_crash_that_was_tried_again_is_none(self, experiment: Path) -> None:
        (first_trial(experiment) / "error.txt").write_text("preempted")
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        assert not imported.skipped
        assert not imported.notes

    @pytest.mark.parametrize("text", ["", '{"trial_data": [["{', '{"trial_data": 3}', '{"trial_data": [["{}", "{}"]]}'])
    def test_the_snapshot_before_one_that_is_broken_is_taken(self, tmp_path: Path, text: str) -> None:
        experiment = write_experiment(tmp_path / "tune", [*RUNS, OTHER], (*ENDED, "ERROR"))
        broken = experiment / "experiment_state-2026-11-25_09-09-09.json"
        broken.write_text(text)
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        assert list(imported.skipped) == ["crashed"]
        [note] = imported.notes
        assert f"{broken.name} cut short or damaged; {state_of(experiment).name} taken" in note

    def test_where_no_snapshot_is_intact_an_error_file_tells(self, tmp_path: Path) -> None:
        experiment = write_experiment(tmp_path / "tune", [*RUNS, OTHER], (*ENDED, "TERMINATED"))
        state_of(experiment).write_text("{")
        (max(experiment.glob("train*")) / "error.txt").write_text("out of memory")
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        assert list(imported.skipped) == ["crashed"]
        assert state_of(experiment).name in imported.notes[0]
        assert "Tuner.restore" in imported.notes[0]
        assert imported.notes[1].startswith("nothing says how 2 (train_7f701_00000")

    def test_trials_whose_folders_are_gone_are_counted(self, tmp_path: Path) -> None:
        experiment = write_experiment(tmp_path / "tune", [*RUNS, OTHER], (*ENDED, "PENDING"))
        shutil.rmtree(max(experiment.glob("train*")))
        assert {reason: len(names) for reason, names in import_runs(experiment).skipped.items()} == {"pending": 1}


class TestBrokenReports:
    @pytest.mark.parametrize("line", ["{\n", "[1]\n", '{"loss": 1.0, "tr\n', "\x00\x00\n", '{"a": ' * 9999 + "\n"])
    def test_a_damaged_line_is_named_and_the_others_read(self, experiment: Path, line: str) -> None:
        path = first_trial(experiment) / "result.json"
        path.write_text(line + path.read_text())
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped == {
            "damaged lines of result.json": [f"{path.relative_to(experiment).as_posix()}: line 1"]
        }

    def test_a_line_cut_at_the_end(self, experiment: Path) -> None:
        path = first_trial(experiment) / "result.json"
        path.write_text(path.read_text() + '{"loss": 1.0, "train')
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        assert list(imported.skipped) == ["damaged lines of result.json"]

    @pytest.mark.parametrize("kept", [0, 1])
    def test_a_last_report_that_is_lost_is_in_the_state(self, experiment: Path, kept: int) -> None:
        """Without it a loss in mid-schedule would be taken for the trial's."""
        trial = first_trial(experiment)
        lines = (trial / "result.json").read_text().splitlines(keepends=True)
        (trial / "result.json").write_text("".join(lines[:kept]))
        state = json.loads(state_of(experiment).read_text())
        state["trial_data"][0][1] = json.dumps({"last_result": json.loads(lines[-1])})
        state_of(experiment).write_text(json.dumps(state))
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        [note] = imported.notes
        assert note.startswith(f"the last report of 1 ({trial.name}) is not in result.json")

    def test_an_empty_one_is_counted(self, tmp_path: Path) -> None:
        experiment = write_experiment(tmp_path / "tune", [*RUNS, OTHER], (*ENDED, "TERMINATED"))
        last = max(experiment.glob("train*"))
        (last / "result.json").write_text("")
        imported = import_runs(experiment)
        assert rows_of(imported) == EXPECTED
        assert imported.skipped == {"reported nothing": [last.name]}

    @pytest.mark.parametrize("text", [None, "", "{"])
    def test_parameters_stand_in_the_reports_too(self, experiment: Path, text: str | None) -> None:
        path = first_trial(experiment) / "params.json"
        path.unlink()
        if text is not None:
            path.write_text(text)
        assert rows_of(import_runs(experiment)) == EXPECTED

    def test_another_loss_may_be_no_number(self, experiment: Path) -> None:
        for path in experiment.rglob("result.json"):
            reports = [json.loads(line) for line in path.read_text().splitlines()]
            told = [{**r, "eval": {"loss": r["loss"]}, "loss": float("nan")} for r in reports]
            path.write_text("".join(json.dumps(report) + "\n" for report in told))
        assert rows_of(import_runs(experiment, columns={"loss": "eval.loss"})) == EXPECTED

    def test_a_trial_tried_again_reports_an_iteration_once(self, experiment: Path) -> None:
        path = first_trial(experiment) / "result.json"
        first, last = [json.loads(line) for line in path.read_text().splitlines()]
        told = [
            {**first, "loss": 8.8, "specialize_tokens": 1},
            {**first, "specialize_tokens": 1},
            {**last, "specialize_tokens": 2},
        ]
        path.write_text("".join(json.dumps(report) + "\n" for report in told))
        imported = import_runs(first_trial(experiment), all_points=True)
        assert sorted(imported.runs["loss"]) == [3.1, 9.5]


class TestWhatIsGiven:
    def test_a_trial_of_an_experiment(self, experiment: Path) -> None:
        trial = first_trial(experiment)
        for source in (trial, trial / "result.json"):
            imported = import_runs(source)
            assert rows_of(imported) == EXPECTED[:1]
            assert not imported.skipped

    def test_the_table_of_a_trial(self, experiment: Path) -> None:
        """Its last row, with the settings beside it."""
        trial = first_trial(experiment)
        (trial / "progress.csv").write_text(
            "eval/loss,training_iteration,time_total_s,trial_id\n9.5,1,1.0,7f701_00000\n3.1,2,2.0,7f701_00000\n"
        )
        assert rows_of(import_runs(trial / "progress.csv")) == EXPECTED[:1]

    def test_a_folder_of_experiments_of_one_name(self, tmp_path: Path) -> None:
        for name in "ab":
            write_experiment(tmp_path / name, RUNS, ENDED)
        imported = import_runs(tmp_path)
        assert rows_of(imported) == EXPECTED
        assert {reason: len(names) for reason, names in imported.skipped.items()} == {"the same as another": 2}

    def test_nothing_but_broken_pieces(self, experiment: Path) -> None:
        for path in experiment.rglob("result.json"):
            path.write_text("{")
        with pytest.raises(
            TableError, match=r"no run is usable \(2 damaged lines of result\.json; 2 reported nothing\)"
        ):
            import_runs(experiment)


TRUNK = Trial(n_params=14_000, seed=0, domain="", pretrain_tokens=2000, milestones=(1000, 2000))
BRANCH = Trial(n_params=14_000, seed=0, domain="law", pretrain_tokens=1000, milestones=(500,))
MEASURED = [
    (14_000, 1000, 0, "code", 2.0, 0),
    (14_000, 1000, 0, "law", 3.0, 0),
    (14_000, 1000, 500, "law", 1.5, 0),
    (14_000, 2000, 0, "code", 1.0, 0),
    (14_000, 2000, 0, "law", 2.0, 0),
]


def write_trials(folder: Path, trials: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> Path:
    for number, (config, reports) in enumerate(trials):
        trial = folder / f"trial_{number:05d}"
        trial.mkdir(parents=True)
        (trial / "params.json").write_text(json.dumps(config))
        lines = [json.dumps({**report, "trial_id": f"{number:05d}", "config": config}) + "\n" for report in reports]
        (trial / "result.json").write_text("".join(lines))
    return folder


def write_sweep(folder: Path) -> Path:
    """A trunk, a branch, and a branch that failed, as `raysplit.sweep.tune.TrialRunner` reports them."""

    def config(trial: Trial) -> dict[str, Any]:
        return {name: value for name, value in config_of(trial).items() if name != "points"}

    def told(trial: Trial, milestone: int, **losses: float) -> dict[str, Any]:
        return result_of(trial, milestone, Measured(losses=losses, tokens=1, wall_seconds=1.0))

    trunk = [told(TRUNK, 1000, law=3.0, code=2.0), told(TRUNK, 2000, law=2.0, code=1.0)]
    failed = result_of(BRANCH, 500, Failed(why="out of memory"))
    branches = [(config(BRANCH), [told(BRANCH, 500, law=1.5, code=9.0)]), (config(BRANCH), [failed])]
    return write_trials(folder, [(config(TRUNK), trunk), *branches])


def write_plan(folder: Path) -> Path:
    """A trunk and a branch, as a user's trainable reports them to `raysplit.sweep.tune_plan`.

    Reports between the points are the trainable's own affair, and a retry reports a point again.
    """
    at = {"pretrain_tokens": 1000, "specialize_tokens": 0}
    trunk: list[dict[str, Any]] = [
        {"train_loss": 5.0},
        {**at, "losses": {"law": 3.1, "code": 2.1}},
        {**at, "losses": {"law": 3.0, "code": 2.0}},
        {**at, "pretrain_tokens": 1700, "losses": {"law": 9.0, "code": 9.0}},
        {**at, "pretrain_tokens": 2000, "losses": {"law": 2.0, "code": 1.0}},
    ]
    branch = [{**at, "specialize_tokens": 500, "loss": 1.5}]
    return write_trials(folder, [(config_of(TRUNK), trunk), (config_of(BRANCH), branch)])


class TestOwnSearches:
    def test_a_sweep_with_its_trunks(self, tmp_path: Path) -> None:
        imported = import_runs(write_sweep(tmp_path))
        assert rows_of(imported) == MEASURED
        assert imported.skipped == {"failed": ["00002 at 500"]}

    def test_a_plan_with_its_trunks(self, tmp_path: Path) -> None:
        imported = import_runs(write_plan(tmp_path))
        assert rows_of(imported) == MEASURED
        assert not imported.skipped
