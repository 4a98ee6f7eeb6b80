"""The clusterer: distances are what they say, files hold no pickle, and what is wrong is named."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from raysplit.discover.clusterer import Clusterer, excerpt
from raysplit.discover.features import CharacterFeatures, EncoderFeatures
from raysplit.errors import CorpusError
from tests.discover.texts import KINDS, texts_of

TEXTS = [text for kind in KINDS for text in texts_of(kind, 10)]


@pytest.fixture(scope="module")
def clusterer() -> Clusterer:
    features, vectors = CharacterFeatures.fit(TEXTS, seed=0)
    return Clusterer(
        domains=tuple(KINDS), centres=vectors.reshape(3, 10, -1).mean(1).astype(np.float64), offsets=np.zeros(3),
        features=features, excerpt_bytes=4096,
    )  # fmt: skip


def test_distances_are_squared_and_euclidean_in_the_space_of_features(clusterer: Clusterer) -> None:
    vectors = clusterer.vectors(TEXTS)
    assert vectors == pytest.approx(CharacterFeatures.fit(TEXTS, seed=0)[1], abs=1e-5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    expected = ((vectors[:, None, :] - clusterer.centres) ** 2).sum(-1)
    assert clusterer.distances(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert clusterer.assign(TEXTS).tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_an_offset_moves_what_is_assigned_and_no_distance(clusterer: Clusterer) -> None:
    moved = Clusterer(
        domains=clusterer.domains, centres=clusterer.centres, offsets=np.array([9.0, 0, 0]),
        features=clusterer.features, excerpt_bytes=clusterer.excerpt_bytes,
    )  # fmt: skip
    assert (moved.distances(TEXTS) == clusterer.distances(TEXTS)).all()
    assert 0 not in moved.assign(TEXTS)


def test_the_beginning_decides_alone(clusterer: Clusterer) -> None:
    short = Clusterer(
        domains=clusterer.domains, centres=clusterer.centres, offsets=clusterer.offsets, features=clusterer.features,
        excerpt_bytes=64,
    )  # fmt: skip
    text = TEXTS[0][:64]
    assert (short.distances([text + " court shall" * 50]) == short.distances([text])).all()


@pytest.mark.parametrize(("n_bytes", "kept"), [(1, "a"), (2, "a"), (3, "aé"), (4, "aéb"), (99, "aéb")])
def test_an_excerpt_has_whole_characters(n_bytes: int, kept: str) -> None:
    assert excerpt("aéb", n_bytes) == kept


def test_no_texts_are_no_rows(clusterer: Clusterer) -> None:
    assert clusterer.assign([]).shape == (0,)
    assert clusterer.distances([]).shape == (0, 3)


def test_a_text_without_anything_known_is_at_a_finite_distance(clusterer: Clusterer) -> None:
    assert np.isfinite(clusterer.distances(["", "漢字"])).all()


def test_it_is_read_back_as_it_was_and_nothing_is_pickled(clusterer: Clusterer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        clusterer.save(tmp_path / name)
    back = Clusterer.load(tmp_path / "one")
    assert back.domains == clusterer.domains
    assert (back.distances(TEXTS) == clusterer.distances(TEXTS)).all()
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        if path.suffix == ".npz":
            for member in zipfile.ZipFile(path).namelist():
                assert np.load(path, allow_pickle=False)[member.removesuffix(".npy")].dtype != object
        else:
            json.loads(path.read_text())


def cut(path: Path, *, to: float) -> None:
    """Leave a share of a file, as a full disk does."""
    path.write_bytes(path.read_bytes()[: int(to * path.stat().st_size)])


def flip(path: Path) -> None:
    """Change the byte in the midst of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "clusterer.json").unlink(), r"holds no clusterer \(no clusterer.json\)"),
        (lambda folder: (folder / "features.npz").unlink(), r"holds no clusterer \(no features.npz\)"),
        (lambda folder: (folder / "clusterer.json").write_text("{"), "the clusterer is damaged"),
        (lambda folder: (folder / "clusterer.npz").write_bytes(b"not zipped"), "the clusterer is damaged"),
        (lambda folder: cut(folder / "clusterer.npz", to=0.5), "is damaged: clusterer.npz: File is not a zip"),
        (lambda folder: cut(folder / "features.npz", to=0.0), "the clusterer is damaged: features.npz: No data left"),
        (lambda folder: flip(folder / "features.npz"), "the clusterer is damaged: features.npz: Bad CRC-32"),
        (
            lambda folder: (folder / "n_grams.json").write_text('["the", "he "]'),
            r"the clusterer is damaged: 2 n-grams, \d+ weights, and a rotation",
        ),
        (
            lambda folder: (folder / "clusterer.json").write_text(
                json.dumps({"features": "characters", "domains": ["one"], "excerpt_bytes": 9})
            ),
            r"the clusterer is damaged: 1 domains, centres \(3, 30\), 3 offsets",
        ),
        (
            lambda folder: (folder / "clusterer.json").write_text('{"features": "words"}'),
            "unknown features 'words'.*Known: characters, encoder",
        ),
    ],
    ids=[
        "no record", "no features", "bad record", "bad arrays", "half arrays", "empty arrays", "a flipped byte",
        "other n-grams", "other domains", "other features",
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_named(clusterer: Clusterer, tmp_path: Path, damage, sentence: str) -> None:  # type: ignore[no-untyped-def]
    clusterer.save(tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(CorpusError, match=sentence):
        Clusterer.load(tmp_path / "c")


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of two layers with random weights."""
    transformers = pytest.importorskip("transformers")
    from raysplit.corpus.tokenizer import save_bpe, train_bpe

    folder = tmp_path_factory.mktemp("encoder")
    save_bpe(train_bpe(TEXTS, vocab_size=300), folder / "encoder")
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder / "encoder")
    return folder / "encoder"


def test_an_encoder_s_features_are_the_mean_of_its_states(encoder_folder: Path) -> None:
    import torch

    features = EncoderFeatures(name=str(encoder_folder))
    tokenizer, model = features._parts
    texts = ["def self", TEXTS[15], TEXTS[15] * 9]
    vectors = features(texts)
    assert vectors.shape == (3, 32)
    for text, vector in zip(texts, vectors, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :64]
        with torch.inference_mode():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0).numpy()
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-4)


def test_a_clusterer_names_its_encoder_and_loads_it_again(encoder_folder: Path, tmp_path: Path) -> None:
    features = EncoderFeatures(name=str(encoder_folder))
    made = Clusterer(
        domains=("a", "b"), centres=features(TEXTS[:2]).astype(np.float64), offsets=np.zeros(2), features=features,
        excerpt_bytes=100,
    )  # fmt: skip
    made.save(tmp_path / "c")
    assert Clusterer.load(tmp_path / "c").distances(TEXTS) == pytest.approx(made.distances(TEXTS), abs=1e-6)


def test_the_pass_of_an_encoder_is_counted_in_what_a_choice_costs(encoder_folder: Path) -> None:
    features = EncoderFeatures(name=str(encoder_folder))
    made = Clusterer(
        domains=("a", "b"), centres=np.zeros((2, 32)), offsets=np.zeros(2), features=features, excerpt_bytes=1000
    )  # fmt: skip
    text = TEXTS[15][:40]
    n_tokens = len(features._parts[0](text)["input_ids"])
    per_layer = 4 * 32 * 32 + 2 * 32 * 64  # attention's four matrices, and the two behind it
    pass_flops = n_tokens * (2 * (2 * per_layer + 32 * 32) + 2 * 4 * n_tokens * 32)
    assert 1 < n_tokens < 64
    assert made.flops(text) == pass_flops + 2 * 2 * 32
    assert made.flops(text * 99) < 99 * pass_flops, "what the encoder does not read costs nothing"


def test_an_encoder_that_cannot_be_loaded_is_named(encoder_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weightless").mkdir()
    for path in encoder_folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / "weightless" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CorpusError, match=r"discover.encoder = .*weightless.*cannot be loaded"):
        EncoderFeatures(name=str(tmp_path / "weightless"))
    with pytest.raises(CorpusError, match=r"discover.encoder = .*nothing.*: no such folder"):
        EncoderFeatures(name=str(tmp_path / "nothing"))
