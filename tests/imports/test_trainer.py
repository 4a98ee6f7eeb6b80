"""The state of a Hugging Face Trainer: finished runs whose learning rate came down, by what was told of the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState

from raysplit.errors import TableError
from raysplit.imports import guess_kind, import_runs
from tests.imports.layouts import rows_of

TOLD = {"n_params": "14k", "domain": "law", "pretrain_tokens": "2M"}
TAKEN = [(14_000, 2_000_000, 500_000, "law", 3.1, 0)]


def write_state(
    folder: Path,
    *,
    losses: dict[str, float] | None = None,
    step: int = 300,
    max_steps: int = 300,
    evaluated_at: int | None = None,
    last_rate: float = 1e-5,
    rate_logged_at: int = 300,
    tokens: int = 500_000,
) -> Path:
    """As the Trainer writes it, at ``step`` of ``max_steps``."""
    folder.mkdir(parents=True, exist_ok=True)
    at = step if evaluated_at is None else evaluated_at
    log: list[dict[str, Any]] = [
        {"loss": 4.0, "learning_rate": 1e-3, "step": 100},
        {"eval_loss": 9.5, "step": 100},
        {"loss": 3.0, "learning_rate": last_rate, "step": rate_logged_at},
        {**({"eval_loss": 3.1} if losses is None else losses), "eval_runtime": 1.2, "step": at},
        {"train_loss": 3.5, "step": step},
    ]
    state = TrainerState(global_step=step, max_steps=max_steps, num_input_tokens_seen=tokens, log_history=log)
    state.save_to_json(str(folder / "trainer_state.json"))
    return folder / "trainer_state.json"


def test_a_state_a_checkpoint_a_run_and_a_folder_of_runs(tmp_path: Path) -> None:
    """The last checkpoint of a run counts."""
    for name in ("a", "b"):
        write_state(tmp_path / name / "checkpoint-100", step=100)
        path = write_state(tmp_path / name / "checkpoint-300")
    (path.parent / "config.json").write_text("{}")
    for source in (path, path.parent, path.parent.parent):
        assert guess_kind(source) == "trainer"
        imported = import_runs(source, constants=TOLD)
        assert rows_of(imported) == TAKEN
        assert not imported.skipped
        assert not imported.notes
    assert import_runs(tmp_path, constants=TOLD).skipped == {"the same as another": ["b"]}
    renamed = path.rename(tmp_path / "state of b.json")
    assert rows_of(import_runs(renamed, constants=TOLD)) == TAKEN


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"step": 200}, "not at the end of their schedule (global_step is less than max_steps)"),
        ({"losses": {"eval_accuracy": 0.5}}, "without an evaluation at the last step, after the cooldown"),
        ({"evaluated_at": 250}, "without an evaluation at the last step, after the cooldown"),
        ({"last_rate": 5e-4}, "with a learning rate that did not come down to 20% of its peak: no cooldown"),
        (
            {"last_rate": 1e-3, "rate_logged_at": 280},
            "with a learning rate that did not come down to 20% of its peak: no cooldown",
        ),
    ],
)
def test_what_cannot_be_compared_is_left_out(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    write_state(tmp_path / "good")
    write_state(tmp_path / "bad", **changed)
    imported = import_runs(tmp_path, constants=TOLD)
    assert rows_of(imported) == TAKEN
    assert imported.skipped == {reason: ["bad"]}


def test_a_rate_that_is_not_logged_near_the_end_is_taken_as_down_and_that_is_said(tmp_path: Path) -> None:
    write_state(tmp_path / "a", last_rate=5e-4, rate_logged_at=250)
    imported = import_runs(tmp_path, constants=TOLD)
    assert rows_of(imported) == TAKEN
    assert imported.notes == ["the learning rate of 1 (a) is not logged near its end: taken as down"]


def test_a_training_loss_is_no_held_out_loss(tmp_path: Path) -> None:
    path = write_state(tmp_path)
    state = json.loads(path.read_text())
    state["log_history"] = [entry for entry in state["log_history"] if "eval_runtime" not in entry][::2]
    path.write_text(json.dumps(state))
    with pytest.raises(TableError, match="1 without an evaluation: a training loss is no held-out loss"):
        import_runs(path, constants=TOLD)


def test_what_the_file_does_not_say_is_asked_for_at_once(tmp_path: Path) -> None:
    path = write_state(tmp_path)
    with pytest.raises(TableError) as caught:
        import_runs(path)
    for field in ("n_params", "pretrain_tokens", "specialize_tokens", "domain"):
        assert f"Say --column {field}=COLUMN, or --set {field}=VALUE" in str(caught.value)
    assert "num_input_tokens_seen" in str(caught.value)
    pretrained = import_runs(path, constants={"n_params": "14k", "domain": "law", "specialize_tokens": "0"})
    assert pretrained.runs["pretrain_tokens"].tolist() == [500_000]


def test_tokens_that_were_not_counted_are_asked_for(tmp_path: Path) -> None:
    path = write_state(tmp_path, tokens=0)
    with pytest.raises(TableError, match="no column for specialize_tokens"):
        import_runs(path, constants=TOLD)


def test_a_loss_a_domain(tmp_path: Path) -> None:
    path = write_state(tmp_path, losses={"eval_law_loss": 3.0, "eval_code_loss": 2.0})
    state = json.loads(path.read_text())
    state["log_history"] = [entry for entry in state["log_history"] if entry.get("eval_loss") is None]
    path.write_text(json.dumps(state))
    told = {name: value for name, value in TOLD.items() if name != "domain"}
    imported = import_runs(path, constants=told)
    assert imported.runs[["domain", "loss"]].values.tolist() == [["code", 2.0], ["law", 3.0]]


def test_the_first_evaluation_at_the_last_step_counts(tmp_path: Path) -> None:
    """One after it is of another set, or of earlier weights that were loaded again."""
    path = write_state(tmp_path)
    state = json.loads(path.read_text())
    state["log_history"].append({"eval_loss": 1.0, "step": 300})
    path.write_text(json.dumps(state))
    assert rows_of(import_runs(path, constants=TOLD)) == TAKEN


def test_every_evaluation_on_request(tmp_path: Path) -> None:
    path = write_state(tmp_path, last_rate=1e-3)
    state = json.loads(path.read_text())
    for entry in state["log_history"]:
        entry["num_input_tokens_seen"] = 1000 * entry["step"]
    path.write_text(json.dumps(state))
    imported = import_runs(path, constants=TOLD, all_points=True)
    assert imported.runs[["specialize_tokens", "loss"]].values.tolist() == [[100_000, 9.5], [300_000, 3.1]]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"log_history": 3, "global_step": 1, "max_steps": 1}', "{}"])
def test_a_broken_state_is_named_and_the_others_read(tmp_path: Path, text: str) -> None:
    write_state(tmp_path / "good")
    write_state(tmp_path / "bad").write_text(text)
    imported = import_runs(tmp_path, constants=TOLD)
    assert rows_of(imported) == TAKEN
    assert imported.skipped == {"damaged or cut short": ["bad/trainer_state.json"]}
