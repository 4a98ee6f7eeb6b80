"""TensorBoard's event files, written by tensorboardX and read by TensorBoard's own package."""

from pathlib import Path

import pytest
import yaml
from tensorboardX import SummaryWriter

from raysplit.errors import TableError
from raysplit.imports import guess_kind, import_runs, tensorboard
from tests.imports.layouts import EXPECTED, RUNS, rows_of, settings_of

ASSUMED = "TensorBoard does not record how a run ended: the last value of each is taken as that after its cooldown"


def write_events(folder: Path, *losses: tuple[int, float]) -> Path:
    """One event file of (step, loss)."""
    with SummaryWriter(str(folder), filename_suffix=f".{losses[0][0]}") as writer:
        for step, loss in losses:
            writer.add_scalar("eval/loss", loss, step)
            writer.add_scalar("train/loss", 1.5, step)
    return folder


def write_hyperparameters(folder: Path, number: int) -> None:
    settings = settings_of(RUNS[number])
    with SummaryWriter(str(folder)) as writer:
        writer.add_hparams({**settings, "model": settings["model"]["n_params"]}, {"hparam/accuracy": 0.5})


def write_runs(folder: Path) -> Path:
    """Two runs with a folder of hyperparameters each; the first was taken up again."""
    write_events(folder / "run0", (10, 9.5), (20, 8.5))
    write_events(folder / "run0", (15, 9.0), (30, RUNS[0]["loss"]))
    write_events(folder / "run1", (10, 9.5), (30, RUNS[1]["loss"]))
    for number in (0, 1):
        write_hyperparameters(folder / f"run{number}", number)
    return folder


def rounded(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """TensorBoard keeps losses in single precision."""
    return [tuple(round(v, 6) if isinstance(v, float) else v for v in row) for row in rows]


def test_runs_with_hyperparameters(tmp_path: Path) -> None:
    write_runs(tmp_path)
    assert guess_kind(tmp_path) == "tensorboard"
    imported = import_runs(tmp_path, columns={"n_params": "model"})
    assert rounded(rows_of(imported)) == EXPECTED
    assert not imported.skipped
    assert imported.notes == [ASSUMED]
    assert rounded(rows_of(import_runs(tmp_path / "run1", columns={"n_params": "model"}))) == EXPECTED[1:]


def test_settings_that_lightning_writes(tmp_path: Path) -> None:
    for number, run in enumerate(RUNS):
        folder = write_events(tmp_path / f"version_{number}", (30, run["loss"]))
        (folder / "hparams.yaml").write_text(yaml.safe_dump(settings_of(run)))
    broken = write_events(tmp_path / "version_2", (30, 1.0))
    (broken / "hparams.yaml").write_text("a: [")
    imported = import_runs(tmp_path)
    assert rounded(rows_of(imported)) == EXPECTED
    assert imported.skipped == {"with a damaged hparams.yaml": ["version_2"]}


def test_what_is_empty_or_cut_short_is_counted(tmp_path: Path) -> None:
    write_runs(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.out.tfevents.1.host").write_bytes(b"abc")
    cut = next(write_events(tmp_path / "cut", (10, 9.5), (20, 8.5)).iterdir())
    cut.write_bytes(cut.read_bytes()[:-3])
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "events.out.tfevents.1.host").write_bytes(b"")
    imported = import_runs(tmp_path, columns={"n_params": "model"})
    assert rounded(rows_of(imported)) == EXPECTED
    reasons = {reason.partition(" of ")[0].partition(":")[0]: names for reason, names in imported.skipped.items()}
    assert reasons == {
        "files that are no event files": ["notes.txt"],
        "with an event file that is cut short": ["cut", "empty"],
        "without a scalar in its event files": ["none"],
    }


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(b"abc")
    for source in (tmp_path, path):
        with pytest.raises(
            TableError, match=r"usable \(1 with an event file that is cut short: .* copy it again, or give"
        ):
            import_runs(source)


def test_without_the_package_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_events(tmp_path, (10, 9.5))
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(TableError, match=r"pip install 'raysplit\[import\]'"):
        import_runs(tmp_path)
