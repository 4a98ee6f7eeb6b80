"""A run folder belongs to one search space, and its files are whole or old."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from raysplit.errors import RunError, SpaceError
from raysplit.journal import Journal, read_journal
from raysplit.space import Space, dump_space, load_space, parse_space
from raysplit.sweep.folder import RunFolder, existing_run, open_run, write_text
from tests.test_space import SMALL, changed


def space(where: str = "name", value: object = "small") -> Space:
    return parse_space(changed(where, value), origin="space.yaml", base=Path("/"))


def test_a_folder_is_taken_up_by_its_own_space(tmp_path: Path) -> None:
    folder = open_run(tmp_path / "new" / "run", space())
    assert open_run(tmp_path / "new" / "run", space()) == folder
    assert existing_run(tmp_path / "new" / "run") == (folder, space())


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("training.validation_tokens", 8192, "training.validation_tokens: 4096 there, 8192"),
        ("target.budget_flops", "2e12", "target.budget_flops: 1000000000000.0 there, 2000000000000.0"),
        ("sweep.seed", 1, "sweep.seed: 0 there, 1"),
        ("corpus.domains.law", {"kind": "files", "path": "more"}, 'corpus.domains.law.path: "/texts" there, "/more"'),
        ("corpus.domains.law", ..., "corpus.domains.law: {"),
        ("name", "other", 'name: "small" there, "other"'),
    ],
)
def test_another_space_in_the_same_folder_is_refused_by_key(
    tmp_path: Path, where: str, value: object, named: str
) -> None:
    open_run(tmp_path, space())
    measured(tmp_path)
    before = (tmp_path / "space.yaml").read_text()
    with pytest.raises(RunError) as refused:
        open_run(tmp_path, space(where, value))
    assert named in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert (tmp_path / "space.yaml").read_text() == before


def measured(path: Path) -> None:
    with closing(Journal(path / "journal")) as journal:
        journal.append("round", {})


def built(path: Path) -> None:
    (path / "corpus").mkdir()
    (path / "corpus" / "manifest.json").write_text("{}")


def touched(name: str) -> Callable[[Path], None]:
    def touch(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("")

    return touch


CORRECTED = space("corpus.domains.law", {"kind": "files", "path": "right"})


@pytest.mark.parametrize(
    "left",
    [
        lambda path: None,
        touched("corpus/.corpus.lock"),
        touched(".owner"),
        touched("ray/tune-1/tuner.pkl"),
        lambda path: Journal(path / "journal").close(),
        lambda path: (path / "checkpoints").mkdir(),
    ],
)
def test_after_a_first_mistake_the_corrected_space_is_taken(tmp_path: Path, left: Callable[[Path], None]) -> None:
    open_run(tmp_path, space())
    left(tmp_path)
    folder = open_run(tmp_path, CORRECTED)
    assert existing_run(tmp_path) == (folder, CORRECTED)


def test_a_run_goes_on_with_other_machines(tmp_path: Path) -> None:
    open_run(tmp_path, space())
    measured(tmp_path)
    folder = open_run(tmp_path, space("compute.lanes", 7))
    assert existing_run(tmp_path)[1].compute.lanes == 7
    write_text(folder.tuned_space, dump_space(space("compute.lanes", 7)))
    open_run(tmp_path, space("compute.lanes", 2))
    assert load_space(folder.tuned_space).compute.lanes == load_space(folder.space).compute.lanes == 2


def test_a_run_does_not_go_on_without_its_checkpoints(tmp_path: Path) -> None:
    open_run(tmp_path, space())
    measured(tmp_path)
    with pytest.raises(RunError, match=r"compute\.storage: null there, \"/elsewhere\" here"):
        open_run(tmp_path, space("compute.storage", "/elsewhere"))


@pytest.mark.parametrize("left", [measured, touched("optuna.db"), touched("checkpoints/trunk"), touched("law.json")])
def test_where_something_rests_on_it_a_space_stays(tmp_path: Path, left: Callable[[Path], None]) -> None:
    open_run(tmp_path, space())
    left(tmp_path)
    with pytest.raises(RunError, match=r"holds a run of another search space \(corpus\.domains\.law\.path"):
        open_run(tmp_path, CORRECTED)
    assert existing_run(tmp_path)[1] == space()


def test_a_corpus_of_another_text_is_named_with_the_way_out(tmp_path: Path) -> None:
    open_run(tmp_path, space())
    built(tmp_path)
    other = CORRECTED.model_copy(update={"name": "renamed"})
    with pytest.raises(RunError, match=r"holds a corpus of .* \(corpus\.domains\.law\.path: .*; delete .*/corpus, or"):
        open_run(tmp_path, other)
    shutil.rmtree(tmp_path / "corpus")
    open_run(tmp_path, other)
    assert existing_run(tmp_path)[1] == other


def test_a_space_that_a_person_wrote_is_not_overwritten(tmp_path: Path) -> None:
    own = tmp_path / "space.yaml"
    for text, said in ((f"# mine\n{dump_space(space())}", "was written by hand"), ("other: file", "is in the way")):
        own.write_text(text)
        with pytest.raises(RunError, match=rf"{said}.* give another folder with --out"):
            open_run(tmp_path, space())
        assert own.read_text() == text


@pytest.mark.parametrize(("where", "value"), [("target.budget_flops", "2e12"), ("corpus.max_epochs", 4)])
def test_a_corpus_alone_holds_only_what_decides_it(tmp_path: Path, where: str, value: object) -> None:
    open_run(tmp_path, space())
    built(tmp_path)
    open_run(tmp_path, space(where, value))
    assert existing_run(tmp_path)[1] == space(where, value)


def test_a_journal_s_url_may_be_the_mistake(tmp_path: Path) -> None:
    open_run(tmp_path, space("sweep.journal", "nonsense://there/journal"))
    open_run(tmp_path, space())
    assert existing_run(tmp_path)[1] == space()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run: cannot be written"):
        open_run(tmp_path / "file" / "run", space())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, space())
    run.chmod(0o500)
    try:
        with pytest.raises(RunError, match="cannot be written"):
            open_run(run, space())
        with pytest.raises(RunError, match="cannot be written"):
            open_run(run / "below", space())
    finally:
        run.chmod(0o700)


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        existing_run(tmp_path)
    with pytest.raises(RunError, match="is not a run folder"):
        existing_run(tmp_path / "missing")


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "law.json"
    write_text(path, "old")
    whole = Path.write_text

    def cut_short(self: Path, text: str, **options: str) -> int:
        whole(self, text[:3], **options)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", cut_short)
        with pytest.raises(OSError, match="No space"):
            write_text(path, "new one")
    assert path.read_text() == "old"
    write_text(path, "new one")
    assert path.read_text() == "new one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["law.json"]


def test_two_folders_never_share_an_actor(tmp_path: Path) -> None:
    ids = {RunFolder(path=tmp_path / where / "run").sweep_id for where in ("a", "b", "c")}
    assert len(ids) == 3
    assert SMALL["name"] not in ids


def test_a_journal_lies_where_the_space_says(tmp_path: Path) -> None:
    here = open_run(tmp_path / "here", space())
    assert here.journal == tmp_path / "here" / "journal"
    url = f"file://{tmp_path}/elsewhere/journal"
    there = open_run(tmp_path / "there", space("sweep.journal", url))
    assert there.journal == url
    with closing(Journal(there.journal)) as journal:
        journal.append("finish", {"why": "a test"})
    assert [record.kind for record in read_journal(there.journal)] == ["finish"]
    assert not (tmp_path / "there" / "journal").exists()
    with pytest.raises(SpaceError, match=r"sweep\.journal: '/plain' is not a URL"):
        space("sweep.journal", "/plain")


def test_a_password_in_the_journal_s_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SpaceError, match=r"sweep\.journal: the URL holds a password") as refused:
        space("sweep.journal", "s3://who:hidden%2Fkey@bucket/sweep/journal")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("storage", "place"),
    [
        (None, "/runs/one/checkpoints"),
        ("/shared/", "/shared/one/checkpoints"),
        ("s3://bucket/all?region=x", "s3://bucket/all/one/checkpoints?region=x"),
    ],
)
def test_two_runs_on_one_storage_keep_their_checkpoints_apart(storage: str | None, place: str) -> None:
    assert RunFolder(path=Path("/runs/one")).checkpoints_at(storage) == place
