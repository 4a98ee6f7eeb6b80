"""Documents on disk: what is kept, in which order and on which side, whatever the work is cut into."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.corpus import parallel
from raysplit.corpus.held_out import drawn
from raysplit.corpus.near import n_bands, shingles, signatures_of
from raysplit.corpus.not_read import NotRead
from raysplit.corpus.runs import document_key
from raysplit.corpus.sources import open_source
from raysplit.corpus.spool import Reader, Report, spool_sources
from raysplit.space import NearDuplicateSpec, SourceSpec
from tests.corpus.texts import documents

TEXTS = st.lists(st.text("ab \n", max_size=6) | st.text(st.characters(codec="utf-8"), max_size=30), max_size=25)


@contextmanager
def silent(step: str) -> Iterator[Report]:
    yield lambda done: None


def table(path: Path, texts: list[str]) -> SourceSpec:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return SourceSpec(kind="table", path=str(path), on_bad="skip")


def in_memory(
    texts: dict[str, list[str]], limits: dict[str, int | None], *, seed: int, fraction: float
) -> dict[str, tuple[list[str], list[str], dict[str, int]]]:
    """What was done before any of it went to disk: held out, to train on, and copies, of each domain."""
    owners: dict[bytes, str] = {}
    found = {}
    for name, own in texts.items():
        kept: list[tuple[bytes, str]] = []
        duplicates_of: dict[str, int] = {}
        n_bytes = 0
        for text in own:
            if not text or text.isspace():
                continue
            key = document_key(text, seed=seed)
            if key in owners:
                duplicates_of[owners[key]] = duplicates_of.get(owners[key], 0) + 1
                continue
            owners[key] = name
            kept.append((key, text))
            n_bytes += len(text.encode())
            if n_bytes >= (limits[name] or np.inf):
                break
        kept.sort(key=lambda one: one[0][:8])
        keys = np.array([int.from_bytes(key[:8], "big") for key, _ in kept], dtype=np.uint64)
        lengths = np.array([len(text.encode()) for _, text in kept], dtype=np.int64)
        held = drawn(partial(_all_at_once, keys, lengths), fraction, n_documents=len(kept), n_bytes=int(lengths.sum()))
        sides = [text for key, (_, text) in zip(keys, kept, strict=True) if key in held.keys]
        rest = [text for key, (_, text) in zip(keys, kept, strict=True) if key not in held.keys]
        found[name] = (sides, rest, duplicates_of)
    return found


def _all_at_once(keys: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield keys, lengths


@settings(max_examples=25)
@given(
    texts=st.tuples(TEXTS, TEXTS, TEXTS),
    limits=st.tuples(*[st.none() | st.integers(1, 200)] * 3),
    seed=st.integers(0, 1000),
    fraction=st.floats(0.01, 0.9),
    sizes=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_runs_on_disk_hold_what_memory_would(
    tmp_path_factory: pytest.TempPathFactory,
    texts: tuple[list[str], ...],
    limits: tuple[int | None, ...],
    seed: int,
    fraction: float,
    sizes: tuple[int, int],
) -> None:
    """Copies, limits, order and sides are those of a reader that holds every key, whatever the runs and slices are."""
    folder = tmp_path_factory.mktemp("spool")
    named = dict(zip("abc", texts, strict=True))
    limit_of = dict(zip("abc", limits, strict=True))
    sources = {
        name: table(folder / f"{name}.jsonl", own).model_copy(update={"max_bytes": limit_of[name]})
        for name, own in named.items()
        if own
    }
    named = {name: named[name] for name in sources}
    opened = {name: open_source(source, domain=name) for name, source in sources.items()}
    reader = Reader(sources, opened, folder, seed=seed, n_processes=1, run_bytes=sizes[0])
    spooled = spool_sources(reader, sources, fraction=fraction, step=silent)
    expected = in_memory(named, limit_of, seed=seed, fraction=fraction)
    for name, one in spooled.items():
        loaded = [part.load() for part in one.slices(slice_bytes=sizes[1])]
        sides = [[data.decode() for part in loaded for data in part[side]] for side in (0, 1)]
        assert (sides[0], sides[1], dict(one.kept.duplicates_of)) == expected[name]
        assert one.kept.n_bytes == sum(len(text.encode()) for side in sides for text in side)
        assert one.held_out.n_bytes == sum(len(text.encode()) for text in sides[0])


def read_to(path: Path, max_bytes: int, folder: Path) -> NotRead:
    folder.mkdir()
    source = SourceSpec(kind="table", path=str(path), max_bytes=max_bytes, on_bad="skip")
    opened = {"a": open_source(source, domain="a")}
    Reader({"a": source}, opened, folder, seed=0, n_processes=1, run_bytes=100_000).read(step=silent)
    return opened["a"].tally.so_far()


def test_what_lies_behind_a_limit_is_not_counted(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in documents(40, tag="a")]
    lines[3:3] = ["no object", '{"text": " "}', lines[0]]
    lines[30:30] = ["no object either"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    n_bytes = sum(len(json.loads(line)["text"]) for line in (*lines[:3], *lines[6:10]))
    found = read_to(path, n_bytes, tmp_path / "some")
    assert (found.n_rows, found.n_bad_rows, found.n_blank) == (10, 1, 1)
    assert found.bad == ("line 4: is not JSON: Expecting value (character 1)",)
    assert read_to(path, 10**6, tmp_path / "all").n_bad_rows == 2


def test_more_processes_give_the_results_in_order_and_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(parallel.in_parallel(abs, [-3, 2, -1], n_processes=2)) == [3, 2, 1]
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(parallel.in_parallel(_root, [4.0, -1.0], n_processes=2))
    assert parallel.enough_processes(10**6, at_most=8) == 1
    assert parallel.enough_processes(10**9, at_most=8) == 8


def test_a_command_that_ends_at_once_leaves_no_word_of_joblib() -> None:
    """As commands end: without Python's own clearing up."""
    script = (
        "import os; from raysplit.corpus.parallel import in_parallel\n"
        "print(*in_parallel(abs, [-3, 2, -1], n_processes=2), flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("3 2 1\n", "")


def _root(x: float) -> float:
    import math

    return math.sqrt(x)


def jaccard(one: str, other: str, n_words: int) -> float:
    first, second = set(shingles(one, n_words)), set(shingles(other, n_words))
    return len(first & second) / len(first | second)


def test_signatures_estimate_the_similarity_of_shingles() -> None:
    near = NearDuplicateSpec()
    texts = documents(20, tag="a", words=200)
    words = [text.split() for text in texts]
    changed = [" ".join(own[: 10 * n] + ["other"] * (n % 2) + own[10 * n + 5 :]) for n, own in enumerate(words)]
    for one, other in zip(texts, changed, strict=True):
        first, second = signatures_of([one, other], near)
        assert first.jaccard(second) == pytest.approx(jaccard(one, other, 5), abs=0.18)  # type: ignore[attr-defined]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_bands_find_nearly_all_pairs_at_the_threshold(threshold: float) -> None:
    bands = n_bands(threshold)
    assert 128 % bands == 0
    assert (1 - threshold ** (128 // bands)) ** bands <= 0.01


def test_shingles_are_words_or_characters_where_there_are_no_words() -> None:
    assert shingles("a b c d", 3) == ["a b c", "b c d"]
    assert shingles(" a\n b", 3) == ["a b"]
    chinese = "".join(map(chr, range(0x4E00, 0x4E00 + 60)))
    assert shingles(chinese, 5) == [chinese[first : first + 15] for first in range(46)]
