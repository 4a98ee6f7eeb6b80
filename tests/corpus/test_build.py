"""Building: duplicates, the split by document, building again, interruption, refusals before anything expensive."""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from raysplit.corpus import Corpus, build_corpus
from raysplit.corpus.held_out import HELD_OUT_TOLERANCE, HeldOut, drawn
from raysplit.corpus.manifest import spec_hash
from raysplit.corpus.tokenizer import CorpusTokenizer, train_bpe
from raysplit.errors import CorpusError
from raysplit.space import SourceSpec, TokenizerSpec
from tests.corpus.texts import documents, files_source, small_corpus, spec_of, write_files


def texts_of(corpus: Corpus, domain: str, *, side: str) -> list[str]:
    """The documents of one side, decoded from its shards."""
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path / "tokenizer.json"))
    record = getattr(corpus.manifest.domains[domain], side)
    reader = corpus._reader(record.shards)
    tokens = reader.read(0, len(reader)).tolist()
    end = corpus.manifest.tokenizer.end_of_text
    texts: list[str] = []
    document: list[int] = []
    for token in tokens:
        if token == end:
            texts.append(tokenizer.decode(document))
            document = []
        else:
            document.append(token)
    assert document == []
    return texts


@pytest.fixture
def source(tmp_path: Path) -> SourceSpec:
    return files_source(write_files(tmp_path / "text", documents(30, tag="alpha")))


def test_every_document_is_packed_once_on_one_side(corpus: Corpus) -> None:
    for domain, n in {"alpha": 60, "beta": 90, "gamma": 40}.items():
        train, held_out = (texts_of(corpus, domain, side=side) for side in ("train", "validation"))
        assert sorted(train + held_out) == sorted(documents(n, tag=domain))
        record = corpus.manifest.domains[domain]
        assert (len(train), len(held_out)) == (record.train.n_documents, record.validation.n_documents)
        assert len("".join(held_out)) == record.validation.n_text_bytes
        assert len(held_out) == pytest.approx(0.1 * n, abs=2)
        assert train != [text for text in documents(n, tag=domain) if text in train]  # shuffled


def test_copies_are_dropped_within_and_across_domains(tmp_path: Path) -> None:
    shared = documents(10, tag="shared")
    first = write_files(tmp_path / "first", [*shared, shared[0].replace(" ", "\n  "), *documents(10, tag="a")])
    second = write_files(tmp_path / "second", documents(10, tag="b") + shared[:4])
    corpus = build_corpus(spec_of({"a": files_source(first), "b": files_source(second)}), tmp_path / "out")
    records = corpus.manifest.domains
    assert records["a"].duplicates_of == {"a": 1}
    assert records["b"].duplicates_of == {"a": 4}
    assert records["b"].n_duplicates == 4
    sides = [set(texts_of(corpus, d, side=s)) for d in ("a", "b") for s in ("train", "validation")]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 30


def draw(lengths: list[int], fraction: float, *, at_once: int = 100) -> tuple[list[int], HeldOut]:
    """Lengths of the held-out documents, of those whose keys are their places."""
    keys, sizes = np.arange(len(lengths), dtype=np.uint64), np.array(lengths)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(lengths), at_once):
            yield keys[start : start + at_once], sizes[start : start + at_once]

    held_out = drawn(chunks, fraction, n_documents=len(lengths), n_bytes=sum(lengths))
    return [lengths[int(key)] for key in held_out.keys], held_out


@pytest.mark.parametrize("fraction", [0.02, 0.05, 0.2])
@pytest.mark.parametrize(
    "lengths",
    [
        [1000] * 400, [4000] * 1000 + [2_600_000], [int(10 ** (3 + i / 200)) for i in range(601)],
        [900_000, *[900] * 3000],
    ],
    ids=["equal", "one large", "a thousandfold", "one larger than all others"],
)  # fmt: skip
def test_the_share_held_out_is_one_of_text(lengths: list[int], fraction: float) -> None:
    shuffled = random.Random(0).sample(lengths, len(lengths))
    held_out, found = draw(shuffled, fraction)
    assert found.n_bytes == sum(held_out)
    assert sum(held_out) / sum(lengths) == pytest.approx(fraction, rel=HELD_OUT_TOLERANCE)
    assert max(held_out) <= 0.55 * sum(held_out)
    assert np.array_equal(draw(shuffled, fraction, at_once=7)[1].keys, found.keys)


def test_ordinary_documents_are_held_out_in_the_order_of_their_keys() -> None:
    """As they were before large ones were passed over, so that an older corpus is built again as it was."""
    _, held_out = draw([1000 + number for number in range(400)], 0.05)
    assert held_out.keys.tolist() == list(range(len(held_out.keys)))


def test_small_documents_beside_a_huge_one_are_not_all_held_out() -> None:
    held_out, _ = draw([1_000_000, *[1000] * 40], 0.2)
    assert len(held_out) == 31
    assert max(held_out) == 1000


def test_a_share_that_cannot_be_met_is_said(tmp_path: Path) -> None:
    texts = [*documents(30, tag="a"), "\n".join(documents(600, tag="b"))]
    source = files_source(write_files(tmp_path / "text", texts))
    record = build_corpus(spec_of({"a": source}), tmp_path / "out").manifest.domains["a"]
    (note,) = record.notes
    assert re.fullmatch(
        r"3\.\d\d% of its text is held out where 10\.00% is wanted: it has 31 documents, the largest with 95% of it; "
        r"`split_on` cuts large ones",
        note,
    )
    cut = source.model_copy(update={"split_on": 500})
    record = build_corpus(spec_of({"a": cut}), tmp_path / "cut").manifest.domains["a"]
    assert record.notes == []


def test_the_manifest_says_what_was_not_read(tmp_path: Path, source: SourceSpec) -> None:
    (tmp_path / "text" / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "text" / "README.md").write_text("what this is")
    build_corpus(spec_of({"a": source}), tmp_path / "out")
    record = Corpus.open(tmp_path / "out").manifest.domains["a"]
    assert record.not_read.n_bad_files == 1
    assert record.not_read.others == ("README.md",)
    assert [note.partition(":")[0] for note in record.notes] == [
        "left out 1 of 31 files that cannot be read",
        "left out 1 file not asked for",
    ]


def test_fields_of_a_source_that_came_later_change_no_older_corpus(source: SourceSpec) -> None:
    """The hash of a specification is that of before they were there."""
    fixed = spec_of({"a": SourceSpec(kind="files", path="/texts")})
    assert spec_hash(fixed) == "dfddf0bc96f95d5408bde8815cf88328b4ebbc90a766f3927df821019bca8426"
    assert spec_hash(spec_of({"a": source.model_copy(update={"split_on": 64_000})})) != spec_hash(
        spec_of({"a": source})
    )


def test_another_seed_holds_out_other_documents(tmp_path: Path) -> None:
    held_out = [
        set(texts_of(small_corpus(tmp_path / str(seed), n_documents={"a": 60}, seed=seed), "a", side="validation"))
        for seed in (0, 1)
    ]
    assert held_out[0] != held_out[1]


def test_a_document_that_spells_the_end_of_text_does_not_end_there(tmp_path: Path) -> None:
    strange = ["before<|endoftext|>after " + text for text in documents(20, tag="a")]
    out = tmp_path / "out"
    corpus = build_corpus(spec_of({"a": files_source(write_files(tmp_path / "text", strange))}), out)
    assert sorted(texts_of(corpus, "a", side="train") + texts_of(corpus, "a", side="validation")) == sorted(strange)


def test_the_same_specification_gives_the_same_corpus_and_is_not_built_twice(
    tmp_path: Path, source: SourceSpec
) -> None:
    spec = spec_of({"a": source})
    first = build_corpus(spec, tmp_path / "one")
    second = build_corpus(spec, tmp_path / "two")
    assert first.manifest.identity == second.manifest.identity
    steps: list[str] = []
    again = build_corpus(spec, tmp_path / "one", progress=lambda step, done: steps.append(step))
    assert steps == []
    assert again.manifest == first.manifest
    # The limit on repetition changes no token.
    assert build_corpus(spec.model_copy(update={"max_epochs": 4.0}), tmp_path / "one").manifest == first.manifest


def test_two_builds_in_one_folder_take_turns(tmp_path: Path, source: SourceSpec) -> None:
    steps: list[str] = []

    def build(_: int) -> Corpus:
        return build_corpus(spec_of({"a": source}), tmp_path / "out", progress=lambda step, done: steps.append(step))

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(build, range(2))
    assert one.manifest == other.manifest
    assert steps.count("train tokenizer") == 2  # the start and the end of one build


def test_progress_names_every_step_and_goes_from_zero_to_one(tmp_path: Path, source: SourceSpec) -> None:
    seen: dict[str, list[float]] = {}
    build_corpus(
        spec_of({"a": source}), tmp_path / "out", progress=lambda step, done: seen.setdefault(step, []).append(done)
    )
    assert list(seen) == ["open sources", "read a", "compare held-out text", "train tokenizer", "pack a"]
    for shares in seen.values():
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_a_folder_with_another_corpus_is_refused_and_untouched(tmp_path: Path, source: SourceSpec) -> None:
    corpus = build_corpus(spec_of({"a": source}), tmp_path / "out")
    with pytest.raises(CorpusError, match=r"another specification \(different: validation_fraction, seed\)"):
        build_corpus(spec_of({"a": source}, seed=1, validation_fraction=0.2), tmp_path / "out")
    corpus.verify()


def test_a_folder_with_other_things_is_refused_and_untouched(tmp_path: Path, source: SourceSpec) -> None:
    mine = tmp_path / "out" / "shards" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(CorpusError, match="is not empty and holds no corpus"):
        build_corpus(spec_of({"a": source}), tmp_path / "out")
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("at", ["read b", "train tokenizer", "pack a", "pack b"])
def test_a_build_killed_at_any_step_leaves_nothing_that_opens_and_is_built_anew(tmp_path: Path, at: str) -> None:
    write_files(tmp_path / "a", documents(20, tag="a"))
    write_files(tmp_path / "b", documents(20, tag="b"))
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from raysplit.corpus import build_corpus
        from tests.corpus.texts import files_source, spec_of

        folder, at = Path(sys.argv[1]), sys.argv[2]
        def kill_there(step, done):
            if step == at and done == 1.0:
                os.kill(os.getpid(), signal.SIGKILL)
        spec = spec_of({name: files_source(folder / name) for name in ("a", "b")})
        build_corpus(spec, folder / "out", progress=kill_there)
    """)
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path), at], check=False, timeout=60)
    assert result.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    assert len(list(out.iterdir())) > 1
    with pytest.raises(CorpusError, match="holds no finished corpus"):
        Corpus.open(out)
    spec = spec_of({name: files_source(tmp_path / name) for name in ("a", "b")})
    corpus = build_corpus(spec, out)
    corpus.verify()
    assert corpus.manifest.identity == build_corpus(spec, tmp_path / "undisturbed").manifest.identity
    assert not (out / "spool").exists()


def test_a_failed_build_leaves_no_text_behind(tmp_path: Path, source: SourceSpec) -> None:
    with pytest.raises(CorpusError, match="no such file or folder"):
        build_corpus(spec_of({"a": source, "b": files_source(tmp_path / "missing")}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".corpus.lock"]


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path, source: SourceSpec) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="file/out: the corpus cannot be written there: Not a directory"):
        build_corpus(spec_of({"a": source}), tmp_path / "file" / "out")


def test_a_source_file_that_goes_while_a_corpus_is_built_is_named_itself(tmp_path: Path, source: SourceSpec) -> None:
    gone = Path(str(source.path)) / "0003.txt"

    def remove(step: str, done: float) -> None:
        if (step, done) == ("open sources", 1.0):
            gone.unlink()

    with pytest.raises(CorpusError, match=r"0003\.txt: No such file or directory, while the corpus was built"):
        build_corpus(spec_of({"a": source}), tmp_path / "out", progress=remove)


def test_a_tokenizer_learns_from_as_many_bytes_of_every_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample: list[str] = []

    def learn(texts: Iterator[str], *, vocab_size: int) -> CorpusTokenizer:
        sample.extend(texts)
        return train_bpe(iter(sample), vocab_size=vocab_size)

    monkeypatch.setattr("raysplit.corpus.build.train_bpe", learn)
    monkeypatch.setattr("raysplit.corpus.build._MIN_SAMPLE_BYTES", 10_000)
    monkeypatch.setattr("raysplit.corpus.build._SAMPLE_BYTES_PER_TOKEN", 1)
    hebrew = "".maketrans("abcdefghijklmnopqrstuvwxyz", "אבגדהוזחטיכלמנסעפצקרשתםןףץ")
    texts = documents(60, tag="a")
    write_files(tmp_path / "a", texts)
    write_files(tmp_path / "b", [text.translate(hebrew) for text in texts])
    build_corpus(spec_of({name: files_source(tmp_path / name) for name in ("a", "b")}), tmp_path / "out")
    n_bytes = [sum(len(text.encode()) for text in sample if text.isascii() is ascii) for ascii in (True, False)]
    assert n_bytes == pytest.approx([5000, 5000], abs=500)


def test_too_little_disk_is_said_before_packing(
    tmp_path: Path, source: SourceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 99, 1))
    with pytest.raises(CorpusError, match="the disk has 0 MB left"):
        build_corpus(spec_of({"a": source}), tmp_path / "out")


def test_a_disk_that_fills_up_is_said(tmp_path: Path, source: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("raysplit.corpus.build.save_bpe", full)
    with pytest.raises(CorpusError, match="the disk is full"):
        build_corpus(spec_of({"a": source}), tmp_path / "out")


def test_one_document_cannot_be_split(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "text", ["the only text", "the only  text "])
    with pytest.raises(
        CorpusError,
        match=r"domain 'a': .*: 1 document with text;.* split_on: 64k; left out 1 whose text was read before: 1 of a",
    ):
        build_corpus(spec_of({"a": files_source(folder)}), tmp_path / "out")


def test_a_separator_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = files_source(write_files(tmp_path / "text", ["the only text"])).model_copy(update={"split_on": "<|end|>"})
    with pytest.raises(CorpusError, match=r"split_on = '<\|end\|>' cuts nothing; take split_on"):
        build_corpus(spec_of({"a": source}), tmp_path / "out")


def test_a_limit_below_the_first_document_is_named(tmp_path: Path, source: SourceSpec) -> None:
    with pytest.raises(CorpusError, match=r"max_bytes = 10 ends the reading there; raise it"):
        build_corpus(spec_of({"a": source.model_copy(update={"max_bytes": 10})}), tmp_path / "out")


def test_what_was_dropped_for_its_text_is_said(tmp_path: Path) -> None:
    texts = documents(40, tag="a")
    sources = {
        "a": files_source(write_files(tmp_path / "a", [*texts, texts[0] + "\n"])),
        "b": files_source(write_files(tmp_path / "b", [*documents(40, tag="b"), *texts[:2]])),
    }
    domains = build_corpus(spec_of(sources), tmp_path / "out").manifest.domains
    assert "left out 1 whose text was read before: 1 of a" in domains["a"].notes
    assert "left out 2 whose text was read before: 2 of a" in domains["b"].notes


def test_a_vocabulary_that_the_text_cannot_fill_is_refused(tmp_path: Path, source: SourceSpec) -> None:
    spec = spec_of({"a": source}, tokenizer=TokenizerSpec(vocab_size=30_000))
    with pytest.raises(CorpusError, match=r"tokenizer.vocab_size = 30000: .* its text gave \d+"):
        build_corpus(spec, tmp_path / "out")


def test_a_huggingface_tokenizer_is_copied_into_the_corpus(tmp_path: Path, source: SourceSpec) -> None:
    """The folder of a trained BPE is itself a Hugging Face tokenizer; a corpus built with it has the same tokens."""
    transformers = pytest.importorskip("transformers")
    trained = build_corpus(spec_of({"a": source}), tmp_path / "trained")
    loaded = transformers.AutoTokenizer.from_pretrained(trained.tokenizer_path)
    assert len(loaded) == trained.vocab_size == 300
    assert loaded.eos_token_id == trained.manifest.tokenizer.end_of_text
    copy = tmp_path / "tokenizer"
    shutil.copytree(trained.tokenizer_path, copy)
    spec = spec_of({"a": source}, tokenizer=TokenizerSpec(kind="huggingface", name=str(copy)))
    given = build_corpus(spec, tmp_path / "given")
    shutil.rmtree(copy)
    assert given.vocab_size == 300
    assert texts_of(given, "a", side="train") == texts_of(trained, "a", side="train")
    assert [s.sha256 for s in given.manifest.domains["a"].train.shards] == [
        s.sha256 for s in trained.manifest.domains["a"].train.shards
    ]


def test_a_huggingface_tokenizer_that_is_not_there_is_named_before_anything_is_read(
    tmp_path: Path, source: SourceSpec
) -> None:
    pytest.importorskip("transformers")
    steps: list[str] = []
    spec = spec_of({"a": source}, tokenizer=TokenizerSpec(kind="huggingface", name=str(tmp_path / "nothing")))
    with pytest.raises(CorpusError, match=r"tokenizer.name = .*nothing'"):
        build_corpus(spec, tmp_path / "out", progress=lambda step, done: steps.append(step))
    assert set(steps) == {"load tokenizer"}


def test_importing_the_room_loads_no_heavy_library() -> None:
    script = "import sys, raysplit.corpus; print(*{'torch', 'ray', 'datasets', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == []
