"""The files of a source, listed once for every reader to look through."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysplit.errors import TableError
from raysplit.files import is_left_behind
from raysplit.tables.limits import no_such

_TRASH = ".trash"
"""Where MLflow puts deleted experiments. Its files are listed, so that they are counted, though its name is hidden."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file, or a folder with all that is below it."""

    path: Path
    files: Sequence[Path]
    """Sorted; without what systems and editors leave behind. A link to a folder is followed only as `path` itself."""
    closed: Sequence[Path] = ()
    """Folders that cannot be listed."""

    @property
    def is_folder(self) -> bool:
        return self.files != (self.path,)

    def name_of(self, path: Path) -> str:
        """A path below the source as it is shown: relative, or the name of the source itself."""
        return (
            path.relative_to(self.path).as_posix() if path != self.path and self.holds(path) else path.absolute().name
        )

    def holds(self, path: Path) -> bool:
        return path.is_relative_to(self.path)


def look_into(path: Path) -> Source:
    """List what lies at a path.

    Raises:
        TableError: there is no such file or folder.
    """
    if not path.exists():
        raise TableError(no_such(path))
    if not path.is_dir():
        return Source(path=path, files=(path,))
    path = path.resolve() if path.is_symlink() else path  # the name of W&B's link latest-run is no run's
    files: list[Path] = []
    closed: list[Path] = []
    for folder, _, names in os.walk(path, onerror=lambda error: closed.append(Path(str(error.filename)))):
        files += [Path(folder) / name for name in names]
    kept = [file for file in files if _is_kept(file.relative_to(path))]
    return Source(path=path, files=tuple(sorted(kept)), closed=tuple(sorted(closed)))


def _is_kept(relative: Path) -> bool:
    return not is_left_behind(Path(*(part for part in relative.parts if part != _TRASH)))
