"""Which files a path names: itself, those of a folder that are asked for, or those that a glob finds."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from raysplit.corpus.not_read import Tally
from raysplit.errors import CorpusError
from raysplit.files import COMPRESSIONS, is_left_behind


def list_files(path: Path, is_wanted: Callable[[Path], bool], tally: Tally) -> list[Path]:
    """Files in a fixed order; of a folder, the files whose path below it ``is_wanted``.

    Args:
        path: a file, a folder or a glob; a file or folder of exactly that name comes first.
        is_wanted: not asked of a file that ``path`` itself names.
        tally: is told of the files that are there and not listed.

    Raises:
        CorpusError: nothing is there.
    """
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = _of_folder(path, is_wanted, tally)
    elif path.exists():
        raise CorpusError(f"{tally.where}: is neither a file nor a folder")
    elif glob.has_magic(str(path)):
        found = _of_glob(path, is_wanted, tally)
    else:
        raise CorpusError(f"{tally.where}: no such file or folder")
    tally.n_files += len(found)
    return found


def matches(relative: Path, pattern: str) -> bool:
    """Whether a glob fits a path, or the path without its compression: ``**/*.txt`` fits ``a/B.TXT.gz``."""
    names = [name.lower() for name in relative.parts]
    parts = [part for part in pattern.lower().split("/") if part not in ("", ".")]
    if _fits(names, parts):
        return True
    stem, suffix = os.path.splitext(names[-1])
    return suffix in COMPRESSIONS and _fits([*names[:-1], stem], parts)


def _fits(names: list[str], parts: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (bool(names) and _fits(names[1:], parts))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _of_folder(folder: Path, is_wanted: Callable[[Path], bool], tally: Tally) -> list[Path]:
    found = []
    for path in sorted(_walk(folder, tally)):
        if not is_wanted(path.relative_to(folder)) or (path.exists() and not path.is_file()):
            tally.other(path)
        elif path.exists():
            found.append(path)
        else:
            tally.n_files += 1
            tally.bad_file(path, "is a link to nothing")
    return found


def _walk(root: Path, tally: Tally) -> Iterator[Path]:
    """Every file below, through links too, but through each folder once: links may lead in circles."""
    been: set[str] = set()

    def refused(error: OSError) -> None:
        tally.n_files += 1
        tally.bad_file(Path(error.filename), f"cannot be opened: {error.strerror}")

    for folder, folders, files in os.walk(root, followlinks=True, onerror=refused):
        real = os.path.realpath(folder)
        if real in been:
            folders.clear()
            continue
        been.add(real)
        left_behind = [name for name in (*folders, *files) if is_left_behind(Path(name))]
        left_behind += [name for name in folders if name not in left_behind and _is_run(Path(folder, name))]
        for name in sorted(left_behind):
            tally.left_behind(Path(folder, name))
        folders[:] = sorted(set(folders) - set(left_behind))
        yield from (Path(folder, name) for name in files if name not in left_behind)


def _is_run(folder: Path) -> bool:
    """Whether a folder was written by raysplit, perhaps from this very text: `--out` may lie beside it."""
    return (folder / "space.yaml").is_file() and ((folder / "holder").is_dir() or (folder / "corpus").is_dir())


def _of_glob(path: Path, is_wanted: Callable[[Path], bool], tally: Tally) -> list[Path]:
    parts = path.parts
    # A folder may be called `data[1]`: what is there by its very name is no pattern.
    n_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part) and not Path(*parts[: i + 1]).exists())
    root = Path(*parts[:n_fixed])
    found: dict[str, Path] = {}
    walked: set[Path] = set()
    pattern = os.path.join(glob.escape(str(root)), *parts[n_fixed:])
    for match in sorted(map(Path, glob.iglob(pattern, recursive=True))):
        if is_left_behind(match.relative_to(root)):
            tally.left_behind(match)
            continue
        if not walked.isdisjoint(match.parents):
            continue  # it was listed with its folder
        files = [match]
        if match.is_dir():
            if _matches_below(parts):
                continue  # what it holds is matched as well
            walked.add(match)
            files = _of_folder(match, is_wanted, tally)
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    if not found:
        raise CorpusError(f"{tally.where}: no file matches")
    return sorted(found.values())


def _matches_below(parts: Sequence[str]) -> bool:
    """Whether a glob that matches a folder matches all that it holds too, as ``**``, ``**/*`` and ``a/**/*/*`` do."""
    return "**" in parts and set(parts[len(parts) - parts[::-1].index("**") :]) <= {"*"}
