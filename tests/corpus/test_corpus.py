"""Batches by position, branches that continue where the trunk left off, held-out windows, capacity, damage."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.corpus import Corpus
from raysplit.corpus.sampling import replayed_windows, shuffled_windows
from raysplit.corpus.shards import ShardReader
from raysplit.errors import CorpusError
from tests.corpus.texts import documents, files_source, small_corpus, write_files

CONTEXT = 16
DOMAINS = ("alpha", "beta", "gamma")


def train_tokens(corpus: Corpus, domain: str) -> np.ndarray:
    """All training tokens of a domain, read file by file."""
    dtype = np.dtype(corpus.manifest.dtype)
    shards = corpus.manifest.domains[domain].train.shards
    return np.concatenate([np.fromfile(corpus.folder / shard.file, dtype=dtype) for shard in shards]).astype(np.int64)


def window_numbers(corpus: Corpus, domain: str, batch: np.ndarray) -> list[int]:
    """Which windows of the domain the rows of a batch are; the texts are such that no two windows are equal."""
    tokens = train_tokens(corpus, domain)
    table = {
        tokens[w * CONTEXT : w * CONTEXT + CONTEXT + 1].tobytes(): w for w in range(corpus.n_windows(domain, CONTEXT))
    }
    assert len(table) == corpus.n_windows(domain, CONTEXT)
    return [table[row.tobytes()] for row in batch]


@given(
    domain=st.sampled_from((None, *DOMAINS)),
    start=st.integers(0, 2000),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    branch=st.integers(0, 500),
)
def test_batches_over_any_cut_equal_one_batch(
    corpus: Corpus, domain: str | None, start: int, cuts: list[int], branch: int
) -> None:
    """So a resumed stream equals an uninterrupted one, and batch size does not change the order."""
    at: dict[str, Any] = {"seed": 7, "context_length": CONTEXT, "branch_tokens": branch * CONTEXT if domain else 0}
    whole = corpus.batch(domain=domain, start_tokens=start * CONTEXT, n_sequences=sum(cuts), **at)
    parts, position = [], start
    for n in cuts:
        parts.append(corpus.batch(domain=domain, start_tokens=position * CONTEXT, n_sequences=n, **at))
        position += n
    assert whole.dtype == np.int64
    assert whole.shape == (sum(cuts), CONTEXT + 1)
    assert np.array_equal(whole, np.concatenate(parts))


@given(domain=st.sampled_from((None, *DOMAINS)), start=st.integers(0, 2000), n_parts=st.integers(1, 5))
def test_the_parts_of_a_batch_are_its_rows_in_turn(
    corpus: Corpus, domain: str | None, start: int, n_parts: int
) -> None:
    fields: dict[str, Any] = {
        "seed": 3, "context_length": CONTEXT, "start_tokens": start * CONTEXT, "n_sequences": 11, "domain": domain,
        "branch_tokens": CONTEXT if domain else 0, "replay_share": 0.3 if domain else 0.0,
    }  # fmt: skip
    whole = corpus.batch(**fields)
    for i in range(n_parts):
        np.testing.assert_array_equal(corpus.batch(**fields, part=(i, n_parts)), whole[i::n_parts])


@given(domain=st.sampled_from(DOMAINS), trunk=st.integers(0, 120), seed=st.integers(0, 100))
def test_a_path_through_trunk_and_branch_sees_no_window_twice_in_an_epoch(
    corpus: Corpus, domain: str, trunk: int, seed: int
) -> None:
    at: dict[str, Any] = {"seed": seed, "context_length": CONTEXT}
    trunk_batch = corpus.batch(start_tokens=0, n_sequences=trunk, **at)
    chosen, _ = corpus.mixture.locate(np.arange(trunk))
    on_trunk = window_numbers(corpus, domain, trunk_batch[chosen == corpus.domains.index(domain)])
    rest = corpus.n_windows(domain, CONTEXT) - len(on_trunk)
    branch_batch = corpus.batch(start_tokens=0, n_sequences=rest, domain=domain, branch_tokens=trunk * CONTEXT, **at)
    on_branch = window_numbers(corpus, domain, branch_batch)
    assert sorted(on_trunk + on_branch) == list(range(corpus.n_windows(domain, CONTEXT)))


def test_the_mixture_gives_each_domain_its_share(corpus: Corpus) -> None:
    batch = corpus.batch(seed=0, context_length=CONTEXT, start_tokens=0, n_sequences=100)
    chosen, _ = corpus.mixture.locate(np.arange(100))
    for k, (domain, count) in enumerate({"alpha": 50, "beta": 30, "gamma": 20}.items()):
        assert len(window_numbers(corpus, domain, batch[chosen == k])) == count


def test_a_branch_from_nothing_starts_the_domains_own_stream(corpus: Corpus) -> None:
    at: dict[str, Any] = {"seed": 0, "context_length": CONTEXT, "domain": "beta", "n_sequences": 5}
    late = corpus.batch(start_tokens=3 * CONTEXT, **at)
    n_from_beta = corpus.mixture.windows_given(10, "beta")
    assert n_from_beta == 3
    assert np.array_equal(late, corpus.batch(start_tokens=0, branch_tokens=10 * CONTEXT, **at))


@given(
    domain=st.sampled_from(DOMAINS),
    start=st.integers(0, 300),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    branch=st.integers(0, 100),
    share=st.floats(0, 0.99),
)
def test_replay_over_any_cut_equals_one_batch_and_keeps_its_share(
    corpus: Corpus, domain: str, start: int, cuts: list[int], branch: int, share: float
) -> None:
    at: dict[str, Any] = {"seed": 7, "context_length": CONTEXT, "branch_tokens": branch * CONTEXT, "domain": domain}
    whole = corpus.batch(start_tokens=start * CONTEXT, n_sequences=sum(cuts), replay_share=share, **at)
    parts, position = [], start
    for n in cuts:
        parts.append(corpus.batch(start_tokens=position * CONTEXT, n_sequences=n, replay_share=share, **at))
        position += n
    assert np.array_equal(whole, np.concatenate(parts))
    n_replayed = replayed_windows(np.array([start + sum(cuts)]), share)[0]
    assert 0 <= (start + sum(cuts)) * share - n_replayed < 1


@given(domain=st.sampled_from(DOMAINS), start=st.integers(0, 2000), branch=st.integers(0, 500))
def test_no_replay_is_the_domain_s_own_stream_to_the_bit(corpus: Corpus, domain: str, start: int, branch: int) -> None:
    """The stream that branches had before there was any replay, written out."""
    at: dict[str, Any] = {"seed": 3, "context_length": CONTEXT, "domain": domain, "n_sequences": 12}
    found = corpus.batch(start_tokens=start * CONTEXT, branch_tokens=branch * CONTEXT, **at)
    places = corpus.mixture.windows_given(branch, domain) + start + np.arange(12)
    n_windows = corpus.n_windows(domain, CONTEXT)
    tokens = train_tokens(corpus, domain)
    for row, window in zip(found, shuffled_windows(places, n_windows=n_windows, seed=3, domain=domain), strict=True):
        assert np.array_equal(row, tokens[window * CONTEXT : (window + 1) * CONTEXT + 1])
    assert np.array_equal(
        found, corpus.batch(start_tokens=start * CONTEXT, branch_tokens=branch * CONTEXT, replay_share=0.0, **at)
    )


@given(domain=st.sampled_from(DOMAINS), trunk=st.integers(0, 60), share=st.floats(0.05, 0.9))
def test_a_path_with_replay_sees_no_window_twice_either(corpus: Corpus, domain: str, trunk: int, share: float) -> None:
    at: dict[str, Any] = {"seed": 5, "context_length": CONTEXT}
    n = 40
    rows = np.concatenate(
        [
            corpus.batch(start_tokens=0, n_sequences=trunk, **at),
            corpus.batch(
                start_tokens=0, n_sequences=n, domain=domain, branch_tokens=trunk * CONTEXT, replay_share=share, **at
            ),
        ]
    )
    assert len({row.tobytes() for row in rows}) == trunk + n
    general = corpus.batch(start_tokens=trunk * CONTEXT, n_sequences=n, **at)
    replayed = {row.tobytes() for row in rows[trunk:]} & {row.tobytes() for row in general}
    n_replayed = int(replayed_windows(np.array([n]), share)[0])
    others, _ = corpus.mixture.locate(trunk + np.arange(n_replayed))
    assert len(replayed) >= np.count_nonzero(others != corpus.domains.index(domain))


def test_capacity_counts_what_is_replayed(corpus: Corpus) -> None:
    limits: dict[str, Any] = {"max_pretrain_tokens": 100 * CONTEXT, "context_length": CONTEXT, "max_epochs": 1000}
    plain, replaying = (
        corpus.check_capacity(max_specialize_tokens=40 * CONTEXT, replay_share=share, **limits) for share in (0, 0.5)
    )
    for domain, share in {"alpha": 0.5, "beta": 0.3, "gamma": 0.2}.items():
        has = corpus.n_windows(domain, CONTEXT)
        assert plain[domain] == pytest.approx((100 * share + 40) / has)
        assert replaying[domain] == pytest.approx((120 * share + 20) / has)


@pytest.fixture(scope="module")
def with_general(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two domains and a general set, which shares a document with one of them."""
    folder = tmp_path_factory.mktemp("general")
    texts = [*documents(30, tag="general"), documents(1, tag="alpha")[0]]
    general = files_source(write_files(folder / "general", texts))
    return small_corpus(folder, n_documents={"alpha": 40, "beta": 40}, general=general)


def test_a_general_set_is_read_and_held_out_and_is_no_domain(with_general: Corpus) -> None:
    manifest = with_general.manifest
    assert with_general.domains == tuple(manifest.domains) == tuple(with_general.mixture.domains) == ("alpha", "beta")
    assert manifest.general is not None
    assert manifest.general.duplicates_of == {"alpha": 1}, "a domain keeps a text that both have"
    held_out = with_general.validation("general", context_length=CONTEXT, max_tokens=10**9)
    assert len(held_out) == (manifest.general.validation.n_tokens - 1) // CONTEXT
    without = manifest.model_copy(update={"general": None})
    assert without.identity != manifest.identity
    with_general.verify()
    with pytest.raises(CorpusError, match="unknown domain 'general'"):
        with_general.batch(seed=0, context_length=CONTEXT, start_tokens=0, n_sequences=1, domain="general")


@given(start=st.integers(0, 60), share=st.sampled_from((0.1, 0.25, 0.5)), trunk=st.integers(0, 20))
def test_what_a_branch_replays_is_the_general_set_from_its_start(
    with_general: Corpus, start: int, share: float, trunk: int
) -> None:
    at: dict[str, Any] = {"seed": 5, "context_length": CONTEXT, "branch_tokens": trunk * CONTEXT}
    rows = with_general.batch(start_tokens=start * CONTEXT, n_sequences=40, domain="alpha", replay_share=share, **at)
    gone = replayed_windows(np.arange(start, start + 41), share)
    assert with_general.manifest.general is not None
    reader = ShardReader(with_general.folder, with_general.manifest.general.train.shards, dtype="uint16")
    n_windows = with_general.n_windows("general", CONTEXT)
    windows = shuffled_windows(np.arange(gone[0], gone[-1]), n_windows=n_windows, seed=5, domain="general")
    general = reader.windows(windows, context_length=CONTEXT)
    own = with_general.batch(
        start_tokens=(start - int(gone[0])) * CONTEXT, n_sequences=40 - len(general), domain="alpha", **at
    )
    is_replayed = np.diff(gone) > 0
    np.testing.assert_array_equal(rows[is_replayed], general)
    np.testing.assert_array_equal(rows[~is_replayed], own)


def test_a_branch_of_replay_alone_is_of_the_mixture_as_without_a_general_set(with_general: Corpus) -> None:
    at: dict[str, Any] = {"seed": 5, "context_length": CONTEXT, "start_tokens": 0, "n_sequences": 30}
    union = with_general.batch(domain="alpha", replay_share=1.0, **at)
    np.testing.assert_array_equal(union, with_general.batch(**at))


def test_capacity_counts_what_is_replayed_of_the_general_set(with_general: Corpus) -> None:
    has = with_general.n_windows("general", CONTEXT)
    limits: dict[str, Any] = {"max_pretrain_tokens": 0, "max_epochs": 1, "context_length": CONTEXT, "replay_share": 0.5}
    epochs = with_general.check_capacity(max_specialize_tokens=20 * CONTEXT, **limits)
    assert epochs == {
        "alpha": 10 / with_general.n_windows("alpha", CONTEXT), "beta": 10 / with_general.n_windows("beta", CONTEXT),
        "general": 10 / has,
    }  # fmt: skip
    with pytest.raises(CorpusError, match=rf"corpus\.general: has {has * CONTEXT:,} .* needs .* \(90% of D' = "):
        with_general.check_capacity(max_specialize_tokens=2 * has * CONTEXT, **limits | {"replay_share": 0.9})


def test_seeds_give_different_streams(corpus: Corpus) -> None:
    one, other = (corpus.batch(seed=s, context_length=CONTEXT, start_tokens=0, n_sequences=20) for s in (0, 1))
    assert not np.array_equal(one, other)


def test_windows_cross_shard_files(corpus: Corpus) -> None:
    record = corpus.manifest.domains["beta"].train
    assert len(record.shards) > 3
    tokens = train_tokens(corpus, "beta")
    reader = ShardReader(corpus.folder, record.shards, dtype=corpus.manifest.dtype)
    assert len(reader) == len(tokens) == record.n_tokens
    longer_than_two_shards = 1200
    assert np.array_equal(reader.read(123, longer_than_two_shards), tokens[123 : 123 + longer_than_two_shards])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"start_tokens": 5}, "start_tokens = 5"),
        ({"start_tokens": -CONTEXT}, "start_tokens = -16"),
        ({"start_tokens": 0, "domain": "beta", "branch_tokens": 3}, "branch_tokens = 3"),
        ({"start_tokens": 0, "branch_tokens": CONTEXT}, "needs a domain"),
    ],
)
def test_positions_that_are_no_whole_windows_are_refused(corpus: Corpus, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        corpus.batch(seed=0, context_length=CONTEXT, n_sequences=1, **arguments)


def test_an_unknown_domain_is_named_with_the_choices(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"unknown domain 'btea' \(did you mean 'beta'\?\)"):
        corpus.batch(seed=0, context_length=CONTEXT, start_tokens=0, n_sequences=1, domain="btea")


def test_held_out_windows_are_fixed_and_bounded(corpus: Corpus) -> None:
    side = corpus.manifest.domains["alpha"].validation
    everything = corpus.validation("alpha", context_length=CONTEXT, max_tokens=10**9)
    assert len(everything) == (side.n_tokens - 1) // CONTEXT
    first = corpus.validation("alpha", context_length=CONTEXT, max_tokens=3 * CONTEXT + 1)
    assert np.array_equal(first, everything[:3])
    with pytest.raises(CorpusError, match="domain 'alpha'"):
        corpus.validation("alpha", context_length=100_000, max_tokens=10**9)


def test_bytes_per_token_counts_text_bytes_over_all_tokens(corpus: Corpus) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path / "tokenizer.json"))
    tokens = corpus.validation("beta", context_length=1, max_tokens=10**9)
    sequence = [*tokens[:, 0], tokens[-1, 1]]
    text = tokenizer.decode(sequence, skip_special_tokens=True)
    assert corpus.bytes_per_token("beta") == len(text.encode()) / len(sequence)


def test_capacity_is_counted_on_the_longest_path(corpus: Corpus) -> None:
    has = corpus.n_windows("gamma", CONTEXT)
    trunk = 100  # of which gamma gives 20
    at: dict[str, Any] = {"max_pretrain_tokens": trunk * CONTEXT, "context_length": CONTEXT}
    epochs = corpus.check_capacity(max_specialize_tokens=(has - 20) * CONTEXT, max_epochs=1, **at)
    assert epochs["gamma"] == 1.0
    too_many = (has - 19) * CONTEXT
    with pytest.raises(CorpusError, match=rf"domain 'gamma': has {has * CONTEXT:,} .* needs {(has + 1) * CONTEXT:,}"):
        corpus.check_capacity(max_specialize_tokens=too_many, max_epochs=1, **at)
    assert corpus.check_capacity(max_specialize_tokens=too_many, max_epochs=2, **at)["gamma"] == (has + 1) / has


def test_a_pickled_corpus_is_small_and_reads_the_same(corpus: Corpus) -> None:
    at: dict[str, Any] = {"seed": 0, "context_length": CONTEXT, "start_tokens": 0, "n_sequences": 4}
    before = corpus.batch(**at)
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).batch(**at), before)


def test_verify_finds_one_flipped_bit(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, n_documents={"one": 20})
    corpus.verify()
    path = corpus.folder / corpus.manifest.domains["one"].train.shards[0].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"one\.train-00000\.bin: has changed"):
        Corpus.open(corpus.folder).verify()


def test_verify_finds_a_changed_tokenizer(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, n_documents={"one": 20})
    (corpus.tokenizer_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CorpusError, match="tokenizer: has changed"):
        corpus.verify()


def test_open_refuses_a_short_or_missing_shard_and_a_damaged_manifest(tmp_path: Path) -> None:
    folder = small_corpus(tmp_path, n_documents={"one": 20}).folder
    manifest = folder / "manifest.json"
    shard = folder / "shards" / "one.validation-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(CorpusError, match=r"validation-00000\.bin: has \d+ bytes instead of"):
        Corpus.open(folder)
    shard.unlink()
    with pytest.raises(CorpusError, match=r"validation-00000\.bin: is missing"):
        Corpus.open(folder)
    manifest.write_text(manifest.read_text()[:-200])
    with pytest.raises(CorpusError, match=r"manifest\.json: is damaged"):
        Corpus.open(folder)
    with pytest.raises(CorpusError, match="holds no finished corpus"):
        Corpus.open(tmp_path / "nowhere")
