"""Laws by version: the last few dozen and those of the sweep's rounds, in memory and in a folder beside the journal.

Each version has a file, such as ``law-00000012-3.json``, where 3 is the fence of the journal's opening that wrote it.
The file holds what was fitted and when, the law as `Law.to_dict`, the choice's fields, and the advice on the target, so
that a restarted actor need not search it again. The folder is a convenience: without it the laws are fitted again from
the journal, under new versions. A file is there before anyone is told of its version.
"""

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from raysplit import strict_json
from raysplit.errors import LawError, RaysplitError, UnknownValue
from raysplit.journal.storage import Storage, open_storage
from raysplit.law import Law
from raysplit.live.fitted import Fitted, LawVersion
from raysplit.split import Advice, Choice, FormScore

SCHEMA_VERSION = 3
_KEPT = 48
"""So many of the last versions are kept, beside those of rounds."""
_NAME = re.compile(r"law-(\d{8})-(\d+)\.json")


class LawStore:
    """The laws of one journal. Methods may be called from several threads."""

    def __init__(self, folder: str | Path | None, *, last_seq: int, fence: int | None = None) -> None:
        """Open the laws that are there.

        Args:
            folder: a path, or a URL (`raysplit.journal.storage`); None keeps them in memory alone.
            last_seq: of the journal's records: laws that know of later ones belong to another journal.
            fence: of the journal's opening, so that an actor that was replaced overwrites no law; None reads the folder
                and stores nothing.
        """
        self._lock = threading.Lock()
        self._fence = fence
        self._versions: dict[int, LawVersion] = {}
        self._storage: Storage | None = None if folder is None else open_storage(folder)
        self._names: dict[int, str] = {}
        self._load(last_seq)
        self._n_versions = max(self._versions, default=0)
        self.latest = self._find_latest()
        """The version that knows the most records; of several, one of a full fit, then the last. None without any."""
        self.trouble = ""
        """Why the last law could not be stored: it is served all the same, and lost with the process. Else empty."""

    def all(self) -> list[LawVersion]:
        """Every version that is kept, oldest first."""
        with self._lock:
            return [self._versions[number] for number in sorted(self._versions)]

    def get(self, version: int) -> LawVersion:
        """One version.

        Raises:
            UnknownValue: there is no such version, or it is no longer kept; names those that are.
        """
        found = self._versions.get(version) if isinstance(version, int) else None
        if found is None:
            raise UnknownValue("version", "version of the law", version, [v.version for v in self.all()])
        return found

    def put(self, fitted: Fitted, *, of_round: bool = False) -> LawVersion:
        """Number a law, store it and make it known. A store that only reads numbers it 0: the one who writes counts."""
        with self._lock:
            number = 0 if self._only_reads else self._n_versions + 1
            self._n_versions = max(self._n_versions, number)
            made = LawVersion(version=number, fitted_at=time.time(), of_round=of_round, fitted=fitted)
            return self._known(made)

    def keep(self, version: int) -> LawVersion:
        """Mark a version as one that a round rests on."""
        with self._lock:
            return self._known(replace(self._versions[version], of_round=True))

    @property
    def _only_reads(self) -> bool:
        return self._storage is not None and self._fence is None

    def _known(self, made: LawVersion) -> LawVersion:
        self._store(made)  # before anyone is told of it
        self._versions = {**self._versions, made.version: made}
        self._prune()
        self.latest = self._find_latest()
        return made

    def _find_latest(self) -> LawVersion | None:
        return max(self._versions.values(), key=lambda v: (v.fitted.seq, v.fitted.full, v.version), default=None)

    def _prune(self) -> None:
        if self._only_reads:  # which versions are kept is for the one who writes, and number 0 is the newest
            return
        passing = sorted(v.version for v in self._versions.values() if not v.of_round)
        for number in passing[:-_KEPT]:
            self._versions = {n: v for n, v in self._versions.items() if n != number}
            if self._storage is not None:
                try:
                    self._storage.delete(self._names.pop(number, self._name(number)))
                except OSError as error:
                    self.trouble = f"law {number} could not be deleted: {error}"

    def _name(self, number: int) -> str:
        return f"law-{number:08d}-{self._fence}.json"

    def _store(self, made: LawVersion) -> None:
        if self._storage is None or self._fence is None:
            return
        name = self._name(made.version)
        try:
            self._storage.replace(name, _to_json(made).encode())
            self._names[made.version] = name
            self.trouble = ""
        except OSError as error:
            self.trouble = f"law {made.version} is not stored: {error}"

    def _load(self, last_seq: int) -> None:
        if self._storage is None:
            return
        try:
            named = [(int(found[1]), name) for name in self._storage.names() if (found := _NAME.fullmatch(name))]
        except OSError:
            return
        for _, name in sorted(named):  # of one version, that of the last opening is kept
            try:
                made = _from_json(self._storage.read([name])[0].decode())
            except (OSError, ValueError, KeyError, TypeError, RaysplitError):
                continue  # another raysplit's, or damaged: the law is fitted again
            if made.fitted.seq <= last_seq:
                self._versions[made.version], self._names[made.version] = made, name


class Laws:
    """The laws of a table, kept in a store. A subclass says when they are fitted."""

    store: LawStore

    def grew(self) -> None:
        """Hear that the table has more observations."""

    def latest(self) -> LawVersion:
        """The law to answer from.

        Raises:
            LawError: there is none.
        """
        raise NotImplementedError

    def of_round(self, seq: int) -> Fitted:
        """The full fit of what was known after a journal record; waits for it.

        Raises:
            LawError: no form can be fitted.
        """
        raise NotImplementedError

    def trouble(self) -> str:
        """What last went wrong behind the answers; empty when nothing has."""
        return ""

    def close(self) -> None:
        """End what runs behind the answers."""


def _to_json(made: LawVersion) -> str:
    fitted = made.fitted
    return strict_json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "version": made.version,
            "fitted_at": made.fitted_at,
            "of_round": made.of_round,
            **{name: getattr(fitted, name) for name in _FIELDS},
            "choice": asdict(fitted.choice),
            "law": fitted.law.to_dict(),
            "advice": None if fitted.advice is None else fitted.advice.to_json(),
        }
    )


_FIELDS = ("seq", "n_observations", "n_fitted", "full", "n_chosen", "seconds")


def _from_json(text: str) -> LawVersion:
    raw: Mapping[str, Any] = json.loads(text)
    if raw["schema_version"] != SCHEMA_VERSION:
        raise LawError(f"law of schema version {raw['schema_version']!r}")
    choice = raw["choice"]
    return LawVersion(
        version=raw["version"],
        fitted_at=raw["fitted_at"],
        of_round=raw["of_round"],
        fitted=Fitted(
            **{name: raw[name] for name in _FIELDS},
            choice=Choice(**{**choice, "scores": tuple(FormScore(**score) for score in choice["scores"])}),
            law=Law.from_dict(raw["law"]),
            advice=None if raw["advice"] is None else Advice.from_json(raw["advice"]),
        ),
    )


def laws_beside(journal: str | Path) -> str | Path:
    """Folder of a journal's laws, a path or a URL."""
    if isinstance(journal, str) and "://" in journal:
        return journal.rpartition("/")[0] + "/laws"
    return Path(journal).parent / "laws"
