"""Checkpoints against faults: damage is passed over, storage that fails is no verdict, what is asked to stop saves."""

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from raysplit.design.resolved_spec import tree_of
from raysplit.design.tasks import Measured
from raysplit.design.tree import Node
from raysplit.errors import CheckpointError, RunError, StorageError
from raysplit.train import run, storage
from raysplit.train.checkpoints import (
    MANIFEST,
    MARK,
    CheckpointManifest,
    Damaged,
    StoredFile,
    check_checkpoints,
    check_shared,
    mark_shared,
    stored,
    stored_nodes,
)
from raysplit.train.run import Interrupted, Lane
from raysplit.train.storage import CheckpointStorage
from tests.train.conftest import VOCAB, make_space
from tests.train.jobs import branch, lane_in, trunk

pytestmark = pytest.mark.usefixtures("one_rank")
NODE = Node(n_params=14_000, seed=0, pretrain_tokens=2048)


def measure(lane: Lane, root: int | None, milestone: int, **more: Any) -> Measured:
    trial = trunk(lane.space, milestone) if root is None else branch(lane.space, root, milestone)
    tell: Callable[[int, float], bool | None] = more.get("on_progress", lambda tokens, loss: None)
    out = lane.measure(trial, milestone, tree=tree_of(lane.space), on_progress=tell)
    lane.forget_passed(trial, milestone, tree=tree_of(lane.space))
    return out


@pytest.fixture(scope="module")
def lane(one_rank: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """One for the module, since an engine takes longer to make than to use; saves as often as it looks."""
    made = lane_in(tmp_path_factory.mktemp("space"), save_minutes=1e-9)
    yield made
    for engine in made._engines.values():
        engine.close()


@pytest.fixture
def at(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | Path], Lane]:
    """The lane, with its checkpoints at a place, looking after every step."""
    monkeypatch.setattr(run, "_LOOK_SECONDS", 0.0)

    def turned(place: str | Path) -> Lane:
        lane.turn_to(lane.space.training, place)
        return lane

    return turned


@pytest.fixture(scope="module")
def whole(one_rank: None, lane: Lane, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Measured]:
    """Checkpoints of a trunk, and what a branch of it comes to."""
    folder = tmp_path_factory.mktemp("whole")
    lane.turn_to(lane.space.training, folder / "trunk")
    measure(lane, None, 2048)
    measure(lane, None, 4096)
    shutil.copytree(folder / "trunk", folder / "branched")
    lane.turn_to(lane.space.training, folder / "branched")
    return folder / "trunk", measure(lane, 4096, 1024)


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a missing file": Path.unlink,
    "a cut file": cut,
    "a flipped bit of a header": lambda path: flip(path, 0.001),
    "a flipped bit of a weight": lambda path: flip(path, 0.9),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    at: Callable[[Path], Lane], whole: tuple[Path, Measured], tmp_path: Path, damage: str
) -> None:
    """The branch's root is trained again, from the checkpoint before it; then all is as it would have been."""
    shutil.copytree(whole[0], tmp_path / "here")
    one = at(tmp_path / "here")
    root = tmp_path / "here" / trunk(one.space, 4096).root.folder.replace("-d0", "-d4096")
    DAMAGES[damage](next(root.glob("*.safetensors")))
    again = measure(one, 4096, 1024)
    assert again.losses == whole[1].losses
    assert again.tokens == whole[1].tokens + 2048
    assert measure(one, 4096, 2048).tokens == 2048 - 768, "the root is whole again"


@pytest.mark.parametrize("position", [0.02, 0.3, 0.6, 0.97])
def test_a_manifest_that_has_changed_says_nothing(position: float, tmp_path: Path) -> None:
    space = make_space(tmp_path)
    file = StoredFile.of("00000-a.safetensors", b"content", ["weight"])
    manifest = CheckpointManifest(
        node=NODE, shape=space.shape(14_000, VOCAB), adam_steps=8, passing=False, files=(file,)
    )
    path = tmp_path / NODE.folder / MANIFEST
    path.parent.mkdir()
    path.write_bytes(manifest.to_bytes())
    assert stored(CheckpointStorage(tmp_path)) == ({NODE: manifest}, [])
    flip(path, position)
    assert stored(CheckpointStorage(tmp_path)) == ({}, [NODE.folder])
    path.write_bytes(json.dumps([1]).encode())
    assert stored_nodes(tmp_path) == set()
    for content in (b"", b"conten", b"contenT"):
        with pytest.raises(Damaged, match=r"00000-a"):
            file.check(content)


def test_a_checkpoint_under_another_name_is_none(tmp_path: Path) -> None:
    manifest = CheckpointManifest(
        node=NODE, shape=make_space(tmp_path).shape(14_000, VOCAB), adam_steps=8, passing=False, files=()
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST).write_bytes(manifest.to_bytes())
    assert stored_nodes(tmp_path) == set()


def test_a_checkpoint_of_an_earlier_raysplit_is_refused_and_never_trained_anew_in_silence(tmp_path: Path) -> None:
    folder = tmp_path / "n13408-s0-d4096"
    folder.mkdir()
    content = {"node": {"n_params": 13408}, "shape": {}, "n_workers": 1}  # DeepSpeed's own files beside it
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"n13408-s0-d4096: an earlier raysplit wrote .* delete the checkpoints"):
        check_checkpoints(tmp_path, make_space(tmp_path), vocab_size=VOCAB)


def test_a_checkpoint_of_another_model_is_refused(
    at: Callable[[Path], Lane], whole: tuple[Path, Measured], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "here")
    for path in (tmp_path / "here").glob(f"*/{MANIFEST}"):
        manifest = CheckpointManifest.from_bytes(path.read_bytes())
        other = make_space(tmp_path).shape(28_000, VOCAB)
        path.write_bytes(
            CheckpointManifest(
                node=manifest.node, shape=other, adam_steps=manifest.adam_steps, passing=False, files=manifest.files
            ).to_bytes()
        )
    with pytest.raises(CheckpointError, match=r"n13408-s0-d4096: holds a model of 2\d+ .* this run needs 13408"):
        measure(at(tmp_path / "here"), 4096, 1024)
    with pytest.raises(CheckpointError, match="this run needs 13408"):
        check_checkpoints(tmp_path / "here", make_space(tmp_path), vocab_size=VOCAB)


def test_a_machine_that_does_not_see_the_place_is_named_before_it_trains(tmp_path: Path) -> None:
    mark_shared(tmp_path / "shared")
    check_shared(tmp_path / "shared")
    with pytest.raises(StorageError, match=rf"own/{MARK}: the machine {socket.gethostname()} does not see"):
        check_shared(tmp_path / "own")


def test_it_saves_and_stops_when_it_is_asked_to_and_goes_on_from_there(
    at: Callable[[Path], Lane], whole: tuple[Path, Measured], tmp_path: Path
) -> None:
    """At the constant rate and in the cooldown, again and again: each step is trained once."""
    shutil.copytree(whole[0], tmp_path / "here")
    one = at(tmp_path / "here")
    trained, last = 0, 0

    def stop_after_two_steps(tokens: int, loss: float) -> bool:
        nonlocal last
        last = tokens
        return tokens >= 512

    for _ in range(10):
        try:
            measured = measure(one, 4096, 1024, on_progress=stop_after_two_steps)
            break
        except Interrupted:
            trained += last
    assert measured.losses == whole[1].losses
    assert trained + measured.tokens == whole[1].tokens
    assert trained >= 512
    left = {node for node, manifest in stored(one.storage)[0].items() if manifest.passing}
    assert not left, "what was saved on the way has gone"


def test_of_the_saves_within_a_segment_the_last_two_stay(at: Callable[[Path], Lane], tmp_path: Path) -> None:
    """One to go on from, and one in case that it is damaged, as the newest is here."""
    one = at(tmp_path)
    most = 0

    def look(tokens: int, loss: float) -> bool:
        nonlocal most
        most = max(most, len([m for m in stored(one.storage)[0].values() if m.passing]))
        return tokens == 1280

    with pytest.raises(Interrupted):
        measure(one, None, 2048, on_progress=look)
    assert most == 2
    newest = max(stored(one.storage)[0])
    assert newest.pretrain_tokens == 1280
    cut(next((tmp_path / newest.folder).glob("*.safetensors")))
    resumed = measure(one, None, 2048)
    assert 2048 + 512 - 1280 < resumed.tokens <= 2048 + 512 - 512


class Full:
    """Writes fail from one count to another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, fails: range) -> None:
        self.n_writes = 0
        put = storage._put_locally

        def failing(path: str, content: bytes) -> None:
            self.n_writes += 1
            if self.n_writes in fails:
                raise OSError(code, "this is how it fails")
            put(path, content)

        monkeypatch.setattr(storage, "_put_locally", failing)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_storage_that_fails_is_no_verdict_and_the_answer_is_the_same(
    at: Callable[[Path], Lane], whole: tuple[Path, Measured], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    shutil.copytree(whole[0], tmp_path / "here")
    one = at(tmp_path / "here")
    with monkeypatch.context() as patch:
        Full(patch, code, range(1, 1000))
        with pytest.raises(StorageError, match=r"n13408.*this is how it fails.*storage that every node reaches"):
            measure(one, 4096, 1024)
    assert measure(one, 4096, 1024).losses == whole[1].losses


def test_a_save_on_the_way_that_fails_is_made_up_for_by_the_next(
    at: Callable[[Path], Lane], whole: tuple[Path, Measured], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole[0], tmp_path / "here")
    one = at(tmp_path / "here")
    full = Full(monkeypatch, errno.ENOSPC, range(1, 2))
    assert measure(one, 4096, 1024).losses == whole[1].losses
    assert full.n_writes > 2


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/with/checkpoints"
    s3_endpoint = request.getfixturevalue("s3_endpoint")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ever")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    boto3.client("s3", endpoint_url=f"http://{s3_endpoint}", region_name="us-east-1").create_bucket(Bucket="runs")
    return f"s3://runs/{uuid4().hex}/checkpoints?scheme=http&endpoint_override={s3_endpoint}&region=us-east-1"


@pytest.mark.parametrize("url", ["file", "s3"], indirect=True)
def test_checkpoints_lie_as_well_at_a_url(at: Callable[[str], Lane], whole: tuple[Path, Measured], url: str) -> None:
    one = at(url)
    assert stored_nodes(url) == set()
    measure(one, None, 2048)
    measure(one, None, 4096)
    assert {node.pretrain_tokens for node in stored_nodes(url)} == {2048, 4096}
    assert measure(one, 4096, 1024).losses == whole[1].losses


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_bucket_that_is_not_there_is_storage_that_fails(at: Callable[[str], Lane], url: str) -> None:
    with pytest.raises(StorageError, match=r"s3://nosuch/\w+/checkpoints.*storage that every node reaches"):
        measure(at(url.replace("//runs/", "//nosuch/")), None, 2048)


def test_a_url_of_nothing_known_is_refused() -> None:
    with pytest.raises(RunError, match=r"ftp://here: .*give a folder that every node sees, or a URL such as s3://"):
        CheckpointStorage("ftp://here")


@pytest.mark.parametrize(("age_seconds", "is_left"), [(0, True), (3600, False)])
def test_what_a_save_has_left_is_deleted_once_it_cannot_be_under_way(
    at: Callable[[Path], Lane], tmp_path: Path, age_seconds: int, is_left: bool
) -> None:
    """A lane that was taken for dead may be writing there."""
    one = at(tmp_path)
    share = tmp_path / Node(n_params=13408, seed=0, pretrain_tokens=512).folder / "share"
    share.parent.mkdir()
    share.write_bytes(b"half")
    written = time.time() - age_seconds
    os.utime(share, (written, written))
    trial = trunk(one.space, 1024)
    one.measure(trial, 1024, tree=tree_of(one.space), on_progress=lambda tokens, loss: None)
    assert share.exists() == is_left
