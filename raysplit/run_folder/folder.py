"""The run folder: one sweep's everything, and the rule that a folder belongs to one sweep."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raysplit.errors import RunError, SpaceError
from raysplit.files import read_text
from raysplit.journal import has_journal, read_journal
from raysplit.live.run_spec import KINDS
from raysplit.machines import ComputeSpec
from raysplit.space import Space, dump_space, load_space

_SPACE = "space.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """Where a run keeps its things."""

    path: Path

    @property
    def space(self) -> Path:
        return self.path / _SPACE

    @property
    def discovery(self) -> Path:
        """The clusters that are its domains, where the space has text without labels."""
        return self.path / "discovery"

    @property
    def discovered_space(self) -> Path:
        """The space with its domains, which everything after discovery goes by."""
        return self.path / "discovered_space.yaml"

    @property
    def tuned_space(self) -> Path:
        """The space with the hyperparameters that were found, which everything after tuning goes by."""
        return self.path / "tuned_space.yaml"

    @property
    def hyperparameters(self) -> Path:
        """What was found, with its evidence."""
        return self.path / "hyperparameters.json"

    @property
    def optuna(self) -> Path:
        """Optuna's database, where the space names no other."""
        return self.path / "optuna.db"

    @property
    def tuning(self) -> Path:
        """Checkpoints of the trials under way while tuning."""
        return self.path / "tuning"

    @property
    def corpus(self) -> Path:
        return self.path / "corpus"

    @property
    def journal(self) -> str | Path:
        """A folder here, or the URL that the space names."""
        url = load_space(self.space).sweep.journal if self.space.exists() else None
        return url or self.path / "journal"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoints_at(self, storage: str | None) -> str:
        """Where they lie: in a folder of the run's name on the storage that the space names, or here without one."""
        if storage is None:
            return str(self.checkpoints)
        place, query, settings = storage.partition("?")
        return f"{place.rstrip('/')}/{self.path.name}/checkpoints{query}{settings}"

    def lane_log(self, lane: int) -> Path:
        """What ended a lane's workers, in full."""
        return self.path / "ray" / f"lane-{lane}.log"

    @property
    def law(self) -> Path:
        return self.path / "law.json"

    @property
    def advice(self) -> Path:
        return self.path / "advice.json"

    @property
    def final(self) -> Path:
        """Losses of the final run and of the baselines beside it."""
        return self.path / "final.json"

    @property
    def experts(self) -> Path:
        """Seed and experts as Hugging Face folders."""
        return self.path / "experts"

    @property
    def evaluation(self) -> Path:
        """What `raysplit eval` found of its models."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def observations(self, suffix: str) -> Path:
        return self.path / f"observations.{suffix}"

    @property
    def sweep_id(self) -> str:
        """Name of this sweep on a Ray cluster: of this folder, so that two sweeps never share an actor."""
        return f"{self.path.name}-{hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:8]}"


def open_run(path: Path, space: Space) -> RunFolder:
    """Begin a run in a folder, or take up the one that is there, perhaps with other machines.

    Where nothing was built or measured yet, as after a first mistake, another search space takes the old one's place;
    where only a corpus was, one that builds the same corpus does.

    Raises:
        RunError: the folder cannot be written, or holds a run or corpus of another search space, or a ``space.yaml``
            that a person wrote.
    """
    folder = RunFolder(path=path.absolute())
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if not (folder.space.exists() and _goes_on(folder, _space_there(folder), space)):
            write_text(folder.space, dump_space(space))
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be written: {error.strerror}") from error
    if not os.access(folder.path, os.W_OK):
        raise RunError(f"{folder.path}: cannot be written: permission denied")
    return folder


def existing_run(path: Path) -> tuple[RunFolder, Space]:
    """A run folder with its resolved search space: with domains that were found, and hyperparameters that were tuned.

    Raises:
        RunError: the folder holds no run.
    """
    folder = RunFolder(path=path.absolute())
    if not folder.space.exists():
        raise RunError(f"{path}: is not a run folder (no {_SPACE}); give the folder that `raysplit sweep` wrote to")
    resolved = (path for path in (folder.tuned_space, folder.discovered_space) if path.exists())
    return folder, load_space(next(resolved, folder.space))


def run_with_journal(path: Path) -> RunFolder:
    """A run folder whose journal has begun: all that an answer needs.

    Raises:
        RunError: the folder holds no run, or its sweep has not begun.
    """
    folder = RunFolder(path=path.absolute())
    if not has_journal(folder.journal):
        existing_run(path)
        raise RunError(f"{path}: its sweep has not begun; start it with `raysplit sweep`")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _space_there(folder: RunFolder) -> Space:
    try:
        return load_space(folder.space)
    except SpaceError as error:
        raise RunError(f"{error}\n{folder.space} is in the way; give another folder with --out") from error


def _goes_on(folder: RunFolder, there: Space, space: Space) -> bool:
    """Whether something was tuned or measured with the search space that is there, which so has to stay.

    Raises:
        RunError: ``space`` is another, or would build another corpus than there is.
    """
    from raysplit.corpus.manifest import MANIFEST_FILE  # brings the tokenizers library

    if _is_measured(folder):
        # A run goes on with other machines, though not with checkpoints at another place.
        compute = there.compute.model_copy(update={"storage": space.compute.storage})
        if changed := _changed(there, space.model_copy(update={"compute": compute})):
            raise RunError(
                f"{folder.path}: holds a run of another search space ({changed} here); "
                "give another folder with --out, or delete this one"
            )
        if there.compute != space.compute:
            _change_machines(folder, space.compute)
        return True
    # How often tokens may be repeated changes no token.
    texts = (s.model_copy(update={"corpus": s.corpus.model_copy(update={"max_epochs": 1})}) for s in (there, space))
    if (folder.corpus / MANIFEST_FILE).exists() and (changed := _changed(*texts, section="corpus")):
        raise RunError(
            f"{folder.path}: holds a corpus of another search space ({changed} here), on which nothing was measured "
            f"yet; delete {folder.corpus}, or give another folder with --out"
        )
    text = read_text(folder.space)
    if yaml.safe_dump(yaml.safe_load(text), sort_keys=False) != text:
        raise RunError(
            f"{folder.space}: was written by hand, and a run keeps its own copy of the search space under that name; "
            "rename it, or give another folder with --out"
        )
    return False


def _change_machines(folder: RunFolder, compute: ComputeSpec) -> None:
    """Have every copy of the search space say what trains it from now on."""
    for path in (folder.space, folder.discovered_space, folder.tuned_space):
        if path.exists():
            write_text(path, dump_space(load_space(path).model_copy(update={"compute": compute})))


def _is_measured(folder: RunFolder) -> bool:
    made = (
        folder.tuned_space, folder.hyperparameters, folder.optuna, folder.tuning, folder.checkpoints,
        folder.law, folder.observations("parquet"), folder.experts, folder.report,
    )  # fmt: skip
    return any(path.is_file() or (path.is_dir() and any(path.iterdir())) for path in made) or _has_records(folder)


def _has_records(folder: RunFolder) -> bool:
    try:
        if not has_journal(folder.journal):
            return False
    except RunError:
        return False  # where no journal can be is none: the location may be the mistake
    try:
        return any(record.kind not in KINDS for record in read_journal(folder.journal))
    except RunError:
        return True  # damaged, so there was something


def _changed(there: Space, here: Space, *, section: str | None = None) -> str:
    """The first value of a section, or of the whole, that differs; empty when none does."""
    was, now = (s.model_dump(mode="json", include={section} if section else None) for s in (there, here))
    return difference(was, now)


def difference(there: Any, here: Any, at: str = "") -> str:
    """The first value that differs, by its full name; empty when none does."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*here, *(key for key in there if key not in here)]
        found = (difference(there.get(key), here.get(key), f"{at}.{key}".lstrip(".")) for key in keys)
        return next(filter(None, found), "")
    return "" if there == here else f"{at}: {json.dumps(there)} there, {json.dumps(here)}"
