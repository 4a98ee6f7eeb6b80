"""A corpus is the same for any number of processes, however its work is cut and wherever a build was broken off."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from raysplit.corpus import Corpus, build_corpus, parallel, runs
from raysplit.corpus.build import WorkSizes
from raysplit.errors import CorpusError
from raysplit.space import CorpusSpec, SourceSpec
from tests.corpus.texts import documents, files_source, spec_of, write_files

SMALL = WorkSizes(part_bytes=2000, run_bytes=3000, slice_bytes=4000)
SHARD_BYTES = 3000


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> CorpusSpec:
    """Copies within and across domains, a limit, and training documents that are nearly held-out ones."""
    folder = tmp_path_factory.mktemp("text")
    first, second = documents(40, tag="a", words=60), documents(30, tag="b")
    nearly = [text.replace("law", "lore", 1) for text in first]
    sources = {
        "a": files_source(write_files(folder / "a", [*first, first[3] + " "])),
        "b": files_source(write_files(folder / "b", [*second, *first[:5], *nearly])),
        "c": files_source(write_files(folder / "c", second[:3] + documents(50, tag="c"))).model_copy(
            update={"max_bytes": 5000}
        ),
    }
    return spec_of(sources)


@pytest.fixture(scope="module")
def undisturbed(spec: CorpusSpec, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(spec, tmp_path_factory.mktemp("undisturbed"), shard_bytes=SHARD_BYTES)


def same(one: Corpus, other: Corpus) -> bool:
    """All but where they lie and how long they took."""
    apart: dict[str, Any] = {"build_seconds": {}}
    one.verify()
    return one.manifest.model_copy(update=apart) == other.manifest.model_copy(update=apart)


def test_processes_and_pieces_change_no_byte(
    spec: CorpusSpec, undisturbed: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(build_corpus(spec, tmp_path / "one", shard_bytes=SHARD_BYTES, work=SMALL), undisturbed)
    monkeypatch.setattr(parallel, "_WORTH_BYTES", 1000)
    several = build_corpus(spec, tmp_path / "several", shard_bytes=SHARD_BYTES, work=SMALL, n_processes=2)
    assert same(several, undisturbed)


class Killed(BaseException):
    """Ends a build as a kill does: nothing is tidied up."""


@pytest.mark.parametrize("n_writes", [9, 32])
def test_a_build_that_is_killed_again_and_again_goes_on(
    spec: CorpusSpec, undisturbed: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    """After every ``n_writes`` files, in the middle of writing one; each file but that is written once."""
    written: list[str] = []
    room = 0

    def write(path: Path, parts: Iterable[bytes]) -> None:
        nonlocal room
        room -= 1
        if room == 0:
            path.write_bytes(b"".join(parts)[:-1])
            raise Killed
        written.append(path.name)
        path.write_bytes(b"".join(parts))

    for module in ("runs", "spool", "near", "packing", "build"):
        monkeypatch.setattr(f"raysplit.corpus.{module}.write_durably", write)
    n_kills = 0
    while True:
        room = n_writes
        try:
            corpus = build_corpus(spec, tmp_path / "out", shard_bytes=SHARD_BYTES, work=SMALL)
        except Killed:
            n_kills += 1
        else:
            break
    assert n_kills > 3
    assert same(corpus, undisturbed)
    data = [name for name in written if name.endswith((".data", ".bin"))]
    assert len(data) - len(set(data)) <= 2 * n_kills  # of the run or the bucket that was being written
    assert not (tmp_path / "out" / "spool").exists()


def test_work_is_not_gone_on_with_where_a_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = files_source(write_files(tmp_path / "text", documents(30, tag="a")))

    def killed(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("raysplit.corpus.build.train_bpe", killed)
        with pytest.raises(Killed):
            build_corpus(spec_of({"a": source}), tmp_path / "out")
    assert (tmp_path / "out" / "spool").exists()
    (tmp_path / "text" / "0003.txt").write_text("quite another text", encoding="utf-8")
    found = build_corpus(spec_of({"a": source}), tmp_path / "out")
    assert found.manifest.identity == build_corpus(spec_of({"a": source}), tmp_path / "anew").manifest.identity


def test_a_run_that_is_cut_short_is_read_again(tmp_path: Path) -> None:
    run = runs.write_run(str(tmp_path / "run"), [runs.Entry(bytes(16), b"text", runs.UNSAID, (0, 0, 0, 0))])
    assert run.is_whole()
    (tmp_path / "run.data").write_bytes(b"tex")
    assert not run.is_whole()


def test_what_is_nearly_held_out_is_not_trained_on(spec: CorpusSpec, undisturbed: Corpus, tmp_path: Path) -> None:
    """The documents of `b` that differ by a word from those that `a` holds out, and no others."""
    held_out = undisturbed.manifest.domains["a"].validation.n_documents
    record = undisturbed.manifest.domains["b"]
    assert record.near_duplicates_of is not None
    assert record.near_duplicates_of["a"] == held_out
    n = sum(record.near_duplicates_of.values())
    assert any(note.startswith(f"left out {n} nearly held out") for note in record.notes)
    everything = build_corpus(spec.model_copy(update={"near_duplicates": None}), tmp_path / "everything")
    other = everything.manifest.domains["b"]
    assert other.near_duplicates_of is None
    assert other.train.n_documents == record.train.n_documents + n
    assert other.validation.n_documents == record.validation.n_documents
    assert "training documents that are nearly held-out ones were not looked for" in other.notes


def test_training_text_that_is_all_nearly_held_out_is_named(tmp_path: Path) -> None:
    text = documents(1, tag="a", words=300)[0]
    source = files_source(write_files(tmp_path / "text", [text.replace("law", f"law{n}", 1) for n in range(9)]))
    with pytest.raises(CorpusError, match=r"domain 'a': .* are nearly held-out ones \(.*threshold = 0.8\)"):
        build_corpus(spec_of({"a": source}), tmp_path / "out")


def test_a_corpus_of_before_is_read_and_says_what_was_not_looked_for(tmp_path: Path) -> None:
    source: dict[str, SourceSpec] = {"a": files_source(write_files(tmp_path / "text", documents(30, tag="a")))}
    corpus = build_corpus(spec_of(source), tmp_path / "out")
    path = corpus.folder / "manifest.json"
    old = corpus.manifest.model_dump(mode="json", exclude={"domains": {"a": {"near_duplicates_of"}}})
    old["schema_version"] = 1
    del old["spec"]["near_duplicates"]
    path.write_text(json.dumps(old), encoding="utf-8")
    found = build_corpus(spec_of(source), tmp_path / "out")
    assert found.manifest.identity == corpus.manifest.identity
    assert found.manifest.domains["a"].notes == ["training documents that are nearly held-out ones were not looked for"]
